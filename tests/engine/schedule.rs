//! Daily times in every IANA zone, through every clock change of 2026 and 2027.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::{Date, DateTime, date};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, ToSpan as _};
use tower_web_push::clock::Timestamp;
use tower_web_push::schedule::{DailyTime, ScheduleLabel, Zone};
use tower_web_push::store::{MemoryStore, ScheduleStore as _};
use tower_web_push::testing::{ManualClock, TestPushService};
use tower_web_push::{Audience, Message, WebPush};

const FIRST: Date = date(2026, 1, 1);
const END: Date = date(2028, 1, 1);

/// All names. The rules are the system's if it has any: its data may be older or newer.
fn zones() -> Vec<(String, TimeZone)> {
    let zones: Vec<_> = TimeZoneDatabase::bundled()
        .available()
        .map(|name| (name.to_string(), rules(name.as_str())))
        .collect();
    assert!(zones.len() > 500, "{}", zones.len());
    zones
}

fn rules(name: &str) -> TimeZone {
    let system = jiff::tz::db().get(name);
    system
        .or_else(|_| TimeZoneDatabase::bundled().get(name))
        .unwrap()
}

fn moment(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap()
}

fn timestamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millisecond())
}

/// A moment in UTC of a date, for windows that need not be exact.
fn around(date: Date) -> jiff::Timestamp {
    date.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

/// The moments of clock changes, with the offset before and after.
fn changes(zone: &TimeZone) -> Vec<(jiff::Timestamp, Offset, Offset)> {
    let (start, end) = (around(FIRST), around(END));
    let mut before = zone.to_offset(start);
    let mut changes = Vec::new();
    for change in zone
        .following(start)
        .take_while(|one| one.timestamp() < end)
    {
        // Some changes are of the name only.
        if change.offset() != before {
            changes.push((change.timestamp(), before, change.offset()));
        }
        before = change.offset();
    }
    changes
}

/// The instant of a local time by the documented rule: the first one in a fold, and in a gap later by the length of
/// the gap. From the zone's offsets alone.
fn instant(zone: &TimeZone, local: DateTime) -> jiff::Timestamp {
    let at = |offset: Offset| offset.to_timestamp(local).unwrap();
    let guess = around(local.date());
    let before = zone.to_offset(guess - SignedDuration::from_hours(26));
    let after = zone.to_offset(guess + SignedDuration::from_hours(50));
    let shown = [before, after].into_iter().map(at);
    let shown = shown.filter(|instant| zone.to_datetime(*instant) == local);
    shown.min().unwrap_or_else(|| at(before))
}

/// The instants of a time of day from a date on: one for each local date, unless a clock change moves it to another
/// date.
fn occurrences(
    zone: &TimeZone,
    from: Date,
    hour: i8,
    minute: i8,
) -> impl Iterator<Item = jiff::Timestamp> {
    let mut last: Option<Date> = None;
    from.series(1.day())
        .map(move |date| instant(zone, date.at(hour, minute, 0, 0)))
        .filter(move |at| {
            let date = zone.to_datetime(*at).date();
            let is_later = last.is_none_or(|last| date > last);
            last = Some(date);
            is_later
        })
}

fn daily(hour: i8, minute: i8, zone: &str) -> DailyTime {
    let (hour, minute) = (u8::try_from(hour).unwrap(), u8::try_from(minute).unwrap());
    let time = DailyTime::new(hour, minute).unwrap();
    time.in_zone(Zone::parse(zone).unwrap())
}

#[test]
fn every_zone_has_one_occurrence_on_every_date_of_two_years() {
    let mut seen = BTreeSet::new();
    let mut checked = 0;
    for (name, zone) in zones() {
        // Most names are aliases.
        let start = zone.to_offset(around(FIRST));
        if !seen.insert(format!("{start} {:?}", changes(&zone))) {
            continue;
        }
        for (hour, minute) in [(0, 0), (2, 30), (23, 59)] {
            let time = daily(hour, minute, &name);
            let mut at = time.first_after(timestamp(around(FIRST))).unwrap();
            // Occurrences on a date that has one already are left out.
            let first = zone.to_datetime(moment(at)).date();
            for expected in occurrences(&zone, first, hour, minute) {
                if expected > around(END) {
                    break;
                }
                assert_eq!(moment(at), expected, "{time}");
                at = time.next_after(at).unwrap();
                checked += 1;
            }
        }
    }
    assert!(
        seen.len() > 50 && checked > 100_000,
        "{} {checked}",
        seen.len()
    );
}

/// Hours and minutes.
type Times = BTreeSet<(i8, i8)>;

/// Times that a clock change may skip, repeat, or move.
fn delicate(change: jiff::Timestamp, before: Offset, after: Offset) -> Times {
    let from = before.to_datetime(change);
    let to = after.to_datetime(change);
    let half = SignedDuration::from_secs(i64::from(after.seconds() - before.seconds()) / 2);
    let middle = from.checked_add(half).unwrap();
    [from, middle, to, from - 1.minute(), to + 1.minute()]
        .into_iter()
        .map(|at| (at.hour(), at.minute()))
        .chain([(0, 0), (8, 0), (23, 59)])
        .collect()
}

/// One process of an application.
async fn process(store: &Arc<MemoryStore>, clock: &ManualClock) -> WebPush {
    WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(store))
        .clock(clock.clone())
        .client(TestPushService::new())
        .build()
        .await
        .unwrap()
}

