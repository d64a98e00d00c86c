//! Concurrent calls on overlapping rows through two handles: there are no deadlocks, and the counts are right.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_web_push::broadcast::{BroadcastId, FinalOutcome, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    Change, ClaimToken, Cursor, DeliveryLedger as _, Failure, PageWrite, Pause, PauseReason,
    PostgresStore, RetireReason, Settlement, StoreError, SubscriptionLimits,
    SubscriptionStore as _, Tally,
};
use tower_web_push::subscription::EndpointKey;

use super::world::{Schema, at, broadcast, claim_of, client, delivery, named, subscription, until};

const FOR: Duration = Duration::from_secs(5);
/// The steps of each client, at least: on a busy machine there are few in that time.
const STEPS: usize = 100;
const BROADCASTS: usize = 6;
const SUBSCRIPTIONS: u32 = 20;
const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";

/// The number of deadlocks, once the connections to [`named`] are closed: they report theirs then.
async fn deadlocks_at_last(schema: &Schema) -> i64 {
    let connections = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'",
        schema.name
    );
    until(async || (schema.number(&connections).await == 0).then_some(())).await;
    schema.number(DEADLOCKS).await
}

/// One of many concurrent clients.
struct Hammer {
    store: PostgresStore,
    broadcasts: Vec<BroadcastId>,
    random: u64,
    tokens: Vec<ClaimToken>,
    did: HashMap<&'static str, u64>,
}

