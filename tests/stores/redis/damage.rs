//! Damage of one broadcast's content does not hold up the others (L3, L5, L17).

use std::num::NonZeroU32;

use tower_web_push::broadcast::Audience;
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{
    Change, Claimed, Cursor, DeliveryLedger as _, Failure, Fired, Firing, NewBroadcast, Page,
    PortableStore as _, RetireReason, ScheduleStore as _, Settlement, SubscriptionLimits,
    SubscriptionRecord, SubscriptionRef, SubscriptionStore as _, redis_rs,
};
use tower_web_push::subscription::SubscriptionId;
use tower_web_push::vapid::KeyId;

use super::world::{
    ask, at, claim, connection, delivery, fresh_prefix, keys, recipient, sending, status, store,
    subscription,
};
use crate::support::servers::{self, Kind};
use crate::unreadable::{
    Damaged, a_damaged_row_gives_its_id, a_damaged_row_is_left_out, both_are_claimed_again,
    damage_of_one_origin_stays_there, damaged_counts_hold_up_no_others, damaged_names,
    holds_up_no_others, put_origins, put_rows_at_two_origins, put_schedules, put_subscriptions,
    the_healthy_origin_is_claimed, the_healthy_schedule_is_due,
};

#[tokio::test]
async fn a_broadcast_that_cannot_be_read_holds_up_no_others() {
    damaged_by("c", "audience", Some("?")).await;
    // Missing.
    damaged_by("c", "audience", None).await;
    damaged_by("b", "cursor", None).await;
    for pace in ["?", "0", "-1", "0.5", "4294967296"] {
        damaged_by("b", "pace", Some(pace)).await;
    }
}

async fn damaged_by(kind: &str, field: &str, value: Option<&str>) {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let damaged = sending(&store, 2, 1).await;
    let healthy = sending(&store, 3, 1).await;
    let open = || NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    let (mut unread, read) = (open(), open());
    unread.pace = NonZeroU32::new(7);
    for new in [&unread, &read] {
        store.open(new, at(0)).await.unwrap();
    }
    let mut connection = connection(&url).await;
    for (id, kind, field, value) in [
        (damaged, "c", "urgency", Some("?")),
        (unread.id, kind, field, value),
    ] {
        let mut key = format!("{{{prefix}}}:{kind}:").into_bytes();
        key.extend_from_slice(id.as_bytes());
        let mut change = redis_rs::cmd(value.map_or("HDEL", |_| "HSET"));
        change.arg(key).arg(field).arg(value);
        let changed: i64 = change.query_async(&mut connection).await.unwrap();
        assert_eq!(changed, i64::from(value.is_none()), "the field exists");
    }
    let damaged = Damaged {
        unread: unread.id,
        read: read.id,
        healthy,
        rows: 5,
    };
    holds_up_no_others(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    put_schedules(&store, at(1)).await;
    let mut connection = connection(&url).await;
    let mut damage = redis_rs::cmd("HSET");
    damage.arg(format!("{{{prefix}}}:d:a"));
    for name in damaged_names() {
        damage.arg(name).arg("?");
    }
    let added: i64 = damage.query_async(&mut connection).await.unwrap();
    assert_eq!(added, 0, "the field exists");
    the_healthy_schedule_is_due(&store, at(1)).await;
}

/// Sets a field that exists.
async fn damage(url: &str, key: &[u8], field: &[u8]) {
    let mut set = redis_rs::cmd("HSET");
    set.arg(key).arg(field).arg("?");
    let added: i64 = set.query_async(&mut connection(url).await).await.unwrap();
    assert_eq!(added, 0, "the field exists");
}

#[tokio::test]
async fn damaged_counts_of_a_broadcast_hold_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    for field in [
        "rows", "written", "due_at", "deadline", "place", "band", "held",
    ] {
        let prefix = fresh_prefix();
        let store = store(&url, &prefix).await;
        let damaged = sending(&store, 2, 1).await;
        let healthy = sending(&store, 3, 1).await;
        for is_held in [true, false] {
            store.hold(damaged, is_held, at(1)).await.unwrap();
        }
        let mut key = format!("{{{prefix}}}:b:").into_bytes();
        key.extend_from_slice(damaged.as_bytes());
        damage(&url, &key, field.as_bytes()).await;
        let both = (damaged, healthy);
        damaged_counts_hold_up_no_others(&store, both, (at(1), at(3600))).await;
    }
}