#[tokio::test]
async fn two_schedulers_and_a_restart_fire_once_per_local_date_through_every_change() {
    let mut by_change: BTreeMap<jiff::Timestamp, Vec<(String, Times)>> = BTreeMap::new();
    for (name, zone) in zones() {
        for (at, before, after) in changes(&zone) {
            let times = delicate(at, before, after);
            by_change.entry(at).or_default().push((name.clone(), times));
        }
    }
    let changed: usize = by_change.values().map(Vec::len).sum();
    assert!(changed > 600, "{changed}");
    for (change, zones) in by_change {
        fire_through(change, zones).await;
    }
}

/// Runs two processes from two days before a change to three days after it.
async fn fire_through(change: jiff::Timestamp, zones: Vec<(String, Times)>) {
    let start = change - SignedDuration::from_hours(48);
    let end = change + SignedDuration::from_hours(72);
    let clock = ManualClock::new(timestamp(start));
    let store = Arc::new(MemoryStore::new());
    let (mut a, b) = (process(&store, &clock).await, process(&store, &clock).await);
    let mut of_label = HashMap::new();
    for (zone, times) in zones {
        for (hour, minute) in times {
            let label = ScheduleLabel::parse(&format!("{hour}:{minute}/{zone}")).unwrap();
            let time = daily(hour, minute, &zone);
            a.schedule(
                label.clone(),
                time.clone(),
                Audience::All,
                Message::new("x"),
            )
            .await
            .unwrap();
            of_label.insert(label.to_string(), (time, Vec::new()));
        }
    }
    let mut fired = 0;
    let mut due_in_all = 0;
    let mut is_restarted = false;
    while let Some(at) = store.next_fire_at().await.unwrap() {
        if moment(at) > end {
            break;
        }
        // The poll is not exact: each comes up to half a minute late.
        clock.set(at + Duration::from_secs(at.as_secs().unsigned_abs() % 31));
        let due = store.due_schedules(100_000, at).await.unwrap();
        due_in_all += due.len() as u64;
        if moment(at) >= change && !is_restarted {
            a = process(&store, &clock).await;
            is_restarted = true;
        }
        while store.next_fire_at().await.unwrap() == Some(at) {
            let (one, other) = tokio::join!(a.tick(), b.tick());
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(one.skipped + other.skipped, 0);
            fired += one.fired + other.fired;
        }
        for schedule in due {
            let name = match schedule.name() {
                tower_web_push::schedule::ScheduleName::Application(label) => label.to_string(),
                other => panic!("{other:?}"),
            };
            of_label
                .get_mut(&name)
                .unwrap()
                .1
                .push(schedule.next_fire_at);
        }
    }
    assert_eq!(fired, due_in_all, "each occurrence fired once");
    for (label, (time, at)) in of_label {
        let zone = rules(time.zone().name());
        let (hour, minute) = (time.hour() as i8, time.minute() as i8);
        let first = zone.to_datetime(moment(at[0])).date();
        let expected: Vec<_> = occurrences(&zone, first, hour, minute)
            .take_while(|at| *at <= end)
            .collect();
        let fired: Vec<_> = at.into_iter().map(moment).collect();
        assert_eq!(fired, expected, "{label}");
        assert!(fired.len() >= 4, "{label}: {fired:?}");
    }
}
