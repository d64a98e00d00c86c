//! Another process writes what a call needs: the call waits for it and goes by what is there then, or leaves it to the other.

use std::pin::pin;

use tokio_postgres::Client;
use tower_web_push::store::{
    Change, Cursor, DeliveryLedger as _, Failure, NewDelivery, Opened, Page, Pause, PauseReason,
    PostgresStore, RetireReason, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::Origin;

use super::world::{
    Schema, at, broadcast, claim_of, client, delivery, named, sending, subscription, until,
};

async fn store(schema: &Schema) -> PostgresStore {
    schema.builder().connect(&named(schema)).await.unwrap()
}

/// Begins another process's transaction.
async fn begun(schema: &Schema, sql: &str) -> Client {
    let other = client(&schema.url).await;
    let sql = sql.replace("web_push.", &format!("{}.", schema.name));
    other.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    other
}

/// Commits another process's transaction once this number of calls wait for it, or `call` has ended without.
async fn before<T>(
    schema: &Schema,
    (other, waiting): (Client, i64),
    call: impl Future<Output = T>,
) -> T {
    let number = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
        schema.name
    );
    let mut call = pin!(call);
    let wait = until(async || (schema.number(&number).await == waiting).then_some(()));
    let ended = tokio::select! {
        done = &mut call => Some(done),
        () = wait => None,
    };
    other.batch_execute("COMMIT").await.unwrap();
    match ended {
        Some(done) => done,
        None => call.await,
    }
}

fn row() -> NewDelivery {
    delivery(1, 0)
}

fn origin() -> Origin {
    row().origin
}

/// Opens a broadcast of one row.
async fn open(store: &PostgresStore) {
    let mut new = broadcast();
    new.page = Some(Page::new(vec![row()], Cursor::End));
    assert_eq!(store.open(&new, at(0)).await.unwrap(), Opened::New);
}

async fn claimed(store: &PostgresStore, secs: i64) -> usize {
    let claims = store.claim(&claim_of(99), at(secs)).await.unwrap();
    claims.rows.len()
}

/// Without a mark the row would never be claimed.
#[tokio::test]
async fn an_origin_is_marked_though_its_mark_is_removed_while_a_first_page_is_written() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = store(&schema).await;
    open(&store).await;
    schema.run("DELETE FROM web_push.delivery").await;
    let sql = "SELECT id FROM web_push.origin FOR UPDATE; UPDATE web_push.origin SET ready = false";
    let other = begun(&schema, sql).await;
    before(&schema, (other, 1), open(&store)).await;
    assert_eq!(claimed(&store, 1).await, 1);
}

/// An origin that is out of the order of turns for a pause that was lifted would stay there.
#[tokio::test]
async fn a_pause_that_is_lifted_meanwhile_holds_no_origin() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = store(&schema).await;
    open(&store).await;
    let pause = Pause::new(origin(), at(60), PauseReason::RateLimited);
    store.pause(&pause, at(0)).await.unwrap();
    let other = begun(&schema, "LOCK TABLE web_push.origin IN SHARE MODE").await;
    // After the claim has read the pause.
    let lift = async {
        let lift = format!(
            "UPDATE {}.origin SET paused_until = NULL, pause_reason = NULL, held = false",
            schema.name
        );
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
            schema.name
        );
        until(async || (schema.number(&sql).await > 0).then_some(())).await;
        other
            .batch_execute(&format!("{lift}; COMMIT"))
            .await
            .unwrap();
    };
    let (found, ()) = tokio::join!(claimed(&store, 1), lift);
    assert_eq!(found, 0);
    assert_eq!(claimed(&store, 2).await, 1);
}

#[tokio::test]
async fn the_longer_of_two_pauses_holds_though_both_are_written_at_once() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = store(&schema).await;
    open(&store).await;
    let sql = format!(
        "UPDATE web_push.origin SET paused_until = {}, pause_reason = 'rate_limited'",
        at(3600).as_millis()
    );
    let other = begun(&schema, &sql).await;
    let short = Pause::new(origin(), at(60), PauseReason::RateLimited);
    let pause = store.pause(&short, at(0));
    before(&schema, (other, 1), pause).await.unwrap();
    let pauses = store.pauses(at(1)).await.unwrap();
    let ends: Vec<_> = pauses.iter().map(|pause| pause.until).collect();
    assert_eq!(ends, [at(3600)]);
}