impl Hammer {
    fn below(&mut self, bound: u32) -> u32 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % u64::from(bound)) as u32
    }

    fn broadcast(&mut self) -> BroadcastId {
        let which = self.below(BROADCASTS as u32) as usize;
        self.broadcasts[which]
    }

    fn key(&mut self) -> EndpointKey {
        let number = self.below(SUBSCRIPTIONS);
        subscription(number).subscription.endpoint().key()
    }

    /// One of two, or none: rows without one may be unproven, and those are counted separately.
    fn principal(&mut self) -> Option<Principal> {
        [None, Some("a"), Some("b")][self.below(3) as usize].map(Principal::from)
    }

    /// Takes some tokens in random order. Others are kept and become invalid.
    fn tokens(&mut self) -> Vec<ClaimToken> {
        let mut some = Vec::new();
        for _ in 0..self.below(20) {
            if self.tokens.is_empty() {
                break;
            }
            let which = self.below(self.tokens.len() as u32) as usize;
            some.push(self.tokens[which]);
            if self.below(4) > 0 {
                self.tokens.swap_remove(which);
            }
        }
        some
    }

    fn ends(&mut self) -> Vec<(ClaimToken, Settlement)> {
        let mut ends = Vec::new();
        for token in self.tokens() {
            let end = match self.below(4) {
                0 => Settlement::RetryAt(at(self.below(300).into())),
                1 => Settlement::Deferred(at(self.below(300).into())),
                _ => Settlement::Finished(FinalOutcome::ALL[self.below(9) as usize]),
            };
            ends.push((token, end));
        }
        ends
    }

    /// Some changes, none of which is a purge.
    fn changes(&mut self, observed_at: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..self.below(12) {
            let key = self.key();
            let reason = RetireReason::Gone;
            changes.push(match self.below(6) {
                0 => Change::Retire {
                    key,
                    reason,
                    observed_at,
                    failure: Failure::default(),
                },
                1 => Change::Delete {
                    key,
                    principal: self.principal(),
                    observed_at,
                },
                2 => Change::Failed {
                    key,
                    failure: Failure::default(),
                },
                3 => Change::Stale {
                    key,
                    observed_at,
                    failure: Failure::default(),
                },
                _ => Change::Accepted(key),
            });
        }
        changes
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        let now = at(self.below(200).into());
        let origin = delivery(0, self.below(3)).origin;
        let (name, done) = match self.below(15) {
            0..=2 => {
                let claims = self.store.claim(&claim_of(20), now).await?;
                self.tokens.extend(claims.rows.iter().map(|row| row.token));
                ("claim", claims.rows.len() as u64)
            }
            3..=4 => {
                let ends = self.ends();
                ("settle", self.store.settle(&ends, now).await?.len() as u64)
            }
            5 => {
                let tokens = self.tokens();
                self.store.release(&tokens, now).await?;
                ("release", tokens.len() as u64)
            }
            6 => {
                let rows: Vec<_> = (0..30)
                    .map(|_| delivery(self.below(1000), self.below(3)))
                    .collect();
                let (id, start) = (self.broadcast(), Cursor::Start);
                // Never ends the expansion, so that all clients keep writing pages.
                self.store
                    .enqueue_page(id, &start, &rows, &start, now)
                    .await?;
                ("enqueue", 1)
            }
            7 if self.below(40) == 0 => {
                let id = self.broadcast();
                self.store.cancel(id, now).await?;
                ("cancel", 1)
            }
            7 => ("expire", self.store.expire(7, now).await?),
            8..=9 => {
                let mut new = subscription(self.below(SUBSCRIPTIONS));
                new.principal = self.principal();
                new.replaces = (self.below(3) == 0).then(|| self.key());
                let expires = (self.below(2) == 0).then(|| at(self.below(200).into()));
                new.subscription = new.subscription.with_expiration_time(expires);
                let limits = SubscriptionLimits::new(1000, 4);
                self.store.upsert(&new, &limits, now).await?;
                ("upsert", 1)
            }
            10 => {
                let mut changes = self.changes(now);
                if self.below(3) == 0 {
                    let place = self.below(changes.len() as u32 + 1) as usize;
                    let purge = Change::Purge {
                        before: now,
                        expired_before: now,
                    };
                    changes.insert(place, purge);
                }
                ("apply", self.store.apply(&changes, now).await?)
            }
            14 => {
                let (id, is_held) = (self.broadcast(), self.below(2) == 0);
                self.store.hold(id, is_held, now).await?;
                ("hold", 1)
            }
            13 => {
                let (changes, ends) = (self.changes(now), self.ends());
                let settled = self.store.settle_with(&changes, &ends, now).await?;
                ("settle_with", settled.unwrap_or_default().len() as u64)
            }
            11 => {
                let until = at(self.below(100).into());
                let reason = PauseReason::ALL[self.below(3) as usize];
                self.store
                    .pause(&Pause::new(origin, until, reason), now)
                    .await?;
                ("pause", 1)
            }
            _ => {
                let others = delivery(0, self.below(4)).origin;
                let counts = [(others, Tally::new(1, 1)), (origin, Tally::new(2, 1))];
                self.store.tally(&counts, now).await?;
                ("tally", self.store.prune(now).await?.broadcasts)
            }
        };
        *self.did.entry(name).or_default() += 1;
        *self.did.entry("rows").or_default() += done;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_fails_nowhere_and_adds_up() {
    let Some(schema) = Schema::alone().await else {
        return;
    };
    let (url, deadlocks) = (named(&schema), schema.number(DEADLOCKS).await);
    let stores = [(); 2].map(|()| schema.builder().connect(&url));
    let stores = futures_util::future::try_join_all(stores).await.unwrap();
    let mut broadcasts = Vec::new();
    for number in 0..BROADCASTS {
        let mut new = broadcast();
        // Half of the processes end meanwhile.
        new.deadline = at(if number % 2 == 0 { 150 } else { 9999 });
        stores[0].open(&new, at(0)).await.unwrap();
        broadcasts.push(new.id);
    }
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let mut hammer = Hammer {
            store: stores[number % 2].clone(),
            broadcasts: broadcasts.clone(),
            random: seed.wrapping_add(number as u64),
            tokens: Vec::new(),
            did: HashMap::new(),
        };
        tasks.spawn(async move {
            let started = Instant::now();
            let mut steps = 0;
            while started.elapsed() < FOR || steps < STEPS {
                hammer.step().await.unwrap();
                steps += 1;
            }
            hammer.did
        });
    }
    let did = tasks.join_all().await;
    // A deadlock would be retried and not be visible. There must be none.
    drop(stores);
    assert_eq!(deadlocks_at_last(&schema).await, deadlocks);
    let stores = [schema.store().await];
    for name in [
        "claim",
        "settle",
        "settle_with",
        "release",
        "enqueue",
        "expire",
        "upsert",
        "apply",
        "pause",
        "hold",
    ] {
        let times: u64 = did.iter().filter_map(|did| did.get(name)).sum();
        assert!(times > 10, "{name}: {did:?}");
    }
    let mut pending = 0;
    for id in broadcasts {
        let status = stores[0].status(id, at(0)).await.unwrap();
        let Some(status) = status else { continue };
        assert_eq!(
            status.counts.pending + status.counts.finished(),
            status.recipients
        );
        pending += status.counts.pending;
    }
    let rows = schema
        .number("SELECT count(*) FROM web_push.delivery")
        .await;
    assert_eq!(rows, i64::try_from(pending).unwrap());
    // A row without an origin could not be claimed, one without content not be sent.
    let orphans = "SELECT count(*) FROM web_push.delivery AS d \
                   WHERE NOT EXISTS (SELECT 1 FROM web_push.origin AS o WHERE o.id = d.origin) \
                   OR NOT EXISTS (SELECT 1 FROM web_push.content AS c WHERE c.broadcast = d.broadcast)";
    assert_eq!(schema.number(orphans).await, 0);
    // Nor one that was put aside, if its broadcast is not paused and nothing brings it back.
    let aside = "SELECT count(*) FROM web_push.delivery AS d JOIN web_push.broadcast AS b ON b.seq = d.broadcast \
                 WHERE d.turn IS NULL AND d.at >= 4611686018427387904 AND NOT b.is_held AND NOT b.resuming";
    assert_eq!(schema.number(aside).await, 0);
    let counted = "SELECT sum(number)::bigint FROM web_push.subscription_count";
    let there = "SELECT count(*) FROM web_push.subscription";
    assert_eq!(schema.number(counted).await, schema.number(there).await);
    let counted = "SELECT sum(unproven)::bigint FROM web_push.subscription_count";
    let there = "SELECT count(*) FROM web_push.subscription WHERE principal IS NULL \
                 AND last_success_at IS NULL AND retired_at IS NULL AND stale_since IS NULL";
    assert_eq!(schema.number(counted).await, schema.number(there).await);
    // What counts read is what is there.
    let wrong = "SELECT count(*) FROM ( \
             SELECT kind, name, sum(number) AS number FROM web_push.subscription_number GROUP BY kind, name) AS kept \
         FULL JOIN ( \
             SELECT kind, name, count(*) AS number FROM web_push.subscription AS s CROSS JOIN LATERAL ( \
                 SELECT CASE WHEN s.retired_at IS NOT NULL THEN 'retired' WHEN s.stale_since IS NOT NULL THEN 'stale' \
                     ELSE 'live' END, s.push_service || ':' || encode(s.vapid_key, 'hex') \
                 UNION ALL SELECT 'tag', tag FROM unnest(s.tags) AS tag \
                     WHERE s.retired_at IS NULL AND s.stale_since IS NULL) AS one (kind, name) GROUP BY kind, name) AS there \
         USING (kind, name) WHERE kept.number IS DISTINCT FROM there.number";
    assert_eq!(schema.number(wrong).await, 0);
    let zeros = "SELECT count(*) FROM web_push.subscription_number WHERE number <= 0";
    assert_eq!(schema.number(zeros).await, 0);
    // No principal exceeds its limit in spite of concurrent inserts.
    let most = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM web_push.subscription \
                WHERE principal IS NOT NULL GROUP BY principal) AS of_each";
    assert!(schema.number(most).await <= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_principal_never_has_more_than_it_may_though_many_subscribe_at_once() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let stores = [schema.store().await, schema.store().await];
    let mut tasks = JoinSet::new();
    for number in 0..40 {
        let store = stores[number % 2].clone();
        tasks.spawn(async move {
            let mut new = subscription(u32::try_from(number).unwrap());
            new.principal = Some(Principal::from("alice\0"));
            let limits = SubscriptionLimits::new(1000, 5);
            store.upsert(&new, &limits, at(1)).await.unwrap();
        });
    }
    tasks.join_all().await;
    let there = "SELECT count(*) FROM web_push.subscription";
    assert_eq!(schema.number(there).await, 5);
    let counted = "SELECT sum(number)::bigint FROM web_push.subscription_count";
    assert_eq!(schema.number(counted).await, 5);
}

