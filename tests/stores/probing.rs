//! L5: the probe of a paused origin is its most urgent row, whatever the share of others.

use std::time::Duration;

use tower_web_push::broadcast::{Audience, FinalOutcome};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::{Message, Urgency};
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, MemoryStore, NewBroadcast, NewDelivery, PageWrite, Pause,
    PauseReason, Settlement,
};
use tower_web_push::subscription::{EndpointKey, Origin};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn origin() -> Origin {
    Origin::parse("https://push.example.net").unwrap()
}

async fn sending<L: DeliveryLedger>(ledger: &L, urgency: Urgency) -> NewBroadcast {
    let message = Message::new("x").with_urgency(urgency);
    let new = NewBroadcast::new(Audience::All, message, at(3600));
    ledger.open(&new, at(0)).await.unwrap();
    let row = |number| NewDelivery::new(EndpointKey::from_bytes([number; 32]), origin());
    let rows: Vec<_> = (0..40).map(row).collect();
    let written = ledger.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0));
    assert_eq!(written.await.unwrap(), PageWrite::Stored);
    new
}

/// One of eight rows is another's, in turn.
async fn the_probe_is_urgent<L: DeliveryLedger>(ledger: &L) {
    sending(ledger, Urgency::Normal).await;
    let urgent = sending(ledger, Urgency::High).await;
    let pause = Pause::new(origin(), at(5), PauseReason::Unreachable);
    ledger.pause(&pause, at(0)).await.unwrap();
    for secs in 6..24 {
        let request = ClaimRequest::new(9, Duration::from_secs(45));
        let claims = ledger.claim(&request, at(secs)).await.unwrap();
        let of: Vec<_> = claims.rows.iter().map(|row| row.token.broadcast).collect();
        assert_eq!(of, [urgent.id], "{secs}");
        let failed = Settlement::Finished(FinalOutcome::Failed);
        let ends = [(claims.rows[0].token, failed)];
        ledger.settle(&ends, at(secs)).await.unwrap();
    }
}

#[tokio::test]
async fn the_probe_is_the_most_urgent_row_in_memory() {
    the_probe_is_urgent(&MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use tower_web_push::store::SqliteStore;

    #[tokio::test]
    async fn the_probe_is_the_most_urgent_row() {
        super::the_probe_is_urgent(&SqliteStore::open_in_memory().await.unwrap()).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use crate::postgres::world::Schema;

    #[tokio::test]
    async fn the_probe_is_the_most_urgent_row() {
        if let Some(schema) = Schema::fresh() {
            super::the_probe_is_urgent(&schema.store().await).await;
        }
    }
}

#[cfg(feature = "redis")]
mod redis {
    use crate::redis::world::{fresh_prefix, store};
    use crate::support::servers::{Kind, shared};

    #[tokio::test]
    async fn the_probe_is_the_most_urgent_row() {
        if let Some(url) = shared(Kind::Redis) {
            super::the_probe_is_urgent(&store(&url, &fresh_prefix()).await).await;
        }
    }
}
