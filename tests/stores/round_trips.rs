//! The number of round trips to a database between accepting a message and its request to the push service.
//!
//! A proxy holds back what is sent to the database, and lets all of it pass at once when nothing more comes. What is sent
//! in parallel counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower_web_push::WebPush;
use tower_web_push::broadcast::Audience;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Message;
use tower_web_push::store::{
    NewSubscription, PostgresStore, RedisStore, ScheduleStore, SubscriptionLimits,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::testing::TestPushService;
use tower_web_push::vapid::{KeyId, VapidKey};

use crate::postgres::world::Schema;
use crate::redis::world::fresh_prefix;
use crate::support::servers::{Kind, shared};

/// After this time without anything new, everything that belongs to a round was sent.
const QUIET: Duration = Duration::from_millis(150);

/// The number of the round, and whether what is sent waits for the next one.
#[derive(Clone, Copy)]
struct Round {
    number: usize,
    holds: bool,
}

/// A proxy in front of a database.
struct Proxy {
    address: String,
    round: watch::Sender<Round>,
    /// The number of connections on which something waits.
    waiting: Arc<AtomicUsize>,
}

impl Proxy {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (round, rounds) = watch::channel(Round {
            number: 0,
            holds: false,
        });
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, rounds.clone(), Arc::clone(&counter)));
            }
        });
        Self {
            address,
            round,
            waiting,
        }
    }

    fn hold(&self, holds: bool) {
        self.round.send_modify(|round| {
            round.number += 1;
            round.holds = holds;
        });
    }

    /// Counts the rounds until `end`.
    async fn rounds_until(&self, end: impl Future) -> usize {
        let mut end = std::pin::pin!(end);
        let mut rounds = 0;
        loop {
            if timeout(QUIET, &mut end).await.is_ok() {
                self.hold(false);
                return rounds;
            }
            if self.waiting.load(SeqCst) > 0 {
                rounds += 1;
                self.hold(true);
            }
            assert!(rounds < 100, "it was never sent");
        }
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    mut rounds: watch::Receiver<Round>,
    waiting: Arc<AtomicUsize>,
) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let (mut held, mut since) = (Vec::new(), 0);
    let mut part = vec![0; 65_536];
    loop {
        let round = *rounds.borrow_and_update();
        if !held.is_empty() && (!round.holds || round.number != since) {
            waiting.fetch_sub(1, SeqCst);
            if to_server.write_all(&held).await.is_err() {
                return;
            }
            held.clear();
        }
        tokio::select! {
            read = from_client.read(&mut part) => match read {
                Ok(read @ 1..) => {
                    if held.is_empty() {
                        since = rounds.borrow().number;
                        waiting.fetch_add(1, SeqCst);
                    }
                    held.extend_from_slice(&part[..read]);
                }
                _ => break,
            },
            changed = rounds.changed() => if changed.is_err() { break },
        }
    }
    if !held.is_empty() {
        waiting.fetch_sub(1, SeqCst);
    }
}

