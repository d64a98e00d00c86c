//! Schedules in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::error::corrupt;
use super::query::{Columns, all, execute, first, integer};
use super::{SqliteStore, broadcasts};
use crate::clock::Timestamp;
use crate::schedule::{DailyTime, NotifyType, Schedule};
use crate::store::{Fired, NewBroadcast, ScheduleStore, StoreError};
use crate::subscription::SubscriptionId;

const PUT: &str = "INSERT INTO schedule (subscription, notify_type, minute_of_day, message, next_fire_at) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (subscription, notify_type) DO UPDATE SET \
     minute_of_day = excluded.minute_of_day, message = excluded.message, \
     next_fire_at = excluded.next_fire_at";
const OF: &str = "SELECT subscription, notify_type, minute_of_day, message, next_fire_at FROM schedule \
     WHERE subscription = ?1";
pub(super) const DUE: &str = "SELECT subscription, notify_type, minute_of_day, message, next_fire_at \
     FROM schedule WHERE next_fire_at <= ?1 ORDER BY next_fire_at, subscription, notify_type LIMIT ?2";
const REMOVE: &str =
    "DELETE FROM schedule WHERE subscription = ?1 AND (?2 IS NULL OR notify_type = ?2)";
const MOVE: &str = "UPDATE OR IGNORE schedule SET subscription = ?2 WHERE subscription = ?1";
const FIRE: &str = "UPDATE schedule SET next_fire_at = ?4 \
     WHERE subscription = ?1 AND notify_type = ?2 AND next_fire_at = ?3";
const RECORD_RUN: &str = "INSERT INTO meta (name, value) VALUES ('last_run', ?1) \
     ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";

fn schedule(columns: &mut Columns<'_, '_>) -> Result<Schedule, StoreError> {
    let subscription = SubscriptionId::from_bytes(columns.bytes()?);
    let notify_type: String = columns.get()?;
    let notify_type: NotifyType = notify_type
        .parse()
        .map_err(|_| corrupt("a type of notification"))?;
    let minute = columns.count()?;
    let time = u8::try_from(minute / 60)
        .ok()
        .zip(u8::try_from(minute % 60).ok())
        .and_then(|(hour, minute)| DailyTime::new(hour, minute).ok())
        .ok_or_else(|| corrupt("a time of day"))?;
    let message = columns.get()?;
    let next_fire_at = columns.time()?;
    let mut schedule = Schedule::new(subscription, notify_type, time, next_fire_at);
    schedule.message = message;
    Ok(schedule)
}

fn put(conn: &Connection, schedule: &Schedule) -> Result<(), StoreError> {
    let minute = i64::from(schedule.time.hour()) * 60 + i64::from(schedule.time.minute());
    let values = params![
        schedule.subscription.as_bytes(),
        schedule.notify_type.as_str(),
        minute,
        schedule.message,
        schedule.next_fire_at.as_millis(),
    ];
    execute(conn, PUT, values).map(|_| ())
}

fn fire(
    conn: &Connection,
    schedule: &Schedule,
    next_fire_at: Timestamp,
    broadcast: Option<&NewBroadcast>,
    now: Timestamp,
) -> Result<Fired, StoreError> {
    let values = params![
        schedule.subscription.as_bytes(),
        schedule.notify_type.as_str(),
        schedule.next_fire_at.as_millis(),
        next_fire_at.as_millis(),
    ];
    if execute(conn, FIRE, values)? == 0 {
        return Ok(Fired::Stale);
    }
    if let Some(broadcast) = broadcast {
        broadcasts::open(conn, broadcast, now)?;
    }
    Ok(Fired::Fired)
}

#[async_trait]
impl ScheduleStore for SqliteStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let schedule = schedule.clone();
        self.write(move |conn| put(conn, &schedule)).await
    }

    async fn schedules(&self, subscription: SubscriptionId) -> Result<Vec<Schedule>, StoreError> {
        self.read(move |conn| {
            let mut schedules = all(conn, OF, [subscription.as_bytes()], schedule)?;
            schedules.sort_by_key(|schedule| schedule.notify_type);
            Ok(schedules)
        })
        .await
    }

    async fn remove_schedules(
        &self,
        subscription: SubscriptionId,
        notify_type: Option<NotifyType>,
    ) -> Result<u64, StoreError> {
        self.write(move |conn| {
            let notify_type = notify_type.map(NotifyType::as_str);
            let values = params![subscription.as_bytes(), notify_type];
            Ok(execute(conn, REMOVE, values)? as u64)
        })
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
            // What could not move stands at the other one already.
            execute(conn, REMOVE, params![from.as_bytes(), None::<&str>]).map(|_| ())
        })
        .await
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.read(move |conn| {
            all(
                conn,
                DUE,
                params![now.as_millis(), integer(limit)],
                schedule,
            )
        })
        .await
    }

    async fn fire(
        &self,
        schedule: &Schedule,
        next_fire_at: Timestamp,
        broadcast: Option<&NewBroadcast>,
        now: Timestamp,
    ) -> Result<Fired, StoreError> {
        let (schedule, broadcast) = (schedule.clone(), broadcast.cloned());
        self.write(move |conn| fire(conn, &schedule, next_fire_at, broadcast.as_ref(), now))
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
}
