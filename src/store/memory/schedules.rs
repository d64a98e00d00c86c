//! Schedules in memory.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::MemoryStore;
use crate::clock::Timestamp;
use crate::schedule::{NotifyType, Plan, Schedule, ScheduleName};
use crate::store::{DAYS, DayCount, Fired, Firing, ScheduleStore, StoreError};
use crate::subscription::SubscriptionId;

/// Schedules by name, and their names by due time.
#[derive(Default)]
pub(super) struct Schedules {
    rows: BTreeMap<ScheduleName, Schedule>,
    due: BTreeSet<(Timestamp, ScheduleName)>,
    last_run: Option<Timestamp>,
    /// The number of live subscriptions by day.
    days: BTreeMap<Timestamp, u64>,
}

impl Schedules {
    fn put(&mut self, schedule: Schedule) {
        let name = schedule.name();
        self.remove(&name);
        self.due.insert((schedule.next_fire_at, name.clone()));
        self.rows.insert(name, schedule);
    }

    fn remove(&mut self, name: &ScheduleName) -> Option<Schedule> {
        let schedule = self.rows.remove(name)?;
        self.due.remove(&(schedule.next_fire_at, name.clone()));
        Some(schedule)
    }

    fn of(&self, of: Option<SubscriptionId>) -> Vec<Schedule> {
        let Some(id) = of else {
            let is_application = |name: &ScheduleName| matches!(name, ScheduleName::Application(_));
            let rows = self.rows.iter().filter(|(name, _)| is_application(name));
            return rows.map(|(_, schedule)| schedule.clone()).collect();
        };
        // By type and not by a range of names, which would need the first and the last type.
        let row = |notify_type| self.rows.get(&ScheduleName::Subscriber(id, notify_type));
        NotifyType::ALL
            .iter()
            .copied()
            .filter_map(row)
            .cloned()
            .collect()
    }
}

#[async_trait]
impl ScheduleStore for MemoryStore {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        let schedules = &mut self.lock()?.schedules;
        let mut new = schedule.clone();
        match schedules.rows.get(&schedule.name()) {
            Some(stored) if stored.time == new.time => new.next_fire_at = stored.next_fire_at,
            Some(_) => {}
            None => self.room_for(schedules.rows.len(), 1)?,
        }
        schedules.put(new);
        Ok(())
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        Ok(self.lock()?.schedules.of(of))
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        Ok(self.lock()?.schedules.remove(name).is_some())
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        let schedules = &mut self.lock()?.schedules;
        let name = schedule.name();
        let is_unchanged = schedules
            .rows
            .get(&name)
            .is_some_and(|stored| stored.plan == schedule.plan && stored.time == schedule.time);
        Ok(is_unchanged && schedules.remove(&name).is_some())
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        let schedules = &mut self.lock()?.schedules;
        let theirs = schedules.of(Some(of));
        for schedule in &theirs {
            schedules.remove(&schedule.name());
        }
        Ok(theirs.len() as u64)
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
        for mut schedule in schedules.of(Some(from)) {
            schedules.remove(&schedule.name());
            if let Plan::Subscriber { subscription, .. } = &mut schedule.plan {
                *subscription = to;
            }
            if !schedules.rows.contains_key(&schedule.name()) {
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

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        let state = &mut *self.lock()?;
        let opened = firings.iter().filter(|firing| firing.broadcast.is_some());
        self.room_for(state.ledger.broadcasts(), opened.count())?;
        let mut answers = Vec::with_capacity(firings.len());
        for firing in firings {
            let stored = state.schedules.rows.get(&firing.name);
            let Some(stored) = stored.filter(|stored| stored.next_fire_at == firing.expected)
            else {
                answers.push(Fired::Stale);
                continue;
            };
            let mut moved = stored.clone();
            moved.next_fire_at = firing.next_fire_at;
            state.schedules.put(moved);
            if let Some(broadcast) = &firing.broadcast
                && state.ledger.known(broadcast, now).is_none()
            {
                self.open_unknown(&mut state.ledger, broadcast, now);
            }
            answers.push(Fired::Fired);
        }
        Ok(answers)
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let schedules = &self.lock()?.schedules;
        Ok(schedules.due.first().map(|(at, _)| *at))
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        let last_run = &mut self.lock()?.schedules.last_run;
        *last_run = (*last_run).max(Some(at));
        Ok(())
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock()?.schedules.last_run)
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        let days = &mut self.lock()?.schedules.days;
        for count in counts {
            days.entry(count.day).or_insert(count.live);
        }
        while days.len() > DAYS {
            days.pop_first();
        }
        Ok(())
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        let days = &self.lock()?.schedules.days;
        let days = days.range(..=now);
        Ok(days
            .map(|(day, live)| DayCount {
                day: *day,
                live: *live,
            })
            .collect())
    }
}
