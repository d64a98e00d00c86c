//! A process near its limit of open files, for the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::deliver::OpenFiles;
use crate::observe;

/// The time between two looks, and between two lines.
const EVERY: Duration = Duration::from_secs(60);
/// The share of the limit, in percent, from which the log is told: that of the alert `WebPushOpenFiles`.
const NEAR: usize = 80;

/// When the worker has last looked at the open files of its process.
#[derive(Debug, Default)]
pub(super) struct FileWatch(Mutex<Option<Instant>>);

impl FileWatch {
    /// Looks once a minute. The log is told while the process is near its limit.
    pub(super) fn look(&self) {
        self.look_at(Instant::now(), OpenFiles::now);
    }

    fn look_at(&self, now: Instant, count: impl FnOnce() -> Option<OpenFiles>) {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|looked| now < looked + EVERY) {
            return;
        }
        *looked = Some(now);
        if let Some(OpenFiles { open, limit }) = count()
            && open.saturating_mul(100) > limit.saturating_mul(NEAR)
        {
            observe::event!(
                WARN,
                open,
                limit,
                "the process is near its limit of open files: raise it (ulimit -n)"
            );
        }
    }
}

#[cfg(test)]
#[cfg(all(feature = "tracing", any(feature = "api", feature = "sqlite")))]
mod tests {
    use super::*;
    use crate::observe::logged;

    #[test]
    fn it_is_told_once_a_minute_from_four_fifths_of_the_limit() {
        let (watch, start) = (FileWatch::default(), Instant::now());
        let look = |secs: u64, open: usize| {
            let now = start + Duration::from_secs(secs);
            logged(|| watch.look_at(now, || Some(OpenFiles { open, limit: 1000 })))
        };
        assert_eq!(look(0, 800), "");
        assert_eq!(look(59, 900), "", "it does not look again");
        let told = look(60, 801);
        assert!(told.contains("WARN"), "{told}");
        for part in ["open files", "open=801", "limit=1000"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(look(61, 990), "");
        assert_eq!(look(120, 990).lines().count(), 1);
        assert_eq!(look(180, 10), "");
        let unknown = logged(|| watch.look_at(start + Duration::from_secs(240), || None));
        assert_eq!(unknown, "");
    }
}