/// Calls for few rows of one user: one inserts a row while another one rewrites it, replaces it or removes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_subscribes_many_times_at_once_causes_no_deadlock() {
    let Some(schema) = Schema::alone().await else {
        return;
    };
    let (url, deadlocks) = (named(&schema), schema.number(DEADLOCKS).await);
    let store = schema.builder().connect(&url).await.unwrap();
    let principal = Some(Principal::from("alice"));
    let key_of = |number| subscription(number).subscription.endpoint().key();
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (store, principal) = (store.clone(), principal.clone());
        tasks.spawn(async move {
            for step in 0..100 {
                let (row, other) = ((task + step) % 3, (task + 2 * step) % 3);
                let now = at(i64::from(step));
                let mut new = subscription(row);
                new.principal = principal.clone();
                new.replaces = (step % 3 == 0).then(|| key_of(other));
                let limits = SubscriptionLimits::new(1000, 100);
                store.upsert(&new, &limits, now).await.unwrap();
                let delete = Change::Delete {
                    key: key_of(other),
                    principal: principal.clone(),
                    observed_at: now,
                };
                if step % 4 == 0 {
                    store.apply(&[delete], now).await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    drop(store);
    assert_eq!(deadlocks_at_last(&schema).await, deadlocks);
    let counted = "SELECT sum(number)::bigint FROM web_push.subscription_count";
    let there = "SELECT count(*) FROM web_push.subscription";
    assert_eq!(schema.number(counted).await, schema.number(there).await);
}

/// It waits for the other writer, and does not let the principal have one row more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_another_writes_is_removed_above_the_limit_too() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let limits = SubscriptionLimits::new(1000, 1);
    let [mut first, mut second] = [1, 2].map(subscription);
    for new in [&mut first, &mut second] {
        new.principal = Some(Principal::from("alice"));
    }
    store.upsert(&first, &limits, at(1)).await.unwrap();
    let mut writer = client(&schema.url).await;
    let transaction = writer.transaction().await.unwrap();
    let locked = format!("UPDATE {}.subscription SET failure_streak = 1", schema.name);
    assert_eq!(transaction.execute(&locked, &[]).await.unwrap(), 1);
    let upsert = async { store.upsert(&second, &limits, at(2)).await.unwrap() };
    let commit = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        transaction.commit().await.unwrap();
    };
    tokio::join!(upsert, commit);
    let there = "SELECT count(*) FROM web_push.subscription";
    assert_eq!(schema.number(there).await, 1);
}

/// A call that counts outcomes of a known origin and of a new one waits for the one that inserts the new one, and does not hold
/// meanwhile what that one locks next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_a_new_origin_cause_no_deadlock() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.builder().connect(&named(&schema)).await.unwrap();
    let [known, new] = [1, 2].map(|number| delivery(0, number).origin);
    store
        .tally(&[(known.clone(), Tally::new(1, 0))], at(0))
        .await
        .unwrap();
    let mut other = client(&schema.url).await;
    let other = other.transaction().await.unwrap();
    let insert = format!("INSERT INTO {}.origin (origin) VALUES ($1)", schema.name);
    other.execute(&insert, &[&new.as_str()]).await.unwrap();
    let counts = [(known.clone(), Tally::new(2, 0)), (new, Tally::new(1, 1))];
    let tally = async { store.tally(&counts, at(0)).await.unwrap() };
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
        schema.name
    );
    let lock = async {
        until(async || (schema.number(&waiting).await > 0).then_some(())).await;
        let lock = format!(
            "SELECT id FROM {}.origin WHERE origin = $1 FOR NO KEY UPDATE NOWAIT",
            schema.name
        );
        let locked = other.query_one(&lock, &[&known.as_str()]).await;
        other.commit().await.unwrap();
        locked.expect("the waiting call holds nothing");
    };
    let (sums, ()) = tokio::join!(tally, lock);
    assert_eq!(sums, [Tally::new(3, 0), Tally::new(1, 1)]);
}

