//! How many requests one origin gets, at once and per second. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::concurrency::{Concurrency, Reply, Sample, whole};
use super::evidence::Row;
use super::pace::Pace;
use crate::subscription::EndpointKey;

/// What an attempt says about the load on its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Accepted.
    Accepted,
    /// Another answer, which is about the row or the message.
    Answered,
    /// The origin limits requests, or this row's.
    Limited,
    /// The origin has too much to do: 503, or no answer in time.
    Overloaded,
    /// The connection was asked to be calm (RFC 9113 section 7).
    Excessive,
    /// Nothing: no connection, a connection that broke, another failure.
    Nothing,
}

/// The flow to one origin.
#[derive(Debug)]
pub(super) struct Flow {
    concurrency: Concurrency,
    pace: Pace,
    losses: Losses,
    in_flight: usize,
}

/// A request that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    at: Instant,
    in_flight: usize,
}

impl Begun {
    /// It was sent only after this time.
    #[cfg(feature = "client")]
    pub(super) fn delay(&mut self, delay: Duration) {
        self.at += delay;
    }
}

impl Flow {
    /// A flow of `least` to `most` requests at once.
    pub(super) fn new(least: usize, most: usize) -> Self {
        Self {
            concurrency: Concurrency::new(least, most),
            pace: Pace::default(),
            losses: Losses::default(),
            in_flight: 0,
        }
    }

    /// The most requests at once.
    pub(super) fn limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// The requests in flight.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The most requests per second, if they are limited.
    pub(super) fn per_second(&self) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and small"
        )]
        self.pace.per_second().map(|rate| rate as u64)
    }

    /// Takes the next place in the pace. If it is too early, it returns when to ask again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.pace.take(now)
    }

    /// A request begins.
    pub(super) fn begins(&mut self, now: Instant) -> Begun {
        self.concurrency.begins(now);
        self.in_flight = self.in_flight.saturating_add(1);
        Begun {
            at: now,
            in_flight: self.in_flight,
        }
    }

    /// A request is over, whatever became of it.
    pub(super) fn ends(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Takes in what an attempt says about the load.
    ///
    /// `is_suspect` is whether the row has failed long enough that its losses may be its own.
    pub(super) fn learn(
        &mut self,
        begun: &Begun,
        (row, is_suspect): (&Row, bool),
        load: Load,
        now: Instant,
    ) {
        let reply = match load {
            Load::Accepted => {
                self.losses.accepted(row, now);
                self.pace.accepted(begun.at, now);
                Reply::Accepted
            }
            Load::Answered => Reply::Answered,
            Load::Limited | Load::Overloaded
                if is_suspect || !self.losses.is_the_origins(row, now) =>
            {
                return;
            }
            Load::Limited => {
                self.pace.refused(begun.at, now);
                Reply::Lost
            }
            Load::Overloaded | Load::Excessive => Reply::Lost,
            Load::Nothing => return,
        };
        let sample = Sample {
            began: begun.at,
            ended: now,
            in_flight: begun.in_flight,
            at_end: self.in_flight,
            reply,
        };
        if self.concurrency.on_sample(&sample, self.needed()) {
            // The next conclusion is about what comes after this one.
            self.losses.clear();
        }
    }

    /// What the pace needs at once, twice over: with less, it could not be kept.
    fn needed(&self) -> f64 {
        match (self.pace.target(), self.concurrency.latency()) {
            (Some(target), Some(latency)) => target * latency.as_secs_f64() * 2.0,
            _ => whole(0),
        }
    }
}

/// Tells losses of the origin from those of single rows: push services limit a subscription, a user or a topic too, and a
/// row is chosen by the client that subscribes.
#[derive(Debug, Default)]
struct Losses {
    /// The oldest first.
    rows: VecDeque<Loss>,
    /// When a row was last accepted that had been before.
    proven_at: Option<Instant>,
}

#[derive(Debug)]
struct Loss {
    key: EndpointKey,
    is_proven: bool,
    at: Instant,
}

impl Losses {
    /// This number of distinct rows within that time.
    const ROWS: usize = 4;
    const WITHIN: Duration = Duration::from_secs(2);
    /// Rows that are told apart. Of more, the latest count.
    const KEPT: usize = 16;

    fn accepted(&mut self, row: &Row, now: Instant) {
        if row.is_proven {
            self.proven_at = Some(now);
        }
    }

    fn clear(&mut self) {
        self.rows.clear();
    }

    /// Takes in a loss. Returns whether the origin lost it: if rows that work were accepted lately, such rows decide.
    fn is_the_origins(&mut self, row: &Row, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= Self::WITHIN;
        self.rows
            .retain(|loss| is_recent(loss.at) && loss.key != row.key);
        if self.rows.len() >= Self::KEPT {
            self.rows.pop_front();
        }
        self.rows.push_back(Loss {
            key: row.key,
            is_proven: row.is_proven,
            at: now,
        });
        let proven_only = self.proven_at.is_some_and(is_recent);
        if proven_only && !row.is_proven {
            return false;
        }
        let decisive = |loss: &&Loss| loss.is_proven || !proven_only;
        self.rows.iter().filter(decisive).count() >= Self::ROWS
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
