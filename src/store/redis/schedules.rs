//! Schedules in Redis.

use async_trait::async_trait;

use super::content::{audience, audience_text, push_broadcast};
use super::pack::{Unpacked, pack};
use super::reply::{Fields, Reply, bytes, bytes_or_nil, number, parse, text, time};
use super::script::{
    Args, DUE_SCHEDULES, FIRE, MOVE_SCHEDULES, NEXT_FIRE, PUT_SCHEDULE, RECORD_DAYS, RECORD_RUN,
    REMOVE_SCHEDULES, REMOVE_UNCHANGED_SCHEDULE,
};
use super::{RedisStore, StoreError};
use crate::clock::Timestamp;
use crate::message::Topic;
use crate::schedule::{DailyTime, Plan, Schedule, ScheduleLabel, ScheduleName, Weekdays, Zone};
use crate::store::message_parts::MessageParts;
use crate::store::readable::ReadablePage;
use crate::store::reason::corrupt;
use crate::store::{DAYS, DayCount, Fired, Firing, ScheduleStore, StoreErrorKind};
use crate::subscription::SubscriptionId;

/// Firings that one script makes.
const FIRED_AT_ONCE: usize = 256;
/// Schedules that one script lists.
const LISTED_AT_ONCE: usize = 500;

/// Serializes a schedule's owner: `s` and an id, or `a` for the application.
fn owner_text(of: Option<&SubscriptionId>) -> Vec<u8> {
    of.map_or_else(
        || b"a".to_vec(),
        |id| [b"s", id.as_bytes().as_slice()].concat(),
    )
}

/// Serializes owner and name.
fn name_texts(name: &ScheduleName) -> (Vec<u8>, &str) {
    match name {
        ScheduleName::Subscriber(id, kind) => (owner_text(Some(id)), kind.as_str()),
        ScheduleName::Application(label) => (owner_text(None), label.as_str()),
    }
}