/// A call that locked a known origin before it saw that another one had been deleted lets it go again: it waits for the one who
/// inserts the other, who may lock the known one next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_an_origin_that_is_deleted_meanwhile_cause_no_deadlock() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.builder().connect(&named(&schema)).await.unwrap();
    let [known, deleted] = [1, 2].map(|number| delivery(0, number).origin);
    let counts = [
        (known.clone(), Tally::new(1, 0)),
        (deleted.clone(), Tally::new(1, 1)),
    ];
    store.tally(&counts[..1], at(0)).await.unwrap();
    store.tally(&counts[1..], at(0)).await.unwrap();
    let (mut first, mut second) = (client(&schema.url).await, client(&schema.url).await);
    let (first, second) = (
        first.transaction().await.unwrap(),
        second.transaction().await.unwrap(),
    );
    let name = &schema.name;
    let delete = format!("DELETE FROM {name}.origin WHERE origin = $1");
    let insert = format!("INSERT INTO {name}.origin (origin) VALUES ($1)");
    let lock = format!("SELECT id FROM {name}.origin WHERE origin = $1 FOR NO KEY UPDATE NOWAIT");
    first.execute(&delete, &[&deleted.as_str()]).await.unwrap();
    let tally = async { store.tally(&counts, at(0)).await.unwrap() };
    // The number of statements that wait for a lock, of the store those that begin so.
    let waiting = |statement: &str| {
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock' \
             AND query LIKE '{statement}%'",
            schema.name
        )
    };
    let steps = async {
        let holds = waiting("SELECT");
        until(async || (schema.number(&holds).await > 0).then_some(())).await;
        // Waits for the deletion too, and is the next to write.
        let table = format!("LOCK TABLE {name}.origin IN SHARE ROW EXCLUSIVE MODE");
        let locked = async { second.batch_execute(&table).await.unwrap() };
        let committed = async {
            let both = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = '{table}'"
            );
            until(async || (schema.number(&both).await > 0).then_some(())).await;
            first.commit().await.unwrap();
        };
        tokio::join!(locked, committed);
        second.execute(&insert, &[&deleted.as_str()]).await.unwrap();
        let inserts = waiting("INSERT");
        until(async || (schema.number(&inserts).await > 0).then_some(())).await;
        let locked = second.query_one(&lock, &[&known.as_str()]).await;
        second.commit().await.unwrap();
        locked.expect("the waiting call holds nothing");
    };
    let (sums, ()) = tokio::join!(tally, steps);
    assert_eq!(sums, [Tally::new(2, 0), Tally::new(1, 1)]);
}

