//! Requests to the HTTP API: any path, method, principal, credentials and body, to a store with two users.
//!
//! The first octet chooses method, principal and headers; then a line with the path, a line with the content type (empty
//! for JSON, `-` for none), and the body.
//!
//! Invariants: nothing panics; no status is 500, and each is one that the contract (`openapi.json`) lists for its route;
//! every refusal is a problem document with a known code, and changes nothing, nor does a safe method or a request that
//! another site sent for a signed-in user; an administrator's route succeeds with its credentials only; no response has
//! a key, a secret or an endpoint in it; a row of a user changes only for this user or a request that names it, and
//! passes to others only with its authentication secret.
#![no_main]

use std::sync::{Arc, LazyLock};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;
use tower_web_push::WebPush;
use tower_web_push::api::{AdminCredentials, ApiSettings, ProblemKind};
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastStatus, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::schedule::Schedule;
use tower_web_push::store::{
    CountFilter, DeliveryLedger, Liveness, MemoryStore, NewBroadcast, NewSubscription,
    ScheduleStore, StoredVapidKey, SubscriptionLimits, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId};
use tower_web_push::testing::{ManualClock, TestPushService};
use tower_web_push::vapid::{KeyId, VapidKey};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_800_003_600);
const TOKEN: &str = "an-admin-token";
const BROADCAST: BroadcastId = BroadcastId::from_bytes([0xbb; 16]);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
});

static CONTRACT: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../src/api/openapi.json");
    serde_json::from_str(text).expect("the contract is JSON")
});

/// A user with one subscription.
struct User {
    name: &'static str,
    id: SubscriptionId,
    subscription: Subscription,
}