/// With its counts a broadcast has lost that it is paused. Its rows, which are aside, end at its deadline, and nothing of it is
/// left.
#[tokio::test]
async fn a_paused_broadcast_without_counts_leaves_nothing_aside() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let id = sending(&store, 4, 2).await;
    store.hold(id, true, at(1)).await.unwrap();
    assert_eq!(claim(&store, 9, at(1)).await.len(), 0);
    let is_of_it = |key: &String| key.starts_with("a:") || key == "asides";
    let left = keys(&url, &prefix).await.into_iter().filter(is_of_it);
    assert_eq!(left.count(), 2, "its rows are aside");
    let mut counts = format!("{{{prefix}}}:b:").into_bytes();
    counts.extend_from_slice(id.as_bytes());
    let mut delete = redis_rs::cmd("DEL");
    let deleted: i64 = delete
        .arg(counts)
        .query_async(&mut connection(&url).await)
        .await
        .unwrap();
    assert_eq!(deleted, 1);
    assert_eq!(store.expire(9, at(3600)).await.unwrap(), 4);
    let left = keys(&url, &prefix).await.into_iter().filter(is_of_it);
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn an_origin_whose_name_cannot_be_read_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    for name in [b"?".as_slice(), b"\xff"] {
        let prefix = fresh_prefix();
        let store = store(&url, &prefix).await;
        let (new, damaged) = put_rows_at_two_origins(&store, at(1)).await;
        let mut connection = connection(&url).await;
        let key = |parts: &[&[u8]]| [format!("{{{prefix}}}:").as_bytes(), &parts.concat()].concat();
        let old = damaged.as_str().as_bytes();
        let id = new.id.as_bytes();
        for (from, to) in [
            (key(&[b"o:", old]), key(&[b"o:", name])),
            (key(&[b"q:", old, b":", id]), key(&[b"q:", name, b":", id])),
        ] {
            let mut rename = redis_rs::cmd("RENAME");
            rename.arg(from).arg(to);
            let _: () = rename.query_async(&mut connection).await.unwrap();
        }
        let mut add = redis_rs::cmd("ZADD");
        add.arg(key(&[b"ready"])).arg(0).arg(name);
        let added: i64 = add.query_async(&mut connection).await.unwrap();
        assert_eq!(added, 1);
        the_healthy_origin_is_claimed(&store, at(1)).await;
    }
}

#[tokio::test]
async fn numbers_that_are_only_counted_on_stop_no_claim() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let (new, damaged) = put_rows_at_two_origins(&store, at(1)).await;
    let connection = connection(&url).await;
    // Too large for any integer.
    let number = "99999999999999999999";
    let states = [format!("{{{prefix}}}:s:").as_bytes(), new.id.as_bytes()].concat();
    let turns = format!("{{{prefix}}}:turns");
    let damage = async || {
        let mut connection = connection.clone();
        let mut set = redis_rs::cmd("HSET");
        set.arg(&turns)
            .arg(damaged.as_str())
            .arg(format!("0:0:0:{number}"));
        let _: i64 = set.query_async(&mut connection).await.unwrap();
        let mut rows = redis_rs::cmd("HGETALL");
        let rows = rows.arg(&states).query_async(&mut connection).await;
        let rows: Vec<(Vec<u8>, String)> = rows.unwrap();
        for (row, state) in rows {
            let parts: Vec<_> = state.splitn(3, ':').collect();
            let state = format!("{}:{number}:{}", parts[0], parts[2]);
            let mut set = redis_rs::cmd("HSET");
            set.arg(&states).arg(row).arg(state);
            let _: i64 = set.query_async(&mut connection).await.unwrap();
        }
    };
    both_are_claimed_again(&store, damage, at(1)).await;
}

#[tokio::test]
async fn damage_of_one_origin_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let damaged = put_origins(&store, at(1)).await;
    for hash in ["pauses", "tallies"] {
        let key = format!("{{{prefix}}}:{hash}").into_bytes();
        damage(&url, &key, damaged.as_str().as_bytes()).await;
    }
    damage_of_one_origin_stays_there(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn a_subscription_that_cannot_be_read_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let some = [1, 2, 3].map(subscription);
    let damaged = put_subscriptions(&store, some, at(0)).await;
    let key = format!("{{{prefix}}}:rows").into_bytes();
    damage(&url, &key, damaged.0.as_bytes()).await;
    a_damaged_row_is_left_out(&store, damaged, at(1)).await;
}