/// A page with a row of a known origin and one of a new one holds neither the known origin nor its broadcast while it waits for
/// the one who inserts the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_a_new_origin_causes_no_deadlock() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.builder().connect(&named(&schema)).await.unwrap();
    let rows = [delivery(1, 1), delivery(2, 2)];
    let (known, new) = (rows[0].origin.clone(), rows[1].origin.clone());
    store
        .tally(&[(known.clone(), Tally::new(1, 0))], at(0))
        .await
        .unwrap();
    let opened = broadcast();
    store.open(&opened, at(0)).await.unwrap();
    let mut other = client(&schema.url).await;
    let other = other.transaction().await.unwrap();
    let name = &schema.name;
    let insert = format!("INSERT INTO {name}.origin (origin) VALUES ($1)");
    other.execute(&insert, &[&new.as_str()]).await.unwrap();
    let page = async {
        let written = store
            .enqueue_page(opened.id, &Cursor::Start, &rows, &Cursor::End, at(0))
            .await;
        assert_eq!(written.unwrap(), PageWrite::Stored);
    };
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'"
    );
    let lock = async {
        until(async || (schema.number(&waiting).await > 0).then_some(())).await;
        let origin = format!("SELECT id FROM {name}.origin WHERE origin = $1 FOR UPDATE NOWAIT");
        let origin = other.query_one(&origin, &[&known.as_str()]).await;
        let broadcast = format!("SELECT id FROM {name}.broadcast FOR UPDATE NOWAIT");
        let broadcast = other.query_one(&broadcast, &[]).await;
        other.commit().await.unwrap();
        origin
            .and(broadcast)
            .expect("the waiting call holds nothing");
    };
    tokio::join!(page, lock);
    assert_eq!(store.stats(at(0)).await.unwrap().depth, 2);
}
