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

impl Schedule {
    /// Returns what is due at a moment, or `None` if its zone is unknown.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Due> {
        let mut at = self.next_fire_at;
        let mut skipped = 0;
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
    use crate::schedule::{NotifyType, ScheduleLabel, Weekdays};
    use crate::subscription::SubscriptionId;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3600);
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
    fn nothing_is_due_before_its_time() {
        assert_eq!(due(EIGHT - HOUR), (false, 0, EIGHT));
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
    }
}
