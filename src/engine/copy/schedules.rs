//! Daily notifications of a copy.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::error::{CopyError, source, target};
use super::journal::Planned;
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::schedule::{NotifyType, Plan, Schedule};
use crate::store::{Firing, ScheduleStore, StoreError, StoreErrorKind};
use crate::subscription::SubscriptionId;

/// A subscription that both stores have, or had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// Its id in the source.
    pub(super) from: SubscriptionId,
    /// Its id in the target.
    pub(super) to: SubscriptionId,
    /// The types that the source had in the last pass.
    pub(super) before: u8,
    /// Whether the browser has registered it in the target later than in the source.
    pub(super) is_newer_there: bool,
}

/// What was done for a [`Pair`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// The types that the source has.
    pub(super) types: u8,
    pub(super) changed: u64,
}

#[derive(Clone)]
pub(super) struct Ledgers {
    pub(super) from: Arc<dyn ScheduleStore>,
    pub(super) to: Arc<dyn ScheduleStore>,
}

impl Ledgers {
    /// Whether one of the two has any schedule.
    pub(super) async fn have_any(&self) -> Result<bool, CopyError> {
        Ok(self.from.next_fire_at().await.map_err(source)?.is_some()
            || self.to.next_fire_at().await.map_err(target)?.is_some())
    }

    /// Copies those of several subscriptions. Returns what was done for each, in order.
    pub(super) async fn copy_all(
        &self,
        pairs: &[Option<Pair>],
        now: Timestamp,
    ) -> Result<Vec<Done>, CopyError> {
        let mut done = vec![Done::default(); pairs.len()];
        // The tasks belong to this call: dropping it stops them all.
        let mut tasks = JoinSet::new();
        for (place, pair) in pairs.iter().enumerate() {
            if let Some(pair) = *pair {
                let ledgers = self.clone();
                tasks.spawn(async move { (place, ledgers.copy(pair, now).await) });
            }
        }
        while let Some(one) = tasks.join_next().await {
            let (place, one) = one.map_err(panicked).map_err(target)?;
            let one = one?;
            if let Some(slot) = done.get_mut(place) {
                *slot = one;
            }
        }
        Ok(done)
    }

    /// Copies those of one subscription. A type that only one of the stores has was added there, or removed from the other
    /// one: what the last pass saw tells which.
    async fn copy(&self, pair: Pair, now: Timestamp) -> Result<Done, CopyError> {
        let theirs = self.from.schedules(Some(pair.from)).await.map_err(source)?;
        let ours = self.to.schedules(Some(pair.to)).await.map_err(target)?;
        let mut done = Done::default();
        let is_listed = |wanted| theirs.iter().any(|one| is_of(one, wanted));
        let mut types = NotifyType::ALL.iter().enumerate();
        let misses_one =
            types.any(|(place, wanted)| pair.before & (1 << place) != 0 && !is_listed(*wanted));
        if misses_one && self.has_unreadable(Some(pair.from)).await? {
            // What was there may be there: it is not taken for removed, by the next pass neither.
            done.types = pair.before;
        }
        for (place, notify_type) in NotifyType::ALL.iter().enumerate() {
            let bit = 1 << place;
            let of_type =
                |all: &[Schedule]| all.iter().find(|one| is_of(one, *notify_type)).cloned();
            let was_there = pair.before & bit != 0;
            let theirs = of_type(&theirs).map(|schedule| with_id(schedule, pair.to));
            if theirs.is_some() {
                done.types |= bit;
            }
            match (theirs, of_type(&ours)) {
                (Some(theirs), None) if !was_there => {
                    self.to.put_schedule(&theirs).await.map_err(target)?;
                    done.changed += 1;
                }
                (None, Some(ours))
                    if was_there && done.types & bit == 0 && !pair.is_newer_there =>
                {
                    let removed = self.to.remove_unchanged_schedule(&ours).await;
                    done.changed += u64::from(removed.map_err(target)?);
                }
                (Some(theirs), Some(ours)) => {
                    let is_same = theirs.plan == ours.plan && theirs.time == ours.time;
                    if !is_same && !pair.is_newer_there {
                        self.to.put_schedule(&theirs).await.map_err(target)?;
                        done.changed += 1;
                    }
                    done.changed += self.catch_up(&theirs, &ours, now).await?;
                }
                (Some(_) | None, None) | (None, Some(_)) => {}
            }
        }
        Ok(done)
    }

