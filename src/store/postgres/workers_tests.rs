//! The rows of dead workers, and what it costs to find them.

use super::super::plans::{ended, forget_scans};
use super::super::{PostgresBuilder, PostgresStore};
use super::*;
use crate::store::servers;
use crate::store::{ClaimRequest, DeliveryLedger as _};

const DEAD: WorkerId = 1_000_001;
const LIVE: WorkerId = 1_000_002;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

struct World {
    builder: PostgresBuilder,
    url: String,
    name: String,
    store: PostgresStore,
}

impl World {
    async fn new() -> Option<Self> {
        let url = servers::shared(servers::Kind::Postgres)?;
        let name = format!("workers_{}", uuid::Uuid::new_v4().simple());
        let builder = PostgresStore::builder().schema(&name).pool_size(4);
        let store = builder.clone().connect(&url).await.unwrap();
        Some(Self {
            builder,
            url,
            name,
            store,
        })
    }

    fn database(&self) -> &Database {
        self.store.database()
    }

    async fn run(&self, sql: &str) {
        let object = self.database().pool.get().await.unwrap();
        let sql = sql.replace("web_push.", &format!("\"{}\".", self.name));
        object.batch_execute(&sql).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let object = self.database().pool.get().await.unwrap();
        let sql = sql.replace("web_push.", &format!("\"{}\".", self.name));
        object.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Rows that a worker has leased until a moment.
    async fn leased(&self, worker: WorkerId, rows: i64, until: i64) {
        self.run(&format!(
            "INSERT INTO web_push.worker (id, beat_at) OVERRIDING SYSTEM VALUE VALUES ({worker}, 5000); \
             INSERT INTO web_push.delivery (broadcast, key, origin, at, band, leased, fence, worker) \
             SELECT {worker}, int8send(i), 1, {until}, 1, true, {worker} + i, {worker} FROM generate_series(1, {rows}) AS i"
        ))
        .await;
    }

    async fn due(&self, now: i64) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM web_push.delivery WHERE at <= {now} AND leased AND worker IS NULL"
        );
        self.number(&sql).await
    }

    async fn rescue(&self, workers: &[WorkerId], horizon: Option<i64>, now: i64) -> bool {
        let heartbeat = Heartbeat::new();
        heartbeat.put_back(Silent {
            workers: workers.to_vec(),
            horizon: horizon.map(at),
        });
        let more = rescue(self.database(), &heartbeat, at(now)).await.unwrap();
        assert_eq!(heartbeat.take_silent().is_some(), more);
        more
    }

    async fn drop(self) {
        self.run(&format!("DROP SCHEMA \"{}\" CASCADE", self.name))
            .await;
    }
}

#[tokio::test]
async fn the_rows_of_a_dead_worker_are_due_in_steps() {
    let Some(world) = World::new().await else {
        return;
    };
    let rows = 2 * integer(STEP) + 500;
    world.leased(DEAD, rows, 90_000).await;
    world.leased(LIVE, 300, 90_000).await;
    world
        .run(&format!(
            "INSERT INTO web_push.origin (origin, paused_until, pause_reason, probe_fence, probe_key) \
             VALUES ('https://push.example.net', 90000, 'rate_limited', {DEAD} + 7, int8send(7))"
        ))
        .await;
    for (expected, more) in [
        (integer(STEP), true),
        (2 * integer(STEP), true),
        (rows, false),
    ] {
        assert_eq!(world.rescue(&[DEAD], Some(6_000), 20_000).await, more);
        assert_eq!(world.due(20_000).await, expected);
    }
    // Its entry is gone with its rows, and a probe among them is over.
    let entries = "SELECT count(*) FROM web_push.worker WHERE NOT dead";
    assert_eq!(world.number(entries).await, 1);
    assert_eq!(
        world.number("SELECT count(*) FROM web_push.worker").await,
        1
    );
    let paused = "SELECT paused_until FROM web_push.origin";
    assert_eq!(world.number(paused).await, 20_000);
    // Nothing else has changed.
    let leased =
        format!("SELECT count(*) FROM web_push.delivery WHERE at = 90000 AND worker = {LIVE}");
    assert_eq!(world.number(&leased).await, 300);
    assert!(!world.rescue(&[DEAD], Some(6_000), 20_000).await);
    world.drop().await;
}

#[tokio::test]
async fn a_worker_that_has_beaten_meanwhile_keeps_its_rows() {
    let Some(world) = World::new().await else {
        return;
    };
    world.leased(LIVE, 5, 90_000).await;
    for horizon in [Some(5_000), None] {
        assert!(!world.rescue(&[LIVE], horizon, 20_000).await);
        assert_eq!(world.due(20_000).await, 0);
    }
    // One that another process has marked is dead, whatever this one knows.
    world.run("UPDATE web_push.worker SET dead = true").await;
    assert!(!world.rescue(&[LIVE], None, 20_000).await);
    assert_eq!(world.due(20_000).await, 5);
    world.drop().await;
}

