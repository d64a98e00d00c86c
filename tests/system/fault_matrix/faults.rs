//! The faults: how each begins and ends.

use std::fs::rename;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{sleep, timeout};
use tower_web_push::clock::Clock as _;
use tower_web_push::store::{
    Change, Failure, NewSubscription, SubscriptionLimits, SubscriptionRef, SubscriptionStore as _,
    VapidKeyStore as _, redis_rs,
};
use tower_web_push::subscription::Endpoint;
use tower_web_push::testing::{Answer, When};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Broadcast, Message};

use super::world::{Backend, LIMIT, POLL, World};
use Backend::{Memory, Postgres, Redis, Sqlite};

/// Subscriptions of an old list: with the sick ones, 60 % of all.
const OLD: usize = 55;

type Act = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

pub(crate) struct Fault {
    /// As the table of the guide has it.
    pub(crate) name: &'static str,
    pub(crate) backends: &'static [Backend],
    pub(crate) begin: Act,
    /// `None` if it lasts.
    pub(crate) end: Option<Act>,
    /// Whether no message can be accepted meanwhile: the first one comes after its end.
    pub(crate) is_refusing: bool,
    /// The members of `/ready` that are `false` meanwhile; none if the server is ready.
    pub(crate) not_ready: &'static [&'static str],
}

impl Fault {
    const fn lasting(name: &'static str, begin: Act) -> Self {
        Self {
            name,
            backends: Backend::ALL,
            begin,
            end: None,
            is_refusing: false,
            not_ready: &[],
        }
    }

    const fn until(mut self, end: Act) -> Self {
        self.end = Some(end);
        self
    }

    const fn on(mut self, backends: &'static [Backend]) -> Self {
        self.backends = backends;
        self
    }

    const fn refusing(mut self) -> Self {
        self.is_refusing = true;
        self
    }

    const fn not_ready(mut self, members: &'static [&'static str]) -> Self {
        self.not_ready = members;
        self
    }
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault::lasting(
        "one subscription in 20 answers 429, `Retry-After: 3600`",
        |world| {
            Box::pin(async {
                let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(3600);
                sick(world, &busy);
            })
        },
    ),
    Fault::lasting("one subscription in 20 answers 401", |world| {
        Box::pin(async { sick(world, &Answer::status(StatusCode::UNAUTHORIZED)) })
    }),
    Fault::lasting("one subscription in 20 answers 503", |world| {
        Box::pin(async { sick(world, &Answer::status(StatusCode::SERVICE_UNAVAILABLE)) })
    }),
    Fault::lasting("one subscription in 20 never answers", |world| {
        Box::pin(async { sick(world, &Answer::never()) })
    }),
    Fault::lasting("one subscription in 20 breaks the connection", |world| {
        Box::pin(async { sick(world, &Answer::disconnect()) })
    }),
    Fault::lasting("most of an old list answers 410 for days", |world| {
        Box::pin(async { old_list(world).await })
    })
    .until(|world| Box::pin(async { the_old_list_is_retired(world).await })),
    Fault::lasting("the clock is 3 days ahead for some seconds", |world| {
        Box::pin(async { world.clock.set_off_by(3 * 86_400_000) })
    })
    .until(|world| Box::pin(async { world.clock.set_off_by(0) }))
    .not_ready(&["clock"]),
    Fault::lasting("the clock is 2 hours behind for some seconds", |world| {
        Box::pin(async { world.clock.set_off_by(-2 * 3_600_000) })
    })
    .until(|world| Box::pin(async { world.clock.set_off_by(0) }))
    .not_ready(&["clock"]),
    Fault::lasting(
        "the VAPID key is missing at a start, and restored",
        |world| {
            Box::pin(async {
                let id = KeyId::of(world.key.public_key());
                world.running.stop().await;
                // An active key cannot be removed.
                world.push.rotate_vapid_key().await.unwrap();
                assert!(world.store.remove(&id).await.unwrap());
                world.restart().await;
            })
        },
    )
    .until(|world| Box::pin(async { world.restart_with_the_key().await })),
    Fault::lasting(
        "the database's file is moved away for some seconds",
        |world| Box::pin(async { rename(world.path(), world.path_aside()).unwrap() }),
    )
    .until(|world| Box::pin(async { rename(world.path_aside(), world.path()).unwrap() }))
    .on(&[Sqlite])
    .refusing()
    .not_ready(&["store"]),
    Fault::lasting("another broadcast cannot be read", |world| {
        Box::pin(async {
            let one = world.sick[0].clone();
            damage_a_broadcast(world, &one).await;
        })
    })
    .on(&[Sqlite, Postgres, Redis]),
    Fault::lasting("another client locks the schedules", |world| {
        Box::pin(async { lock_schedules(world).await })
    })
    .on(&[Postgres]),
    Fault::lasting(
        "another process is killed that has claimed messages",
        |world| Box::pin(async { world.kill_another().await }),
    )
    .on(&[Sqlite, Postgres, Redis]),
    Fault::lasting("the database stops answering for some seconds", |world| {
        Box::pin(async { world.database.as_ref().unwrap().freeze().await })
    })
    .until(|world| Box::pin(async { world.database.as_ref().unwrap().thaw().await }))
    .on(&[Postgres, Redis])
    .refusing()
    .not_ready(&["scheduler", "store"]),
    Fault::lasting("the database is restarted", |world| {
        Box::pin(async { world.database.as_mut().unwrap().stop().await })
    })
    .until(|world| Box::pin(async { world.database.as_mut().unwrap().start_again().await }))
    .on(&[Postgres, Redis])
    .refusing()
    .not_ready(&["scheduler", "store"]),
    Fault::lasting("the database takes no writes", |world| {
        Box::pin(async { set_read_only(world, true).await })
    })
    .until(|world| Box::pin(async { set_read_only(world, false).await }))
    .on(&[Sqlite, Postgres, Redis])
    .refusing()
    .not_ready(&["store"]),
];

