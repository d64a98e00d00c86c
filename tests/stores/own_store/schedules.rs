//! The schedules' table.

use async_trait::async_trait;
use tower_web_push::clock::Timestamp;
use tower_web_push::schedule::{Plan, Schedule, ScheduleName};
use tower_web_push::store::{Fired, Firing, ScheduleStore, StoreError};
use tower_web_push::subscription::SubscriptionId;

use super::OwnStore;

/// The subscription that a schedule belongs to.
fn owner(name: &ScheduleName) -> Option<SubscriptionId> {
    match name {
        ScheduleName::Subscriber(id, _) => Some(*id),
        ScheduleName::Application(_) => None,
    }
}

#[async_trait]
impl ScheduleStore for OwnStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let schedules = &mut self.begin()?.schedules;
        let mut new = schedule.clone();
        match schedules.get(&new.name()) {
            Some(stored) if stored.time == new.time => new.next_fire_at = stored.next_fire_at,
            _ => {}
        }
        schedules.insert(new.name(), new);
        Ok(())
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        let schedules = &self.begin()?.schedules;
        let theirs = schedules.iter().filter(|(name, _)| owner(name) == of);
        Ok(theirs.map(|(_, schedule)| schedule.clone()).collect())
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        Ok(self.begin()?.schedules.remove(name).is_some())
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        let schedules = &mut self.begin()?.schedules;
        let name = schedule.name();
        let is_unchanged = schedules
            .get(&name)
            .is_some_and(|stored| stored.plan == schedule.plan && stored.time == schedule.time);
        Ok(is_unchanged && schedules.remove(&name).is_some())
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        let schedules = &mut self.begin()?.schedules;
        let before = schedules.len();
        schedules.retain(|name, _| owner(name) != Some(of));
        Ok((before - schedules.len()) as u64)
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        let schedules = &mut self.begin()?.schedules;
        let names = schedules.keys().filter(|name| owner(name) == Some(from));
        let names: Vec<_> = names.cloned().collect();
        for name in names {
            let Some(mut schedule) = schedules.remove(&name) else {
                continue;
            };
            if let Plan::Subscriber { subscription, .. } = &mut schedule.plan {
                *subscription = to;
            }
            schedules.entry(schedule.name()).or_insert(schedule);
        }
        Ok(())
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        let schedules = self.begin()?.schedules.clone();
        let mut due: Vec<_> = schedules.into_values().collect();
        due.retain(|schedule| schedule.next_fire_at <= now);
        due.sort_by_key(|schedule| schedule.next_fire_at);
        due.truncate(limit);
        Ok(due)
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        let tables = &mut *self.begin()?;
        let mut fire = |firing: &Firing| {
            let stored = tables.schedules.get_mut(&firing.name);
            let stored = stored.filter(|stored| stored.next_fire_at == firing.expected);
            let Some(stored) = stored else {
                return Fired::Stale;
            };
            stored.next_fire_at = firing.next_fire_at;
            if let Some(broadcast) = &firing.broadcast {
                tables.ledger.open(broadcast, now);
            }
            Fired::Fired
        };
        Ok(firings.iter().map(&mut fire).collect())
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let schedules = &self.begin()?.schedules;
        Ok(schedules.values().map(|row| row.next_fire_at).min())
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        let last_run = &mut self.begin()?.last_run;
        *last_run = (*last_run).max(Some(at));
        Ok(())
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.begin()?.last_run)
    }
}
