//! Changes of subscriptions and outcomes in one transaction.

use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::push_service::PushService;
use tower_web_push::store::{
    Change, Cursor, DeliveryLedger as _, Failure, FailureCause, NewDelivery, PageWrite,
    RetireReason, Settlement, SubscriptionLimits, SubscriptionStore as _,
};

use super::world::{Schema, at, broadcast, claim_of, client, delivery, subscription, until};
use crate::together::{both_are_written, neither_is_written};

#[tokio::test]
async fn both_are_written_at_once() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    both_are_written(&schema.store().await).await;
}

#[tokio::test]
async fn neither_is_written_if_one_fails() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let sql = "CREATE FUNCTION web_push.break() RETURNS trigger LANGUAGE plpgsql AS \
                   $$ BEGIN RAISE EXCEPTION 'broken'; END $$; \
               CREATE TRIGGER broken BEFORE DELETE ON web_push.delivery \
                   FOR EACH ROW EXECUTE FUNCTION web_push.break()";
    neither_is_written(&store, async || schema.run(sql).await).await;
}

/// They name subscriptions: none outlives its broadcast, whether that is forgotten at once or pruned.
#[tokio::test]
async fn samples_of_failures_go_with_their_broadcast() {
    const SAMPLES: &str = "SELECT count(*) FROM web_push.failure_sample";
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    for forget_when_over in [false, true] {
        let mut new = broadcast();
        new.forget_when_over = forget_when_over;
        store.open(&new, at(0)).await.unwrap();
        let rows = [delivery(1, 0)];
        let (start, end) = (Cursor::Start, Cursor::End);
        let written = store.enqueue_page(new.id, &start, &rows, &end, at(0)).await;
        assert_eq!(written.unwrap(), PageWrite::Stored);
        let token = store.claim(&claim_of(1), at(0)).await.unwrap().rows[0].token;
        let cause = FailureCause::new(PushService::Other, Failure::new(Some(410), None));
        let ends = [(token, Settlement::Failed(FinalOutcome::Gone, cause))];
        store.settle(&ends, at(1)).await.unwrap();
        let left = i64::from(!forget_when_over);
        assert_eq!(schema.number(SAMPLES).await, left);
        store.prune(at(9)).await.unwrap();
        assert_eq!(schema.number(SAMPLES).await, 0, "{forget_when_over}");
    }
}

/// A settlement may wait long for the counts of a broadcast that many processes send.
#[tokio::test]
async fn a_registration_does_not_wait_for_a_settlement() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (store, other) = (schema.store().await, schema.store().await);
    let limits = SubscriptionLimits::default();
    // Their numbers are the same: one part of many has those of a key's first byte.
    let part = |number: &u32| subscription(*number).key().as_bytes()[0] % 32;
    let first = subscription(0);
    let second = (1..).find(|number| part(number) == part(&0)).unwrap();
    store.upsert(&first, &limits, at(0)).await.unwrap();
    let new = broadcast();
    store.open(&new, at(0)).await.unwrap();
    let origin = first.subscription.endpoint().origin().clone();
    let rows = [NewDelivery::new(first.key(), origin)];
    let (start, end) = (Cursor::Start, Cursor::End);
    let written = store.enqueue_page(new.id, &start, &rows, &end, at(0)).await;
    assert_eq!(written.unwrap(), PageWrite::Stored);
    let token = store.claim(&claim_of(1), at(0)).await.unwrap().rows[0].token;

    let locker = client(&schema.url).await;
    let lock = format!("BEGIN; SELECT * FROM {}.broadcast FOR UPDATE", schema.name);
    locker.batch_execute(&lock).await.unwrap();
    let settling = tokio::spawn(async move {
        let changes = [Change::Retire {
            key: token.key,
            reason: RetireReason::Gone,
            observed_at: at(0),
            failure: Failure::default(),
        }];
        let ends = [(token, Settlement::Finished(FinalOutcome::Gone))];
        store.settle_with(&changes, &ends, at(1)).await
    });
    let waiting = "SELECT count(*) FROM pg_locks AS one JOIN pg_locks AS other USING (pid) \
                   WHERE NOT one.granted AND other.relation = 'web_push.broadcast'::regclass";
    until(async || (schema.number(waiting).await > 0).then_some(())).await;
    let second = subscription(second);
    other.upsert(&second, &limits, at(1)).await.unwrap();
    assert!(!settling.is_finished());
    locker.batch_execute("ROLLBACK").await.unwrap();
    assert!(settling.await.unwrap().unwrap().is_some());
}

/// A role may have a short time for each lock. That of a broadcast, which many processes settle, is worth a wait.
#[tokio::test]
async fn a_roles_time_for_a_lock_does_not_hold() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let first = subscription(0);
    let store = schema.store().await;
    let limits = SubscriptionLimits::default();
    store.upsert(&first, &limits, at(0)).await.unwrap();
    let new = broadcast();
    store.open(&new, at(0)).await.unwrap();
    let origin = first.subscription.endpoint().origin().clone();
    let rows = [NewDelivery::new(first.key(), origin)];
    let (start, end) = (Cursor::Start, Cursor::End);
    let written = store.enqueue_page(new.id, &start, &rows, &end, at(0)).await;
    assert_eq!(written.unwrap(), PageWrite::Stored);

    let separator = if schema.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-c%20lock_timeout%3D1ms", schema.url);
    let impatient = schema.builder().connect(&url).await.unwrap();
    let row = impatient.claim(&claim_of(1), at(0)).await.unwrap().rows;
    let token = row[0].token;
    let locker = client(&schema.url).await;
    let lock = format!("BEGIN; SELECT * FROM {}.broadcast FOR UPDATE", schema.name);
    locker.batch_execute(&lock).await.unwrap();
    let settling = tokio::spawn(async move {
        let ends = [(token, Settlement::Finished(FinalOutcome::Gone))];
        impatient.settle(&ends, at(1)).await
    });
    let waiting = "SELECT count(*) FROM pg_locks AS one JOIN pg_locks AS other USING (pid) \
                   WHERE NOT one.granted AND other.relation = 'web_push.broadcast'::regclass";
    until(async || (settling.is_finished() || schema.number(waiting).await > 0).then_some(()))
        .await;
    locker.batch_execute("ROLLBACK").await.unwrap();
    assert!(settling.await.unwrap().is_ok());
}
