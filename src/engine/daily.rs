//! Daily notifications: an occurrence that is due becomes a broadcast, and its schedule moves to the next one.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Engine;
use super::expand::{expected, first_page, recipient};
use super::records::{Record, records};
use super::unreadable::UNREADABLE_PAUSE;
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::message::{Message, Ttl};
use crate::observe;
use crate::schedule::{Plan, Schedule};
use crate::store::{
    Cursor, Fired, Firing, NewBroadcast, Page, StoreError, SubscriptionRecord, SubscriptionRef,
};
use crate::subscription::SubscriptionId;

/// The most schedules fired in one transaction.
pub(super) const AT_ONCE: usize = 256;
/// The most messages composed concurrently.
const COMPOSED_AT_ONCE: usize = 64;
/// The time limit of the application's callback for one message.
const COMPOSE_WITHIN: Duration = Duration::from_secs(10);
/// The pause of a schedule whose time zone is unknown: an update of the system may add it.
const UNKNOWN_ZONE_PAUSE: Duration = Duration::from_secs(3600);

/// The result of firing schedules once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Daily {
    /// Occurrences that became broadcasts.
    pub(super) fired: u64,
    /// Occurrences that are not sent: they were too late, or could not be composed.
    pub(super) skipped: u64,
    /// Whether more schedules may be due.
    pub(super) more: bool,
}

impl Daily {
    /// Whether nothing was fired or skipped.
    pub(super) const fn is_empty(&self) -> bool {
        self.fired == 0 && self.skipped == 0
    }
}

/// Fires the schedules that are due, at most [`AT_ONCE`].
///
/// # Cancel safety
///
/// If dropped, either all of these occurrences are fired or none, and the next call fires them. After an error by damaged data some
/// may have fired, and a later call fires the others.
pub(super) async fn fire_due(engine: Engine) -> Result<Daily, StoreError> {
    let now = engine.now();
    let due = engine.ledger.due_schedules(AT_ONCE, now).await?;
    let mut daily = Daily {
        more: due.len() == AT_ONCE,
        ..Daily::default()
    };
    let subscribers = subscribers(&engine, &due).await?;
    let mut firings = Vec::with_capacity(due.len());
    let mut skipped = Vec::with_capacity(due.len());
    let mut occurrences = Vec::new();
    for (schedule, subscriber) in due.into_iter().zip(subscribers) {
        let subscriber = match (&schedule.plan, subscriber) {
            (Plan::Subscriber { subscription, .. }, Some(Record::Missing)) => {
                if !remove_orphan(&engine, *subscription, &schedule).await? {
                    // Replaced meanwhile: by what the row that it has by now may want.
                    firings.push(Firing::new(&schedule, now + UNREADABLE_PAUSE, None));
                    skipped.push(0);
                }
                continue;
            }
            (_, Some(Record::Unreadable)) => {
                observe::event!(
                    ERROR,
                    "a schedule is deferred: the store cannot read its subscription"
                );
                firings.push(Firing::new(&schedule, now + UNREADABLE_PAUSE, None));
                skipped.push(0);
                continue;
            }
            (_, Some(Record::Found(record))) => Some(record),
            (_, _) => None,
        };
        let Some(due) = schedule.due(now) else {
            observe::event!(ERROR, time = %schedule.time, "a schedule's time zone is unknown");
            firings.push(Firing::new(&schedule, now + UNKNOWN_ZONE_PAUSE, None));
            skipped.push(0);
            continue;
        };
        firings.push(Firing::new(&schedule, due.next_fire_at, None));
        skipped.push(due.skipped);
        // A retired row keeps its schedules, since it may be revived.
        if due.fires && subscriber.as_ref().is_none_or(|row| row.is_live(now)) {
            occurrences.push((firings.len() - 1, schedule, subscriber));
        }
    }
    compose_all(&engine, occurrences, &mut firings, &mut skipped, now).await;
    if firings.is_empty() {
        return Ok(daily);
    }
    let answers = engine.ledger.fire(&firings, now).await?;
    for ((answer, firing), skipped) in answers.iter().zip(&firings).zip(skipped) {
        if *answer == Fired::Fired {
            daily.fired += u64::from(firing.broadcast.is_some());
            daily.skipped += skipped;
        }
    }
    if daily.skipped > 0 {
        observe::event!(
            WARN,
            skipped = daily.skipped,
            "daily notifications were skipped"
        );
    }
    observe::count_daily(daily.fired, daily.skipped);
    Ok(daily)
}

/// Removes a schedule whose row was deleted, and not by unsubscribing. Returns whether it was there as it was read. Other
/// schedules of this row follow when they are due.
///
/// While this runs, a copy between stores may write the row and schedules of its id. One that it has replaced stays. One that
/// it has left as it was is put back, if the row is there by then. A row that is written later finds none, and is given
/// those that the copy has kept for it.
async fn remove_orphan(
    engine: &Engine,
    subscription: SubscriptionId,
    schedule: &Schedule,
) -> Result<bool, StoreError> {
    if !engine.ledger.remove_unchanged_schedule(schedule).await? {
        return Ok(false);
    }
    let row = records(&*engine.subscriptions, &[subscription.into()]).await;
    if matches!(row?.as_slice(), [Record::Missing]) {
        return Ok(true);
    }
    let stored = engine.ledger.schedules(Some(subscription)).await?;
    if stored.iter().all(|stored| stored.name() != schedule.name()) {
        engine.ledger.put_schedule(schedule).await?;
    }
    Ok(true)
}

