//! Random calls on the memory store and on Redis, which return the same.

use std::collections::{BTreeMap, BTreeSet};

use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome, Tag};
use tower_web_push::message::Message;
use tower_web_push::store::{
    Change, ClaimRequest, ClaimToken, CountFilter, Cursor, DeliveryLedger, Idempotency,
    LedgerStats, Liveness, MemoryStore, NewBroadcast, NewDelivery, Opened, Pause, PauseReason,
    RetireReason, Settlement, SubscriptionLimits, SubscriptionRef, SubscriptionStore,
};
use tower_web_push::subscription::EndpointKey;
use tower_web_push::vapid::KeyId;

use super::world::{LEASE, at, delivery, endpoint, fresh_prefix, keys, store, subscription};
use crate::support::servers::{Kind, shared};

const STEPS: usize = 300;
const ROWS: usize = 12;

/// A small pseudorandom number generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("MODEL_SEEDS").ok();
    0..seeds.map_or(4, |seeds| seeds.parse().unwrap())
}

#[tokio::test]
async fn the_ledger_answers_as_in_memory() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    for seed in seeds() {
        ledger(&url, seed).await;
    }
}

async fn ledger(url: &str, seed: u64) {
    let mut dice = Dice(seed);
    let prefix = fresh_prefix();
    let (memory, redis) = (MemoryStore::new(), store(url, &prefix).await);
    let mut secs = 0;
    let mut opened: Vec<NewBroadcast> = Vec::new();
    // The cursor by broadcast, and both tokens by row. Old tokens may be used again.
    let mut cursors: BTreeMap<BroadcastId, usize> = BTreeMap::new();
    let mut held: Vec<(ClaimToken, ClaimToken)> = Vec::new();
    let cursor = |place: usize| match place {
        0 => Cursor::Start,
        ROWS.. => Cursor::End,
        place => Cursor::After(delivery(place - 1, 3).key),
    };
    let mut said = Vec::new();
    macro_rules! both {
        ($what:expr, |$store:ident| $call:expr) => {{
            let one = {
                let $store = &memory;
                $call
            };
            let other = {
                let $store = &redis;
                $call
            };
            said.push(format!("{secs} {} -> {one:?}", $what));
            assert_eq!(one, other, "seed {seed}: {said:#?}");
            one
        }};
    }
    for _ in 0..STEPS {
        let now = at(secs);
        match dice.roll(14) {
            0 | 1 => {
                let deadline = at(secs + 5 + i64::try_from(dice.roll(120)).unwrap());
                let mut new = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
                new.recipients = dice.roll(ROWS + 3) as u64;
                new.forget_when_over = dice.roll(4) == 0;
                if dice.roll(3) == 0 {
                    new.send_at = Some(at(secs - 5 + i64::try_from(dice.roll(40)).unwrap()));
                }
                if dice.roll(3) == 0 {
                    let key = format!("key-{}", dice.roll(4));
                    let print = [u8::try_from(dice.roll(2)).unwrap(); 32];
                    new.idempotency = Some(Idempotency::new(key, print));
                }
                if dice.roll(8) == 0
                    && let Some(known) = opened.last()
                {
                    new = known.clone();
                }
                let answer = both!("open", |store| store.open(&new, now).await.unwrap());
                if answer == Opened::New {
                    cursors.insert(new.id, 0);
                    opened.push(new);
                }
            }
            2..5 => {
                both!("expandable", |store| {
                    let due = store.expandable(100, now).await.unwrap();
                    let place: Vec<_> = due.iter().map(|due| due.id).collect();
                    place.into_iter().collect::<BTreeSet<_>>()
                });
                if opened.is_empty() {
                    continue;
                }
                let id = opened[dice.roll(opened.len())].id;
                let place = cursors[&id];
                let last = if dice.roll(2) == 0 {
                    ROWS
                } else {
                    (place + 1 + dice.roll(5)).min(ROWS)
                };
                // Some are recipients already.
                let first = place.saturating_sub(dice.roll(4));
                let rows: Vec<NewDelivery> = (first..last).map(|n| delivery(n, 3)).collect();
                let write = both!(format!("enqueue {id} {place}..{last}"), |store| store
                    .enqueue_page(id, &cursor(place), &rows, &cursor(last), now)
                    .await
                    .unwrap());
                if write == tower_web_push::store::PageWrite::Stored {
                    cursors.insert(id, last);
                }
            }
            5..7 => {
                let request = ClaimRequest::new(10_000, LEASE);
                let rows = |claims: tower_web_push::store::Claims| -> BTreeMap<_, _> {
                    claims
                        .rows
                        .into_iter()
                        .map(|row| {
                            (
                                (row.token.broadcast, row.token.key),
                                (row.token, row.origin, row.attempt, row.leased_until),
                            )
                        })
                        .collect()
                };
                let one = rows(memory.claim(&request, now).await.unwrap());
                let other = rows(redis.claim(&request, now).await.unwrap());
                let bare = |rows: &BTreeMap<
                    (BroadcastId, EndpointKey),
                    (ClaimToken, _, u32, _),
                >|
                 -> Vec<_> {
                    rows.iter()
                        .map(|(name, row)| (*name, format!("{:?}", row.1), row.2, row.3))
                        .collect()
                };
                said.push(format!("{secs} claim -> {}", one.len()));
                assert_eq!(bare(&one), bare(&other), "seed {seed}: {said:#?}");
                for (one, other) in one.values().zip(other.values()) {
                    held.push((one.0, other.0));
                }
            }
            7..10 => {
                let mut ends = (Vec::new(), Vec::new());
                for _ in 0..dice.roll(20) {
                    if held.is_empty() {
                        break;
                    }
                    let place = dice.roll(held.len());
                    let tokens = held[place];
                    if dice.roll(4) > 0 {
                        held.swap_remove(place);
                    }
                    let later = at(secs + i64::try_from(dice.roll(30)).unwrap());
                    let end = match dice.roll(4) {
                        0 => Settlement::RetryAt(later),
                        1 => Settlement::Deferred(later),
                        _ => Settlement::Finished(FinalOutcome::ALL[dice.roll(10)]),
                    };
                    ends.0.push((tokens.0, end));
                    ends.1.push((tokens.1, end));
                }
                let one = memory.settle(&ends.0, now).await.unwrap();
                let other = redis.settle(&ends.1, now).await.unwrap();
                said.push(format!("{secs} settle {:?} -> {one:?}", ends.0));
                assert_eq!(one, other, "seed {seed}: {said:#?}");
            }
            10 => {
                let mut tokens = (Vec::new(), Vec::new());
                for _ in 0..dice.roll(6) {
                    if held.is_empty() {
                        break;
                    }
                    let (one, other) = held[dice.roll(held.len())];
                    tokens.0.push(one);
                    tokens.1.push(other);
                }
                said.push(format!("{secs} release {:?}", tokens.0));
                memory.release(&tokens.0, now).await.unwrap();
                redis.release(&tokens.1, now).await.unwrap();
            }
            11 => {
                if opened.is_empty() {
                    continue;
                }
                let new = &opened[dice.roll(opened.len())];
                let (id, forgets) = (new.id, new.forget_when_over);
                if dice.roll(3) == 0 {
                    // A broadcast that was deleted at once may return nothing.
                    both!(format!("cancel {id}"), |store| {
                        let status = store.cancel(id, now).await.unwrap();
                        status.filter(|_| !forgets)
                    });
                } else {
                    both!("expire", |store| store.expire(10_000, now).await.unwrap());
                }
            }
            12 => {
                if dice.roll(4) == 0 {
                    let before = at(secs - 20);
                    both!("prune", |store| store.prune(before).await.unwrap());
                } else {
                    let until = at(secs - 5 + i64::try_from(dice.roll(30)).unwrap());
                    let pause = Pause::new(
                        delivery(dice.roll(3), 3).origin,
                        until,
                        PauseReason::RateLimited,
                    );
                    both!(format!("pause {pause:?}"), |store| store
                        .pause(&pause, now)
                        .await
                        .unwrap());
                }
            }
            _ => secs += i64::try_from(dice.roll(20)).unwrap(),
        }
        let now = at(secs);
        for new in &opened {
            both!("status", |store| store.status(new.id, now).await.unwrap());
        }
        both!("stats", |store| {
            let stats: LedgerStats = store.stats(now).await.unwrap();
            (stats.depth, stats.leased)
        });
        both!("underway", |store| {
            let underway = store.underway(100, now).await.unwrap();
            underway
                .into_iter()
                .map(|status| status.id)
                .collect::<BTreeSet<_>>()
        });
        both!("pauses", |store| {
            let mut pauses = store.pauses(now).await.unwrap();
            pauses.sort_by_key(|pause| pause.origin.clone());
            pauses
        });
        // It may be earlier but not later, and both agree on whether it is now.
        let one = memory.next_due(now).await.unwrap();
        let other = redis.next_due(now).await.unwrap();
        assert_eq!(one, other, "seed {seed} next_due: {said:#?}");
    }
    // Nothing is left at the end.
    let late = at(secs + 100_000);
    loop {
        let rows = redis
            .claim(&ClaimRequest::new(10_000, LEASE), late)
            .await
            .unwrap()
            .rows;
        if rows.is_empty() {
            break;
        }
        let ends: Vec<_> = rows
            .iter()
            .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
            .collect();
        redis.settle(&ends, late).await.unwrap();
    }
    redis.expire(100_000, late).await.unwrap();
    redis.prune(at(secs + 200_000)).await.unwrap();
    assert_eq!(keys(url, &prefix).await, ["format", "meta"], "seed {seed}");
}