#[tokio::test]
async fn a_subscription_that_cannot_be_read_gives_its_id() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    for is_missing in [false, true] {
        let prefix = fresh_prefix();
        let store = store(&url, &prefix).await;
        let new = subscription(1);
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, at(0)).await.unwrap();
        let key = format!("{{{prefix}}}:rows").into_bytes();
        damage(&url, &key, new.key().as_bytes()).await;
        if is_missing {
            let mut delete = redis_rs::cmd("HDEL");
            delete.arg(&key).arg(new.key().as_bytes());
            let deleted: i64 = delete
                .query_async(&mut connection(&url).await)
                .await
                .unwrap();
            assert_eq!(deleted, 1);
        }
        a_damaged_row_gives_its_id(&store, (new.id, subscription(2)), at(1)).await;
        // The row is gone.
        let there = store.get(&[SubscriptionRef::Key(new.key())]).await.unwrap();
        assert_eq!(there, [None], "{is_missing}");
    }
}

/// The index of ids names one that has another id: that one stays.
#[tokio::test]
async fn an_id_that_names_another_row_is_free() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let [new, other] = [1, 2].map(subscription);
    let limits = SubscriptionLimits::default();
    store.upsert(&new, &limits, at(9)).await.unwrap();
    let mut set = redis_rs::cmd("HSET");
    set.arg(format!("{{{prefix}}}:ids"));
    set.arg(other.id.as_bytes()).arg(new.key().as_bytes());
    let added: i64 = set.query_async(&mut connection(&url).await).await.unwrap();
    assert_eq!(added, 1);
    a_damaged_row_gives_its_id(&store, (other.id, other), at(1)).await;
    let there = store.get(&[new.id.into()]).await.unwrap();
    assert!(there[0].is_some());
}

/// Two rows of one call: the id of the one moves, and the other one is written where it was.
#[tokio::test]
async fn a_row_can_be_written_where_an_id_of_the_same_call_was() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let store = store(&url, &fresh_prefix()).await;
    let row = |number, id, now| {
        let new = subscription(number);
        SubscriptionRecord::new(
            id,
            new.subscription,
            KeyId::from_bytes([1; KeyId::LEN]),
            now,
        )
    };
    let [one, two] = [1, 2].map(|number| subscription(number).id);
    store.put(&[row(1, one, at(0))]).await.unwrap();
    let rows = [row(1, two, at(1)), row(2, one, at(1))];
    assert_eq!(store.put(&rows).await.unwrap(), [true; 2]);
    let found = store.get(&[two.into(), one.into()]).await.unwrap();
    assert_eq!(found, rows.map(Some));
}

/// Nothing says to which origin such a row belongs: it ends as failed.
#[tokio::test]
async fn a_row_whose_state_cannot_be_read_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    for is_leased in [true, false] {
        let prefix = fresh_prefix();
        let store = store(&url, &prefix).await;
        let id = sending(&store, 4, 1).await;
        let claimed = claim(&store, 9, at(1)).await;
        if !is_leased {
            let later = |row: &Claimed| (row.token, Settlement::RetryAt(at(5)));
            let settlements: Vec<_> = claimed.iter().map(later).collect();
            store.settle(&settlements, at(1)).await.unwrap();
        }
        let mut key = format!("{{{prefix}}}:s:").into_bytes();
        key.extend_from_slice(id.as_bytes());
        damage(&url, &key, recipient(2).as_bytes()).await;
        assert_eq!(claim(&store, 9, at(100)).await.len(), 3, "{is_leased}");
        let status = store.status(id, at(100)).await.unwrap().unwrap();
        assert_eq!((status.counts.pending, status.counts.failed), (3, 1));
    }
}

