//! When answers about single subscriptions mean the whole origin.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::subscription::EndpointKey;

/// How many distinct subscriptions it takes: one browser's trouble is not its push service's.
pub(super) const ROWS: usize = 8;
/// How long a limit of one subscription counts.
const LIMITED_WITHIN: Duration = Duration::from_secs(60);

/// What an origin did of late, subscription by subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct Streaks {
    sender_faults: Vec<EndpointKey>,
    failures: Vec<EndpointKey>,
    limited: VecDeque<(Timestamp, EndpointKey)>,
}

impl Streaks {
    /// It took a message.
    pub(super) fn accepted(&mut self) {
        self.sender_faults.clear();
        self.failures.clear();
    }

    /// It answered, and not with an error of its own.
    pub(super) fn answered(&mut self) {
        self.failures.clear();
    }

    /// It refused us as a sender; whether that makes [`ROWS`] without an acceptance between.
    pub(super) fn sender_fault(&mut self, key: EndpointKey) -> bool {
        is_full(&mut self.sender_faults, key)
    }

    /// It did not answer, or with an error of its own; whether that makes [`ROWS`] without an answer between.
    pub(super) fn failed(&mut self, key: EndpointKey) -> bool {
        is_full(&mut self.failures, key)
    }

    /// It limited one subscription; whether that makes [`ROWS`] within a minute.
    pub(super) fn limited(&mut self, key: EndpointKey, now: Timestamp) -> bool {
        self.limited
            .retain(|(at, limited)| now.since(*at) < LIMITED_WITHIN && *limited != key);
        self.limited.push_back((now, key));
        let is_full = self.limited.len() >= ROWS;
        if is_full {
            self.limited.clear();
        }
        is_full
    }
}

/// Adds a row; when the list is full it begins anew.
fn is_full(rows: &mut Vec<EndpointKey>, key: EndpointKey) -> bool {
    if !rows.contains(&key) {
        rows.push(key);
    }
    let is_full = rows.len() >= ROWS;
    if is_full {
        rows.clear();
    }
    is_full
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> EndpointKey {
        EndpointKey::from_bytes([n; 32])
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn eight_distinct_rows_in_a_row_are_a_sender_fault() {
        let mut streaks = Streaks::default();
        for _ in 0..3 {
            assert!((1..8).all(|n| !streaks.sender_fault(key(n))));
        }
        assert!(streaks.sender_fault(key(8)));
        assert!(!streaks.sender_fault(key(9)), "a new streak");
    }

    #[test]
    fn an_acceptance_between_ends_both_streaks_and_an_answer_one() {
        let mut streaks = Streaks::default();
        for n in 1..8 {
            assert!(!streaks.sender_fault(key(n)));
            assert!(!streaks.failed(key(n)));
        }
        streaks.answered();
        assert!(!streaks.failed(key(8)));
        assert!(streaks.sender_fault(key(8)));
        (1..8).for_each(|n| assert!(!streaks.sender_fault(key(n))));
        streaks.accepted();
        assert!(!streaks.sender_fault(key(8)));
    }

    #[test]
    fn eight_limited_rows_count_within_a_minute_only() {
        let mut streaks = Streaks::default();
        for n in 1..8 {
            assert!(!streaks.limited(key(n), at(i64::from(n))));
            assert!(!streaks.limited(key(n), at(i64::from(n))), "the same row");
        }
        // The first one's minute is over.
        assert!(!streaks.limited(key(8), at(61)));
        assert!(streaks.limited(key(9), at(61)));
    }
}
