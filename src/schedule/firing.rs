//! The due occurrence of a schedule, and the next one.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{DailyTime, Plan, Schedule};
use crate::clock::Timestamp;

/// The longest delay after which an occurrence is still sent.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);

/// The due part of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Whether there is an occurrence to send.
    pub(crate) fires: bool,
    /// Occurrences that are too late.
    pub(crate) skipped: u64,
    /// The next moment.
    pub(crate) next_fire_at: Timestamp,
}

/// An occurrence that is later than this by far: what was missed before is counted by dates, and not one by one. A stored time may
/// be thousands of years ago, if it is damaged.
const FAR: Duration = Duration::from_secs(32 * 24 * 3600);

/// The most by which new rules of a zone move an occurrence.
const MOVED: Duration = Duration::from_secs(3 * 3600);

impl Schedule {
    /// Returns what is due at a moment, or `None` if its zone is unknown.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Due> {
        let mut at = match self.next_fire_at {
            later if later > now => later,
            _ => self.occurrence(),
        };
        let mut skipped = 0;
        if now.since(at) > FAR {
            let recent = self.plan.spread(self.time.last_until(now - FAR / 2)?);
            skipped = self.time.number_between(at, recent)?;
            at = recent;
        }
        // Of several missed occurrences only the latest one is sent, if it is not too late.
        loop {
            if at > now {
                return Some(Due {
                    fires: false,
                    skipped,
                    next_fire_at: at,
                });
            }
            let next_fire_at = self.plan.spread(self.time.next_after(at)?);
            if next_fire_at > now && now.since(at) <= GRACE {
                return Some(Due {
                    fires: true,
                    skipped,
                    next_fire_at,
                });
            }
            skipped += 1;
            at = next_fire_at;
        }
    }

    /// Returns the occurrence that the stored time is of: that time is within its minute, or later if the occurrence could
    /// not be fired and was deferred.
    fn occurrence(&self) -> Timestamp {
        let stored = self.next_fire_at;
        let last = self.time.last_until(stored);
        let deferred = last.filter(|last| stored.since(*last) >= Duration::from_secs(60));
        // Newer zone data may have moved the occurrence a little: the last one was sent then, and this is not of it.
        let next = self.time.first_after(stored);
        let is_moved = next.is_some_and(|next| next.since(stored) <= MOVED);
        match deferred.filter(|_| !is_moved) {
            Some(last) => self.plan.spread(last),
            None => stored,
        }
    }
}

impl Plan {
    /// The first moment at which a new schedule is due, for [`Schedule::new`]. `None` if its zone is not known here.
    pub(crate) fn first_fire_at(&self, time: &DailyTime, now: Timestamp) -> Option<Timestamp> {
        Some(self.spread(time.first_after(now)?))
    }

