use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::LazyLock;

use proptest::collection::{btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::engine::copy::{CopyErrorKind, RestoreInto, Secrets, export, restore};
use crate::store::{
    CountFilter, Liveness, MemoryStore, PortableStore as _, ScheduleStore as _,
    SubscriptionStore as _, VapidKeyStore as _,
};
use crate::vapid::{KeyEncryptionKeys, VapidKey};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

fn moments() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    let hosts = select(vec![
        "updates.push.services.mozilla.com",
        "fcm.googleapis.com",
        "push.example.net:8443",
    ]);
    let parts = (
        hosts,
        "[a-zA-Z0-9:_~%2-9-]{0,80}(\\?[a-z=&]{0,9})?",
        any::<[u8; 16]>(),
    );
    (parts, of(moments())).prop_filter_map("an endpoint", |((host, path, auth), expires)| {
        let endpoint = Endpoint::parse(&format!("https://{host}/{path}")).ok()?;
        let auth = AuthSecret::from_bytes(&auth).unwrap();
        let subscription = Subscription::new(endpoint, UaPublicKey::parse(P256DH).unwrap(), auth);
        Some(subscription.with_expiration_time(expires))
    })
}

fn failures() -> impl Strategy<Value = LastFailure> {
    let parts = (moments(), of(any::<u16>()), of("[ -~]{0,80}"));
    parts.prop_map(|(at, status, reason)| {
        LastFailure::new(at, Failure::new(status, reason.as_deref()))
    })
}

fn records() -> impl Strategy<Value = SubscriptionRecord> {
    let owner = (of(any::<String>()), btree_set("[a-z0-9_.-]{1,64}", 0..4));
    let times = (moments(), moments(), moments(), of(moments()));
    let state = (
        of(moments()),
        of(moments()),
        of((moments(), 0..RetireReason::ALL.len())),
    );
    let ids = (any::<[u8; 16]>(), any::<[u8; KeyId::LEN]>(), any::<u32>());
    (ids, subscriptions(), owner, times, state, of(failures())).prop_map(
        |(ids, subscription, (user, tags), times, state, last_failure)| {
            let (id, key) = (SubscriptionId::from_bytes(ids.0), KeyId::from_bytes(ids.1));
            let mut row = SubscriptionRecord::new(id, subscription, key, times.0);
            row.principal = user.map(Principal::from);
            let tags = tags.iter().map(|tag| Tag::parse(tag).unwrap());
            row.tags = tags.collect::<BTreeSet<_>>();
            row.keys_changed_at = times.1;
            row.last_seen_at = times.2;
            row.last_success_at = times.3;
            row.failure_streak = ids.2;
            row.failing_since = state.0;
            row.stale_since = state.1;
            row.retired = state
                .2
                .map(|(at, reason)| Retired::new(at, RetireReason::ALL[reason]));
            row.last_failure = last_failure;
            row
        },
    )
}

fn dailies() -> impl Strategy<Value = Schedule> {
    let zones = select(vec!["UTC", "Europe/Berlin", "Not/There", ""]);
    let plan = (any::<[u8; 16]>(), any::<bool>(), of(any::<String>()));
    let time = (0..24_u8, 0..60_u8, zones, 1..128_u8);
    (plan, time, moments()).prop_map(|((id, is_check, message), time, next_fire_at)| {
        let (hour, minute, zone, days) = time;
        let time = DailyTime::new(hour, minute).unwrap();
        let time = time.in_zone(Zone::stored(zone));
        let time = time.on(Weekdays::from_bits(days).unwrap());
        let notify_type = match is_check {
            true => NotifyType::DailyCheck,
            false => NotifyType::DirectNotification,
        };
        let plan = Plan::Subscriber {
            subscription: SubscriptionId::from_bytes(id),
            notify_type,
            message,
        };
        Schedule::new(plan, time, next_fire_at)
    })
}

/// Reads a line that was written.
fn again(line: &Line) -> Line {
    let text = serde_json::to_string(line).unwrap();
    assert!(!text.contains('\n'), "one line: {text}");
    serde_json::from_str(&text).unwrap()
}

