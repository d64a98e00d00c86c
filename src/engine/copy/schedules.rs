//! Daily notifications of a copy.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::error::{CopyError, source, target};
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
                (None, Some(ours)) if was_there && !pair.is_newer_there => {
                    let removed = self.to.remove_schedule(&ours.name()).await;
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

    /// Copies those of the application that the target does not have.
    pub(super) async fn copy_those_of_the_application(
        &self,
        now: Timestamp,
    ) -> Result<u64, CopyError> {
        let ours = self.to.schedules(None).await.map_err(target)?;
        let mut changed = 0;
        for theirs in self.from.schedules(None).await.map_err(source)? {
            match ours.iter().find(|ours| ours.name() == theirs.name()) {
                Some(ours) => changed += self.catch_up(&theirs, ours, now).await?,
                None => {
                    self.to.put_schedule(&theirs).await.map_err(target)?;
                    changed += 1;
                }
            }
        }
        Ok(changed)
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

fn is_of(schedule: &Schedule, wanted: NotifyType) -> bool {
    matches!(&schedule.plan, Plan::Subscriber { notify_type, .. } if *notify_type == wanted)
}

fn with_id(mut schedule: Schedule, id: SubscriptionId) -> Schedule {
    if let Plan::Subscriber { subscription, .. } = &mut schedule.plan {
        *subscription = id;
    }
    schedule
}

fn panicked(error: impl Into<BoxError>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, error)
}
