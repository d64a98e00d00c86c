//! The signs of life of servers, as their database has them: when one of them could not judge another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::redis_rs::aio::MultiplexedConnection;
use tower_web_push::store::redis_rs::cmd;

use super::world::World;
use crate::support::redis_client;
use crate::support::servers::Kind;

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Twice the time between two beats. After one that came later, which is seen or whose answer was late, a server may have to judge
/// others anew.
const ON_TIME: Duration = Duration::from_millis(500);

/// Watches the beats of all servers of a database.
pub(super) struct Beats {
    seen: Arc<Mutex<Seen>>,
    watching: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The last beat of each worker, by the clock of the database. `None` if it is marked as dead.
    last: HashMap<i64, Option<Timestamp>>,
    /// The beats that came late.
    late: Vec<Timestamp>,
}

impl Beats {
    pub(super) async fn watch(kind: Kind, world: &World) -> Self {
        let mut source = Source::connect(kind, &world.database.url()).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watching = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    let workers = source.workers().await;
                    seen.lock().unwrap().note(workers);
                    sleep(LOOK_AGAIN).await;
                }
            }
        });
        Self { seen, watching }
    }

    /// Returns the last beat of a period that came late, or the beginning of the period: from then on the servers had time for their
    /// work.
    pub(super) fn calm_since(&self, from: Timestamp, to: Timestamp) -> Timestamp {
        let seen = self.seen.lock().unwrap();
        let late = seen.late.iter().filter(|late| **late < to).max();
        late.map_or(from, |late| from.max(*late))
    }

    /// The number of workers.
    pub(super) fn number(&self) -> usize {
        self.seen.lock().unwrap().last.len()
    }

    /// Whether the database has no worker but those that have beaten after this moment.
    pub(super) fn are_all_after(&self, moment: Timestamp) -> bool {
        let seen = self.seen.lock().unwrap();
        let mut beats = seen.last.values();
        beats.all(|beat| beat.is_some_and(|beat| beat > moment))
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Seen {
    fn note(&mut self, workers: HashMap<i64, Option<Timestamp>>) {
        for (id, beat) in &workers {
            let (Some(beat), Some(Some(before))) = (beat, self.last.get(id)) else {
                continue;
            };
            if beat.since(*before) > ON_TIME {
                self.late.push(*beat);
            }
        }
        self.last = workers;
    }
}

enum Source {
    Postgres(Client),
    Redis(Box<MultiplexedConnection>),
}

impl Source {
    async fn connect(kind: Kind, url: &str) -> Self {
        match kind {
            Kind::Postgres => {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
                tokio::spawn(connection);
                Self::Postgres(client)
            }
            _ => Self::Redis(Box::new(redis_client::connect(url).await)),
        }
    }

    async fn workers(&mut self) -> HashMap<i64, Option<Timestamp>> {
        match self {
            Self::Postgres(client) => {
                let sql = "SELECT id::bigint, CASE WHEN dead THEN NULL ELSE beat_at END FROM web_push.worker";
                let rows = client.query(sql, &[]).await.unwrap();
                let worker = |row: &tokio_postgres::Row| {
                    let beat: Option<i64> = row.get(1);
                    (row.get(0), beat.map(Timestamp::from_millis))
                };
                rows.iter().map(worker).collect()
            }
            Self::Redis(connection) => {
                let mut workers = cmd("HGETALL");
                let workers = workers.arg("{web-push}:workers");
                let workers: HashMap<i64, String> =
                    workers.query_async(&mut **connection).await.unwrap();
                let beat = |beat: String| beat.parse().ok().map(Timestamp::from_millis);
                let workers = workers.into_iter();
                workers.map(|(id, last)| (id, beat(last))).collect()
            }
        }
    }
}
