//! The order of origins, and of the rows of one claim, whether one statement takes them or a transaction of several.

use tower_web_push::broadcast::BroadcastId;
use tower_web_push::message::{Message, Urgency};
use tower_web_push::store::{
    Cursor, DeliveryLedger as _, NewDelivery, PageWrite, PostgresStore, STEP,
};

use super::world::{Schema, at, broadcast, claim_of, client, delivery, sending};

async fn sending_as(store: &PostgresStore, urgency: Urgency, rows: &[NewDelivery]) -> BroadcastId {
    let mut new = broadcast();
    new.message = Message::new("hello").with_urgency(urgency);
    store.open(&new, at(0)).await.unwrap();
    let written = store.enqueue_page(new.id, &Cursor::Start, rows, &Cursor::End, at(0));
    assert_eq!(written.await.unwrap(), PageWrite::Stored);
    new.id
}

/// Another transaction has locked its rows.
#[tokio::test]
async fn an_origin_that_got_nothing_is_first_at_the_next_claim() {
    let rows: Vec<_> = (0..8).map(|number| delivery(number, number % 2)).collect();
    // With rows in one band of each origin one statement is enough.
    for urgencies in [
        [Urgency::Normal].as_slice(),
        &[Urgency::Normal, Urgency::Low],
    ] {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        let store = schema.store().await;
        for urgency in urgencies {
            sending_as(&store, *urgency, &rows).await;
        }
        let name = rows[1].origin.as_str();
        let locker = client(&schema.url).await;
        let lock = format!(
            "BEGIN; SELECT FROM {0}.delivery AS d JOIN {0}.origin AS o ON o.id = d.origin \
             WHERE o.origin = '{name}' FOR UPDATE OF d",
            schema.name
        );
        locker.batch_execute(&lock).await.unwrap();
        let mut request = claim_of(4);
        request.per_origin = 2;
        let claims = store.claim(&request, at(1)).await.unwrap();
        assert_eq!(claims.rows.len(), 2);
        assert!(claims.rows.iter().all(|row| row.origin == rows[0].origin));
        locker.batch_execute("ROLLBACK").await.unwrap();
        let claims = store.claim(&claim_of(1), at(1)).await.unwrap();
        assert_eq!(claims.rows.len(), 1);
        assert_eq!(claims.rows[0].origin, rows[1].origin, "{urgencies:?}");
    }
}

#[tokio::test]
async fn the_rows_of_a_claim_are_in_the_order_of_their_turns() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let rows: Vec<_> = (0..40).map(|number| delivery(number, 0)).collect();
    let (first, second) = (sending(&store, 40).await.id, sending(&store, 40).await.id);
    let in_turn = [first, second].repeat(20);
    let of = async |limit: usize| {
        let claims = store.claim(&claim_of(limit), at(1)).await.unwrap();
        let of = claims.rows.iter().map(|row| row.token.broadcast);
        of.collect::<Vec<_>>()
    };
    assert_eq!(of(20).await, in_turn[..20]);
    let urgent = sending_as(&store, Urgency::High, &rows[..2]).await;
    let expected: Vec<_> = [urgent; 2].iter().chain(&in_turn[..18]).copied().collect();
    assert_eq!(of(20).await, expected);
    // Those that were ready first come first in each broadcast, too.
    let rest = store.claim(&claim_of(99), at(1)).await.unwrap().rows;
    for id in [first, second] {
        let keys = rest.iter().filter(|row| row.token.broadcast == id);
        let keys: Vec<_> = keys.map(|row| row.token.key).collect();
        let written: Vec<_> = rows[19..].iter().map(|row| row.key).collect();
        assert_eq!(keys, written);
    }
}

/// More rows than a claim looks at.
#[tokio::test]
async fn a_claim_takes_the_first_of_very_many_rows() {
    let rows: Vec<_> = (0..3 * STEP as u32)
        .map(|number| delivery(number, 0))
        .collect();
    for urgencies in [
        [Urgency::Normal].as_slice(),
        &[Urgency::Normal, Urgency::Low],
    ] {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        let store = schema.store().await;
        for urgency in urgencies {
            sending_as(&store, *urgency, &rows).await;
        }
        let claimed = store.claim(&claim_of(5), at(1)).await.unwrap().rows;
        let keys: Vec<_> = claimed.iter().map(|row| row.token.key).collect();
        let first: Vec<_> = rows[..5].iter().map(|row| row.key).collect();
        assert_eq!(keys, first, "{urgencies:?}");
    }
}
