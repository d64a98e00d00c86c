//! Schedules in PostgreSQL.

use std::collections::HashSet;

use async_trait::async_trait;
use tokio_postgres::types::ToSql;

use super::attempts::in_transaction;
use super::connection::Tx;
use super::error::{Failed, corrupt};
use super::opening::Openings;
use super::rows::{Columns, Values, first, integer, read};
use super::{PostgresStore, content, opening};
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
    "INSERT INTO web_push.schedule AS s (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $13, $6, $7, $8, $9, $10, $11, $12) \
     ON CONFLICT (owner, name) DO UPDATE SET \
     next_fire_at = CASE WHEN s.minute_of_day = excluded.minute_of_day AND s.zone = excluded.zone \
         AND s.weekdays = excluded.weekdays THEN s.next_fire_at ELSE excluded.next_fire_at END, \
     minute_of_day = excluded.minute_of_day, zone = excluded.zone, weekdays = excluded.weekdays, \
     message = excluded.message, audience = excluded.audience, payload = excluded.payload, \
     ttl = excluded.ttl, urgency = excluded.urgency, topic = excluded.topic, padding = excluded.padding"
);
pub(super) const OF: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM web_push.schedule WHERE owner = $1 ORDER BY name"
);
pub(super) const DUE: &str = concat!(
    "SELECT next_fire_at, owner, name, ",
    columns!(),
    " FROM web_push.schedule WHERE next_fire_at <= $1 AND (next_fire_at, owner, name) > ($3, $4, $5) \
     ORDER BY next_fire_at, owner, name LIMIT $2"
);
const REMOVE: &str = "DELETE FROM web_push.schedule WHERE owner = $1 AND name = $2";
/// Compares all columns but `next_fire_at` (D9).
const REMOVE_UNCHANGED: &str = "DELETE FROM web_push.schedule WHERE owner = $1 AND name = $2 \
     AND minute_of_day = $3 AND zone = $4 AND weekdays = $5 AND message IS NOT DISTINCT FROM $6 \
     AND audience IS NOT DISTINCT FROM $7 AND payload IS NOT DISTINCT FROM $8 AND ttl IS NOT DISTINCT FROM $9 \
     AND urgency IS NOT DISTINCT FROM $10 AND topic IS NOT DISTINCT FROM $11 AND padding IS NOT DISTINCT FROM $12";
const REMOVE_ALL: &str = "DELETE FROM web_push.schedule WHERE owner = $1";
/// Locks both subscribers' schedules in one order.
const LOCK_BOTH: &str =
    "SELECT name FROM web_push.schedule WHERE owner = ANY($1) ORDER BY owner, name FOR UPDATE";
const MOVE: &str = "UPDATE web_push.schedule AS s SET owner = $2 WHERE owner = $1 \
     AND NOT EXISTS (SELECT 1 FROM web_push.schedule AS t WHERE t.owner = $2 AND t.name = s.name)";
/// Locks the schedules that are as expected, in one order.
pub(super) const LOCK_DUE: &str = "SELECT asked.place FROM unnest($1::bytea[], $2::text[], $3::bigint[]) \
         WITH ORDINALITY AS asked (owner, name, expected, place) \
     JOIN web_push.schedule AS s ON s.owner = asked.owner AND s.name = asked.name \
     WHERE s.next_fire_at = asked.expected ORDER BY s.owner, s.name FOR NO KEY UPDATE OF s";
pub(super) const FIRE: &str = "UPDATE web_push.schedule AS s SET next_fire_at = fired.next_fire_at \
     FROM unnest($1::bytea[], $2::text[], $3::bigint[]) AS fired (owner, name, next_fire_at) \
     WHERE s.owner = fired.owner AND s.name = fired.name";
pub(super) const NEXT: &str = "SELECT min(next_fire_at) FROM web_push.schedule";
const RECORD_RUN: &str = "INSERT INTO web_push.meta AS m (name, value) VALUES ('last_run', $1) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE m.value < excluded.value";
const LAST_RUN: &str = "SELECT value FROM web_push.meta WHERE name = 'last_run'";
const RECORD_DAYS: &str = "INSERT INTO web_push.day_count (day, live) \
     SELECT day, live FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (day, live, place) \
     ORDER BY day, place ON CONFLICT (day) DO NOTHING";
