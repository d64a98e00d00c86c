//! What happened in the ledger, and the promises about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::SERVICES;
use super::world::{Cast, Lease, Paused, World, true_time};
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::{
    Change, ClaimToken, Claims, Fired, Firing, NewBroadcast, Opened, Pause, Settled, Settlement,
};
use crate::subscription::{EndpointKey, Origin};

/// Longer than a call of the application takes, even if its process stands still meanwhile.
const LONG_CALL: Duration = Duration::from_secs(200);

impl World {
    pub(super) fn opened(&mut self, new: &NewBroadcast, opened: &Opened, at: Duration) {
        if *opened == Opened::New {
            self.add_cast(new, at);
        }
    }

    fn add_cast(&mut self, new: &NewBroadcast, at: Duration) {
        let topic = new.message.topic().map_or("", |topic| topic.as_str());
        let mail: Option<usize> = topic.strip_prefix('m').and_then(|mail| mail.parse().ok());
        if mail.is_some() && self.casts.iter().any(|cast| cast.mail == mail) {
            self.broke(at, format_args!("{topic} was accepted twice"));
        }
        let user = mail.and_then(|mail| self.plan.mails[mail].user);
        let everyone = 0..self.recipients.len();
        let expected = everyone.filter(|one| {
            let recipient = &self.recipients[*one];
            // The audience of a call is read some time before its broadcast is written.
            let is_known = recipient.since.is_zero() || at > recipient.since + LONG_CALL;
            user.is_none_or(|user| user == *one) && recipient.stranger.is_none() && is_known
        });
        let expected: Vec<_> = expected.collect();
        self.note(at, format_args!("opened {topic}"));
        let cast = self.casts.len();
        let missing = expected.iter().map(|recipient| (cast, *recipient));
        self.missing.extend(missing);
        self.by_id.insert(new.id, self.casts.len());
        self.casts.push(Cast {
            id: new.id,
            mail,
            topic: topic.to_owned(),
            due: new.send_at.map_or(at, true_time),
            deadline: new.deadline,
            is_held: false,
            is_cancelled: false,
            resumed: Duration::ZERO,
            expected,
            finished: BTreeMap::new(),
            is_counted: false,
        });
    }

    pub(super) fn fired(&mut self, firings: &[Firing], fired: &[Fired], at: Duration) {
        for (firing, fired) in firings.iter().zip(fired) {
            let (Fired::Fired, Some(new)) = (fired, &firing.broadcast) else {
                continue;
            };
            let date = firing.expected.as_secs().div_euclid(86_400);
            self.note(at, format_args!("fired the daily notification of {date}"));
            if !self.fired.insert(date) {
                self.broke(at, format_args!("two daily notifications of one date"));
            }
            self.add_cast(new, at);
        }
    }

    /// `pauses` are those before the claim.
    pub(super) fn claimed(
        &mut self,
        (host, life): (usize, u32),
        claims: &Claims,
        pauses: &[Pause],
        at: Duration,
    ) {
        for claimed in &claims.rows {
            let Some(row) = self.row(&claimed.token) else {
                self.broke(at, format_args!("an unknown row was claimed"));
                continue;
            };
            let name = self.row_name(row);
            let attempt = claimed.attempt;
            self.note(
                at,
                format_args!("host{host} claims {name}, attempt {attempt}"),
            );
            let cast = &self.casts[row.0];
            if cast.is_held || cast.is_cancelled {
                self.broke(
                    at,
                    format_args!("{name} is paused or cancelled, and was claimed"),
                );
            }
            let pause = pauses.iter().find(|pause| pause.origin == claimed.origin);
            let is_probe = pause.is_some_and(|pause| pause.reason.is_probed());
            if pause.is_some() && !is_probe {
                self.broke(at, format_args!("{name} was claimed during a pause"));
            }
            if is_probe && self.has_probe(self.recipients[row.1].service, at) {
                self.broke(at, format_args!("{name} is a second probe"));
            }
            let entry = self.rows.entry(row).or_default();
            let other = entry.lease.replace(Lease {
                host,
                life,
                at,
                until: true_time(claimed.leased_until),
                fence: claimed.token.fence,
                is_probe,
                is_known: false,
                unread_at: None,
                request: None,
            });
            entry.claims.push((host, at));
            let is_finished = entry.finished.is_some();
            self.open.insert(row);
            if is_finished {
                self.broke(at, format_args!("{name} is finished, and was claimed"));
            }
            if let Some(other) = other
                && at + Duration::from_secs(10) < other.until
            {
                let owner = other.host;
                self.broke(
                    at,
                    format_args!("{name} was claimed under the lease of host{owner}"),
                );
            }
        }
    }

    /// The replica has the reply to its claim.
    pub(super) fn knows(&mut self, host: usize, claims: &Claims) {
        for claimed in &claims.rows {
            self.last_claim[host] = claimed.token.fence;
            let row = self.row(&claimed.token);
            let row = row.and_then(|row| self.rows.get_mut(&row));
            if let Some(lease) = row.and_then(|row| row.lease.as_mut())
                && lease.fence == claimed.token.fence
            {
                lease.is_known = true;
            }
        }
    }

