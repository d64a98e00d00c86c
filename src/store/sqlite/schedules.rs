//! Schedules in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::params;

use super::connection::Connection;
use super::error::corrupt;
use super::query::{Columns, all, execute, first, integer};
use super::{SqliteStore, broadcasts, content};
use crate::clock::Timestamp;
use crate::message::Topic;
use crate::schedule::{DailyTime, Plan, Schedule, ScheduleLabel, ScheduleName, Weekdays, Zone};
use crate::store::readable::ReadablePage;
use crate::store::{DAYS, DayCount, Fired, Firing, ScheduleStore, StoreError};
use crate::subscription::SubscriptionId;

macro_rules! columns {
    () => {
        "owner, name, minute_of_day, zone, weekdays, next_fire_at, message, audience, \
         payload, ttl, urgency, topic, padding"
    };
}

/// A schedule whose time is unchanged keeps its `next_fire_at` (D1).
const PUT: &str = concat!(
    "INSERT INTO schedule (",
    columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
     ON CONFLICT (owner, name) DO UPDATE SET \
     next_fire_at = CASE WHEN minute_of_day = excluded.minute_of_day AND zone = excluded.zone \
         AND weekdays = excluded.weekdays THEN next_fire_at ELSE excluded.next_fire_at END, \
     minute_of_day = excluded.minute_of_day, zone = excluded.zone, weekdays = excluded.weekdays, \
     message = excluded.message, audience = excluded.audience, payload = excluded.payload, \
     ttl = excluded.ttl, urgency = excluded.urgency, topic = excluded.topic, padding = excluded.padding"
);
pub(super) const OF: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM schedule WHERE owner = ?1 ORDER BY name"
);
pub(super) const DUE: &str = concat!(
    "SELECT next_fire_at, owner, name, ",
    columns!(),
    " FROM schedule INDEXED BY schedule_due WHERE next_fire_at <= ?1 AND (next_fire_at, owner, name) > (?3, ?4, ?5) \
     ORDER BY next_fire_at, owner, name LIMIT ?2"
);
const REMOVE: &str = "DELETE FROM schedule WHERE owner = ?1 AND name = ?2";
/// With the values of [`PUT`]. The moment `?6` is not compared (D9).
const REMOVE_UNCHANGED: &str = "DELETE FROM schedule WHERE owner = ?1 AND name = ?2 \
     AND minute_of_day = ?3 AND zone = ?4 AND weekdays = ?5 AND message IS ?7 AND audience IS ?8 \
     AND payload IS ?9 AND ttl IS ?10 AND urgency IS ?11 AND topic IS ?12 AND padding IS ?13";
const REMOVE_ALL: &str = "DELETE FROM schedule WHERE owner = ?1";
const MOVE: &str = "UPDATE OR IGNORE schedule SET owner = ?2 WHERE owner = ?1";
pub(super) const FIRE: &str = "UPDATE schedule SET next_fire_at = ?4 \
     WHERE owner = ?1 AND name = ?2 AND next_fire_at = ?3";
pub(super) const NEXT: &str = "SELECT min(next_fire_at) FROM schedule INDEXED BY schedule_due";
const RECORD_RUN: &str = "INSERT INTO meta (name, value) VALUES ('last_run', ?1) \
     ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
const RECORD_DAY: &str =
    "INSERT INTO day_count (day, live) VALUES (?1, ?2) ON CONFLICT (day) DO NOTHING";
/// Deletes all but the latest days.
pub(super) const TRIM_DAYS: &str = "DELETE FROM day_count \
     WHERE day <= (SELECT day FROM day_count ORDER BY day DESC LIMIT 1 OFFSET ?1)";
pub(super) const DAYS_UNTIL: &str = "SELECT day, live FROM day_count WHERE day <= ?1 ORDER BY day";

/// The owner of the application's own schedules.
const APPLICATION: &[u8] = &[];

/// The two columns of a name.
fn name_columns(name: &ScheduleName) -> (&[u8], &str) {
    match name {
        ScheduleName::Subscriber(id, notify_type) => (id.as_bytes(), notify_type.as_str()),
        ScheduleName::Application(label) => (APPLICATION, label.as_str()),
    }
}

fn schedule(columns: &mut Columns<'_, '_>) -> Result<Schedule, StoreError> {
    let owner: Vec<u8> = columns.get()?;
    let name: String = columns.get()?;
    let time = time(columns)?;
    let next_fire_at = columns.time()?;
    let message: Option<String> = columns.get()?;
    let plan = if owner == APPLICATION {
        Plan::Application {
            label: ScheduleLabel::parse(&name).map_err(|_| corrupt("a schedule's name"))?,
            to: content::audience(columns)?,
            message: content::read_message(columns)?,
        }
    } else {
        let owner = owner
            .try_into()
            .map_err(|_| corrupt("a schedule's owner"))?;
        Plan::Subscriber {
            subscription: SubscriptionId::from_bytes(owner),
            notify_type: name
                .parse()
                .map_err(|_| corrupt("a type of notification"))?,
            message,
        }
    };
    Ok(Schedule::new(plan, time, next_fire_at))
}

fn time(columns: &mut Columns<'_, '_>) -> Result<DailyTime, StoreError> {
    let minute = columns.count()?;
    let zone: String = columns.get()?;
    let weekdays = u8::try_from(columns.count()?).ok();
    let weekdays = weekdays.and_then(Weekdays::from_bits);
    let weekdays = weekdays.ok_or_else(|| corrupt("days of the week"))?;
    let time = u8::try_from(minute / 60)
        .ok()
        .zip(u8::try_from(minute % 60).ok())
        .and_then(|(hour, minute)| DailyTime::new(hour, minute).ok())
        .ok_or_else(|| corrupt("a time of day"))?;
    Ok(time.in_zone(Zone::stored(&zone)).on(weekdays))
}