/// Serializes the daily time. A schedule with an unchanged text keeps its `next_fire_at`.
fn time_text(time: &DailyTime) -> Result<String, StoreError> {
    let minute = u32::from(time.hour()) * 60 + u32::from(time.minute());
    // As JSON: the name of an unknown zone may contain any character, such as a line feed.
    serde_json::to_string(&(minute, time.weekdays().bits(), time.zone().name()))
        .map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

fn read_time(text: &str) -> Result<DailyTime, StoreError> {
    let damaged = || corrupt("a time of day");
    let (minute, days, zone): (u32, u8, String) =
        serde_json::from_str(text).map_err(|_| damaged())?;
    let part = |number: u32| u8::try_from(number).map_err(|_| damaged());
    let time = DailyTime::new(part(minute / 60)?, part(minute % 60)?).map_err(|_| damaged())?;
    let days = Weekdays::from_bits(days).ok_or_else(|| corrupt("days of the week"))?;
    Ok(time.in_zone(Zone::stored(&zone)).on(days))
}

/// Serializes the fields that no script reads. Optional texts are prefixed.
fn plan_text(plan: &Plan) -> Result<Vec<u8>, StoreError> {
    let marked = |text: Option<&[u8]>| text.map_or_else(Vec::new, |text| [b"=", text].concat());
    Ok(match plan {
        Plan::Subscriber { message, .. } => {
            pack([marked(message.as_deref().map(str::as_bytes)).as_slice()])
        }
        Plan::Application { to, message, .. } => pack([
            audience_text(to)?.as_bytes(),
            &marked(message.payload().map(AsRef::as_ref)),
            message.ttl().as_secs().to_string().as_bytes(),
            message.urgency().as_str().as_bytes(),
            &marked(message.topic().map(|topic| Topic::as_str(topic).as_bytes())),
            message.padding().to_string().as_bytes(),
        ]),
    })
}

fn schedule_args(schedule: &Schedule) -> Result<Args, StoreError> {
    let name = schedule.name();
    let (owner, name) = name_texts(&name);
    Ok(Args::default()
        .with(owner)
        .with(name)
        .time(schedule.next_fire_at)
        .with(time_text(&schedule.time)?)
        .with(plan_text(&schedule.plan)?))
}

fn unmarked(text: &[u8]) -> Option<Vec<u8>> {
    text.strip_prefix(b"=").map(<[u8]>::to_vec)
}

fn read_plan(owner: &[u8], name: &str, raw: &[u8]) -> Result<Plan, StoreError> {
    let mut parts = Unpacked::of(raw)?;
    match owner.split_first() {
        Some((b's', id)) => Ok(Plan::Subscriber {
            subscription: SubscriptionId::from_bytes(
                id.try_into().map_err(|_| corrupt("a schedule's owner"))?,
            ),
            notify_type: name
                .parse()
                .map_err(|_| corrupt("a type of notification"))?,
            message: unmarked(parts.next()?).map(text).transpose()?,
        }),
        Some((b'a', [])) => Ok(Plan::Application {
            label: ScheduleLabel::parse(name).map_err(|_| corrupt("a schedule's name"))?,
            to: audience(parts.next()?)?,
            message: MessageParts {
                payload: unmarked(parts.next()?),
                ttl_secs: parse(parts.next()?)?,
                urgency: text(parts.next()?.to_vec())?,
                topic: unmarked(parts.next()?).map(text).transpose()?,
                padding: text(parts.next()?.to_vec())?,
            }
            .into_message()?,
        }),
        _ => Err(corrupt("a schedule's owner")),
    }
}

/// Parses a schedule: next fire time, daily time and plan, on a line each.
fn read_schedule(owner: &[u8], name: Vec<u8>, raw: &[u8]) -> Result<Schedule, StoreError> {
    let mut lines = raw.splitn(3, |octet| *octet == b'\n');
    let mut line = || lines.next().ok_or_else(|| corrupt("a schedule"));
    let next_fire_at = time(line()?)?;
    let daily = read_time(&text(line()?.to_vec())?)?;
    let plan = read_plan(owner, &text(name)?, line()?)?;
    Ok(Schedule::new(plan, daily, next_fire_at))
}

/// Parses the number of a day.
fn read_day(raw: &[u8]) -> Result<DayCount, StoreError> {
    let mut words = raw.splitn(2, |octet| *octet == b' ');
    let mut word = || words.next().ok_or_else(|| corrupt("the number of a day"));
    Ok(DayCount {
        day: time(word()?)?,
        live: parse(word()?)?,
    })
}

impl RedisStore {
    /// Reads those of one owner.
    async fn schedules_of(
        &self,
        of: Option<SubscriptionId>,
    ) -> Result<ReadablePage<Schedule>, StoreError> {
        let owner = owner_text(of.as_ref());
        let inner = &*self.inner;
        let key = [format!("{}:d:", inner.namespace).as_bytes(), &owner].concat();
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(key);
        let fields = Fields::of(inner.link.send(&cmd, inner.limits).await?)?;
        let mut named: Vec<_> = fields.into_iter().collect();
        named.sort_unstable();
        let mut page = ReadablePage::new(usize::MAX);
        for (name, raw) in named {
            page.push(read_schedule(&owner, name, &raw))?;
        }
        Ok(page)
    }

    async fn fire_some(
        &self,
        firings: &[Firing],
        now: Timestamp,
    ) -> Result<Vec<Fired>, StoreError> {
        let mut args = Args::default();
        for firing in firings {
            let (owner, name) = name_texts(&firing.name);
            args = args
                .with(owner)
                .with(name)
                .time(firing.expected)
                .time(firing.next_fire_at);
            args = match &firing.broadcast {
                Some(broadcast) => push_broadcast(args.with("1"), broadcast, now)?,
                None => args.with("0"),
            };
        }
        let fired = bytes(self.run(&FIRE, &args).await?)?;
        let answer = |fired: &u8| match fired {
            b'1' => Fired::Fired,
            _ => Fired::Stale,
        };
        Ok(fired.iter().map(answer).collect())
    }
}

#[async_trait]
impl ScheduleStore for RedisStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let args = schedule_args(schedule)?;
        self.run(&PUT_SCHEDULE, &args).await.map(|_| ())
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        Ok(self.schedules_of(of).await?.finish("schedules"))
    }

    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        Ok(self.schedules_of(of).await?.damaged())
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        let (owner, name) = name_texts(name);
        let args = Args::default().with(owner).with(name);
        Ok(number(self.run(&REMOVE_SCHEDULES, &args).await?)? != 0)
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        let args = schedule_args(schedule)?;
        Ok(number(self.run(&REMOVE_UNCHANGED_SCHEDULE, &args).await?)? != 0)
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        let args = Args::default().with(owner_text(Some(&of)));
        number(self.run(&REMOVE_SCHEDULES, &args).await?)
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        let args = Args::default()
            .with(owner_text(Some(&from)))
            .with(owner_text(Some(&to)));
        self.run(&MOVE_SCHEDULES, &args).await.map(|_| ())
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        let (mut page, mut seen) = (ReadablePage::new(limit), 0);
        while page.missing() > 0 {
            let wanted = LISTED_AT_ONCE.min(page.missing());
            let args = Args::at(now).number(seen).number(wanted);
            let before = seen;
            for schedule in Reply::of(self.run(&DUE_SCHEDULES, &args).await?)? {
                seen += 1;
                let mut parts = Reply::of(schedule)?;
                let (owner, name) = (parts.bytes()?, parts.bytes()?);
                // An index entry without a schedule counts as damaged.
                let raw = bytes_or_nil(parts.value()?)?;
                let raw = raw.ok_or_else(|| corrupt("an index of schedules"));
                page.push(raw.and_then(|raw| read_schedule(&owner, name, &raw)))?;
            }
            if seen < before + wanted {
                break;
            }
        }
        page.finish_or_fail("schedules")
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        let mut answers = Vec::with_capacity(firings.len());
        for firings in firings.chunks(FIRED_AT_ONCE) {
            answers.extend(self.fire_some(firings, now).await?);
        }
        Ok(answers)
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let next = bytes_or_nil(self.run(&NEXT_FIRE, &Args::default()).await?)?;
        next.map(|next| time(&next)).transpose()
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        self.run(&RECORD_RUN, &Args::at(at)).await.map(|_| ())
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        let last = bytes_or_nil(self.read("HGET", "meta", "last_run").await?)?;
        last.map(|last| time(&last)).transpose()
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        let mut args = Args::default().number(DAYS);
        for count in counts {
            args = args.time(count.day).number(count.live);
        }
        self.run(&RECORD_DAYS, &args).await.map(|_| ())
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        let mut page = ReadablePage::new(usize::MAX);
        for raw in Reply::of(self.read("ZRANGE", "days", &["0", "-1"]).await?)? {
            page.push(bytes(raw).and_then(|raw| read_day(&raw)))?;
        }
        let mut days = page.finish_once("days", &self.inner.damaged_days);
        days.retain(|count| count.day <= now);
        Ok(days)
    }
}