/// Returns the least number of round trips of several messages to one user, and of several to one subscription. Chores and
/// statements that a connection has to prepare first make it larger now and then.
async fn counted<S>(proxy: &Proxy, store: S) -> [usize; 2]
where
    S: ScheduleStore + SubscriptionStore + VapidKeyStore + Clone,
{
    let service = TestPushService::new();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .client(service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .build()
        .await
        .unwrap();
    let browser = service.user_agent();
    let key = push.vapid_public_key();
    let mut new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
    new.principal = Some("alice".into());
    let limits = SubscriptionLimits::default();
    let now = SystemClock::new().now();
    store.upsert(&new, &limits, now).await.unwrap();
    let running = tokio::spawn(push.run(std::future::pending()));
    let mut least = Vec::new();
    for audience in [Audience::user("alice"), Audience::Ids(vec![new.id])] {
        let send = || {
            let (push, audience) = (push.clone(), audience.clone());
            async move { push.enqueue(audience, Message::new("x")).await.unwrap() }
        };
        for _ in 0..30 {
            send().await;
            browser.next().await;
        }
        let mut counts = Vec::new();
        for _ in 0..8 {
            // The worker has settled the last message.
            sleep(QUIET).await;
            proxy.hold(true);
            let sending = tokio::spawn(send());
            counts.push(proxy.rounds_until(browser.next()).await);
            sending.await.unwrap();
        }
        println!("{counts:?}");
        least.push(*counts.iter().min().unwrap());
    }
    running.abort();
    [least[0], least[1]]
}

/// A store behind a proxy.
async fn postgres() -> Option<(Schema, Proxy, PostgresStore)> {
    let schema = Schema::fresh()?;
    let (start, host) = schema
        .url
        .rsplit_once('@')
        .unwrap_or(("postgres://", &schema.url));
    let (host, database) = host.split_once('/').unwrap();
    let proxy = Proxy::to(host.to_owned()).await;
    let url = format!("{start}@{}/{database}", proxy.address);
    let store = schema.builder().connect(&url).await.unwrap();
    Some((schema, proxy, store))
}

async fn redis() -> Option<(Proxy, RedisStore)> {
    let url = shared(Kind::Redis)?;
    let host = url.strip_prefix("redis://").unwrap().trim_end_matches('/');
    let proxy = Proxy::to(host.to_owned()).await;
    let url = format!("redis://{}", proxy.address);
    let builder = RedisStore::builder().prefix(fresh_prefix());
    let store = builder.connect(&url).await.unwrap();
    Some((proxy, store))
}

#[tokio::test]
async fn a_message_takes_few_round_trips_to_postgres() {
    let Some((_schema, proxy, store)) = postgres().await else {
        return;
    };
    let counts = counted(&proxy, store).await;
    assert!(counts.iter().all(|count| *count <= 5), "{counts:?}");
}

#[tokio::test]
async fn a_message_takes_few_round_trips_to_redis() {
    let Some((proxy, store)) = redis().await else {
        return;
    };
    let counts = counted(&proxy, store).await;
    assert!(counts.iter().all(|count| *count <= 5), "{counts:?}");
}

/// Returns the round trips to store a new subscription, and one that is known; without a user and with one, who has others.
async fn subscribed(proxy: &Proxy, store: impl SubscriptionStore) -> [usize; 4] {
    let limits = SubscriptionLimits::default();
    let now = SystemClock::new().now();
    let service = TestPushService::new();
    let key = VapidKey::generate().unwrap();
    let fresh = |principal: Option<&str>| {
        let subscription = service.user_agent().subscribe(key.public_key()).unwrap();
        let mut new = NewSubscription::new(subscription, KeyId::of(key.public_key()));
        new.principal = principal.map(Into::into);
        new.tags = Some(["news".parse().unwrap()].into());
        new
    };
    let mut counts = Vec::new();
    for principal in [None, Some("alice")] {
        // Statements that a connection has to prepare first make it more.
        let mut least = [usize::MAX; 2];
        for _ in 0..4 {
            let new = fresh(principal);
            for least in &mut least {
                proxy.hold(true);
                let rounds = proxy.rounds_until(store.upsert(&new, &limits, now)).await;
                *least = rounds.min(*least);
            }
        }
        counts.extend(least);
    }
    counts.try_into().unwrap()
}

#[tokio::test]
async fn a_subscription_takes_few_round_trips_to_postgres() {
    let Some((_schema, proxy, store)) = postgres().await else {
        return;
    };
    assert_eq!(subscribed(&proxy, store).await, [1, 3, 1, 6]);
}

#[tokio::test]
async fn a_subscription_takes_few_round_trips_to_redis() {
    let Some((proxy, store)) = redis().await else {
        return;
    };
    assert_eq!(subscribed(&proxy, store).await, [1, 2, 1, 2]);
}

/// The pool has four connections: alone they would take ten rounds.
#[tokio::test]
async fn recipients_that_are_read_at_the_same_time_share_a_round_trip_to_postgres() {
    let Some((_schema, proxy, store)) = postgres().await else {
        return;
    };
    let read = || {
        let users = (0..40).map(|user| Audience::user(format!("user{user}")));
        let users: Vec<_> = users.collect();
        let store = store.clone();
        async move {
            let now = SystemClock::new().now();
            let pages = users.iter().map(|user| store.page(user, None, 100, now));
            for page in join_all(pages).await {
                assert!(page.unwrap().is_empty());
            }
        }
    };
    // Statements that a connection has to prepare first make it more now and then.
    let mut least = usize::MAX;
    for _ in 0..8 {
        proxy.hold(true);
        least = least.min(proxy.rounds_until(read()).await);
    }
    assert_eq!(least, 1);
}
