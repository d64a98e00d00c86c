//! Calls that wait at the same time share a script, and nothing else.
//!
//! All calls of a test begin before the task runs that works on them, since they have one thread.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use tokio::task::yield_now;
use tokio::time::timeout;
use tower_web_push::broadcast::{Audience, Principal};
use tower_web_push::message::Message;
use tower_web_push::store::redis_rs::{Client, aio::ConnectionManager};
use tower_web_push::store::{
    Cursor, DeliveryLedger as _, NewBroadcast, Opened, Page, RedisStore, StoreError,
    StoreErrorKind, SubscriptionLimits, SubscriptionStore as _,
};

use super::world::{ask, at, claim, delivery, fresh_prefix, status, store, subscription};
use crate::support::servers::{Kind, Server, shared};

/// The origins of the broadcasts here.
const ORIGINS: usize = 3;

fn to_one(number: usize) -> NewBroadcast {
    let rows = vec![delivery(number, ORIGINS)];
    let mut new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
    new.page = Some(Page::new(rows, Cursor::End));
    new.recipients = 1;
    new
}

async fn open_all(store: &RedisStore, all: &[NewBroadcast]) -> Vec<Result<Opened, StoreError>> {
    join_all(all.iter().map(async |new| store.open(new, at(0)).await)).await
}

fn is_new(opened: &Result<Opened, StoreError>) -> bool {
    matches!(opened, Ok(Opened::New))
}

/// The number of scripts that the server has run.
async fn scripts(url: &str) -> u64 {
    let text: String = ask(url, &["INFO", "commandstats"]).await;
    let calls = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let calls = line.and_then(|line| line.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    calls("cmdstat_evalsha:calls=") + calls("cmdstat_eval:calls=")
}

/// Their rows are more than those of one script.
#[tokio::test]
async fn a_large_first_page_goes_alone_and_holds_up_no_others() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let mut large = to_one(0);
    let rows: Vec<_> = (0..1_001).map(|number| delivery(number, 1)).collect();
    large.recipients = 1_001;
    large.page = Some(Page::new(rows, Cursor::End));
    let all = [to_one(1), large, to_one(2)];
    let opened = open_all(&store, &all).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
    let pending = status(&store, all[1].id, at(1)).await.counts.pending;
    assert_eq!(pending, 1_001);
}

/// On the application's connection nothing listens.
#[tokio::test]
async fn what_a_call_opens_that_was_dropped_meanwhile_is_heard_without_a_listener() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let builder = RedisStore::builder().prefix(fresh_prefix());
    let client = Client::open(url.as_str()).unwrap();
    let own = ConnectionManager::new(client).await.unwrap();
    let store = builder.with_connection(own).await.unwrap();
    let known = to_one(0);
    store.open(&known, at(0)).await.unwrap();
    let mut hints = store.changes();
    let new = to_one(1);
    {
        // Together with one that wakes no worker.
        let opening = pin!(join(store.open(&known, at(0)), store.open(&new, at(0))));
        assert!(opening.now_or_never().is_none());
        // The task takes the calls.
        yield_now().await;
    }
    timeout(Duration::from_secs(60), hints.next())
        .await
        .unwrap();
    assert_eq!(status(&store, new.id, at(1)).await.counts.pending, 1);
}

#[tokio::test]
async fn those_that_wait_share_a_script() {
    let Some(server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let url = server.url();
    let store = store(&url, "p").await;
    let users: Vec<_> = (0..40).map(|number| format!("user{number}")).collect();
    for (number, user) in users.iter().enumerate() {
        let mut new = subscription(number);
        new.principal = Some(user.as_str().into());
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, at(0)).await.unwrap();
    }
    // The server knows both scripts.
    store.open(&to_one(1_000), at(0)).await.unwrap();
    let read = async |user: &String| {
        let audience = Audience::user(user.as_str());
        store.page(&audience, None, 9, at(0)).await.unwrap()
    };
    assert_eq!(read(&users[0]).await.len(), 1);

    let before = scripts(&url).await;
    let all: Vec<_> = (0..40).map(to_one).collect();
    let opened = open_all(&store, &all).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
    assert_eq!(scripts(&url).await, before + 1);
    let pages = join_all(users.iter().map(read)).await;
    assert_eq!(scripts(&url).await, before + 2);
    for (user, page) in users.iter().zip(pages) {
        let owners: Vec<_> = page.into_iter().map(|row| row.principal).collect();
        assert_eq!(owners, [Some(Principal::from(user.as_str()))]);
    }
    for new in &all {
        assert_eq!(status(&store, new.id, at(1)).await.counts.pending, 1);
    }
    assert_eq!(claim(&store, 100, at(1)).await.len(), 41);
}

#[tokio::test]
async fn one_that_fails_fails_alone() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let damaged = format!("{{{prefix}}}:o:https://push1.example");
    let _: String = ask(&url, &["SET", &damaged, "?"]).await;
    let all: Vec<_> = (0..9).map(to_one).collect();
    for (number, opened) in open_all(&store, &all).await.into_iter().enumerate() {
        match number % ORIGINS {
            1 => assert_eq!(opened.unwrap_err().kind(), StoreErrorKind::Corrupt),
            _ => assert_eq!(opened.unwrap(), Opened::New),
        }
    }
    assert_eq!(claim(&store, 100, at(1)).await.len(), 6);
    // Nothing of them is left, so that they can be opened when that is mended.
    let _: i64 = ask(&url, &["DEL", &damaged]).await;
    let opened = open_all(&store, &all).await;
    for (number, opened) in opened.into_iter().enumerate() {
        let is_new = opened.unwrap() == Opened::New;
        assert_eq!(is_new, number % ORIGINS == 1, "{number}");
    }
    assert_eq!(claim(&store, 100, at(1)).await.len(), 3);
}

/// Of users with very many subscriptions only one is read by a script.
#[tokio::test]
async fn users_with_many_subscriptions_are_read_alone() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let limits = SubscriptionLimits {
        per_principal: 1_000,
        ..SubscriptionLimits::default()
    };
    let users = ["many", "more"];
    let upserts = (0..720).map(|number| {
        let mut new = subscription(number);
        new.principal = Some(users[number % 2].into());
        let (store, limits) = (&store, &limits);
        async move { store.upsert(&new, limits, at(0)).await.unwrap() }
    });
    join_all(upserts).await;
    let audiences = users.map(Audience::user);
    let pages = audiences
        .iter()
        .map(|user| store.page(user, None, 999, at(0)));
    for (page, user) in join_all(pages).await.into_iter().zip(users) {
        let page = page.unwrap();
        assert_eq!(page.len(), 360);
        let owner = Some(Principal::from(user));
        assert!(page.iter().all(|row| row.principal == owner));
    }
}
