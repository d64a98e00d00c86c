//! Configurations: refused settings, and that the order of the calls does not matter.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use tower_web_push::BuildErrorKind;
use tower_web_push::deliver::SystemResolver;
use tower_web_push::p256::{
    self, Agreement, CryptoError, P256, RustCrypto, SharedSecret, UaSecretKey,
};
use tower_web_push::schedule::{Compose, Schedule};
use tower_web_push::store::VapidKeyStore as _;
use tower_web_push::subscription::UaPublicKey;
use tower_web_push::vapid::{KeyEncryptionKeys, VapidKey};

use super::world::*;
use crate::support::tampered_store::TamperedStore;

type Setting = fn(WebPushBuilder) -> WebPushBuilder;

#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl Compose for Silent {
    async fn compose(
        &self,
        _: &Schedule,
        _: Message,
    ) -> Result<Option<Message>, tower_web_push::error::BoxError> {
        Ok(None)
    }
}

/// Every method of the builder, with a value that is not the default.
const SETTINGS: [(&str, Setting); 22] = [
    ("store", |b| b.store(TamperedStore::default())),
    ("subscriptions", |b| b.subscriptions(MemoryStore::new())),
    ("client", |b| b.client(TestPushService::new())),
    ("resolver", |b| b.resolver(SystemResolver::default())),
    ("clock", |b| b.clock(ManualClock::new(Timestamp::MIN))),
    ("p256", |b| b.p256(RustCrypto)),
    ("endpoint_policy", |b| {
        b.endpoint_policy(EndpointPolicy::public_hosts())
    }),
    (
        "insecure_local_contact",
        WebPushBuilder::insecure_local_contact,
    ),
    ("subscription_limits", |b| {
        b.subscription_limits(SubscriptionLimits::new(1, 1))
    }),
    ("vapid_private_key", |b| {
        b.vapid_private_key(VapidKey::parse("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA").unwrap())
    }),
    ("key_encryption_keys", |b| {
        b.key_encryption_keys(KeyEncryptionKeys::none().seal_clear_keys(true))
    }),
    ("extra_root_ca_pem", |b| b.extra_root_ca_pem("x")),
    ("in_flight_per_origin", |b| b.in_flight_per_origin(7)),
    ("in_flight_per_origin_at_least", |b| {
        b.in_flight_per_origin_at_least(7)
    }),
    ("retry_policy", |b| {
        b.retry_policy(RetryPolicy::new(MINUTE, MINUTE, 1))
    }),
    ("retire_at_most", |b| b.retire_at_most(99)),
    ("stable_topic", |b| b.stable_topic(true)),
    ("compose", |b| b.compose(Silent)),
    ("daily_text", |b| b.daily_text("x")),
    ("request_timeout", |b| b.request_timeout(MINUTE)),
    ("lease", |b| b.lease(MINUTE)),
    ("poll_interval", |b| b.poll_interval(Duration::from_secs(1))),
];

fn builder() -> WebPushBuilder {
    WebPush::builder("mailto:ops@example.com")
}

/// `build` reads only the fields, and they are all in the debug output.
#[test]
fn the_order_of_two_settings_does_not_matter() {
    let shown = |settings: &[Setting]| {
        let settings = settings.iter();
        format!("{:?}", settings.fold(builder(), |b, setting| setting(b)))
    };
    for (name, one) in SETTINGS {
        assert_ne!(shown(&[one]), shown(&[]), "{name} is not seen");
        for (other_name, other) in SETTINGS {
            assert_eq!(
                shown(&[one, other]),
                shown(&[other, one]),
                "{name} and {other_name}"
            );
        }
    }
}

#[tokio::test]
async fn the_applications_table_is_used_before_and_after_the_store_is_named() {
    for is_named_first in [true, false] {
        let (table, store) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
        let (own, rest) = (Arc::clone(&table), Arc::clone(&store));
        let builder = match is_named_first {
            true => builder().subscriptions(own).store(rest),
            false => builder().store(rest).subscriptions(own),
        };
        let push = builder.build().await.unwrap();
        let service = TestPushService::new();
        let browser = service.user_agent();
        let key = push.vapid_public_key();
        let new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
        let limits = SubscriptionLimits::default();
        table.upsert(&new, &limits, Timestamp::MIN).await.unwrap();
        let queued = push.enqueue(Audience::All, Message::new("x")).await;
        assert_eq!(queued.unwrap().recipients, 1, "{is_named_first}");
        assert_eq!(store.keys().await.unwrap().len(), 1, "{is_named_first}");
        assert_eq!(table.keys().await.unwrap().len(), 0, "{is_named_first}");
    }
}