#[tokio::test]
async fn subscriptions_answer_as_in_memory() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    for seed in seeds() {
        subscriptions(&url, seed).await;
    }
}

async fn subscriptions(url: &str, seed: u64) {
    let mut dice = Dice(seed);
    let prefix = fresh_prefix();
    let (memory, redis) = (MemoryStore::new(), store(url, &prefix).await);
    let mut secs = 0;
    let mut said = Vec::new();
    let vapid = |number: usize| KeyId::from_bytes([u8::try_from(number).unwrap(); KeyId::LEN]);
    let tag = |number: usize| Tag::parse(&format!("tag-{number}")).unwrap();
    let names = ["", "alice", "=b}|{", "c\n\0d"];
    macro_rules! both {
        ($what:expr, |$store:ident| $call:expr) => {{
            let one = {
                let $store = &memory;
                $call
            };
            let other = {
                let $store = &redis;
                $call
            };
            said.push(format!("{secs} {} -> {one:?}", $what));
            assert_eq!(one, other, "seed {seed}: {said:#?}");
            one
        }};
    }
    let mut ids = Vec::new();
    for _ in 0..STEPS {
        secs += 1;
        let now = at(secs);
        match dice.roll(8) {
            0..4 => {
                let mut new = subscription(dice.roll(12));
                if dice.roll(2) == 0 {
                    new.principal = Some(names[dice.roll(4)].into());
                }
                if dice.roll(2) == 0 {
                    new.tags = Some((0..dice.roll(3)).map(tag).collect());
                }
                if dice.roll(3) == 0 {
                    new.vapid_key = Some(vapid(dice.roll(3)));
                }
                if dice.roll(2) == 0 {
                    new.subscription = new.subscription.with_expiration_time(Some(at(secs
                        + i64::try_from(dice.roll(40)).unwrap()
                        - 5)));
                }
                if dice.roll(3) == 0 {
                    new.replaces = Some(endpoint(dice.roll(12)).key());
                }
                new.only_if_unknown = dice.roll(9) == 0;
                ids.push(new.id);
                let limits = SubscriptionLimits::new(
                    3 + dice.roll(9) as u64,
                    u32::try_from(dice.roll(5)).unwrap(),
                )
                .with_unproven(dice.roll(6) as u64);
                both!(format!("upsert {new:?} {limits:?}"), |store| {
                    store
                        .upsert(&new, &limits, now)
                        .await
                        .map_err(|error| error.kind())
                })
                .ok();
            }
            4..7 => {
                let changes: Vec<_> = (0..dice.roll(5))
                    .map(|_| {
                        let key = endpoint(dice.roll(12)).key();
                        let observed_at = at(secs - i64::try_from(dice.roll(10)).unwrap());
                        match dice.roll(8) {
                            0 => Change::Delete(key),
                            1 => Change::Accepted(key),
                            2 => Change::Failed(key),
                            3 | 4 => Change::Retire {
                                key,
                                reason: RetireReason::Gone,
                                observed_at,
                            },
                            5 => Change::Stale { key, observed_at },
                            6 => Change::UseVapidKey {
                                key,
                                vapid_key: vapid(dice.roll(3)),
                            },
                            _ => Change::Purge {
                                before: observed_at,
                                expired_before: observed_at,
                            },
                        }
                    })
                    .collect();
                both!(format!("apply {changes:?}"), |store| store
                    .apply(&changes, now)
                    .await
                    .unwrap());
            }
            _ => {
                let which: Vec<_> = ids.iter().copied().map(SubscriptionRef::Id).collect();
                both!("get", |store| store.get(&which).await.unwrap());
            }
        }
        let keys: Vec<_> = (0..12)
            .map(|n| SubscriptionRef::Key(endpoint(n).key()))
            .collect();
        both!("get", |store| store.get(&keys).await.unwrap());
        if dice.roll(8) > 0 {
            continue;
        }
        let mut audiences = vec![Audience::All];
        audiences.extend(names.map(|name| Audience::User(name.into())));
        audiences.extend((0..3).map(|number| Audience::Tag(tag(number))));
        audiences.push(Audience::Ids(ids.iter().copied().rev().take(30).collect()));
        for audience in audiences {
            let limit = 1 + dice.roll(6);
            let after = endpoint(dice.roll(12)).key();
            let after = (dice.roll(2) == 0).then_some(&after);
            both!("page", |store| store
                .page(&audience, after, limit, now)
                .await
                .unwrap());
            for liveness in [
                Liveness::Live,
                Liveness::Stale,
                Liveness::Retired,
                Liveness::Any,
            ] {
                let mut filter = CountFilter::new(audience.clone(), liveness);
                if dice.roll(3) == 0 {
                    filter.vapid_key = Some(vapid(dice.roll(3)));
                }
                both!(format!("count {filter:?}"), |store| store
                    .count(&filter, now)
                    .await
                    .unwrap());
            }
        }
    }
    let all: Vec<_> = (0..12).map(|n| Change::Delete(endpoint(n).key())).collect();
    redis.apply(&all, at(secs)).await.unwrap();
    assert_eq!(keys(url, &prefix).await, ["format"], "seed {seed}");
}