/// Its lease ends after the deadline, at which its broadcast is removed. The number of all rows does not keep it.
#[tokio::test]
async fn a_leased_row_of_a_damaged_broadcast_is_counted_until_its_lease_ends() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let damaged = sending(&store, 5, 2).await;
    assert_eq!(claim(&store, 9, at(3590)).await.len(), 5);
    let mut key = format!("{{{prefix}}}:b:").into_bytes();
    key.extend_from_slice(damaged.as_bytes());
    damage(&url, &key, b"rows").await;
    let depth = async |secs| store.stats(at(secs)).await.unwrap().depth;
    store.expire(9, at(3600)).await.unwrap();
    assert_eq!(store.status(damaged, at(3600)).await.unwrap(), None);
    assert_eq!(depth(3600).await, 5);
    assert_eq!(claim(&store, 9, at(3700)).await.len(), 0);
    assert_eq!(depth(3700).await, 0);
}

/// Nothing says to which origin it belongs.
#[tokio::test]
async fn a_leased_row_whose_state_is_missing_ends_with_its_lease() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let id = sending(&store, 4, 1).await;
    assert_eq!(claim(&store, 9, at(1)).await.len(), 4);
    let mut key = format!("{{{prefix}}}:s:").into_bytes();
    key.extend_from_slice(id.as_bytes());
    delete_field(&url, &key, recipient(2).as_bytes()).await;
    assert_eq!(claim(&store, 9, at(100)).await.len(), 3);
    let counts = status(&store, id, at(100)).await.counts;
    assert_eq!((counts.pending, counts.failed), (3, 1));
}

/// Removes a field that exists.
async fn delete_field(url: &str, key: &[u8], field: &[u8]) {
    let mut delete = redis_rs::cmd("HDEL");
    delete.arg(key).arg(field);
    let deleted: i64 = delete
        .query_async(&mut connection(url).await)
        .await
        .unwrap();
    assert_eq!(deleted, 1);
}

/// A purge says how many rows it has removed, and is called again while there may be more.
#[tokio::test]
async fn an_index_of_subscriptions_that_are_gone_is_purged_once() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let purge = [Change::Purge {
        before: at(50),
        expired_before: at(50),
    }];
    for index in ["retired", "stale", "expires", "x:"] {
        let prefix = fresh_prefix();
        let store = store(&url, &prefix).await;
        let mut new = subscription(1);
        let (key, expires) = (new.key(), at(20));
        if index.starts_with(['e', 'x']) {
            new.subscription = new.subscription.with_expiration_time(Some(expires));
        }
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, at(0)).await.unwrap();
        let (observed_at, failure) = (at(9), Failure::default());
        let change = match index {
            "stale" => Change::Stale {
                key,
                observed_at,
                failure,
            },
            "retired" => Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at,
                failure,
            },
            _ => Change::Accepted(key),
        };
        store.apply(&[change], at(9)).await.unwrap();
        let names = keys(&url, &prefix).await;
        assert!(
            names.iter().any(|name| name.starts_with(index)),
            "{names:?}"
        );
        delete_field(
            &url,
            format!("{{{prefix}}}:rows").as_bytes(),
            key.as_bytes(),
        )
        .await;
        // More than one script, which removes 200.
        for now in [at(10), at(60)] {
            assert!(store.apply(&purge, now).await.unwrap() <= 2, "{index}");
        }
        assert_eq!(store.apply(&purge, at(60)).await.unwrap(), 0, "{index}");
    }
}

/// The row tells when it is to be purged, and the index is put right.
#[tokio::test]
async fn an_index_that_names_a_row_too_early_purges_nothing() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let purge = |before| Change::Purge {
        before,
        expired_before: before,
    };
    for index in ["retired", "stale", "expires", "x:"] {
        let prefix = fresh_prefix();
        let store = store(&url, &prefix).await;
        let mut new = subscription(1);
        // With a user it is retired when it expires.
        new.principal = Some("alice".into());
        let key = new.key();
        new.subscription = match index {
            "expires" | "x:" => new.subscription.with_expiration_time(Some(at(80))),
            _ => new.subscription,
        };
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, at(0)).await.unwrap();
        let (observed_at, failure) = (at(70), Failure::default());
        let change = match index {
            "stale" => Change::Stale {
                key,
                observed_at,
                failure,
            },
            "retired" => Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at,
                failure,
            },
            _ => Change::Accepted(key),
        };
        store.apply(&[change], at(80)).await.unwrap();
        let names = keys(&url, &prefix).await;
        let set = names.iter().find(|name| name.starts_with(index)).unwrap();
        let _: u64 = redis_rs::cmd("ZADD")
            .arg(format!("{{{prefix}}}:{set}"))
            .arg(at(20).as_millis())
            .arg(key.as_bytes())
            .query_async(&mut connection(&url).await)
            .await
            .unwrap();
        let state = async || {
            let row = store
                .get(&[SubscriptionRef::Key(key)])
                .await
                .unwrap()
                .remove(0);
            row.map(|row| row.retired.is_some())
        };
        let before = state().await;
        assert_eq!(before, Some(index == "retired"));
        store.apply(&[purge(at(50))], at(60)).await.unwrap();
        assert_eq!(state().await, before, "{index}");
        assert_eq!(store.apply(&[purge(at(81))], at(90)).await.unwrap(), 1);
        assert_eq!(state().await, None, "{index}");
    }
}