/// One that was written to the other store would be written to none.
#[tokio::test]
async fn effects_on_subscriptions_are_written_to_the_applications_table() {
    let (table, store) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let service = TestPushService::builder().clock(clock.clone()).build();
    let builder = builder()
        .subscriptions(Arc::clone(&table))
        .store(Arc::clone(&store))
        .client(service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .clock(clock.clone());
    let push = builder.build().await.unwrap();
    let key = push.vapid_public_key();
    let subscription = service.user_agent().subscribe(&key).unwrap();
    let which = [SubscriptionRef::Key(subscription.endpoint().key())];
    let new = NewSubscription::new(subscription, KeyId::of(&key));
    let limits = SubscriptionLimits::default();
    table.upsert(&new, &limits, clock.now()).await.unwrap();
    let send = async || {
        // The keys of a row that is younger than a minute are not believed to be gone.
        clock.advance(2 * MINUTE);
        let queued = push.enqueue(Audience::All, Message::new("x")).await;
        assert_eq!(queued.unwrap().recipients, 1);
        while !push.tick().await.unwrap().is_idle() {}
        table.get(&which).await.unwrap().remove(0).unwrap()
    };
    assert_eq!(send().await.last_success_at, Some(clock.now()));
    service.script(When::any(), Answer::status(StatusCode::GONE));
    assert!(send().await.retired.is_some());
    assert_eq!(store.get(&which).await.unwrap(), [None]);
}

/// A key that is given with it does not make another application's store the expected one.
#[tokio::test]
async fn a_store_without_the_expected_key_is_refused_unless_it_is_new() {
    let given = || VapidKey::parse("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA").unwrap();
    let expected = given().id();
    let other = Arc::new(MemoryStore::new());
    let first = builder().store(Arc::clone(&other)).build().await.unwrap();
    let keys = other.keys().await.unwrap();
    assert_ne!(keys[0].id, expected);
    for builder in [builder(), builder().vapid_private_key(given())] {
        let builder = builder.store(Arc::clone(&other)).expect_vapid_key(expected);
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::OtherStore);
        let source = error.source().unwrap().to_string();
        assert!(source.contains(&expected.to_string()), "{source}");
        assert!(source.contains(&keys[0].id.to_string()), "{source}");
    }
    assert_eq!(other.keys().await.unwrap().len(), 1);
    assert_eq!(first.vapid_public_key().id(), keys[0].id);

    let new = Arc::new(MemoryStore::new());
    let expecting = || {
        let builder = builder().store(Arc::clone(&new));
        builder.expect_vapid_key(expected)
    };
    let error = expecting().build().await.unwrap_err();
    assert_eq!(error.kind(), BuildErrorKind::OtherStore);
    let push = expecting().vapid_private_key(given()).build().await;
    assert_eq!(push.unwrap().vapid_public_key().id(), expected);
    expecting().build().await.unwrap();
    assert_eq!(new.keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_setting_that_is_out_of_range_is_refused_by_its_name() {
    let policy = |base, cap, attempts| {
        let base = Duration::from_secs(base);
        RetryPolicy::new(base, Duration::from_secs(cap), attempts)
    };
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let nearly_five = Duration::from_millis(4_999);
    let long = "x".repeat(3_993);
    for (setting, refused, accepted) in [
        (
            "in_flight_per_origin",
            builder().in_flight_per_origin(0),
            builder().in_flight_per_origin(1),
        ),
        (
            "in_flight_per_origin_at_least",
            builder().in_flight_per_origin_at_least(0),
            builder().in_flight_per_origin_at_least(1),
        ),
        (
            "in_flight_per_origin_at_least",
            builder()
                .in_flight_per_origin(7)
                .in_flight_per_origin_at_least(8),
            builder()
                .in_flight_per_origin(7)
                .in_flight_per_origin_at_least(7),
        ),
        (
            "in_flight_per_origin",
            builder().in_flight_per_origin(usize::MAX),
            builder().in_flight_per_origin(usize::MAX >> 3),
        ),
        (
            "retry_policy",
            builder().retry_policy(policy(0, 1, 1)),
            builder().retry_policy(policy(1, 1, 1)),
        ),
        (
            "retry_policy",
            builder().retry_policy(policy(2, 1, 1)),
            builder().retry_policy(policy(2, 2, 1)),
        ),
        (
            "retry_policy",
            builder().retry_policy(policy(1, 1, 0)),
            builder().retry_policy(policy(1, 1, 1)),
        ),
        (
            "retire_at_most",
            builder().retire_at_most(101),
            builder().retire_at_most(100),
        ),
        (
            "daily_text",
            builder().daily_text(long.as_str()),
            builder().daily_text(&long[..3_900]),
        ),
        (
            "request_timeout",
            builder().request_timeout(Duration::ZERO),
            builder().request_timeout(Duration::from_nanos(1)),
        ),
        (
            "lease",
            builder()
                .request_timeout(second)
                .lease(second + nearly_five),
            builder().request_timeout(second).lease(second * 6),
        ),
        (
            // No clock can express a time that far ahead.
            "request_timeout",
            builder().request_timeout(Duration::MAX),
            builder().request_timeout(MINUTE * 60),
        ),
        (
            "lease",
            builder().lease(day + Duration::from_nanos(1)),
            builder().lease(day),
        ),
        (
            "poll_interval",
            builder().poll_interval(day + Duration::from_nanos(1)),
            builder().poll_interval(day),
        ),
        (
            "poll_interval",
            builder().poll_interval(Duration::ZERO),
            builder().poll_interval(Duration::from_nanos(1)),
        ),
    ] {
        let error = refused.build().await.unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::InvalidSetting(setting));
        assert!(error.to_string().contains(setting), "{error}");
        let rule = error.source().expect("the rule").to_string();
        assert!(rule.starts_with("must "), "{setting}: {rule}");
        accepted.build().await.expect(setting);
    }
}

#[tokio::test]
async fn a_contact_that_no_push_service_accepts_is_refused() {
    for contact in [
        "",
        "ops@example.com",
        "mailto:ops@localhost",
        "http://example.com",
    ] {
        let built = WebPush::builder(contact).build().await;
        let kind = BuildErrorKind::InvalidSetting("contact");
        assert_eq!(built.unwrap_err().kind(), kind, "{contact}");
    }
    let local = WebPush::builder("mailto:ops@localhost").insecure_local_contact();
    local.build().await.unwrap();
}

#[tokio::test]
async fn root_certificates_that_cannot_be_read_are_refused() {
    let built = builder().extra_root_ca_pem("no certificate").build().await;
    let kind = BuildErrorKind::InvalidSetting("extra_root_ca_pem");
    assert_eq!(built.unwrap_err().kind(), kind);
}

#[tokio::test]
async fn a_setting_without_effect_is_refused_by_its_name() {
    let ca = rcgen::generate_simple_self_signed(["push.example.com".to_owned()]).unwrap();
    let pem = ca.cert.pem();
    let clear = KeyEncryptionKeys::none().seal_clear_keys(true);
    let key = "3q2+7wZkO1T0mY8hJcXrQv5LxPz2sWcN9aBtUe0GiKo=";
    let encrypted = KeyEncryptionKeys::parse(key).unwrap();
    for (setting, unused, used) in [
        (
            "extra_root_ca_pem",
            builder()
                .extra_root_ca_pem(pem.clone())
                .client(TestPushService::new()),
            builder().extra_root_ca_pem(pem.clone()),
        ),
        (
            "insecure_local_contact",
            WebPush::builder_without_contact().insecure_local_contact(),
            builder().insecure_local_contact(),
        ),
        (
            "endpoint_policy",
            WebPush::builder_without_contact().endpoint_policy(EndpointPolicy::public_hosts()),
            builder().endpoint_policy(EndpointPolicy::public_hosts()),
        ),
        (
            "seal_clear_keys",
            builder().key_encryption_keys(clear),
            builder().key_encryption_keys(encrypted.seal_clear_keys(true)),
        ),
    ] {
        let error = unused.build().await.unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::UnusedSetting(setting));
        assert!(error.to_string().contains(setting), "{error}");
        used.build().await.expect(setting);
    }
}