#[tokio::test]
async fn an_origin_that_another_claim_probes_is_left_to_it() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = store(&schema).await;
    open(&store).await;
    let pause = Pause::new(origin(), at(10), PauseReason::Unreachable);
    store.pause(&pause, at(0)).await.unwrap();
    let sql = "SELECT id FROM web_push.origin FOR NO KEY UPDATE";
    let other = begun(&schema, sql).await;
    let found = before(&schema, (other, 1), claimed(&store, 10)).await;
    assert_eq!(found, 0);
    assert_eq!(claimed(&store, 10).await, 1);
}

/// Nothing would bring back rows that are put aside after their broadcast has gone on.
#[tokio::test]
async fn a_broadcast_goes_on_after_its_rows_were_put_aside() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = store(&schema).await;
    let paused = sending(&store, 3).await.id;
    sending(&store, 2).await;
    store.hold(paused, true, at(1)).await.unwrap();
    let lock = format!("hashtext('{}')", schema.name);
    let wait = format!(
        "CREATE FUNCTION web_push.wait() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared({lock}); RETURN NEW; END $$;
         CREATE TRIGGER wait BEFORE UPDATE ON web_push.delivery FOR EACH ROW
             WHEN (OLD.turn IS NOT NULL AND NEW.turn IS NULL AND NOT NEW.leased) EXECUTE FUNCTION web_push.wait()"
    );
    schema.run(&wait).await;
    let sql = format!("SELECT pg_advisory_xact_lock({lock})");
    let other = begun(&schema, &sql).await;
    let claim = tokio::spawn({
        let store = store.clone();
        async move { claimed(&store, 2).await }
    });
    let number = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE locktype = 'advisory' \
                  AND NOT granted";
    let number = format!("{number} AND application_name = '{}'", schema.name);
    until(async || (schema.number(&number).await == 1).then_some(())).await;
    let goes_on = store.hold(paused, false, at(3));
    before(&schema, (other, 2), goes_on).await.unwrap();
    assert_eq!(claim.await.unwrap(), 2);
    let mut rows = 0;
    loop {
        let claims = store.claim(&claim_of(99), at(3)).await.unwrap();
        rows += claims.rows.len();
        if claims.rows.is_empty() && !claims.more {
            break;
        }
    }
    assert_eq!(rows, 3);
}

/// Browsers renew a subscription when it expires: it is not removed at this moment by what it was before.
#[tokio::test]
async fn a_subscription_that_is_being_renewed_is_not_purged() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = store(&schema).await;
    // Each without the times that another kind of purge goes by.
    let purge = |before: i64, expired_before: i64| Change::Purge {
        before: at(before),
        expired_before: at(expired_before),
    };
    let live = "SELECT count(*) FROM web_push.subscription WHERE retired_at IS NULL AND stale_since IS NULL";
    for (number, (gone, purge)) in [
        ("", purge(0, 0)),
        ("", purge(0, 15)),
        ("retire", purge(15, 0)),
        ("stale", purge(15, 0)),
        ("retire", purge(0, 15)),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u32::try_from(number).unwrap();
        let mut new = subscription(number);
        let key = new.key();
        new.subscription = new.subscription.with_expiration_time(Some(at(10)));
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, at(0)).await.unwrap();
        let (observed_at, failure) = (at(5), Failure::default());
        let change = match gone {
            "retire" => Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at,
                failure,
            },
            "stale" => Change::Stale {
                key,
                observed_at,
                failure,
            },
            _ => Change::Accepted(key),
        };
        let changed = store.apply(&[change], at(5)).await.unwrap();
        assert_eq!(changed, 1);
        let sql = format!(
            "UPDATE web_push.subscription SET expires_at = {}, retired_at = NULL, retire_reason = NULL, stale_since = NULL \
             WHERE endpoint LIKE '%/{number}'",
            at(9999).as_millis()
        );
        let other = begun(&schema, &sql).await;
        let purged = store.apply(std::slice::from_ref(&purge), at(20));
        let purged = before(&schema, (other, 1), purged).await.unwrap();
        let there = schema.number(live).await;
        assert_eq!(
            (purged, there),
            (0, i64::from(number) + 1),
            "{gone} {purge:?}"
        );
    }
}
