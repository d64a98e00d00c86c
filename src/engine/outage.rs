//! Rate limited reports of a lasting failure.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe;
use crate::store::StoreError;

/// The time between two reports of a lasting failure.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The state of a repeated operation: whether it fails, and since when.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Failing>);

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    reported: Instant,
}

impl Outage {
    /// Records a failure. It is logged at first and once a minute.
    pub(super) fn failed(&mut self, error: &StoreError, what: &'static str) {
        let now = Instant::now();
        if self.is_worth_a_report(now) {
            observe::event!(ERROR, error = %observe::causes(error), "{what}; trying again");
        }
        let _ = (error, what);
    }

    /// Records a success. The end of an outage is logged with its duration, and with what it was that failed.
    pub(super) fn went_well(&mut self, what: &'static str) {
        if let Some(lasted) = self.end(Instant::now()) {
            observe::event!(INFO, secs = lasted.as_secs(), "{what}: this is over");
            let _ = lasted;
        }
        let _ = what;
    }

    fn is_worth_a_report(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            Some(failing) if now < failing.reported + REPORT_EVERY => false,
            Some(failing) => {
                failing.reported = now;
                true
            }
            None => {
                self.0 = Some(Failing {
                    since: now,
                    reported: now,
                });
                true
            }
        }
    }

    fn end(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().map(|failing| now - failing.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_reported_at_first_each_minute_and_at_its_end() {
        let start = Instant::now();
        let mut outage = Outage::default();
        assert_eq!(outage.end(start), None);
        let reported =
            (0..=150).filter(|secs| outage.is_worth_a_report(start + Duration::from_secs(*secs)));
        assert_eq!(reported.collect::<Vec<_>>(), [0, 60, 120]);
        let lasted = Duration::from_secs(151);
        assert_eq!(outage.end(start + lasted), Some(lasted));
        assert_eq!(outage.end(start + lasted), None);
        assert!(
            outage.is_worth_a_report(start + lasted),
            "the next outage is reported"
        );
    }
}