/// Deletes all but the latest days.
const TRIM_DAYS: &str = "DELETE FROM web_push.day_count \
     WHERE day <= (SELECT day FROM web_push.day_count ORDER BY day DESC OFFSET $1 LIMIT 1)";
const DAYS_UNTIL: &str = "SELECT day, live FROM web_push.day_count WHERE day <= $1 ORDER BY day";

/// The owner of the application's own schedules.
const APPLICATION: &[u8] = &[];

/// The two columns of a name.
fn name_columns(name: &ScheduleName) -> (&[u8], &str) {
    match name {
        ScheduleName::Subscriber(id, notify_type) => (id.as_bytes(), notify_type.as_str()),
        ScheduleName::Application(label) => (APPLICATION, label.as_str()),
    }
}

/// The columns of a schedule, without `next_fire_at`.
struct Stored<'a> {
    owner: &'a [u8],
    name: &'a str,
    minute: i64,
    zone: &'a str,
    weekdays: i64,
    text: Option<&'a [u8]>,
    to: Option<String>,
    payload: Option<&'a [u8]>,
    ttl: Option<i64>,
    urgency: Option<&'static str>,
    topic: Option<&'a str>,
    padding: Option<String>,
}

impl<'a> Stored<'a> {
    fn of(schedule: &'a Schedule, name: &'a ScheduleName) -> Result<Self, StoreError> {
        let time = &schedule.time;
        let (owner, name) = name_columns(name);
        let (text, to, message) = match &schedule.plan {
            Plan::Subscriber { message, .. } => (message.as_deref(), None, None),
            Plan::Application { to, message, .. } => {
                (None, Some(content::audience_text(to)?), Some(message))
            }
        };
        let payload = message.and_then(|message| message.payload());
        Ok(Self {
            owner,
            name,
            minute: i64::from(time.hour()) * 60 + i64::from(time.minute()),
            zone: time.zone().name(),
            weekdays: i64::from(time.weekdays().bits()),
            text: text.map(str::as_bytes),
            to,
            payload: payload.map(|payload| payload.as_ref()),
            ttl: message.map(|message| integer(message.ttl().as_secs())),
            urgency: message.map(|message| message.urgency().as_str()),
            topic: message.and_then(|message| message.topic().map(Topic::as_str)),
            padding: message.map(|message| message.padding().to_string()),
        })
    }

    /// `$1` to `$12` of the statements.
    fn values(&self) -> [&(dyn ToSql + Sync); 12] {
        [
            &self.owner,
            &self.name,
            &self.minute,
            &self.zone,
            &self.weekdays,
            &self.text,
            &self.to,
            &self.payload,
            &self.ttl,
            &self.urgency,
            &self.topic,
            &self.padding,
        ]
    }
}

fn schedule(columns: &mut Columns<'_>) -> Result<Schedule, StoreError> {
    let owner: &[u8] = columns.get()?;
    let name: &str = columns.get()?;
    let time = time(columns)?;
    let next_fire_at = columns.time()?;
    let message: Option<Vec<u8>> = columns.get()?;
    let plan = if owner == APPLICATION {
        Plan::Application {
            label: ScheduleLabel::parse(name).map_err(|_| corrupt("a schedule's name"))?,
            to: content::audience(columns)?,
            message: content::read_message(columns)?,
        }
    } else {
        let owner = owner
            .try_into()
            .map_err(|_| corrupt("a schedule's owner"))?;
        let message = message.map(String::from_utf8).transpose();
        Plan::Subscriber {
            subscription: SubscriptionId::from_bytes(owner),
            notify_type: name
                .parse()
                .map_err(|_| corrupt("a type of notification"))?,
            message: message.map_err(|_| corrupt("a schedule's message"))?,
        }
    };
    Ok(Schedule::new(plan, time, next_fire_at))
}