static USERS: LazyLock<[User; 2]> = LazyLock::new(|| {
    [("alice", 0x61), ("bob", 0x62)].map(|(name, octet)| {
        let secret = UaSecretKey::from_bytes(&[octet; 32]).expect("below the order");
        let endpoint = format!("https://fcm.googleapis.com/fcm/send/{name}");
        User {
            name,
            id: SubscriptionId::from_bytes([octet; 16]),
            subscription: Subscription::new(
                endpoint.parse().expect("a URL"),
                *secret.public(),
                AuthSecret::from_bytes(&[octet; 16]).expect("16 octets"),
            ),
        }
    })
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    let mut lines = rest.splitn(3, |octet| *octet == b'\n');
    let (Some(path), Some(content_type), Some(body)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    RUNTIME.block_on(check(*choice, path, content_type, body));
});

/// What the first octet chooses.
struct Caller {
    method: Method,
    is_admin: bool,
    user: Option<&'static User>,
    is_cross_site: bool,
}

impl Caller {
    fn of(choice: u8) -> Self {
        let methods = match choice & 0x40 {
            0 => [Method::POST, Method::GET, Method::DELETE, Method::HEAD],
            _ => [Method::PATCH, Method::PUT, Method::OPTIONS, Method::TRACE],
        };
        let [alice, bob] = &*USERS;
        Self {
            method: methods[usize::from(choice & 3)].clone(),
            is_admin: choice & 4 == 0,
            user: match choice & 0x28 {
                0x08 => Some(alice),
                0x20 => Some(bob),
                _ => None,
            },
            is_cross_site: choice & 0x80 != 0,
        }
    }
}

async fn check(choice: u8, path: &[u8], content_type: &[u8], body: &[u8]) {
    let caller = Caller::of(choice);
    let mut request = Request::builder().method(&caller.method).uri(path);
    request = match content_type {
        b"" => request.header("content-type", "application/json"),
        b"-" => request,
        other => request.header("content-type", other),
    };
    if caller.is_admin {
        request = request.header("authorization", format!("Bearer {TOKEN}"));
    }
    if choice & 16 != 0 {
        request = request.header("idempotency-key", "key");
    }
    if caller.is_cross_site {
        request = request.header("sec-fetch-site", "cross-site");
    }
    if let Some(user) = caller.user {
        request = request.extension(Principal::from(user.name));
    }
    let content = Full::new(bytes::Bytes::copy_from_slice(body));
    let Ok(request) = request.body(content) else {
        return;
    };
    let path = request.uri().path().to_owned();
    let named = Named::by(&path, body);

    let store = Arc::new(MemoryStore::new());
    let credentials = AdminCredentials::new().with_bearer_token(TOKEN);
    let settings = ApiSettings::new().authorizer(credentials.expect("a token"));
    let key = VapidKey::from_secret_bytes(&[0x41; 32]).expect("a number below the order");
    fill(&store, key.id()).await;
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(TestPushService::new())
        .clock(ManualClock::new(NOW))
        .vapid_private_key(key)
        .remote_workers(true)
        .build()
        .await
        .expect("a configuration");
    let before = State::of(&store).await;

    let Ok(response) = push.service().with(settings).call(request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("an answer is not cut off");
    let body = body.to_bytes();
    assert!(parts.headers.contains_key("x-content-type-options"));
    let problem = parts.extensions.get::<ProblemKind>().copied();
    let is_for_admins = is_in_the_contract(&caller.method, &path, parts.status, problem);
    shows_no_secret(&format!("{:?}", parts.headers));
    shows_no_secret(&String::from_utf8_lossy(&body));

    let after = State::of(&store).await;
    let is_safe = matches!(
        caller.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    );
    let is_forged = caller.is_cross_site && caller.user.is_some();
    if is_safe || is_forged || problem.is_some() {
        assert_eq!(before, after);
    }
    for (number, user) in USERS.iter().enumerate() {
        let [old, new] = [&before, &after].map(|state| state.rows[number].as_ref());
        let is_own = caller.user.is_some_and(|caller| caller.name == user.name);
        if is_own || old == new {
            continue;
        }
        assert!(named.row[number], "{}'s row changed", user.name);
        if let (Some(old), Some(new)) = (old, new) {
            let is_kept =
                old.principal == new.principal && old.subscription.same_keys(&new.subscription);
            let is_allowed = named.auth[number] || (caller.is_admin && is_for_admins);
            assert!(is_kept || is_allowed, "{}'s row was taken", user.name);
        }
    }

    // A server that is not ready says so with its checks, not with a problem document.
    let is_unready = path == "/ready" && parts.status == StatusCode::SERVICE_UNAVAILABLE;
    if parts.status.is_success() || parts.status == StatusCode::NOT_MODIFIED || is_unready {
        assert_eq!(problem, None);
        assert!(caller.is_admin || !is_for_admins);
        return;
    }
    let kind = problem.expect("a refusal says why");
    assert_eq!(parts.status, kind.status());
    if !body.is_empty() {
        let problem: Value = serde_json::from_slice(&body).expect("a document");
        assert_eq!(problem["code"], kind.code());
        assert_eq!(problem["status"], parts.status.as_u16());
        assert_eq!(problem["success"], false);
    }
}

/// Stores a subscription of each user, and a broadcast that is due in an hour.
async fn fill(store: &MemoryStore, key: KeyId) {
    for user in &*USERS {
        let mut new = NewSubscription::new(user.subscription.clone(), key);
        new.id = user.id;
        new.principal = Some(Principal::from(user.name));
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, NOW).await.expect("memory");
    }
    let mut new = NewBroadcast::new(Audience::All, Message::new("a payload"), LATER);
    new.id = BROADCAST;
    new.send_at = Some(LATER);
    store.open(&new, NOW).await.expect("memory");
}

/// Everything that a request could change.
#[derive(Debug, PartialEq)]
struct State {
    rows: Vec<Option<SubscriptionRecord>>,
    subscriptions: u64,
    broadcasts: Vec<BroadcastStatus>,
    planned: Option<BroadcastStatus>,
    schedules: Vec<Schedule>,
    keys: Vec<StoredVapidKey>,
}

impl State {
    async fn of(store: &MemoryStore) -> Self {
        let all = CountFilter::new(Audience::All, Liveness::Any);
        let users = USERS.iter().map(|user| SubscriptionRef::Id(user.id));
        let users: Vec<_> = users.collect();
        let due = store.due_schedules(100, Timestamp::MAX).await;
        Self {
            rows: store.get(&users).await.expect("memory"),
            subscriptions: store.count(&all, NOW).await.expect("memory"),
            broadcasts: store.underway(100, NOW).await.expect("memory"),
            planned: store.status(BROADCAST, NOW).await.expect("memory"),
            schedules: due.expect("memory"),
            keys: store.keys().await.expect("memory"),
        }
    }
}

/// Which users' rows a request names, and whose authentication secrets it has: anywhere, in any spelling.
#[derive(Default)]
struct Named {
    row: [bool; 2],
    auth: [bool; 2],
}

impl Named {
    fn by(path: &str, body: &[u8]) -> Self {
        let mut named = Self::default();
        path.split('/').for_each(|segment| named.see(segment));
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if let Ok(value) = serde_json::from_slice(body) {
            named.walk(&value);
        }
        named
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.see(text),
            Value::Array(values) => values.iter().for_each(|value| self.walk(value)),
            Value::Object(members) => members.values().for_each(|value| self.walk(value)),
            _ => {}
        }
    }

    fn see(&mut self, text: &str) {
        for (number, user) in USERS.iter().enumerate() {
            let own = &user.subscription;
            let endpoint = Endpoint::parse(text);
            self.row[number] |= endpoint.is_ok_and(|it| it.key() == own.endpoint().key())
                || text.parse::<SubscriptionId>().is_ok_and(|id| id == user.id);
            self.auth[number] |= AuthSecret::parse(text).is_ok_and(|auth| auth == *own.auth());
        }
    }
}

