//! The same calls on the memory store and on each other store, at random: both answer the same.

use tower_web_push::broadcast::{Audience, Tag};
use tower_web_push::clock::Timestamp;
use tower_web_push::push_service::PushService;
use tower_web_push::store::rules::takes;
use tower_web_push::store::{
    Change, CountFilter, Failure, LiveCounts, Liveness, MemoryStore, NewSubscription, RedisStore,
    RetireReason, SqliteStore, SubscriptionFilter, SubscriptionLimits, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey,
};
use tower_web_push::vapid::KeyId;

use crate::application_file::ApplicationFile;
use crate::postgres::world::Schema;
use crate::redis::world::{fresh_prefix, keys};
use crate::support::servers::{Kind, shared};

/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const STEPS: usize = 200;
const ENDPOINTS: usize = 12;
/// Moments to begin at: before 1970, in 2027, and before the end of the year 9999.
const BEGINS: [i64; 3] = [-100, 1_800_000_000, 253_402_300_700];
const NAMES: [&str; 4] = ["", "alice", "=b}|{", "c\n\0d"];

/// Numbers that are spread enough.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn secs(&mut self, sides: usize) -> i64 {
        i64::try_from(self.roll(sides)).unwrap()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }

    fn endpoint(&mut self) -> Endpoint {
        endpoint(self.roll(ENDPOINTS))
    }
}

/// The seeds: `number` of them, or the number that `MODEL_SEEDS` sets.
fn seeds(number: u64) -> std::ops::Range<u64> {
    let seeds = std::env::var("MODEL_SEEDS").ok();
    0..seeds.map_or(number, |seeds| seeds.parse().unwrap())
}

/// Of three push services.
fn endpoint(number: usize) -> Endpoint {
    let host = [
        "fcm.googleapis.com",
        "web.push.apple.com",
        "push.example.net",
    ][number % 3];
    Endpoint::parse(&format!("https://{host}/{number}")).unwrap()
}

fn vapid(number: usize) -> KeyId {
    KeyId::from_bytes([u8::try_from(number).unwrap(); KeyId::LEN])
}