/// An export with all kinds of lines.
static EXPORT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    runtime().block_on(async {
        let store = MemoryStore::new();
        let key = VapidKey::generate().unwrap();
        let sealed = KeyEncryptionKeys::default().seal(&key).unwrap();
        let at = Timestamp::from_secs(1_800_000_000);
        let key = StoredVapidKey::new(key.id(), *key.public_key(), sealed, at, true);
        store.insert_first(&key).await.unwrap();
        for number in 0..4 {
            let endpoint = format!("https://updates.push.services.mozilla.com/{number}");
            let subscription = Subscription::new(
                Endpoint::parse(&endpoint).unwrap(),
                UaPublicKey::parse(P256DH).unwrap(),
                AuthSecret::from_bytes(&[9; AuthSecret::LEN]).unwrap(),
            );
            let id = SubscriptionId::from_bytes([number; 16]);
            let mut row = SubscriptionRecord::new(id, subscription, key.id, at);
            row.retired = (number == 1).then(|| Retired::new(at, RetireReason::Gone));
            store.put(&[row]).await.unwrap();
            let plan = Plan::Subscriber {
                subscription: id,
                notify_type: NotifyType::DailyCheck,
                message: None,
            };
            let daily = Schedule::new(plan, DailyTime::new(7, 30).unwrap(), at);
            store.put_schedule(&daily).await.unwrap();
        }
        let mut out = Vec::new();
        let exported = export(store, &mut out, Secrets::Included, |_| {});
        exported.await.unwrap();
        out
    })
});

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Damage of a file.
#[derive(Clone, Debug)]
enum Damage {
    Octet(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    SwapLines(usize, usize),
    RepeatLine(usize),
}

fn damages() -> impl Strategy<Value = Damage> {
    let text = vec(
        select(b"0123456789-,:{}[]\"\\nulltruefalse\xff\0 ".to_vec()),
        1..20,
    );
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, octet)| Damage::Octet(at, octet)),
        1 => any::<usize>().prop_map(Damage::Cut),
        4 => (any::<usize>(), text).prop_map(|(at, text)| Damage::Insert(at, text)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Damage::SwapLines(one, other)),
        1 => any::<usize>().prop_map(Damage::RepeatLine),
    ]
}

fn damage(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: usize| at % (bytes.len() + 1);
    match damage {
        Damage::Octet(at, octet) => {
            let at = place(*at);
            if let Some(there) = bytes.get_mut(at) {
                *there = *octet;
            }
        }
        Damage::Cut(at) => bytes.truncate(place(*at)),
        Damage::Insert(at, text) => {
            let at = place(*at);
            drop(bytes.splice(at..at, text.iter().copied()));
        }
        Damage::SwapLines(one, other) => {
            let mut lines: Vec<_> = bytes.split_inclusive(|octet| *octet == b'\n').collect();
            let number = lines.len().max(1);
            if lines.len() > 1 {
                lines.swap(one % number, other % number);
            }
            *bytes = lines.concat();
        }
        Damage::RepeatLine(which) => {
            let mut lines: Vec<_> = bytes.split_inclusive(|octet| *octet == b'\n').collect();
            if let Some(which) = which.checked_rem(lines.len()) {
                lines.insert(which, lines[which]);
            }
            *bytes = lines.concat();
        }
    }
}

/// Restores bytes into an empty store. What is refused has changed nothing.
fn restored(bytes: &[u8]) -> Result<u64, CopyErrorKind> {
    runtime().block_on(async {
        let store = MemoryStore::new();
        let mut lines = Cursor::new(bytes);
        let restored = restore(store.clone(), &mut lines, RestoreInto::Empty, |_| {}).await;
        let all = CountFilter::new(crate::broadcast::Audience::All, Liveness::Any);
        let rows = store.count(&all, Timestamp::from_secs(0)).await.unwrap();
        let keys = store.keys().await.unwrap().len();
        match restored {
            Ok(report) => {
                assert!(rows <= report.subscriptions, "{rows}: {report:?}");
                Ok(rows)
            }
            Err(error) => {
                assert_eq!((rows, keys), (0, 0), "{error:?}");
                Err(error.kind())
            }
        }
    })
}

proptest! {
    #[test]
    fn a_subscription_is_read_as_it_was_written(row in records()) {
        let line = Line::Subscription(Box::new(Row::of(&row, true)));
        let Line::Subscription(read) = again(&line) else { panic!("{line:?}") };
        prop_assert_eq!(read.read().unwrap(), row.clone());
        let line = Line::Subscription(Box::new(Row::of(&row, false)));
        let Line::Subscription(read) = again(&line) else { panic!("{line:?}") };
        prop_assert!(read.read().is_err(), "without its secrets it is none");
    }

    #[test]
    fn a_schedule_is_read_as_it_was_written(schedule in dailies()) {
        let line = Line::Schedule(Daily::of(&schedule).unwrap());
        let Line::Schedule(read) = again(&line) else { panic!("{line:?}") };
        prop_assert_eq!(read.read().unwrap(), schedule);
    }

    #[test]
    fn a_damaged_export_is_refused_or_read_and_changes_nothing_if_it_is_refused(
        damaged in vec(damages(), 0..4),
    ) {
        let mut bytes = EXPORT.clone();
        for one in &damaged {
            damage(&mut bytes, one);
        }
        let read = restored(&bytes);
        if bytes == *EXPORT {
            prop_assert_eq!(read, Ok(4));
        } else if let Err(kind) = read {
            prop_assert_eq!(kind, CopyErrorKind::File);
        }
    }

    #[test]
    fn any_octets_are_no_export(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(restored(&bytes), Err(CopyErrorKind::File));
    }
}