/// Scripts an answer for the sick subscriptions.
fn sick(world: &mut World, answer: &Answer) {
    world.is_scripted = true;
    for endpoint in &world.sick {
        world
            .service
            .script(When::endpoint(endpoint), answer.clone());
    }
}

/// Adds subscriptions of an application that had this server's key before: with the sick ones, 60 % of all. Their push
/// service has said for days that they are gone.
async fn old_list(world: &mut World) {
    let (day, now) = (Duration::from_secs(86_400), world.clock.now());
    let id = KeyId::of(world.key.public_key());
    let mut failed = Vec::new();
    for _ in 0..OLD {
        let agent = world.service.user_agent();
        let subscription = agent.subscribe(world.key.public_key()).unwrap();
        let endpoint = subscription.endpoint().clone();
        let new = NewSubscription::new(subscription, id);
        let limits = SubscriptionLimits::default();
        let upserted = world.store.upsert(&new, &limits, now - 9 * day).await;
        upserted.unwrap();
        failed.push(Change::Failed {
            key: endpoint.key(),
            failure: Failure::default(),
        });
        world.sick.push(endpoint);
    }
    for days in (4..9).rev() {
        world.store.apply(&failed, now - days * day).await.unwrap();
    }
    sick(world, &Answer::status(StatusCode::GONE));
}

/// Although their share is so large that pruning is suspended.
async fn the_old_list_is_retired(world: &World) {
    let old = &world.sick[world.sick.len() - OLD..];
    let keys: Vec<_> = old
        .iter()
        .map(|endpoint| SubscriptionRef::Key(endpoint.key()))
        .collect();
    let retired = async {
        loop {
            let rows = world.store.get(&keys).await.unwrap();
            if rows.iter().flatten().all(|row| row.retired.is_some()) {
                break;
            }
            sleep(POLL).await;
        }
    };
    timeout(LIMIT, retired)
        .await
        .expect("rows of the old list stay");
}