fn day(columns: &mut Columns<'_, '_>) -> Result<DayCount, StoreError> {
    Ok(DayCount {
        day: columns.time()?,
        live: columns.count()?,
    })
}

/// Reads on behind schedules that cannot be read (D5).
fn due(conn: &Connection, limit: usize, now: Timestamp) -> Result<Vec<Schedule>, StoreError> {
    let mut page = ReadablePage::new(limit);
    let mut after: (i64, Vec<u8>, String) = (i64::MIN, Vec::new(), String::new());
    while page.missing() > 0 {
        let wanted = page.missing();
        let values = params![now.as_millis(), integer(wanted), after.0, after.1, after.2];
        let rows = all(conn, DUE, values, |columns| {
            let key = (columns.get()?, columns.get()?, columns.get()?);
            Ok((key, schedule(columns)))
        })?;
        let is_last = rows.len() < wanted;
        for (key, row) in rows {
            after = key;
            page.push(row)?;
        }
        if is_last {
            break;
        }
    }
    page.finish_or_fail("schedules")
}

/// Reads those of one owner.
fn of_owner(
    conn: &Connection,
    of: Option<SubscriptionId>,
) -> Result<ReadablePage<Schedule>, StoreError> {
    let owner = of.as_ref().map_or(APPLICATION, |id| id.as_bytes());
    let mut page = ReadablePage::new(usize::MAX);
    for row in all(conn, OF, [owner], |columns| Ok(schedule(columns)))? {
        page.push(row)?;
    }
    Ok(page)
}

/// Runs a statement with the values of a schedule. Returns the number of changed rows.
fn execute_with(conn: &Connection, sql: &str, schedule: &Schedule) -> Result<usize, StoreError> {
    let time = &schedule.time;
    let name = schedule.name();
    let (owner, name) = name_columns(&name);
    let (text, to, message) = match &schedule.plan {
        Plan::Subscriber { message, .. } => (message.as_deref(), None, None),
        Plan::Application { to, message, .. } => {
            (None, Some(content::audience_text(to)?), Some(message))
        }
    };
    let payload = message.and_then(|message| message.payload());
    let values = params![
        owner,
        name,
        i64::from(time.hour()) * 60 + i64::from(time.minute()),
        time.zone().name(),
        time.weekdays().bits(),
        schedule.next_fire_at.as_millis(),
        text,
        to,
        payload.map(|payload| payload.as_ref()),
        message.map(|message| message.ttl().as_secs()),
        message.map(|message| message.urgency().as_str()),
        message.and_then(|message| message.topic().map(Topic::as_str)),
        message.map(|message| message.padding().to_string()),
    ];
    execute(conn, sql, values)
}

fn fire(conn: &Connection, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
    let fire = |firing: &Firing| {
        let (owner, name) = name_columns(&firing.name);
        let values = params![
            owner,
            name,
            firing.expected.as_millis(),
            firing.next_fire_at.as_millis(),
        ];
        if execute(conn, FIRE, values)? == 0 {
            return Ok(Fired::Stale);
        }
        if let Some(broadcast) = &firing.broadcast {
            broadcasts::open(conn, broadcast, now)?;
        }
        Ok(Fired::Fired)
    };
    firings.iter().map(fire).collect()
}

#[async_trait]
impl ScheduleStore for SqliteStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let schedule = schedule.clone();
        self.write(move |conn| execute_with(conn, PUT, &schedule).map(|_| ()))
            .await
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        self.read(move |conn| Ok(of_owner(conn, of)?.finish("schedules")))
            .await
    }

    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        self.read(move |conn| Ok(of_owner(conn, of)?.damaged()))
            .await
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.write(move |conn| {
            let (owner, name) = name_columns(&name);
            Ok(execute(conn, REMOVE, params![owner, name])? > 0)
        })
        .await
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        let schedule = schedule.clone();
        self.write(move |conn| Ok(execute_with(conn, REMOVE_UNCHANGED, &schedule)? > 0))
            .await
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        self.write(move |conn| Ok(execute(conn, REMOVE_ALL, [of.as_bytes()])? as u64))
            .await
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        self.write(move |conn| {
            execute(conn, MOVE, params![from.as_bytes(), to.as_bytes()])?;
            // The rest exists under the other id already.
            execute(conn, REMOVE_ALL, [from.as_bytes()]).map(|_| ())
        })
        .await
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.read(move |conn| due(conn, limit, now)).await
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        let firings = firings.to_vec();
        self.write(move |conn| fire(conn, &firings, now)).await
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|conn| Ok(first(conn, NEXT, [], |row| row.time_or_null())?.flatten()))
            .await
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |conn| execute(conn, RECORD_RUN, [at.as_millis()]).map(|_| ()))
            .await
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|conn| {
            let sql = "SELECT value FROM meta WHERE name = 'last_run'";
            first(conn, sql, [], |row| row.time())
        })
        .await
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        let counts = counts.to_vec();
        self.write(move |conn| {
            for count in &counts {
                let values = params![count.day.as_millis(), integer(count.live)];
                execute(conn, RECORD_DAY, values)?;
            }
            execute(conn, TRIM_DAYS, [integer(DAYS)]).map(|_| ())
        })
        .await
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        let known = Arc::clone(&self.damaged_days);
        self.read(move |conn| {
            let mut page = ReadablePage::new(usize::MAX);
            for row in all(conn, DAYS_UNTIL, [now.as_millis()], |columns| {
                Ok(day(columns))
            })? {
                page.push(row)?;
            }
            Ok(page.finish_once("days", &known))
        })
        .await
    }
}
