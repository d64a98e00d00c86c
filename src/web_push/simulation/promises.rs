//! The promises that are kept at every moment, and at the end.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::ledger::wall;
use super::plan::{FRONT, HOSTS};
use super::push_services::WRITTEN;
use super::world::{LEASE, REQUEST_TIMEOUT, World, true_time};
use crate::broadcast::{BroadcastStatus, FinalOutcome};
use crate::store::{DeliveryLedger as _, MemoryStore};

/// A claimed row is sent or put back within the time that it may wait for a permit.
const BEGUN: Duration = Duration::from_secs(34);
/// A due row is sent within this time although other replicas have faults, if the one that accepted it has none.
const PROMPT: Duration = Duration::from_secs(20);
/// The same where hints are the only way to learn of it in time: the replica that accepted it sends nothing, and the others have
/// no fault.
const HINTED: Duration = Duration::from_secs(6);
/// A due row is sent within this time once there is no fault: a lease, a poll, and a request.
const LATE: Duration = Duration::from_secs(130);

impl World {
    /// Checks what is promised at every moment.
    pub(super) fn check(&mut self) {
        let now = self.now;
        for (service, paused) in self.pauses.iter().enumerate() {
            if paused.is_some() {
                self.closed[service] = Some(now);
            }
        }
        self.check_duties();
        for row in self.open.iter().copied().collect::<Vec<_>>() {
            if let Some(why) = self.is_neglected(row, now) {
                let name = self.row_name(row);
                self.broke(now, format_args!("{name} is neglected: {why}"));
            }
        }
        for row in self.missing.iter().copied().collect::<Vec<_>>() {
            if self.is_late(row, now) && self.is_well(row) {
                let name = self.row_name(row);
                self.broke(now, format_args!("{name} is late"));
            }
        }
    }