    /// Gives a subscription of the target those of another one, except for types that it has. Returns the new ones.
    pub(super) async fn give(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<Vec<Schedule>, CopyError> {
        let theirs = self.to.schedules(Some(from)).await.map_err(target)?;
        let ours = self.to.schedules(Some(to)).await.map_err(target)?;
        let mut given = Vec::new();
        for schedule in theirs {
            let schedule = with_id(schedule, to);
            let name = schedule.name();
            if ours.iter().all(|ours| ours.name() != name) {
                self.to.put_schedule(&schedule).await.map_err(target)?;
                given.push(schedule);
            }
        }
        Ok(given)
    }

    /// Copies those of the application: what the source has added, changed or removed since the last pass, except for those
    /// that the target has changed or removed since. Returns those of the source, for the next pass, and the number of
    /// changes.
    pub(super) async fn copy_those_of_the_application(
        &self,
        before: &[Planned],
        now: Timestamp,
    ) -> Result<(Vec<Planned>, u64), CopyError> {
        let theirs = self.from.schedules(None).await.map_err(source)?;
        let ours = self.to.schedules(None).await.map_err(target)?;
        let mut changed = 0;
        let has_unreadable = self.has_unreadable(None).await?;
        let mut planned: Vec<_> = theirs.iter().map(Planned::of).collect();
        let known = |name| before.iter().find(|known| known.name == name);
        for (theirs, planned) in theirs.iter().zip(&planned) {
            let known = known(planned.name);
            match ours.iter().find(|ours| ours.name() == theirs.name()) {
                Some(ours) => {
                    let is_changed = known.is_some_and(|known| known.content != planned.content);
                    if is_changed && known == Some(&Planned::of(ours)) {
                        self.to.put_schedule(theirs).await.map_err(target)?;
                        changed += 1;
                    }
                    changed += self.catch_up(theirs, ours, now).await?;
                }
                None if known.is_none() => {
                    self.to.put_schedule(theirs).await.map_err(target)?;
                    changed += 1;
                }
                // Removed there.
                None => {}
            }
        }
        for ours in &ours {
            let of_target = Planned::of(ours);
            let is_here = planned.iter().any(|here| here.name == of_target.name);
            if !is_here && !has_unreadable && known(of_target.name) == Some(&of_target) {
                let removed = self.to.remove_unchanged_schedule(ours).await;
                changed += u64::from(removed.map_err(target)?);
            }
        }
        if has_unreadable {
            // What was there may be there: it is not taken for removed, by the next pass neither.
            let is_left_out = |known: &&Planned| planned.iter().all(|here| here.name != known.name);
            let left_out: Vec<_> = before.iter().filter(is_left_out).cloned().collect();
            planned.extend(left_out);
        }
        Ok((planned, changed))
    }

    /// Whether the source has schedules that it does not list, since they cannot be read.
    async fn has_unreadable(&self, of: Option<SubscriptionId>) -> Result<bool, CopyError> {
        let left_out = self.from.unreadable_schedules(of).await.map_err(source)?;
        Ok(left_out > 0)
    }

    /// Moves a schedule on without sending anything: the source has sent what was due until then.
    async fn catch_up(
        &self,
        theirs: &Schedule,
        ours: &Schedule,
        now: Timestamp,
    ) -> Result<u64, CopyError> {
        if theirs.time != ours.time || theirs.next_fire_at <= ours.next_fire_at {
            return Ok(0);
        }
        let firing = Firing::new(ours, theirs.next_fire_at, None);
        self.to.fire(&[firing], now).await.map_err(target)?;
        Ok(1)
    }
}

impl Planned {
    /// What is recorded of a schedule of the application. The drawn tag of its message is no content: servers that start
    /// and make a schedule again draw another one.
    fn of(schedule: &Schedule) -> Self {
        let Schedule { plan, time, .. } = schedule;
        let (name, message) = match plan {
            Plan::Application { label, to, message } => {
                (label.as_str(), Some((to, message.without_drawn_tag())))
            }
            Plan::Subscriber { .. } => ("", None),
        };
        let (hour, minute, weekdays) = (time.hour(), time.minute(), time.weekdays().bits());
        let content = (message, hour, minute, weekdays, time.zone().name());
        // The values have string keys only: they cannot fail to serialize.
        let content = serde_json::to_vec(&content).unwrap_or_default();
        let content: [u8; 32] = Sha256::digest(content).into();
        Self {
            name: Sha256::digest(name).into(),
            content: *content.first_chunk().unwrap_or(&[0; 8]),
        }
    }
}

fn is_of(schedule: &Schedule, wanted: NotifyType) -> bool {
    matches!(&schedule.plan, Plan::Subscriber { notify_type, .. } if *notify_type == wanted)
}

fn with_id(mut schedule: Schedule, id: SubscriptionId) -> Schedule {
    if let Plan::Subscriber { subscription, .. } = &mut schedule.plan {
        *subscription = id;
    }
    schedule
}

pub(super) fn panicked(error: impl Into<BoxError>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, error)
}
