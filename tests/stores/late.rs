//! L12: late broadcasts whose rows are all leased hold up no others.

use std::time::Duration;

use tower_web_push::broadcast::Audience;
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, MemoryStore, NewBroadcast, NewDelivery, PageWrite,
};
use tower_web_push::subscription::{EndpointKey, Origin};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

/// Opens a broadcast with this deadline and this number of rows.
async fn sending<L: DeliveryLedger>(ledger: &L, rows: usize, deadline: i64) -> NewBroadcast {
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(deadline));
    ledger.open(&new, at(0)).await.unwrap();
    let row = |number: usize| {
        let mut key = [1; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let origin = Origin::parse("https://push.example.net").unwrap();
        NewDelivery::new(EndpointKey::from_bytes(key), origin)
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    let written = ledger.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0));
    assert_eq!(written.await.unwrap(), PageWrite::Stored);
    new
}

/// Of those that are leased there are more than a store reads at once.
async fn late_behind_leased<L: DeliveryLedger>(ledger: &L) {
    const LEASED: usize = 300;
    for _ in 0..LEASED {
        sending(ledger, 1, 10).await;
    }
    let request = ClaimRequest::new(LEASED, Duration::from_secs(3600));
    let claims = ledger.claim(&request, at(1)).await.unwrap();
    assert_eq!(claims.rows.len(), LEASED);
    let late = sending(ledger, 1, 11).await;
    let mut expired = 0;
    for _ in 0..3 {
        expired += ledger.expire(1_000, at(20)).await.unwrap();
    }
    let status = ledger.status(late.id, at(20)).await.unwrap().unwrap();
    assert_eq!((expired, status.counts.expired), (1, 1));
}

#[tokio::test]
async fn late_rows_expire_behind_leased_ones_in_memory() {
    late_behind_leased(&MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use tower_web_push::store::SqliteStore;

    #[tokio::test]
    async fn late_rows_expire_behind_leased_ones() {
        super::late_behind_leased(&SqliteStore::open_in_memory().await.unwrap()).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use crate::postgres::world::Schema;

    #[tokio::test]
    async fn late_rows_expire_behind_leased_ones() {
        if let Some(schema) = Schema::fresh() {
            super::late_behind_leased(&schema.store().await).await;
        }
    }
}

#[cfg(feature = "redis")]
mod redis {
    use crate::redis::world::{fresh_prefix, store};
    use crate::support::servers::{Kind, shared};

    #[tokio::test]
    async fn late_rows_expire_behind_leased_ones() {
        if let Some(url) = shared(Kind::Redis) {
            super::late_behind_leased(&store(&url, &fresh_prefix()).await).await;
        }
    }
}