    /// Spreads subscribers, many of whom choose the full hour, over the minute: each has a delay of its own, up to 59
    /// s.
    fn spread(&self, occurrence: Timestamp) -> Timestamp {
        match self {
            Self::Subscriber { subscription, .. } => {
                let digest: [u8; 32] = Sha256::digest(subscription.as_bytes()).into();
                let [first, second, ..] = digest;
                let secs = u16::from_be_bytes([first, second]) % 60;
                occurrence + Duration::from_secs(u64::from(secs))
            }
            Self::Application { .. } => occurrence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::Audience;
    use crate::message::Message;
    use crate::schedule::{NotifyType, ScheduleLabel, Weekdays, Zone};
    use crate::subscription::SubscriptionId;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    /// 08:00 UTC, a Friday.
    const EIGHT: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn at_eight() -> Schedule {
        let plan = Plan::Application {
            label: ScheduleLabel::parse("digest").unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        Schedule::new(plan, DailyTime::new(8, 0).unwrap(), EIGHT)
    }

    fn due(at: Timestamp) -> (bool, u64, Timestamp) {
        let due = at_eight().due(at).unwrap();
        (due.fires, due.skipped, due.next_fire_at)
    }

    #[test]
    fn it_fires_when_it_is_due_and_up_to_a_day_late() {
        assert_eq!(due(EIGHT), (true, 0, EIGHT + DAY));
        assert_eq!(due(EIGHT + 23 * HOUR), (true, 0, EIGHT + DAY));
    }

    #[test]
    fn of_many_missed_ones_the_latest_is_sent_and_the_others_are_counted() {
        assert_eq!(due(EIGHT + DAY), (true, 1, EIGHT + 2 * DAY));
        assert_eq!(due(EIGHT + 9 * DAY + HOUR), (true, 9, EIGHT + 10 * DAY));
    }

    /// One occurrence after the other, each by the one before.
    fn walked(schedule: &Schedule, now: Timestamp) -> Due {
        let (mut at, mut skipped) = (schedule.next_fire_at, 0);
        loop {
            let next_fire_at = schedule.plan.spread(schedule.time.next_after(at).unwrap());
            let fires = at <= now && next_fire_at > now && now.since(at) <= GRACE;
            if at > now || fires {
                let next_fire_at = if fires { next_fire_at } else { at };
                return Due {
                    fires,
                    skipped,
                    next_fire_at,
                };
            }
            (at, skipped) = (next_fire_at, skipped + 1);
        }
    }

    #[test]
    fn what_was_missed_for_years_is_counted_as_if_one_by_one() {
        let plan = Plan::Subscriber {
            subscription: SubscriptionId::from_bytes([7; 16]),
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        for bits in [0b111_1111, 0b001_0000, 0b100_0001, 0b010_1010] {
            for zone in ["UTC", "Europe/Berlin", "Pacific/Apia"] {
                let time = DailyTime::new(8, 0).unwrap();
                let time = time.on(Weekdays::from_bits(bits).unwrap());
                let time = time.in_zone(Zone::parse(zone).unwrap());
                let first = plan.first_fire_at(&time, EIGHT).unwrap();
                let schedule = Schedule::new(plan.clone(), time, first);
                for days in [30, 31, 32, 33, 34, 40, 47, 365, 366, 4000] {
                    for more in [Duration::ZERO, HOUR, 9 * HOUR, 23 * HOUR] {
                        let now = first + days * DAY + more;
                        let due = schedule.due(now).unwrap();
                        assert_eq!(due, walked(&schedule, now), "{bits:b} {zone} {days}");
                    }
                }
            }
        }
    }

    /// A damaged time is a matter of its schedule: walking through these years took seconds.
    #[test]
    fn a_stored_time_of_any_year_has_a_next_one() {
        for millis in [0, -62_000_000_000_000, -377_000_000_000_000] {
            let mut old = at_eight();
            old.next_fire_at = Timestamp::from_millis(millis);
            let due = old.due(EIGHT).unwrap();
            assert!(due.fires && due.skipped > 20_000, "{due:?}");
            assert_eq!(due.next_fire_at, EIGHT + DAY);
        }
    }

    #[test]
    fn what_is_more_than_a_day_late_is_skipped() {
        let mut weekly = at_eight();
        weekly.time = weekly.time.on(Weekdays::parse(["fri"]).unwrap());
        let late = weekly.due(EIGHT + 24 * HOUR + Duration::from_millis(1));
        let expected = Due {
            fires: false,
            skipped: 1,
            next_fire_at: EIGHT + 7 * DAY,
        };
        assert_eq!(late, Some(expected));
        assert!(weekly.due(EIGHT + 24 * HOUR).unwrap().fires);
    }

    #[test]
    fn a_deferral_over_midnight_takes_no_occurrence_away() {
        let mut late = at_eight();
        late.time = DailyTime::new(23, 58).unwrap();
        let its_time = EIGHT + 15 * HOUR + 58 * MINUTE;
        late.next_fire_at = its_time + 5 * MINUTE;
        let expected = Due {
            fires: true,
            skipped: 0,
            next_fire_at: its_time + DAY,
        };
        assert_eq!(late.due(its_time + 5 * MINUTE), Some(expected));
    }

    #[test]
    fn a_deferral_makes_nothing_due_that_is_too_late() {
        let mut weekly = at_eight();
        weekly.time = weekly.time.on(Weekdays::parse(["fri"]).unwrap());
        for (deferred, fires) in [(24 * HOUR, true), (25 * HOUR, false), (3 * DAY, false)] {
            weekly.next_fire_at = EIGHT + deferred;
            let expected = Due {
                fires,
                skipped: u64::from(!fires),
                next_fire_at: EIGHT + 7 * DAY,
            };
            assert_eq!(weekly.due(EIGHT + deferred), Some(expected), "{deferred:?}");
        }
    }

    #[test]
    fn what_is_stored_a_minute_after_an_occurrence_was_deferred() {
        let mut weekly = at_eight();
        weekly.time = weekly.time.on(Weekdays::parse(["fri"]).unwrap());
        // A deferral does not count for how late it is, and the second of a subscriber does.
        for (secs, fires) in [(59, true), (60, false)] {
            weekly.next_fire_at = EIGHT + Duration::from_secs(secs);
            let due = weekly.due(EIGHT + DAY + Duration::from_secs(30)).unwrap();
            assert_eq!(due.fires, fires, "{secs}");
        }
    }

    #[test]
    fn an_occurrence_that_new_rules_of_the_zone_move_is_no_deferral_of_the_one_before() {
        let mut moved = at_eight();
        // It was stored while 08:00 was an hour earlier.
        moved.next_fire_at = EIGHT + 23 * HOUR;
        let due = moved.due(EIGHT + 23 * HOUR).unwrap();
        assert!(due.fires && due.skipped == 0);
        assert_eq!(due.next_fire_at, EIGHT + 2 * DAY);
    }

    #[test]
    fn new_rules_move_an_occurrence_by_three_hours_at_most() {
        let millisecond = Duration::from_millis(1);
        for (before_the_next, next_fire_at) in [
            (3 * HOUR, EIGHT + 2 * DAY),
            // Farther away it is the one before, deferred.
            (3 * HOUR + millisecond, EIGHT + DAY),
        ] {
            let mut schedule = at_eight();
            schedule.next_fire_at = EIGHT + (DAY - before_the_next);
            let due = schedule.due(schedule.next_fire_at).unwrap();
            assert!(due.fires && due.skipped == 0);
            assert_eq!(due.next_fire_at, next_fire_at, "{before_the_next:?}");
        }
    }

    /// A schedule that another subscription took over has the second of that one.
    #[test]
    fn an_occurrence_at_any_second_of_its_minute_is_none_that_was_deferred() {
        let plan = Plan::Subscriber {
            subscription: SubscriptionId::from_bytes([7; 16]),
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        for secs in [0, 1, 30, 59] {
            let stored = EIGHT + Duration::from_secs(secs);
            let schedule = Schedule::new(plan.clone(), DailyTime::new(8, 0).unwrap(), stored);
            let due = schedule.due(stored).unwrap();
            assert!(due.fires && due.skipped == 0);
            assert_eq!(due.next_fire_at, plan.spread(EIGHT + DAY), "{secs}");
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        assert_eq!(due(EIGHT - HOUR), (false, 0, EIGHT));
        // Nor is what was deferred to a later time.
        let mut deferred = at_eight();
        deferred.next_fire_at = EIGHT + 5 * HOUR;
        let due = deferred.due(EIGHT + 4 * HOUR).unwrap();
        assert!(!due.fires && due.skipped == 0);
        assert_eq!(due.next_fire_at, EIGHT + 5 * HOUR);
    }

    #[test]
    fn subscribers_are_spread_over_the_minute_each_at_its_own_second() {
        let time = DailyTime::new(8, 0).unwrap();
        let plan = |n| Plan::Subscriber {
            subscription: SubscriptionId::from_bytes([n; 16]),
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let first = |n| plan(n).first_fire_at(&time, EIGHT - HOUR).unwrap();
        let mut seconds: Vec<_> = (0..200).map(|n| first(n).since(EIGHT).as_secs()).collect();
        assert!(seconds.iter().all(|secs| *secs < 60));
        assert_eq!(first(7), first(7));
        let schedule = Schedule::new(plan(7), time.clone(), first(7));
        assert_eq!(schedule.due(first(7)).unwrap().next_fire_at, first(7) + DAY);
        seconds.sort_unstable();
        seconds.dedup();
        assert!(seconds.len() > 40, "{seconds:?}");
        assert_eq!(seconds.last(), Some(&59), "all of the minute");
    }
}
