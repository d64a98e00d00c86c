//! The evidence against one origin: what the responses of several distinct rows show together. Pure.
//!
//! Subscribers choose the requests that are sent to an origin, so a count of failures is no evidence. A row is a
//! *witness* if a push for it was accepted before and it has worked until now. A row that fails while others are accepted
//! shows its own trouble only.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::push_request::Push;
use crate::push_service::PauseReason;
use crate::subscription::EndpointKey;

/// Distinct rows that a conclusion needs: one browser's trouble is not its push service's.
pub(super) const ROWS: usize = 8;
/// The share of failures among the witnesses' responses that a conclusion needs, in percent. A push service that still
/// serves one row in six is not down.
const SHARE: u64 = 85;
/// The shortest time that the failures have to last, from the first request: in a burst, refusals come back before slow
/// acceptances do.
const LASTING: Duration = Duration::from_secs(2);
/// An acceptance contradicts refusals and limits for this time, and failures that begin within it are the row's own.
const CONTRADICTED: Duration = Duration::from_secs(30);
/// Responses count for a minute, in buckets of 6 s: exact counts show a burst that an average would hide.
const BUCKETS: i64 = 10;
const BUCKET: i64 = 6_000;
/// Rows of a bucket that are told apart; further ones are counted. Bounds the memory of an origin to 5 KiB.
const KEYS: usize = 16;

/// What is known of a row when its request begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: EndpointKey,
    /// Whether a push for it was accepted before.
    pub(super) is_proven: bool,
    /// Whether the one that begins has the same VAPID key.
    pub(super) has_same_key: bool,
    /// When its first failed attempt since the last acceptance was.
    pub(super) failing_since: Option<Timestamp>,
    /// Whether its own user caused the push, as often as it likes.
    pub(super) is_test: bool,
}

impl Row {
    pub(super) fn of(push: &Push) -> Self {
        let (accepted_with, failing_since) = push.history();
        Self {
            key: push.subscription().endpoint().key(),
            is_proven: accepted_with.is_some(),
            has_same_key: accepted_with == Some(push.key().id()),
            failing_since,
            is_test: push.is_test(),
        }
    }
}

/// The responses of the last minute, and what they are judged by.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The oldest first.
    buckets: VecDeque<Bucket>,
    /// Whether the origin has accepted a push from this server, now or earlier.
    is_proven: bool,
    first_seen: Option<Timestamp>,
    accepted_at: Option<Timestamp>,
    /// When the failures were last enough for a conclusion, but for how long they have lasted.
    suspected_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Bucket {
    number: i64,
    /// Responses of witnesses that were no failure.
    good: u64,
    bad: u64,
    rows: Vec<Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: PauseReason,
    key: EndpointKey,
    began: Timestamp,
    wait: Option<Duration>,
}

impl Evidence {
    /// Takes in that a request of this row begins.
    pub(super) fn begins(&mut self, row: &Row, now: Timestamp) {
        self.forget_future(now);
        self.first_seen.get_or_insert(now);
        if row.is_proven {
            self.prove();
        }
    }

    /// Whether the origin has accepted a push from this server, as far as this process knows.
    pub(super) const fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Whether the row's responses count, and its request may be a probe.
    ///
    /// At an origin that has never accepted anything, every row does: a new server with a wrong key has no others.
    pub(super) fn is_witness(&self, row: &Row) -> bool {
        if row.is_test {
            return false;
        }
        !self.is_proven || (row.is_proven && !self.fails_alone(row))
    }

    /// Whether the row's failure for this reason counts. Another key than the row's own may be refused with good reason.
    pub(super) fn counts(&self, row: &Row, reason: PauseReason) -> bool {
        let is_own_fault =
            reason == PauseReason::SenderFault && self.is_proven && !row.has_same_key;
        self.is_witness(row) && !is_own_fault
    }

    /// Whether the row already failed while the origin worked.
    fn fails_alone(&self, row: &Row) -> bool {
        row.failing_since.is_some_and(|since| {
            self.first_seen.is_none_or(|first| since < first)
                || self
                    .accepted_at
                    .is_some_and(|accepted| since <= accepted + CONTRADICTED)
        })
    }

    /// Takes in an acceptance, of any row.
    pub(super) fn accepted(&mut self, row: &Row, now: Timestamp) {
        let counts = row.is_proven && self.is_witness(row);
        self.prove();
        self.accepted_at = Some(now);
        self.suspected_at = None;
        if counts {
            self.answered(row, now);
        }
    }

