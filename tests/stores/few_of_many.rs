//! Lists of a user, of a tag and of dead rows read these rows and not those of others: an operator who asks for a user finds all
//! of it on the first page, however many subscriptions there are.

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    Change, Failure, Liveness, MemoryStore, NewSubscription, RetireReason, STEP,
    SubscriptionFilter, SubscriptionLimits, SubscriptionStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, EndpointKey, Subscription, UaPublicKey};
use tower_web_push::vapid::KeyId;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const FEW: usize = 3;

fn endpoint(number: usize) -> Endpoint {
    Endpoint::parse(&format!("https://push.example.net/{number}")).unwrap()
}

fn subscription(endpoint: Endpoint) -> NewSubscription {
    let auth = AuthSecret::from_bytes(&[7; AuthSecret::LEN]).unwrap();
    let ua_public = UaPublicKey::parse(P256DH).unwrap();
    let subscription = Subscription::new(endpoint, ua_public, auth);
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

/// Stores more rows than one call may look at, and some that have the last keys: these have a user and a tag, and are retired.
/// Returns their keys.
async fn few_behind_many<S: SubscriptionStore>(store: &S) -> Vec<EndpointKey> {
    let mut endpoints: Vec<_> = (0..=STEP + FEW).map(endpoint).collect();
    endpoints.sort_unstable_by_key(Endpoint::key);
    let few: Vec<_> = endpoints[STEP + 1..].iter().map(Endpoint::key).collect();
    let upserts = endpoints.into_iter().map(|endpoint| {
        let mut new = subscription(endpoint);
        if few.contains(&new.key()) {
            new.principal = Some("alice".into());
            new.tags = Some(["news".parse().unwrap()].into());
        }
        async move {
            let limits = SubscriptionLimits::default();
            store.upsert(&new, &limits, NOW).await.unwrap();
        }
    });
    iter(upserts).buffer_unordered(32).collect::<()>().await;
    let retired = few.iter().map(|key| Change::Retire {
        key: *key,
        reason: RetireReason::Gone,
        observed_at: NOW,
        failure: Failure::default(),
    });
    store
        .apply(&retired.collect::<Vec<_>>(), NOW)
        .await
        .unwrap();
    few
}

async fn are_on_one_page<S: SubscriptionStore>(
    store: &S,
    few: &[EndpointKey],
    filter: SubscriptionFilter,
) {
    let page = store.list_subscriptions(&filter, None, FEW + 1, NOW).await;
    let page = page.unwrap();
    let keys = page
        .rows
        .iter()
        .map(|row| row.subscription.endpoint().key());
    assert_eq!(keys.collect::<Vec<_>>(), few, "{filter:?}");
    assert_eq!(page.next, None, "{filter:?}");
}

async fn those_of_a_user_and_a_tag<S: SubscriptionStore>(store: &S) -> Vec<EndpointKey> {
    let few = few_behind_many(store).await;
    for liveness in [Liveness::Any, Liveness::Retired] {
        let all = SubscriptionFilter {
            liveness,
            ..SubscriptionFilter::default()
        };
        let of_user = SubscriptionFilter {
            user: Some("alice".into()),
            ..all.clone()
        };
        let of_tag = SubscriptionFilter {
            tag: Some("news".parse().unwrap()),
            ..all.clone()
        };
        are_on_one_page(store, &few, of_user).await;
        are_on_one_page(store, &few, of_tag).await;
    }
    few
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
async fn those_and_dead_ones<S: SubscriptionStore>(store: &S) {
    let few = those_of_a_user_and_a_tag(store).await;
    let retired = SubscriptionFilter {
        liveness: Liveness::Retired,
        ..SubscriptionFilter::default()
    };
    are_on_one_page(store, &few, retired).await;
}

#[tokio::test]
async fn few_among_many_are_on_one_page_in_memory() {
    those_of_a_user_and_a_tag(&MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use tower_web_push::store::SqliteStore;

    #[tokio::test]
    async fn few_among_many_are_on_one_page() {
        super::those_and_dead_ones(&SqliteStore::open_in_memory().await.unwrap()).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use crate::postgres::world::Schema;

    #[tokio::test]
    async fn few_among_many_are_on_one_page() {
        if let Some(schema) = Schema::fresh() {
            super::those_and_dead_ones(&schema.store().await).await;
        }
    }
}

#[cfg(feature = "redis")]
mod redis {
    use crate::redis::world::{fresh_prefix, store};
    use crate::support::servers::{Kind, shared};

    #[tokio::test]
    async fn few_among_many_are_on_one_page() {
        if let Some(url) = shared(Kind::Redis) {
            super::those_and_dead_ones(&store(&url, &fresh_prefix()).await).await;
        }
    }
}