/// The subscription of each schedule; `None` for schedules of the application.
async fn subscribers(engine: &Engine, due: &[Schedule]) -> Result<Vec<Option<Record>>, StoreError> {
    let id = |schedule: &Schedule| -> Option<SubscriptionId> {
        match &schedule.plan {
            Plan::Subscriber { subscription, .. } => Some(*subscription),
            Plan::Application { .. } => None,
        }
    };
    let wanted: Vec<_> = due.iter().filter_map(id).map(SubscriptionRef::Id).collect();
    let mut found = match wanted.as_slice() {
        [] => Vec::new(),
        wanted => records(&*engine.subscriptions, wanted).await?,
    }
    .into_iter();
    let row = |schedule: &Schedule| id(schedule).and_then(|_| found.next());
    Ok(due.iter().map(row).collect())
}

/// Composes occurrences concurrently, so that a callback that is slow or panics does not hold up the others.
///
/// Each comes with the index of its firing, whose broadcast it becomes.
async fn compose_all(
    engine: &Engine,
    occurrences: Vec<(usize, Schedule, Option<Box<SubscriptionRecord>>)>,
    firings: &mut [Firing],
    skipped: &mut [u64],
    now: Timestamp,
) {
    let mut waiting = occurrences.into_iter();
    let mut places = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let room = COMPOSED_AT_ONCE.saturating_sub(tasks.len());
        for (place, schedule, subscriber) in waiting.by_ref().take(room) {
            let Some(firing) = firings.get(place) else {
                continue;
            };
            let (engine, next_fire_at) = (engine.clone(), firing.next_fire_at);
            let task = tasks.spawn(async move {
                compose(&engine, &schedule, subscriber.as_deref(), next_fire_at, now).await
            });
            places.insert(task.id(), place);
        }
        let Some(ended) = tasks.join_next_with_id().await else {
            return;
        };
        let (id, (broadcast, missed)) = ended.unwrap_or_else(|error| {
            observe::event!(ERROR, error = %error, "composing a daily notification panicked");
            (error.id(), (None, 1))
        });
        let Some(place) = places.remove(&id) else {
            continue;
        };
        if let (Some(firing), Some(skipped)) = (firings.get_mut(place), skipped.get_mut(place)) {
            firing.broadcast = broadcast;
            *skipped += missed;
        }
    }
}

/// The broadcast of an occurrence, if there is one, and the number of occurrences that were skipped.
async fn compose(
    engine: &Engine,
    schedule: &Schedule,
    subscriber: Option<&SubscriptionRecord>,
    next_fire_at: Timestamp,
    now: Timestamp,
) -> (Option<NewBroadcast>, u64) {
    let until_next = Ttl::from_secs(next_fire_at.since(now).as_secs());
    let within = |message: Message| {
        let ttl = message.ttl().min(until_next);
        message.with_ttl(ttl)
    };
    let message = within(match &schedule.plan {
        Plan::Subscriber {
            notify_type,
            message,
            ..
        } => notify_type
            .message(message.as_deref(), &engine.daily_text)
            .with_ttl(until_next),
        Plan::Application { message, .. } => message.clone().again(),
    });
    let composed = match &engine.composer {
        None => Ok(Some(message)),
        Some(composer) => timeout(COMPOSE_WITHIN, composer.compose(schedule, message))
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into())),
    };
    match composed {
        Ok(None) => (None, 0),
        Ok(Some(message)) if message.is_too_large() => {
            observe::event!(ERROR, "a daily notification is larger than 3993 octets");
            (None, 1)
        }
        Ok(Some(message)) => {
            let message = within(message);
            let deadline = message.ttl().deadline(now);
            let (id, audience) = (BroadcastId::at(now), schedule.audience());
            let mut broadcast = NewBroadcast::with_id(id, audience, message, deadline);
            // A subscriber's broadcast has an id that no caller knows. The application can list and follow its own.
            broadcast.forget_when_over = matches!(schedule.plan, Plan::Subscriber { .. });
            broadcast.page = match subscriber {
                Some(row) => Some(Page::new(vec![recipient(row)], Cursor::End)),
                // Expansion reads it again.
                None => first_page(engine, &broadcast.audience, now)
                    .await
                    .unwrap_or(None),
            };
            let (audience, page) = (&broadcast.audience, broadcast.page.as_ref());
            // Expansion makes it exact.
            let expected = expected(engine, audience, page, now).await;
            broadcast.recipients = expected.unwrap_or(0);
            (Some(broadcast), 0)
        }
        Err(error) => {
            observe::event!(ERROR, error = %observe::causes(&*error), "a daily notification could not be composed");
            let _ = error;
            (None, 1)
        }
    }
}