    /// Takes in a response about the row or the message only.
    pub(super) fn answered(&mut self, row: &Row, now: Timestamp) {
        if self.is_witness(row) {
            self.count(now, |bucket| bucket.good = bucket.good.saturating_add(1));
        }
    }

    /// Whether failures of the last seconds may turn out to be the origin's. Meanwhile it gets few requests at once.
    pub(super) fn is_suspect(&self, now: Timestamp) -> bool {
        self.suspected_at.is_some_and(|at| now.since(at) < LASTING)
    }

    /// Takes in a failure of a request that began at a moment. Returns whether the origin is at fault, and then starts anew.
    pub(super) fn failed(
        &mut self,
        row: &Row,
        reason: PauseReason,
        wait: Option<Duration>,
        (began, now): (Timestamp, Timestamp),
    ) -> Option<Conclusion> {
        if !self.counts(row, reason) {
            return None;
        }
        let is_same = |seen: &Failure| seen.reason == reason && seen.key == row.key;
        let is_repeat = self.failures().any(is_same);
        self.count(now, |bucket| {
            if is_repeat {
                return;
            }
            bucket.bad = bucket.bad.saturating_add(1);
            if bucket.rows.len() < KEYS {
                bucket.rows.push(Failure {
                    reason,
                    key: row.key,
                    began,
                    wait,
                });
            }
        });
        let conclusion = self.conclude(reason, now)?;
        self.buckets.clear();
        Some(conclusion)
    }

    /// Forgets the failures: the origin works, or is paused.
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
        self.suspected_at = None;
    }

    fn conclude(&mut self, reason: PauseReason, now: Timestamp) -> Option<Conclusion> {
        let (mut rows, mut since, mut wait) = (0_usize, now, None);
        for failure in self.failures().filter(|failure| failure.reason == reason) {
            rows = rows.saturating_add(1);
            since = since.min(failure.began);
            // Each row waits as long as it was asked to; together they wait as long as all of them were.
            wait = Some(wait.map_or(failure.wait, |shortest: Option<Duration>| {
                shortest.min(failure.wait)
            }));
        }
        let sum = |count: fn(&Bucket) -> u64| self.buckets.iter().map(count).sum::<u64>();
        let (good, bad) = (sum(|bucket| bucket.good), sum(|bucket| bucket.bad));
        let is_most = bad.saturating_mul(100) >= good.saturating_add(bad).saturating_mul(SHARE);
        let is_contradicted = reason != PauseReason::Unreachable
            && self
                .accepted_at
                .is_some_and(|at| now.since(at) < CONTRADICTED);
        if rows < ROWS || !is_most || is_contradicted {
            return None;
        }
        if now.since(since) < LASTING {
            self.suspected_at = Some(now);
            return None;
        }
        Some(Conclusion {
            wait: wait.flatten().unwrap_or_default(),
        })
    }

    fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.buckets.iter().flat_map(|bucket| &bucket.rows)
    }

    /// From here on only proven rows count.
    pub(super) fn prove(&mut self) {
        if !self.is_proven {
            self.is_proven = true;
            self.buckets.clear();
        }
    }

    /// Forgets what is older than a minute, and counts in the bucket of this moment.
    fn count(&mut self, now: Timestamp, count: impl FnOnce(&mut Bucket)) {
        let number = now.as_millis().div_euclid(BUCKET);
        let minute = number.saturating_sub(BUCKETS - 1)..=number;
        self.buckets
            .retain(|bucket| minute.contains(&bucket.number));
        let mut bucket = match self.buckets.pop_back() {
            Some(bucket) if bucket.number == number => bucket,
            earlier => {
                self.buckets.extend(earlier);
                Bucket {
                    number,
                    ..Bucket::default()
                }
            }
        };
        count(&mut bucket);
        self.buckets.push_back(bucket);
    }

    /// A clock that was set back makes earlier moments future ones, which would excuse failures until then.
    fn forget_future(&mut self, now: Timestamp) {
        self.accepted_at = self.accepted_at.filter(|at| *at <= now);
        self.first_seen = self.first_seen.map(|at| at.min(now));
    }
}

/// The origin is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conclusion {
    /// The shortest wait that it asked for; zero if some response asked for none.
    pub(super) wait: Duration,
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