fn time(columns: &mut Columns<'_>) -> Result<DailyTime, StoreError> {
    let minute = columns.count()?;
    let zone: &str = columns.get()?;
    let weekdays = u8::try_from(columns.count()?).ok();
    let weekdays = weekdays.and_then(Weekdays::from_bits);
    let weekdays = weekdays.ok_or_else(|| corrupt("days of the week"))?;
    let time = u8::try_from(minute / 60)
        .ok()
        .zip(u8::try_from(minute % 60).ok())
        .and_then(|(hour, minute)| DailyTime::new(hour, minute).ok())
        .ok_or_else(|| corrupt("a time of day"))?;
    Ok(time.in_zone(Zone::stored(zone)).on(weekdays))
}

fn day(columns: &mut Columns<'_>) -> Result<DayCount, StoreError> {
    Ok(DayCount {
        day: columns.time()?,
        live: columns.count()?,
    })
}

async fn record_days(tx: &mut Tx<'_>, counts: &[DayCount]) -> Result<(), Failed> {
    let days: Vec<_> = counts.iter().map(|count| count.day.as_millis()).collect();
    let live: Vec<_> = counts.iter().map(|count| integer(count.live)).collect();
    tx.execute(RECORD_DAYS, &[&days, &live]).await?;
    tx.execute(TRIM_DAYS, &[&integer(DAYS)]).await.map(|_| ())
}

async fn fire(tx: &mut Tx<'_>, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, Failed> {
    let mut answers = vec![Fired::Stale; firings.len()];
    let mut places: Vec<usize> = (0..firings.len()).collect();
    // A name that occurs twice is fired in two turns. Usually there is one turn.
    while !places.is_empty() {
        let mut seen = HashSet::new();
        let (turn, later): (Vec<usize>, Vec<usize>) = places
            .into_iter()
            .partition(|place| seen.insert(firings.get(*place).map(|firing| firing.name.clone())));
        fire_each(tx, firings, &turn, &mut answers, now).await?;
        places = later;
    }
    Ok(answers)
}

/// Fires the schedules at these indexes, no two with the same name.
async fn fire_each(
    tx: &mut Tx<'_>,
    firings: &[Firing],
    turn: &[usize],
    answers: &mut [Fired],
    now: Timestamp,
) -> Result<(), Failed> {
    let asked: Vec<_> = turn
        .iter()
        .filter_map(|place| Some((*place, firings.get(*place)?)))
        .collect();
    let columns = |asked: &[(usize, &Firing)]| -> (Vec<Vec<u8>>, Vec<String>) {
        let names = asked.iter().map(|(_, firing)| name_columns(&firing.name));
        names
            .map(|(owner, name)| (owner.to_vec(), name.to_owned()))
            .unzip()
    };
    let (owners, names) = columns(&asked);
    let expected: Vec<_> = asked
        .iter()
        .map(|(_, firing)| firing.expected.as_millis())
        .collect();
    let rows = tx.query(LOCK_DUE, &[&owners, &names, &expected]).await?;
    let due: HashSet<i64> = read(&rows, |columns| columns.get())?.into_iter().collect();
    let fired: Vec<_> = (1..)
        .zip(asked)
        .filter(|(place, _)| due.contains(place))
        .map(|(_, asked)| asked)
        .collect();
    if fired.is_empty() {
        return Ok(());
    }
    let (owners, names) = columns(&fired);
    let next: Vec<_> = fired
        .iter()
        .map(|(_, firing)| firing.next_fire_at.as_millis())
        .collect();
    tx.execute(FIRE, &[&owners, &names, &next]).await?;
    let opened = fired
        .iter()
        .filter_map(|(_, firing)| firing.broadcast.as_ref());
    let openings = Openings::new(opened, now)?;
    if !openings.is_empty() {
        opening::open_all(tx, &openings, now).await?;
    }
    for (place, _) in fired {
        if let Some(answer) = answers.get_mut(place) {
            *answer = Fired::Fired;
        }
    }
    Ok(())
}