/// Its schedule stays as it is and makes way for others, which fire.
#[tokio::test]
async fn a_schedule_moves_on_when_its_broadcast_is_opened_and_not_before() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let schedules = ["a", "b", "c"].map(|name| {
        let plan = Plan::Application {
            label: ScheduleLabel::parse(name).unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        Schedule::new(plan, DailyTime::new(9, 0).unwrap(), at(0))
    });
    let mut ids = Vec::new();
    let mut firings = Vec::new();
    for (number, schedule) in schedules.iter().enumerate() {
        store.put_schedule(schedule).await.unwrap();
        let mut new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
        new.page = Some(Page::new(vec![delivery(number, 3)], Cursor::End));
        ids.push(new.id);
        firings.push(Firing::new(schedule, at(86_400), Some(new)));
    }
    // The rows at the origin of the second one.
    let origin = delivery(1, 3).origin;
    let waiting = format!("{{{prefix}}}:o:{}", origin.as_str());
    let _: () = ask(&url, &["SET", &waiting, "?"]).await;
    let opened = async || {
        let mut opened = Vec::new();
        for id in &ids {
            opened.push(store.status(*id, at(1)).await.unwrap().is_some());
        }
        opened
    };
    for _ in 0..2 {
        store.fire(&firings, at(1)).await.unwrap_err();
        assert_eq!(opened().await, [true, false, true]);
        assert_eq!(store.due_schedules(9, at(300)).await.unwrap(), []);
        let due = store.due_schedules(9, at(301)).await.unwrap();
        assert_eq!(due, [schedules[1].clone()]);
    }
    let _: u64 = ask(&url, &["DEL", &waiting]).await;
    let fired = store.fire(&firings, at(2)).await.unwrap();
    assert_eq!(fired, [Fired::Stale, Fired::Fired, Fired::Stale]);
    assert_eq!(opened().await, [true; 3]);
    assert_eq!(store.due_schedules(9, at(302)).await.unwrap(), []);
    assert_eq!(claim(&store, 9, at(2)).await.len(), 3);
}

/// It moves as it is, with the others.
#[tokio::test]
async fn a_schedule_that_cannot_be_read_moves_with_the_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let [from, to] = [1, 2].map(|number| SubscriptionId::from_bytes([number; 16]));
    for notify_type in [NotifyType::DailyCheck, NotifyType::DirectNotification] {
        let plan = Plan::Subscriber {
            subscription: from,
            notify_type,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), at(9));
        store.put_schedule(&schedule).await.unwrap();
    }
    let owned = [format!("{{{prefix}}}:d:s").as_bytes(), from.as_bytes()].concat();
    damage(&url, &owned, NotifyType::DailyCheck.as_str().as_bytes()).await;
    // One that the index has lost is in it again.
    let lost = [
        from.as_bytes(),
        NotifyType::DirectNotification.as_str().as_bytes(),
    ];
    let lost = [b"s", lost.concat().as_slice()].concat();
    let index = format!("{{{prefix}}}:fires");
    let removed: u64 = redis_rs::cmd("ZREM")
        .arg(index)
        .arg(lost)
        .query_async(&mut connection(&url).await)
        .await
        .unwrap();
    assert_eq!(removed, 1);
    store.move_schedules(from, to).await.unwrap();
    for (id, readable, damaged) in [(from, 0, 0), (to, 1, 1)] {
        assert_eq!(store.schedules(Some(id)).await.unwrap().len(), readable);
        let left_out = store.unreadable_schedules(Some(id)).await.unwrap();
        assert_eq!(left_out, damaged);
    }
    assert_eq!(store.due_schedules(9, at(9)).await.unwrap().len(), 1);
}