/// The first key pair of a process takes as long as a thousand others: no worker of the runtime waits for it.
#[tokio::test]
async fn the_first_key_pair_is_made_on_a_blocking_thread_before_the_first_message() {
    #[derive(Debug, Default)]
    struct Watched(Mutex<Vec<ThreadId>>);
    impl P256 for Watched {
        fn agree(&self, peer: &UaPublicKey) -> Result<Agreement, CryptoError> {
            self.0.lock().unwrap().push(thread::current().id());
            p256::fastest().agree(peer)
        }

        fn agree_with(
            &self,
            own: &UaSecretKey,
            as_public: &[u8; 65],
        ) -> Result<SharedSecret, CryptoError> {
            p256::fastest().agree_with(own, as_public)
        }
    }
    let watched = Arc::new(Watched::default());
    let service = TestPushService::new();
    let push = builder()
        .p256(Arc::clone(&watched))
        .client(service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts());
    let push = push.build().await.unwrap();
    let threads = watched.0.lock().unwrap().clone();
    assert_eq!(threads.len(), 1);
    assert_ne!(threads[0], thread::current().id());
    // Messages are encrypted with the same backend.
    let key = push.vapid_public_key();
    let subscription = service.user_agent().subscribe(&key).unwrap();
    let sent = push.deliver(&subscription, Message::new("x")).await;
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(watched.0.lock().unwrap().len(), 2);
}