    /// A replica has learned that subscriptions cannot be read: those of rows that it has just claimed, for one.
    pub(super) fn unread(&mut self, host: usize, keys: &[EndpointKey], at: Duration) {
        let fence = self.last_claim[host];
        for row in &self.open {
            let lease = self.rows.get_mut(row).and_then(|row| row.lease.as_mut());
            let is_read = keys.iter().any(|key| self.by_key.get(key) == Some(&row.1));
            if let Some(lease) = lease.filter(|lease| lease.fence == fence && lease.is_known)
                && is_read
            {
                lease.unread_at.get_or_insert(at);
            }
        }
    }

    /// Whether a row is under lease as the probe of the push service's pause.
    fn has_probe(&self, service: usize, at: Duration) -> bool {
        let since = self.pauses[service].map(|paused| paused.since);
        let is_probe = |lease: &Lease| {
            let is_later = since.is_some_and(|since| lease.at > since);
            // Clocks may differ by 10 s.
            lease.is_probe && is_later && lease.until > at + Duration::from_secs(10)
        };
        let of_service = |row: &&(usize, usize)| self.recipients[row.1].service == service;
        let rows = self.open.iter().filter(of_service);
        rows.filter_map(|row| self.rows[row].lease)
            .any(|lease| is_probe(&lease))
    }

    /// Whether the process that holds a lease has ended, or was silent for long enough to be taken for dead.
    fn is_over(&self, lease: Lease) -> bool {
        self.had_fault(lease.host, lease.at, self.now)
    }

    pub(super) fn row(&self, token: &ClaimToken) -> Option<(usize, usize)> {
        let cast = *self.by_id.get(&token.broadcast)?;
        let recipient = *self.by_key.get(&token.key)?;
        Some((cast, recipient))
    }

    pub(super) fn settled(
        &mut self,
        host: usize,
        rows: &[(ClaimToken, Settlement)],
        results: &[Settled],
        at: Duration,
    ) {
        // When attempts end together, as at a shutdown, their order is not that of the seed.
        let mut settled: Vec<_> = rows.iter().zip(results).collect();
        settled.sort_by_key(|((token, _), _)| self.row(token));
        for ((token, settlement), result) in settled {
            let Some(row) = self.row(token) else { continue };
            let name = self.row_name(row);
            self.note(
                at,
                format_args!("host{host} settles {name}: {settlement:?}, {result:?}"),
            );
            let Some(entry) = self.rows.get_mut(&row) else {
                continue;
            };
            let lease = entry.lease.filter(|lease| lease.fence == token.fence);
            let holds = lease.is_some();
            if *result == Settled::Lost {
                // Claims end the rows of cancelled broadcasts whose leases are over.
                if self.casts[row.0].is_cancelled && lease.is_some_and(|lease| lease.until <= at) {
                    self.ended(row, FinalOutcome::Cancelled);
                }
                continue;
            }
            if !holds {
                self.broke(at, format_args!("{name} was settled by a lost token"));
                continue;
            }
            entry.lease = None;
            match *settlement {
                Settlement::Finished(outcome) | Settlement::Failed(outcome, _) => {
                    self.finish(row, outcome);
                    self.check_outcome(row, outcome, at);
                }
                Settlement::RetryAt(due) | Settlement::Deferred(due) => {
                    entry.due = true_time(due);
                    if self.casts[row.0].is_cancelled {
                        self.ended(row, FinalOutcome::Cancelled);
                    }
                }
            }
            self.check_put_off(row, settlement, at);
        }
    }

    /// The rows of workers that are taken for dead are due again.
    pub(super) fn rescued(&mut self, rows: &[ClaimToken], results: &[Settled], at: Duration) {
        for (token, result) in rows.iter().zip(results) {
            let Some(row) = self.row(token) else { continue };
            let Some(lease) = self.rows.get(&row).and_then(|row| row.lease) else {
                continue;
            };
            if *result == Settled::Lost || lease.fence != token.fence {
                continue;
            }
            let name = self.row_name(row);
            self.note(at, format_args!("{name} is due again: its worker is dead"));
            if !self.is_over(lease) {
                self.broke(
                    at,
                    format_args!("{name} was taken from a process that lives"),
                );
            }
            let entry = self.rows.entry(row).or_default();
            entry.lease = None;
            entry.due = at;
            if self.casts[row.0].is_cancelled {
                self.ended(row, FinalOutcome::Cancelled);
            }
        }
    }

    pub(super) fn ended(&mut self, row: (usize, usize), outcome: FinalOutcome) {
        let entry = self.rows.entry(row).or_default();
        entry.lease = None;
        if entry.finished.is_none() {
            self.finish(row, outcome);
        }
    }

    fn finish(&mut self, row: (usize, usize), outcome: FinalOutcome) {
        self.rows.entry(row).or_default().finished = Some(outcome);
        *self.casts[row.0].finished.entry(outcome).or_default() += 1;
        self.open.remove(&row);
        self.missing.remove(&row);
    }