async fn move_all(tx: &mut Tx<'_>, from: SubscriptionId, to: SubscriptionId) -> Result<(), Failed> {
    let (from, to) = (from.as_bytes().as_slice(), to.as_bytes().as_slice());
    tx.query(LOCK_BOTH, &[&vec![from, to]]).await?;
    tx.execute(MOVE, &[&from, &to]).await?;
    // The rest exists under the other id already.
    tx.execute(REMOVE_ALL, &[&from]).await.map(|_| ())
}

impl PostgresStore {
    /// Reads those of one owner.
    async fn schedules_of(
        &self,
        of: Option<SubscriptionId>,
    ) -> Result<ReadablePage<Schedule>, StoreError> {
        let owner = of.as_ref().map_or(APPLICATION, |id| id.as_bytes());
        let rows = self.database().query(OF, &[&owner]).await?;
        let mut page = ReadablePage::new(usize::MAX);
        for row in read(&rows, |columns| Ok(schedule(columns)))? {
            page.push(row)?;
        }
        Ok(page)
    }
}

#[async_trait]
impl ScheduleStore for PostgresStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let name = schedule.name();
        let stored = Stored::of(schedule, &name)?;
        let next_fire_at = schedule.next_fire_at.as_millis();
        let mut values = stored.values().to_vec();
        values.push(&next_fire_at);
        self.database().execute(PUT, &values).await?;
        self.tell().await;
        Ok(())
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        Ok(self.schedules_of(of).await?.finish("schedules"))
    }

    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        Ok(self.schedules_of(of).await?.damaged())
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        let (owner, name) = name_columns(name);
        Ok(self.database().execute(REMOVE, &[&owner, &name]).await? > 0)
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        let name = schedule.name();
        let stored = Stored::of(schedule, &name)?;
        let values = stored.values();
        let removed = self.database().execute(REMOVE_UNCHANGED, &values);
        Ok(removed.await? > 0)
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        let owner = of.as_bytes().as_slice();
        self.database().execute(REMOVE_ALL, &[&owner]).await
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        in_transaction!(self.database(), |tx| move_all(tx, from, to))
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        let now = now.as_millis();
        let mut page = ReadablePage::new(limit);
        let mut after: (i64, Vec<u8>, String) = (i64::MIN, Vec::new(), String::new());
        while page.missing() > 0 {
            let wanted = page.missing();
            let max = integer(wanted);
            let values: Values<'_> = &[&now, &max, &after.0, &after.1, &after.2];
            let rows = self.database().query(DUE, values).await?;
            let keyed = |columns: &mut Columns<'_>| {
                let key = (columns.get()?, columns.get()?, columns.get()?);
                Ok((key, schedule(columns)))
            };
            // Behind schedules that cannot be read the next ones are read.
            for (key, row) in read(&rows, keyed)? {
                after = key;
                page.push(row)?;
            }
            if rows.len() < wanted {
                break;
            }
        }
        page.finish_or_fail("schedules")
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        let fired = in_transaction!(self.database(), |tx| fire(tx, firings, now))?;
        let opens = |(firing, fired): (&Firing, &Fired)| {
            *fired == Fired::Fired && firing.broadcast.is_some()
        };
        if firings.iter().zip(&fired).any(opens) {
            self.tell().await;
        }
        Ok(fired)
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.database().query(NEXT, &[]).await?;
        Ok(first(&rows, |columns| columns.time_or_null())?.flatten())
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        let at = at.as_millis();
        self.database()
            .execute(RECORD_RUN, &[&at])
            .await
            .map(|_| ())
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        first(&self.database().query(LAST_RUN, &[]).await?, |columns| {
            columns.time()
        })
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        in_transaction!(self.database(), |tx| record_days(tx, counts))
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        let values: Values<'_> = &[&now.as_millis()];
        let rows = self.database().query(DAYS_UNTIL, values).await?;
        let mut page = ReadablePage::new(usize::MAX);
        for row in read(&rows, |columns| Ok(day(columns)))? {
            page.push(row)?;
        }
        Ok(page.finish_once("days", self.damaged_days()))
    }
}
