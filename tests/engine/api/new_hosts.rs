//! Endpoints at hosts that have not answered this server yet.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use tower_web_push::deliver::{EndpointPolicy, ResolveError, ResolveErrorKind, Resolver};
use tower_web_push::store::{Change, Failure, RetireReason};

use super::*;

/// A resolver with a fixed answer that counts lookups.
#[derive(Clone, Debug)]
struct Always {
    said: Result<&'static str, ResolveErrorKind>,
    asked: Arc<AtomicUsize>,
}

impl Always {
    fn says(said: Result<&'static str, ResolveErrorKind>) -> Self {
        let asked = Arc::default();
        Self { said, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

#[async_trait]
impl Resolver for Always {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked.fetch_add(1, Relaxed);
        Ok(vec![self.said?.parse().unwrap()])
    }
}

const FOUND: Result<&str, ResolveErrorKind> = Ok("8.8.8.8");
const MISSING: Result<&str, ResolveErrorKind> = Err(ResolveErrorKind::NotFound);
const BROKEN: Result<&str, ResolveErrorKind> = Err(ResolveErrorKind::Temporary);

async fn world(resolver: &Always, policy: EndpointPolicy) -> World {
    let resolver = resolver.clone();
    World::with(|builder| builder.resolver(resolver).endpoint_policy(policy)).await
}

/// A subscription at this host.
fn at(json: &Value, host: &str) -> Value {
    let path = json["endpoint"].as_str().unwrap().strip_prefix(FCM);
    with(
        json,
        json!({"endpoint": format!("https://{host}{}", path.unwrap())}),
    )
}

async fn stored(world: &World) -> u64 {
    let filter = CountFilter::new(Audience::All, Liveness::Any);
    let now = world.clock.now();
    world.store.count(&filter, now).await.unwrap()
}

#[tokio::test]
async fn a_new_host_is_looked_up_before_it_is_stored() {
    for (said, status, code) in [
        (MISSING, 422, "endpoint_not_allowed"),
        (Ok("10.0.0.1"), 422, "endpoint_not_allowed"),
        (BROKEN, 503, "endpoint_unverified"),
    ] {
        let resolver = Always::says(said);
        let world = world(&resolver, EndpointPolicy::public_hosts()).await;
        let (_, json) = world.browser();
        let answer = world.post("/subscribe", &at(&json, "x.example.com")).await;
        answer.is(status, code);
        let has_time = answer.headers.contains_key("retry-after");
        assert_eq!(has_time, status == 503, "{said:?}");
        let renewal = json!({"oldEndpoint": null, "subscription": at(&json, "y.example.com")});
        world.post("/renew", &renewal).await.is(status, code);
        assert_eq!((stored(&world).await, resolver.asked()), (0, 2), "{said:?}");
    }
}

#[tokio::test]
async fn hosts_of_known_push_services_are_not_looked_up() {
    let resolver = Always::says(BROKEN);
    let world = world(&resolver, EndpointPolicy::default()).await;
    let (_, json) = world.browser();
    for endpoint in [
        "https://fcm.googleapis.com/fcm/send/x",
        "https://updates.push.services.mozilla.com/wpush/v2/x",
        "https://web.push.apple.com/x",
    ] {
        let json = with(&json, json!({"endpoint": endpoint}));
        let answer = world.post("/subscribe", &json).await;
        assert_eq!(answer.status, 200, "{endpoint}: {:?}", answer.body);
    }
    assert_eq!(resolver.asked(), 0);
}

#[tokio::test]
async fn a_stored_endpoint_is_posted_again_without_a_lookup() {
    let resolver = Always::says(FOUND);
    let world = world(&resolver, EndpointPolicy::public_hosts()).await;
    let (_, json) = world.browser();
    let json = at(&json, "x.example.com");
    let first = world.post("/subscribe", &json).await;
    assert_eq!(first.status, 200, "{:?}", first.body);
    // Another process, whose resolver fails, on the same store.
    let broken = Always::says(BROKEN);
    let store = Arc::clone(&world.store);
    let policy = EndpointPolicy::public_hosts();
    let other = World::with(|builder| {
        let builder = builder.resolver(broken.clone()).endpoint_policy(policy);
        builder.store(store)
    })
    .await;
    let again = other.post("/subscribe", &json).await;
    assert_eq!((again.status, again.id()), (200, first.id()));
    assert_eq!(broken.asked(), 0);
}

/// A retired row is not sent to: one that is revived at a host that is gone would be asked for again.
#[tokio::test]
async fn a_retired_endpoint_is_looked_up_before_it_is_revived() {
    let resolver = Always::says(FOUND);
    let world = world(&resolver, EndpointPolicy::public_hosts()).await;
    let (_, json) = world.browser();
    let json = at(&json, "x.example.com");
    assert_eq!(world.post("/subscribe", &json).await.status, 200);
    let row = world.row(&json).await.unwrap();
    let observed_at = world.clock.now();
    let retire = Change::Retire {
        key: row.subscription.endpoint().key(),
        reason: RetireReason::HostNotFound,
        observed_at,
        failure: Failure::default(),
    };
    world.store.apply(&[retire], observed_at).await.unwrap();
    let missing = Always::says(MISSING);
    let (store, resolver) = (Arc::clone(&world.store), missing.clone());
    let other = World::with(|builder| {
        let builder = builder.resolver(resolver);
        let policy = EndpointPolicy::public_hosts();
        builder.endpoint_policy(policy).store(store)
    })
    .await;
    let refused = other.post("/subscribe", &json).await;
    refused.is(422, "endpoint_not_allowed");
    assert_eq!(missing.asked(), 1);
    assert!(world.row(&json).await.unwrap().retired.is_some());
}

/// Thousands of names below a known suffix. Stored ones would be looked up and sent to for ever.
#[tokio::test]
async fn a_flood_of_invented_names_is_not_stored() {
    for (said, most) in [(MISSING, 0), (FOUND, 64)] {
        let resolver = Always::says(said);
        let world = world(&resolver, EndpointPolicy::default()).await;
        let (_, json) = world.browser();
        for number in 0..2_000 {
            let invented = at(&json, &format!("x{number}.push.apple.com"));
            world.post("/subscribe", &invented).await;
        }
        assert_eq!(stored(&world).await, most, "{said:?}");
        // Exact names are accepted as before.
        assert_eq!(world.post("/subscribe", &json).await.status, 200);
    }
}