    /// Whether an outcome is what happened.
    fn check_outcome(&mut self, row: (usize, usize), outcome: FinalOutcome, at: Duration) {
        let (cast, recipient) = row;
        let accepted = self.rows[&row].accepted.is_some();
        let is_well = self.is_well(row);
        let one = &self.recipients[recipient];
        let is_own = one.stranger.is_none();
        let deadline = true_time(self.casts[cast].deadline);
        let is_true = match outcome {
            FinalOutcome::Accepted => accepted,
            FinalOutcome::Gone => one.is_gone || !is_own,
            // A clock may be wrong by 10 s. Others end early if their next attempt would be after it.
            FinalOutcome::Expired => !is_well || at + Duration::from_secs(10) >= deadline,
            FinalOutcome::Failed | FinalOutcome::SenderFault => !is_well,
            FinalOutcome::Cancelled => self.casts[cast].is_cancelled,
            _ => !is_own,
        };
        if !is_true {
            let name = self.row_name(row);
            self.broke(
                at,
                format_args!("{name} was settled as {}", outcome.as_str()),
            );
        }
    }

    /// Changes of subscriptions: none condemns a user's row for what others did.
    pub(super) fn changed(&mut self, changes: &[Change], at: Duration) {
        for change in changes {
            let (Change::Retire { key, .. } | Change::Stale { key, .. }) = change else {
                continue;
            };
            let Some(&recipient) = self.by_key.get(key) else {
                continue;
            };
            let one = &self.recipients[recipient];
            if one.stranger.is_none() && !one.is_gone {
                let name = self.name(recipient);
                self.broke(
                    at,
                    format_args!("the row of {name} was condemned: {change:?}"),
                );
            }
        }
    }

    /// `stored` are the pauses after the call.
    pub(super) fn paused(&mut self, host: usize, pause: &Pause, stored: &[Pause], at: Duration) {
        let Some(service) = service(&pause.origin) else {
            return;
        };
        self.unwritten.remove(&(host, service));
        let stored = stored.iter().find(|stored| stored.origin == pause.origin);
        let reason = pause.reason.as_str();
        match stored {
            None => self.note(
                at,
                format_args!("host{host} lifts {reason} of service{service}"),
            ),
            Some(stored) => {
                let until = true_time(stored.until).as_secs();
                self.note(
                    at,
                    format_args!("host{host} pauses service{service}: {reason} until {until}"),
                );
            }
        }
        self.pauses[service] = stored.map(|stored| Paused {
            since: at,
            until: stored.until,
            reason: stored.reason,
            is_probed: stored.reason.is_probed(),
            is_doubtful: false,
        });
        // Until another replica knows that it has accepted something, strangers may be all that is known of it.
        let is_known = self
            .proven
            .is_some_and(|since| at > since + Duration::from_secs(20));
        if service == self.plan.calm && stored.is_some() && is_known {
            self.broke(
                at,
                format_args!("the push service that works was paused: {reason}"),
            );
        }
    }

    /// `now` is the caller's time.
    pub(super) fn expired(&mut self, now: Timestamp, at: Duration) {
        let is_past = |row: &&(usize, usize)| self.casts[row.0].deadline <= now;
        let is_free = |row: &&(usize, usize)| {
            let lease = self.rows[*row].lease;
            lease.is_none_or(|lease| lease.until <= true_time(now))
        };
        let past: Vec<_> = self
            .open
            .iter()
            .filter(is_past)
            .filter(is_free)
            .copied()
            .collect();
        for row in past {
            let name = self.row_name(row);
            self.note(at, format_args!("{name} expires"));
            self.expire_row(row, at);
        }
    }

    fn expire_row(&mut self, row: (usize, usize), at: Duration) {
        self.ended(row, FinalOutcome::Expired);
        self.check_outcome(row, FinalOutcome::Expired, at);
    }

    pub(super) fn held(&mut self, id: BroadcastId, is_held: bool, at: Duration) {
        if let Some(&cast) = self.by_id.get(&id) {
            let topic = self.casts[cast].topic.clone();
            self.note(at, format_args!("{topic} is paused: {is_held}"));
            self.casts[cast].is_held = is_held;
            self.casts[cast].resumed = at;
        }
    }

    pub(super) fn cancelled(&mut self, id: BroadcastId, at: Duration) {
        if let Some(&cast) = self.by_id.get(&id) {
            let topic = self.casts[cast].topic.clone();
            self.note(at, format_args!("{topic} is cancelled"));
            self.casts[cast].is_cancelled = true;
            self.casts[cast].is_held = false;
            let is_free = |row: &&(usize, usize)| row.0 == cast && self.rows[*row].lease.is_none();
            let free: Vec<_> = self.open.iter().filter(is_free).copied().collect();
            for row in free {
                self.ended(row, FinalOutcome::Cancelled);
            }
        }
    }
}

/// The push service of an origin.
pub(super) fn service(origin: &Origin) -> Option<usize> {
    let mut services = SERVICES.iter();
    services.position(|service| service.starts_with(origin.as_str()))
}

/// The wall time of a moment that a right clock shows.
pub(super) fn wall(at: Duration) -> Timestamp {
    super::world::START + at
}
