//! The times of the pages of a broadcast.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Timestamp;

/// The longest time for which a page of a broadcast with a pace keeps the next one waiting. A stored time that is further
/// ahead was written by a wrong clock, and the broadcast is due.
pub const LONGEST_PAGE: Duration = Duration::from_secs(60);

/// The time for which a page of so many rows keeps the next one waiting.
fn time_of(rows: u64, pace: NonZeroU32) -> Duration {
    let millis = rows.saturating_mul(1000).div_ceil(pace.get().into());
    Duration::from_millis(millis).min(LONGEST_PAGE)
}

/// The time from which the next page may be written (L3). Without a pace a replica with a faster clock hides nothing: a
/// broadcast is due from its due time on.
pub(super) fn page_at(
    pace: Option<NonZeroU32>,
    due_at: Timestamp,
    expand_at: Timestamp,
    now: Timestamp,
) -> Timestamp {
    match pace {
        Some(_) if expand_at <= now + LONGEST_PAGE => expand_at.max(due_at),
        _ => due_at,
    }
}

/// The time from which the page after one of `rows` rows may be written (L4). Of a time in which nothing was written one
/// page's is made up for, which keeps the pace of a worker that is a little late each time, and no more.
pub(super) fn next_page_at(
    pace: Option<NonZeroU32>,
    rows: u64,
    expand_at: Timestamp,
    now: Timestamp,
) -> Timestamp {
    let Some(pace) = pace else {
        return now;
    };
    let since = match expand_at <= now + LONGEST_PAGE {
        true => expand_at,
        false => now,
    };
    now.max(since + time_of(rows, pace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: Timestamp = Timestamp::from_secs(100);

    fn pace(per_second: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(per_second)
    }

    fn after(millis: u64) -> Timestamp {
        DUE + Duration::from_millis(millis)
    }

    /// Writes pages whenever it can, looking every `look` milliseconds, for ten seconds. Returns the number of rows.
    fn written(per_second: u32, page: u64, look: u64) -> u64 {
        let (pace, mut expand_at, mut rows) = (pace(per_second), DUE, 0);
        for now in (0..10_000).filter(|millis| millis % look == 0) {
            let now = after(now);
            if page_at(pace, DUE, expand_at, now) <= now {
                expand_at = next_page_at(pace, page, expand_at, now);
                rows += page;
            }
        }
        rows
    }

    #[test]
    fn pages_keep_the_pace_of_a_worker_that_is_late() {
        // Each look is late by up to its interval, and one page more is due at the beginning.
        assert_eq!(written(500, 125, 1), 5_000);
        assert_eq!(written(500, 125, 7), 5_000);
        assert_eq!(written(500, 125, 100), 5_000);
        assert_eq!(written(3, 1, 10), 30);
        assert_eq!(written(7_000, 500, 10), 69_500);
        assert_eq!(written(1, 1, 900), 10);
    }

    #[test]
    fn no_time_is_made_up_for_but_that_of_a_page() {
        let pace = pace(100);
        let now = after(3_600_000);
        let second = next_page_at(pace, 25, DUE, now);
        assert_eq!(second, now);
        let third = next_page_at(pace, 25, second, now);
        assert_eq!(third, now + Duration::from_millis(250));
        assert!(page_at(pace, DUE, third, now) > now);
    }

    #[test]
    fn several_pages_at_one_moment_add_up() {
        let pace = pace(10);
        let second = next_page_at(pace, 20, DUE, DUE);
        assert_eq!(second, after(2_000));
        assert_eq!(next_page_at(pace, 5, second, DUE), after(2_500));
        // Recipients that were pending already, or none.
        assert_eq!(next_page_at(pace, 0, second, DUE), second);
        assert_eq!(next_page_at(pace, 0, DUE, after(7)), after(7));
    }

    #[test]
    fn parts_of_a_millisecond_are_not_given_away() {
        assert_eq!(next_page_at(pace(u32::MAX), 1, DUE, DUE), after(1));
        assert_eq!(next_page_at(pace(3), 1, DUE, DUE), after(334));
    }

    #[test]
    fn a_wrong_clock_delays_a_broadcast_by_a_minute_at_most() {
        let pace = pace(1);
        let near = DUE + LONGEST_PAGE;
        assert_eq!(page_at(pace, DUE, near, DUE), near);
        let far = near + Duration::from_millis(1);
        assert_eq!(page_at(pace, DUE, far, DUE), DUE);
        assert_eq!(next_page_at(pace, 1, far, DUE), after(1_000));
        assert_eq!(next_page_at(pace, 1, Timestamp::MAX, DUE), after(1_000));
        // However many rows a page has.
        assert_eq!(next_page_at(pace, u64::MAX, DUE, DUE), near);
        // A clock that was set back far behind the due time.
        assert_eq!(page_at(pace, DUE, DUE, Timestamp::MIN), DUE);
    }

    #[test]
    fn without_a_pace_the_next_page_is_due_at_once() {
        assert_eq!(next_page_at(None, 500, DUE, after(7)), after(7));
        assert_eq!(page_at(None, DUE, after(9), after(8)), DUE);
    }
}
