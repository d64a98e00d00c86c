//! Schedules in memory.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::MemoryStore;
use crate::clock::Timestamp;
use crate::schedule::{NotifyType, Schedule};
use crate::store::{Fired, NewBroadcast, ScheduleStore, StoreError};
use crate::subscription::SubscriptionId;

type Name = (SubscriptionId, NotifyType);

/// Schedules by name, and their names by when they are due.
#[derive(Default)]
pub(super) struct Schedules {
    rows: BTreeMap<Name, Schedule>,
    due: BTreeSet<(Timestamp, Name)>,
    last_run: Option<Timestamp>,
}

impl Schedules {
    fn put(&mut self, schedule: Schedule) {
        let name = (schedule.subscription, schedule.notify_type);
        self.remove(&name);
        self.due.insert((schedule.next_fire_at, name));
        self.rows.insert(name, schedule);
    }

    fn remove(&mut self, name: &Name) -> Option<Schedule> {
        let schedule = self.rows.remove(name)?;
        self.due.remove(&(schedule.next_fire_at, *name));
        Some(schedule)
    }

    fn of(&self, subscription: SubscriptionId) -> impl Iterator<Item = &Schedule> {
        // By type, and not by a range over names: that would have to know the first and the last type.
        let row = move |notify_type| self.rows.get(&(subscription, notify_type));
        NotifyType::ALL.into_iter().filter_map(row)
    }
}

#[async_trait]
impl ScheduleStore for MemoryStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let schedules = &mut self.lock()?.schedules;
        self.room_for(schedules.rows.len(), 1)?;
        schedules.put(schedule.clone());
        Ok(())
    }

    async fn schedules(&self, subscription: SubscriptionId) -> Result<Vec<Schedule>, StoreError> {
        Ok(self.lock()?.schedules.of(subscription).cloned().collect())
    }

    async fn remove_schedules(
        &self,
        subscription: SubscriptionId,
        notify_type: Option<NotifyType>,
    ) -> Result<u64, StoreError> {
        let schedules = &mut self.lock()?.schedules;
        let removed = NotifyType::ALL
            .into_iter()
            .filter(|one| notify_type.is_none_or(|wanted| wanted == *one))
            .filter_map(|one| schedules.remove(&(subscription, one)));
        Ok(removed.count() as u64)
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        if from == to {
            return Ok(());
        }
        let schedules = &mut self.lock()?.schedules;
        for notify_type in NotifyType::ALL {
            let moved = schedules.remove(&(from, notify_type));
            if let Some(mut schedule) = moved
                && !schedules.rows.contains_key(&(to, notify_type))
            {
                schedule.subscription = to;
                schedules.put(schedule);
            }
        }
        Ok(())
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        let schedules = &self.lock()?.schedules;
        let due = schedules.due.iter().take_while(|(at, _)| *at <= now);
        Ok(due
            .take(limit)
            .filter_map(|(_, name)| schedules.rows.get(name).cloned())
            .collect())
    }

    async fn fire(
        &self,
        schedule: &Schedule,
        next_fire_at: Timestamp,
        broadcast: Option<&NewBroadcast>,
        now: Timestamp,
    ) -> Result<Fired, StoreError> {
        let state = &mut *self.lock()?;
        let name = (schedule.subscription, schedule.notify_type);
        let stored = state.schedules.rows.get(&name);
        let Some(stored) = stored.filter(|stored| stored.next_fire_at == schedule.next_fire_at)
        else {
            return Ok(Fired::Stale);
        };
        let mut moved = stored.clone();
        if let Some(broadcast) = broadcast
            && state.ledger.known(broadcast, now).is_none()
        {
            self.room_for(state.ledger.broadcasts(), 1)?;
            state.ledger.open(broadcast, now);
        }
        moved.next_fire_at = next_fire_at;
        state.schedules.put(moved);
        Ok(Fired::Fired)
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        let last_run = &mut self.lock()?.schedules.last_run;
        *last_run = (*last_run).max(Some(at));
        Ok(())
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock()?.schedules.last_run)
    }
}