/// Its beat is being written, as all are at the end of a database's standstill.
#[tokio::test]
async fn a_worker_whose_beat_is_being_written_keeps_its_rows() {
    let Some(world) = World::new().await else {
        return;
    };
    world.leased(LIVE, 5, 90_000).await;
    let beating = world.database().pool.get().await.unwrap();
    let beat = format!(
        "BEGIN; UPDATE \"{}\".worker SET beat_at = 9000 WHERE id = {LIVE}",
        world.name
    );
    beating.batch_execute(&beat).await.unwrap();
    assert!(!world.rescue(&[LIVE], Some(6_000), 20_000).await);
    beating.batch_execute("COMMIT").await.unwrap();
    drop(beating);
    assert!(!world.rescue(&[LIVE], Some(6_000), 20_000).await);
    assert_eq!(world.due(20_000).await, 0);
    let dead = "SELECT count(*) FROM web_push.worker WHERE dead";
    assert_eq!(world.number(dead).await, 0);
    world.drop().await;
}

#[tokio::test]
async fn a_worker_that_is_marked_does_not_beat() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut beating = Beating::new(world.database(), None);
    let (id, entered) = beating.enlist().await.unwrap();
    let beat = beating.beat(id).await.unwrap().unwrap();
    assert!(beat >= entered);
    let mut other = Beating::new(world.database(), None);
    let (second, _) = other.enlist().await.unwrap();
    assert_ne!(id, second);
    let seen = beating.others(id).await.unwrap();
    assert_eq!(
        (seen.len(), seen[0].id, seen[0].is_dead),
        (1, second, false)
    );
    assert!(seen[0].beat_at >= beat);
    world
        .run(&format!(
            "UPDATE web_push.worker SET dead = true WHERE id = {id}"
        ))
        .await;
    assert_eq!(beating.beat(id).await.unwrap(), None);
    assert!(other.others(second).await.unwrap()[0].is_dead);
    world.run("DELETE FROM web_push.worker").await;
    assert_eq!(other.beat(second).await.unwrap(), None);
    drop((beating, other));
    world.drop().await;
}

/// Live rows do not hide those of a dead worker, whatever the planner knows.
#[tokio::test]
async fn a_rescue_reads_the_rows_of_the_dead_and_no_others() {
    const ROWS: i64 = 30_000;
    let Some(world) = World::new().await else {
        return;
    };
    for sql in [
        "ALTER TABLE web_push.delivery SET (autovacuum_enabled = off)",
        "VACUUM ANALYZE web_push.delivery",
    ] {
        world.run(sql).await;
    }
    world.leased(LIVE, ROWS, 80_000).await;
    world.leased(DEAD, 40, 90_000).await;
    let watcher = world.database().pool.get().await.unwrap();
    forget_scans(&watcher, &world.name).await;
    let named = format!("{}?application_name={}", world.url, world.name);
    let store = world.builder.clone().connect(&named).await.unwrap();
    let heartbeat = store.heartbeat();
    heartbeat.put_back(Silent {
        workers: vec![DEAD],
        horizon: Some(at(6_000)),
    });
    assert!(
        !rescue(store.database(), heartbeat, at(20_000))
            .await
            .unwrap()
    );
    drop(store);
    ended(&watcher, &world.name).await;
    assert_eq!(world.due(20_000).await, 40);
    let sql = "SELECT sum(idx_tup_read)::bigint, sum(seq_tup_read)::bigint FROM pg_stat_user_indexes \
         JOIN pg_stat_user_tables USING (schemaname, relid) WHERE schemaname = $1";
    let read = watcher.query_one(sql, &[&world.name]).await.unwrap();
    let (read, scanned): (i64, i64) = (read.get(0), read.get(1));
    drop(watcher);
    world.drop().await;
    assert!((40..ROWS / 10).contains(&read), "{read}");
    assert!(scanned < 100, "{scanned}");
}

/// The rows of the others are looked at again while they have some, and not otherwise.
#[tokio::test]
async fn a_worker_looks_again_while_others_have_leased_rows() {
    let Some(world) = World::new().await else {
        return;
    };
    let next = async || {
        let heartbeat = world.store.heartbeat();
        let later = Some(at(70_000));
        next_due(world.database(), heartbeat, later, at(20_000))
            .await
            .unwrap()
    };
    world.leased(LIVE, 1, 90_000).await;
    assert_eq!(next().await, Some(at(70_000)), "nobody else is known");
    let request = ClaimRequest::new(1, Duration::from_secs(9));
    world.store.claim(&request, at(0)).await.unwrap();
    while !world.store.heartbeat().others().contains(&LIVE) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(next().await, Some(at(20_000) + LOOK_AGAIN));
    world
        .run("UPDATE web_push.delivery SET worker = NULL")
        .await;
    assert_eq!(next().await, Some(at(70_000)));
    world.drop().await;
}