/// A route has its statuses; other paths are not found, and other methods are told the right ones. Returns whether it is for
/// administrators: the contract lists 401 then.
fn is_in_the_contract(
    method: &Method,
    path: &str,
    status: StatusCode,
    problem: Option<ProblemKind>,
) -> bool {
    assert_ne!(status, 500);
    let segments: Vec<_> = path.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<_> = template.split('/').collect();
        let fits = |(part, segment): (&&str, &&str)| part == segment || part.starts_with('{');
        parts.len() == segments.len() && parts.iter().zip(&segments).all(fits)
    };
    let paths = CONTRACT["paths"].as_object().expect("paths");
    // A path without a parameter comes first.
    let route = paths.get(path).or_else(|| {
        let mut routes = paths.iter();
        routes.find_map(|(template, route)| fits(template).then_some(route))
    });
    let Some(route) = route else {
        assert_eq!(problem, Some(ProblemKind::NotFound), "{path}");
        return false;
    };
    let method = match *method {
        Method::HEAD => "get".to_owned(),
        _ => method.as_str().to_ascii_lowercase(),
    };
    match route.get(&method) {
        Some(operation) => {
            let listed = &operation["responses"][status.as_str()];
            assert!(!listed.is_null(), "{method} {path}: {status}");
            !operation["responses"]["401"].is_null()
        }
        None => {
            let refused = [ProblemKind::MethodNotAllowed, ProblemKind::NotFound];
            assert!(
                problem.is_some_and(|kind| refused.contains(&kind)),
                "{method} {path}: {status}"
            );
            false
        }
    }
}

fn shows_no_secret(text: &str) {
    for user in &*USERS {
        let own = &user.subscription;
        for secret in [
            own.endpoint().as_str(),
            &own.ua_public().to_base64url(),
            &own.auth().secret_to_base64url(),
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    // The active VAPID key, and the administrator's credentials.
    let private = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE";
    assert!(!text.contains(private) && !text.contains(TOKEN));
}