    /// Why a replica without a fault has kept a row for too long.
    fn is_neglected(&self, row: (usize, usize), now: Duration) -> Option<&'static str> {
        let lease = self.rows[&row].lease?;
        // It has been without a fault for long enough since then.
        let could = |since, needs| self.longest_calm(lease.host, since, now) > needs;
        if !lease.is_known || self.crash_since(lease.host, lease.at).is_some() {
            return None;
        }
        if let Some(unread) = lease.unread_at
            && could(unread, WRITTEN)
        {
            return Some("its subscription could not be read, and it is not given back");
        }
        // Timers stand still while the machine sleeps.
        let wait = match self.had_fault(lease.host, lease.at, now) {
            true => WRITTEN + BEGUN,
            false => WRITTEN,
        };
        let Some(request) = lease.request.map(|number| &self.requests[number]) else {
            let is_idle = now > lease.at + BEGUN && could(lease.at + BEGUN - WRITTEN, wait);
            return is_idle.then_some("it was claimed, and not sent");
        };
        match request.answered {
            Some(answered) => could(answered, WRITTEN).then_some("its outcome is not written"),
            None => {
                could(request.at + REQUEST_TIMEOUT, wait).then_some("its request is not given up")
            }
        }
    }

    fn is_late(&self, row: (usize, usize), now: Duration) -> bool {
        let cast = &self.casts[row.0];
        let entry = self.rows.get(&row);
        let is_over = entry.is_some_and(|row| row.finished.is_some() || row.accepted.is_some());
        if is_over || cast.is_held || cast.is_cancelled || wall(now) >= cast.deadline {
            return false;
        }
        let mail = cast.mail.map(|mail| &self.plan.mails[mail]);
        let paced = mail
            .and_then(|mail| mail.pace)
            .map_or(Duration::ZERO, |pace| self.paced(u64::from(pace)));
        let retried = entry.map_or(Duration::ZERO, |row| row.due);
        let service = self.recipients[row.1].service;
        let closed = self.closed[service].unwrap_or_default();
        let due = cast.due.max(retried).max(cast.resumed).max(closed);
        let due = due + paced;
        if now > due.max(self.quiet_since()) + LATE {
            return true;
        }
        // The flow to one that did not work before grows again with its answers.
        if service != self.plan.calm {
            return false;
        }
        // A replica that cannot send may have claimed it.
        let claims = entry.map_or(&[][..], |row| &row.claims);
        let is_held_up = claims
            .iter()
            .any(|(host, at)| self.had_trouble(*host, *at, now));
        let accepted = cast.mail.and_then(|mail| self.accepted.get(&mail));
        accepted.is_some_and(|(_, host, at)| {
            let due = due.max(*at);
            let works = |host| !self.had_trouble(host, cast.due.min(*at), now);
            let prompt = match *host {
                // A broadcast that goes on after a pause is no news that stores give hints of.
                FRONT if !cast.resumed.is_zero() => return false,
                FRONT if paced.is_zero() => HINTED,
                _ => PROMPT,
            };
            now > due + prompt && !is_held_up && self.is_told_of(*host, works)
        })
    }

    /// How long the rows of a broadcast with this pace take to be written: a page has those of a quarter of a second, and takes
    /// some calls to the store, one after the other.
    fn paced(&self, pace: u64) -> Duration {
        let recipients = self.recipients.len() as u64;
        let pages = u32::try_from(recipients.div_ceil(pace.div_ceil(4))).unwrap();
        let page = 6 * Duration::from_millis(self.plan.latency);
        Duration::from_secs(recipients / pace + 1) + page * pages
    }

    /// Whether a replica that works knows of what this process has accepted: itself, or one that has had a hint.
    fn is_told_of(&self, accepted_by: usize, works: impl Fn(usize) -> bool) -> bool {
        match accepted_by {
            FRONT => self.plan.has_hints && (0..HOSTS).all(works),
            host => works(host),
        }
    }

    /// Checks that the counts of every broadcast add up: of one that is over, once more at the end only. Returns whether all of
    /// them are over.
    pub(super) fn count(&mut self, memory: &MemoryStore) -> bool {
        let now = self.now;
        let mut are_over = true;
        for cast in 0..self.casts.len() {
            if self.casts[cast].is_counted {
                continue;
            }
            let id = self.casts[cast].id;
            let status = memory.status(id, wall(now)).now_or_never().unwrap();
            // Broadcasts are removed a week after their end.
            let Some(status) = status.unwrap() else {
                continue;
            };
            are_over &= self.is_over_but_for_strangers(cast, &status);
            self.check_counts(cast, &status);
            self.casts[cast].is_counted = status.is_over();
        }
        are_over
    }

    fn check_counts(&mut self, cast: usize, status: &BroadcastStatus) {
        let (counts, topic) = (status.counts, self.casts[cast].topic.clone());
        if counts.finished() + counts.pending != status.recipients {
            self.broke(
                self.now,
                format_args!("the counts of {topic} do not add up: {status:?}"),
            );
        }
        // Recipients that are not written yet may expire or be cancelled.
        let is_of_row = |outcome: &FinalOutcome| {
            !matches!(outcome, FinalOutcome::Expired | FinalOutcome::Cancelled)
        };
        for outcome in FinalOutcome::ALL.iter().copied().filter(is_of_row) {
            let rows = self.casts[cast].finished.get(&outcome);
            let (counted, rows) = (counts.of(outcome), rows.copied().unwrap_or_default());
            if counted != rows {
                let outcome = outcome.as_str();
                self.broke(
                    self.now,
                    format_args!("{topic} counts {counted} as {outcome}, and there were {rows}"),
                );
            }
        }
    }

    fn is_over_but_for_strangers(&self, cast: usize, status: &BroadcastStatus) -> bool {
        let is_open = |recipient: &usize| {
            let row = self.rows.get(&(cast, *recipient));
            // One that is gone may be known to be: then it is not in the audience.
            let is_gone = self.recipients[*recipient].is_gone;
            row.map_or(!is_gone, |row| row.finished.is_none())
        };
        status.is_over() || !self.casts[cast].expected.iter().any(is_open)
    }

    /// Checks what is promised once everything is over.
    pub(super) fn conclude(&mut self, memory: &MemoryStore) {
        for cast in &mut self.casts {
            cast.is_counted = false;
        }
        self.count(memory);
        for mail in self.accepted.keys().copied().collect::<Vec<_>>() {
            if !self.casts.iter().any(|cast| cast.mail == Some(mail)) {
                self.broke(
                    self.now,
                    format_args!("mail {mail} was accepted, and is not there"),
                );
            }
        }
        for cast in 0..self.casts.len() {
            let expected = self.casts[cast].expected.iter().copied();
            for recipient in expected.collect::<Vec<_>>() {
                let row = (cast, recipient);
                if !self.is_explained(row) {
                    let name = self.row_name(row);
                    self.broke(self.now, format_args!("{name} was accepted, and is lost"));
                }
            }
        }
    }

    /// Whether a message was delivered, or there is a reason for it.
    fn is_explained(&self, row: (usize, usize)) -> bool {
        let cast = &self.casts[row.0];
        let entry = self.rows.get(&row);
        if entry.is_some_and(|row| row.accepted.is_some()) || cast.is_cancelled {
            return true;
        }
        if !self.is_well(row) {
            return true;
        }
        // Its time was over before a replica could send it.
        let deadline = true_time(cast.deadline);
        let is_past = self.now >= deadline;
        let was_short = deadline < cast.due + LEASE + REQUEST_TIMEOUT;
        let closed = self.closed[self.recipients[row.1].service];
        let was_held = cast.resumed.max(closed.unwrap_or_default()) > cast.due;
        let had_fault = || (0..HOSTS).any(|host| self.had_trouble(host, cast.due, deadline));
        is_past && (was_short || was_held || had_fault())
    }
}
