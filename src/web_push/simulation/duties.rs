//! The promises about what has to be done, and done again: asking for rows, writing pauses, ending them.

use std::time::Duration;

use super::ledger::{service, wall};
use super::plan::HOSTS;
use super::push_services::WRITTEN;
use super::world::{World, true_time};
use crate::broadcast::{BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::store::{ClaimToken, Pause, PauseReason, Settled, Settlement};

/// A replica without a fault asks for rows within this time: the longest pause between two polls, and a deployment.
pub(super) const ASKED: Duration = Duration::from_secs(110);
/// Replicas learn of a new VAPID key within this time.
const KEY_KNOWN: Duration = Duration::from_secs(75);
/// The longest time until the next attempt for a user: the longest pause that push services ask for, and the longest of the
/// retries. Of what the store cannot read it is the longest for which a broadcast is parked.
const RETRIED: Duration = Duration::from_secs(200);
const PARKED: Duration = Duration::from_secs(620);
/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(10);

impl World {
    /// Checks what replicas have to do by now.
    pub(super) fn check_duties(&mut self) {
        let now = self.now;
        for host in 0..HOSTS {
            if self.longest_calm(host, self.asked[host], now) > ASKED {
                self.broke(now, format_args!("host{host} asks for no rows"));
            }
        }
        let unwritten = self.unwritten.clone();
        for ((host, service), (until, since)) in unwritten {
            if wall(now) + SKEW >= until || self.crash_since(host, since).is_some() {
                self.unwritten.remove(&(host, service));
            } else if self.longest_calm(host, since, now) > WRITTEN {
                self.broke(
                    now,
                    format_args!("host{host} does not write the pause of service{service}"),
                );
            }
        }
        let Some(rotated) = self.rotated else { return };
        let is_known = (0..HOSTS).any(|host| self.longest_calm(host, rotated, now) > KEY_KNOWN);
        let is_old = |service: &usize| {
            let paused = self.pauses[*service].filter(|paused| paused.since < rotated);
            paused.is_some_and(|paused| paused.reason == PauseReason::SenderFault)
        };
        if is_known && let Some(service) = (0..self.pauses.len()).find(is_old) {
            self.broke(
                now,
                format_args!("service{service} is paused for a key that was replaced"),
            );
        }
    }

    /// A replica asks for rows.
    pub(super) fn asks(&mut self, host: usize, at: Duration) {
        self.asked[host] = at;
    }

    /// A replica could not write a pause, by its own time and the true one.
    pub(super) fn could_not_pause(
        &mut self,
        host: usize,
        pause: &Pause,
        (now, at): (Timestamp, Duration),
    ) {
        if let Some(service) = service(&pause.origin).filter(|_| pause.until > now) {
            self.unwritten.insert((host, service), (pause.until, at));
        }
    }

    /// A pause does not shorten the one before.
    pub(super) fn check_longer(
        &mut self,
        pause: &Pause,
        before: &[Pause],
        stored: &[Pause],
        (now, at): (Timestamp, Duration),
    ) {
        let of = |pauses: &[Pause]| {
            let mut pauses = pauses.iter();
            let found = pauses.find(|one| one.origin == pause.origin);
            found.map(|pause| pause.until)
        };
        // One that is over for the true time is not read.
        let is_over = |until: Timestamp| until <= wall(at);
        if pause.until > now
            && of(before).is_some_and(|until| !is_over(until) && of(stored) < Some(until))
        {
            self.broke(
                at,
                format_args!("a pause of {} was shortened", pause.origin),
            );
        }
    }

    /// Once a probe has ended, another one may be claimed: the pause waits for no lease.
    pub(super) fn probes_end(
        &mut self,
        rows: &[(ClaimToken, Settlement)],
        results: &[Settled],
        pauses: &[Pause],
        (now, at): (Timestamp, Duration),
    ) {
        for ((token, _), _) in rows
            .iter()
            .zip(results)
            .filter(|(_, result)| **result == Settled::Done)
        {
            let Some(row) = self.row(token) else { continue };
            let of = self.recipients[row.1].service;
            let lease = self.rows.get(&row).and_then(|row| row.lease);
            let Some(lease) = lease.filter(|lease| lease.is_probe && lease.fence == token.fence)
            else {
                continue;
            };
            let is_same = self.pauses[of].is_some_and(|paused| paused.since < lease.at);
            let stored = pauses
                .iter()
                .find(|pause| service(&pause.origin) == Some(of));
            if is_same
                && lease.until > at + SKEW
                && stored.is_some_and(|pause| pause.reason.is_probed() && pause.until > now)
            {
                let name = self.row_name(row);
                self.broke(
                    at,
                    format_args!("{name} was a probe, and no other is due after it"),
                );
            }
        }
    }

    /// The cancelled broadcasts of these rows.
    pub(super) fn cancelled_of(&self, rows: &[(ClaimToken, Settlement)]) -> Vec<BroadcastId> {
        let mut ids: Vec<_> = rows.iter().map(|(token, _)| token.broadcast).collect();
        ids.dedup();
        ids.retain(|id| {
            let cast = self.by_id.get(id);
            cast.is_some_and(|cast| self.casts[*cast].is_cancelled)
        });
        ids
    }

    /// Of a cancelled broadcast only those rows are pending that are under lease.
    pub(super) fn check_cancelled(&mut self, status: &BroadcastStatus, at: Duration) {
        let Some(&cast) = self.by_id.get(&status.id) else {
            return;
        };
        let leased = self.open.iter().filter(|row| row.0 == cast).count() as u64;
        let pending = status.counts.pending;
        if pending > leased {
            let topic = self.casts[cast].topic.clone();
            self.broke(
                at,
                format_args!(
                    "{topic} is cancelled, and {pending} rows are pending, {leased} under lease"
                ),
            );
        }
    }

    /// A row is not put off for longer than anything asks for.
    pub(super) fn check_put_off(
        &mut self,
        row: (usize, usize),
        settlement: &Settlement,
        at: Duration,
    ) {
        let (due, longest) = match *settlement {
            Settlement::RetryAt(due) => (due, RETRIED),
            Settlement::Deferred(due) => (due, PARKED),
            Settlement::Finished(_) | Settlement::Failed(..) => return,
        };
        let is_own = self.recipients[row.1].stranger.is_none();
        if is_own && true_time(due) > at + longest {
            let name = self.row_name(row);
            self.broke(at, format_args!("{name} is put off: {settlement:?}"));
        }
    }
}