/// Accepts a broadcast of its own and makes its audience unreadable before it is due.
async fn damage_a_broadcast(world: &World, to: &Endpoint) {
    let id = SubscriptionRef::Key(to.key());
    let found = world.store.get(&[id]).await.unwrap();
    let id = found.into_iter().next().flatten().expect("it is stored").id;
    let at = world.clock.now() + Duration::from_secs(1);
    let broadcast = Broadcast::to(Audience::Ids(vec![id]), Message::new("damaged")).at(at);
    world.push.enqueue_broadcast(broadcast).await.unwrap();
    match world.backend {
        Memory => unreachable!("memory has no stored form"),
        Sqlite => {
            let connection = rusqlite::Connection::open(world.path()).unwrap();
            let damaged = connection.execute("UPDATE content SET audience = '?'", ());
            assert_eq!(damaged.unwrap(), 1);
        }
        Postgres => {
            let client = postgres(world).await;
            let damage = "UPDATE web_push.content SET audience = '\"?\"'";
            assert_eq!(client.execute(damage, &[]).await.unwrap(), 1);
        }
        Redis => {
            let mut connection = redis(world).await;
            let all: Vec<Vec<u8>> =
                query(&mut connection, redis_rs::cmd("KEYS").arg("*:c:*")).await;
            assert_eq!(all.len(), 1);
            let damage = redis_rs::cmd("HSET")
                .arg(&all[0])
                .arg("audience")
                .arg("?")
                .to_owned();
            let _: i64 = query(&mut connection, &damage).await;
        }
    }
    // The worker has met it once it is due.
    while world.clock.now() < at {
        sleep(POLL).await;
    }
}

/// Locks the table of schedules in a transaction that stays open until the server ends.
async fn lock_schedules(world: &World) {
    let client = postgres(world).await;
    client
        .batch_execute("BEGIN; LOCK TABLE web_push.schedule")
        .await
        .unwrap();
    tokio::spawn(async move {
        pending::<()>().await;
        drop(client);
    });
}

/// Makes the database refuse writes and answer reads.
async fn set_read_only(world: &mut World, read_only: bool) {
    match world.backend {
        Memory => unreachable!("the fault is not caused there"),
        // As on a standby server: reads work, and each write is refused by this code. The setting of that name is a default,
        // on which the store does not depend.
        Postgres => {
            let act = if read_only {
                "CREATE TRIGGER no_writes BEFORE INSERT OR UPDATE OR DELETE ON %s \
                 FOR EACH STATEMENT EXECUTE FUNCTION public.no_writes()"
            } else {
                "DROP TRIGGER no_writes ON %s"
            };
            let statement = format!(
                "CREATE OR REPLACE FUNCTION public.no_writes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     RAISE read_only_sql_transaction USING MESSAGE = 'cannot write in a read-only transaction'; END $$; \
                 DO $$ DECLARE tab regclass; BEGIN \
                     FOR tab IN SELECT oid::regclass FROM pg_class \
                         WHERE relnamespace = 'web_push'::regnamespace AND relkind = 'r' LOOP \
                     EXECUTE format('{act}', tab); END LOOP; END $$"
            );
            let client = postgres(world).await;
            client.batch_execute(&statement).await.unwrap();
        }
        // Another process holds the write lock.
        Sqlite => {
            *world.lock.lock().unwrap() = read_only.then(|| {
                let connection = rusqlite::Connection::open(world.path()).unwrap();
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                connection
            });
        }
        // A primary that has lost its replicas.
        Redis => {
            let mut connection = redis(world).await;
            let replicas = u8::from(read_only);
            let set = redis_rs::cmd("CONFIG")
                .arg("SET")
                .arg("min-replicas-to-write")
                .arg(replicas)
                .to_owned();
            let _: String = query(&mut connection, &set).await;
        }
    }
}

async fn postgres(world: &World) -> tokio_postgres::Client {
    let url = world.database.as_ref().unwrap().url();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

async fn redis(world: &World) -> redis_rs::aio::MultiplexedConnection {
    let url = world.database.as_ref().unwrap().url();
    crate::support::redis_client::connect(&url).await
}

async fn query<T: redis_rs::FromRedisValue>(
    connection: &mut redis_rs::aio::MultiplexedConnection,
    command: &redis_rs::Cmd,
) -> T {
    command.query_async(connection).await.unwrap()
}