fn tag(number: usize) -> Tag {
    Tag::parse(&format!("tag-{number}")).unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn new_subscription(dice: &mut Dice, secs: i64) -> NewSubscription {
    // The keys of a row that was there before, most of the time.
    let auth = [u8::from(dice.chance(5)); AuthSecret::LEN];
    let auth = AuthSecret::from_bytes(&auth).unwrap();
    let ua_public = UaPublicKey::parse(P256DH).unwrap();
    let mut subscription = Subscription::new(dice.endpoint(), ua_public, auth);
    if dice.chance(2) {
        let expires_at = at(secs + dice.secs(40) - 5);
        subscription = subscription.with_expiration_time(Some(expires_at));
    }
    let mut new = NewSubscription::new(subscription, vapid(1));
    if dice.chance(2) {
        new.principal = Some(NAMES[dice.roll(NAMES.len())].into());
    }
    if dice.chance(2) {
        new.tags = Some((0..dice.roll(3)).map(tag).collect());
    }
    new.vapid_key = dice.chance(3).then(|| vapid(dice.roll(3)));
    new.replaces = dice.chance(3).then(|| dice.endpoint().key());
    new.only_if_unknown = dice.chance(9);
    new
}

fn change(dice: &mut Dice, secs: i64) -> Change {
    let key = dice.endpoint().key();
    let observed_at = at(secs - dice.secs(10));
    let reason = RetireReason::ALL[dice.roll(RetireReason::ALL.len())];
    let failure = Failure::new(
        [None, Some(410), Some(503)][dice.roll(3)],
        [None, Some("timeout"), Some("not registered")][dice.roll(3)],
    );
    match dice.roll(9) {
        0 => Change::Delete {
            key,
            principal: dice.chance(2).then(|| NAMES[dice.roll(NAMES.len())].into()),
            observed_at,
        },
        1 | 2 => Change::Accepted(key),
        3 => Change::Failed { key, failure },
        4 | 5 => Change::Retire {
            key,
            reason,
            observed_at,
            failure,
        },
        6 => Change::Stale {
            key,
            observed_at,
            failure,
        },
        7 => Change::UseVapidKey {
            key,
            vapid_key: vapid(dice.roll(3)),
        },
        _ => Change::Purge {
            before: observed_at,
            expired_before: at(secs - dice.secs(10)),
        },
    }
}

/// Both answer the same, or `$said` tells how it came to that.
macro_rules! same {
    ($said:ident, $memory:expr, $other:expr, $what:expr) => {{
        let (one, other) = ($memory, $other);
        $said.push(format!("{} -> {one:?}", $what));
        assert_eq!(one, other, "{:#?}", $said);
    }};
}

async fn compare(other: &dyn SubscriptionStore, seed: u64) {
    let mut dice = Dice(seed);
    let memory = MemoryStore::new();
    let mut secs = BEGINS[usize::try_from(seed).unwrap() % BEGINS.len()];
    let mut said = vec![format!("seed {seed}")];
    let mut ids = Vec::new();
    for _ in 0..STEPS {
        secs += 1;
        let now = at(secs);
        if dice.chance(2) {
            let new = new_subscription(&mut dice, secs);
            ids.push(new.id);
            let per_principal = u32::try_from(dice.roll(5)).unwrap();
            let limits = SubscriptionLimits::new(3 + dice.roll(9) as u64, per_principal)
                .with_unproven(dice.roll(6) as u64);
            let one = memory.upsert(&new, &limits, now).await;
            let other = other.upsert(&new, &limits, now).await;
            let kind = |error: tower_web_push::store::StoreError| error.kind();
            let what = format!("{secs} upsert {new:?} {limits:?}");
            same!(said, one.map_err(kind), other.map_err(kind), what);
        } else {
            let changes: Vec<_> = (0..dice.roll(6)).map(|_| change(&mut dice, secs)).collect();
            let one = memory.apply(&changes, now).await.unwrap();
            let other = other.apply(&changes, now).await.unwrap();
            same!(said, one, other, format!("{secs} apply {changes:?}"));
        }
        let by_key = (0..ENDPOINTS).map(|n| SubscriptionRef::Key(endpoint(n).key()));
        let by_id = ids.iter().rev().take(20).copied().map(SubscriptionRef::Id);
        let which: Vec<_> = by_key.chain(by_id).collect();
        let rows = memory.get(&which).await.unwrap();
        same!(said, &rows, &other.get(&which).await.unwrap(), "get");
        if dice.chance(8) {
            let rows: Vec<_> = rows.into_iter().take(ENDPOINTS).flatten().collect();
            compare_walks(&memory, other, &mut dice, (&ids, &rows), now, &said).await;
        }
    }
    for limit in [0, 1] {
        let nothing = memory.page(&Audience::All, None, limit, at(secs)).await;
        let other = other.page(&Audience::All, None, limit, at(secs)).await;
        same!(said, nothing.unwrap(), other.unwrap(), "page");
    }
    assert_eq!(other.get(&[]).await.unwrap(), []);
    let all: Vec<_> = (0..ENDPOINTS)
        .map(|n| SubscriptionRef::Key(endpoint(n).key()))
        .collect();
    let all = other.get(&all).await.unwrap();
    let all: Vec<_> = all.iter().flatten().map(Change::delete).collect();
    other.apply(&all, at(secs)).await.unwrap();
    let any = CountFilter::new(Audience::All, Liveness::Any);
    assert_eq!(other.count(&any, at(secs)).await.unwrap(), 0, "seed {seed}");
}

/// Pages and counts of every audience. Stores keep numbers, and so their counts are compared with the rows that there are.
async fn compare_walks(
    memory: &MemoryStore,
    other: &dyn SubscriptionStore,
    dice: &mut Dice,
    (ids, rows): (&[SubscriptionId], &[SubscriptionRecord]),
    now: Timestamp,
    said: &[String],
) {
    let mut said = said.to_vec();
    let after = dice.endpoint().key();
    let after = dice.chance(2).then_some(&after);
    let limit = 1 + dice.roll(6);
    let mut audiences = vec![Audience::All, Audience::Ids(Vec::new())];
    audiences.extend((0..3).map(|number| Audience::Tag(tag(number))));
    audiences.push(Audience::Ids(ids.iter().copied().rev().take(30).collect()));
    for name in NAMES {
        let user = name.into();
        let one = memory.owned_by(&user, after, limit).await.unwrap();
        let other = other.owned_by(&user, after, limit).await.unwrap();
        same!(
            said,
            one,
            other,
            format!("owned by {user:?} {after:?} {limit}")
        );
        audiences.push(Audience::User(user));
    }
    for audience in audiences {
        let one = memory.page(&audience, after, limit, now).await.unwrap();
        let page = other.page(&audience, after, limit, now).await.unwrap();
        same!(
            said,
            one,
            page,
            format!("page {audience:?} {after:?} {limit}")
        );
        for liveness in [
            Liveness::Live,
            Liveness::Stale,
            Liveness::Retired,
            Liveness::Any,
        ] {
            let mut filter = CountFilter::new(audience.clone(), liveness);
            filter.vapid_key = dice.chance(3).then(|| vapid(dice.roll(3)));
            let service = PushService::of(&dice.endpoint());
            filter.push_service = dice.chance(3).then_some(service);
            let there = rows.iter().filter(|row| takes(&filter, row, now));
            let there = there.count() as u64;
            let one = memory.count(&filter, now).await.unwrap();
            same!(said, there, one, format!("count {filter:?} in memory"));
            let other = other.count(&filter, now).await.unwrap();
            same!(said, there, other, format!("count {filter:?}"));
        }
    }
    for liveness in [
        Liveness::Live,
        Liveness::Stale,
        Liveness::Retired,
        Liveness::Any,
    ] {
        let service = PushService::of(&dice.endpoint());
        let filter = SubscriptionFilter {
            user: dice.chance(3).then(|| NAMES[dice.roll(NAMES.len())].into()),
            tag: dice.chance(3).then(|| tag(dice.roll(3))),
            push_service: dice.chance(3).then_some(service),
            liveness,
        };
        let one = memory.list_subscriptions(&filter, after, limit, now).await;
        let listed = other.list_subscriptions(&filter, after, limit, now).await;
        let (one, listed) = (one.unwrap(), listed.unwrap());
        same!(
            said,
            one.rows,
            listed.rows,
            format!("list {filter:?} {after:?} {limit}")
        );
    }
    let keys = [vapid(0), vapid(2), vapid(9)];
    let mut there = LiveCounts::none(&keys);
    for row in rows.iter().filter(|row| row.is_live(now)) {
        let service = PushService::of(row.subscription.endpoint());
        there.add(service.as_str(), &row.vapid_key, 1);
    }
    let one = memory.count_live(&keys, now).await.unwrap();
    same!(said, &there, &one, "count_live in memory");
    let other = other.count_live(&keys, now).await.unwrap();
    same!(said, &there, &other, "count_live");
}

#[tokio::test]
async fn sqlite_answers_as_memory_does() {
    for seed in seeds(12) {
        compare(&SqliteStore::open_in_memory().await.unwrap(), seed).await;
    }
}

#[tokio::test]
async fn sqlite_in_an_applications_file_answers_as_memory_does() {
    for seed in seeds(3) {
        let file = ApplicationFile::new();
        compare(&file.store().await, seed).await;
    }
}

#[tokio::test]
async fn postgres_answers_as_memory_does() {
    for seed in seeds(3) {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        compare(&schema.store().await, seed).await;
    }
}

#[tokio::test]
async fn redis_answers_as_memory_does_and_leaves_no_key() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    for seed in seeds(6) {
        let prefix = fresh_prefix();
        let store = RedisStore::builder().prefix(&prefix).connect(&url).await;
        compare(&store.unwrap(), seed).await;
        assert_eq!(keys(&url, &prefix).await, ["format"], "seed {seed}");
    }
}
