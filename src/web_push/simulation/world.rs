//! What is true in a run, as no replica knows it: who subscribed, which faults there are, and what has happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::plan::{PROCESSES, Plan, SERVICES, Stranger, Weather};
use super::rng::Rng;
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::PauseReason;
use crate::subscription::EndpointKey;

/// The wall time at which a run begins: 2027-01-15T08:00:00Z.
pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const LEASE: Duration = Duration::from_secs(45);
/// How long a replica needs after a fault until it works again: to notice, to compare clocks, to start.
const RECOVERY: Duration = Duration::from_secs(8);

pub(super) type Shared = Arc<Mutex<World>>;

/// Everything outside of the replicas. Times are true ones, since the start of the run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    /// The time up to which all replicas have run.
    pub(super) now: Duration,
    pub(super) recipients: Vec<Recipient>,
    pub(super) by_key: HashMap<EndpointKey, usize>,
    pub(super) casts: Vec<Cast>,
    pub(super) by_id: HashMap<BroadcastId, usize>,
    /// By broadcast and recipient.
    pub(super) rows: BTreeMap<(usize, usize), Row>,
    /// Those that are not finished.
    pub(super) open: BTreeSet<(usize, usize)>,
    /// The messages that users have to get, and whose push services have not accepted them yet.
    pub(super) missing: BTreeSet<(usize, usize)>,
    pub(super) requests: Vec<Request>,
    /// The local dates on which the daily notification was fired.
    pub(super) fired: BTreeSet<i64>,
    /// The broadcasts that were accepted, by mail: with the replica that did, and when.
    pub(super) accepted: BTreeMap<usize, (BroadcastId, usize, Duration)>,
    /// When each push service was last paused, as far as it is known.
    pub(super) closed: [Option<Duration>; SERVICES.len()],
    pub(super) pauses: [Option<Paused>; SERVICES.len()],
    /// Since when the push service that works has accepted something.
    pub(super) proven: Option<Duration>,
    pub(super) weather: [Option<(Weather, Duration)>; SERVICES.len()],
    /// The times of all weather so far.
    weathers: [Vec<(Duration, Duration)>; SERVICES.len()],
    /// Until when no call of a replica reaches the store.
    pub(super) cut: [Duration; PROCESSES],
    /// Until when the client of a replica takes no request.
    pub(super) busy: [Duration; PROCESSES],
    /// Until when the table of subscriptions cannot be read.
    pub(super) unread: Duration,
    pub(super) flaky: (u64, Duration),
    /// When the process of each replica was killed, or had to end without writing everything.
    pub(super) crashed: [Vec<Duration>; PROCESSES],
    pub(super) sluggish: (Duration, Duration),
    /// The times of faults that concern a replica, in the order of their beginnings.
    faults: [Vec<(Duration, Duration)>; PROCESSES],
    /// The times in which a replica could not send, though it had no fault: it has to give back what it has claimed.
    troubles: [Vec<(Duration, Duration)>; PROCESSES],
    /// The end of the last fault or trouble so far.
    quiet_since: Duration,
    /// The token of the last claim whose reply each replica had.
    pub(super) last_claim: [u64; PROCESSES],
    /// When each replica last asked for rows.
    pub(super) asked: [Duration; PROCESSES],
    /// The pauses that replicas could not write, by replica and push service, and when they tried.
    pub(super) unwritten: BTreeMap<(usize, usize), (Timestamp, Duration)>,
    /// When there was last a new VAPID key.
    pub(super) rotated: Option<Duration>,
    /// The first promise that was broken.
    pub(super) broken: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) injected: u64,
}

#[derive(Debug)]
pub(super) struct Recipient {
    pub(super) service: usize,
    pub(super) stranger: Option<Stranger>,
    /// The public VAPID key that it subscribed with.
    pub(super) vapid_key: String,
    pub(super) is_gone: bool,
    pub(super) since: Duration,
}

/// A broadcast in the ledger.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) id: BroadcastId,
    /// `None` for a daily notification.
    pub(super) mail: Option<usize>,
    pub(super) topic: String,
    pub(super) due: Duration,
    pub(super) deadline: Timestamp,
    pub(super) is_held: bool,
    pub(super) is_cancelled: bool,
    /// When it last went on after a pause.
    pub(super) resumed: Duration,
    /// Users who have to get it.
    pub(super) expected: Vec<usize>,
    /// The rows that are finished, by outcome.
    pub(super) finished: BTreeMap<FinalOutcome, u64>,
    /// Whether it was found to be over, with counts that add up.
    pub(super) is_counted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) lease: Option<Lease>,
    /// Every replica that has claimed it, and when.
    pub(super) claims: Vec<(usize, Duration)>,
    /// The last request that the push service accepted.
    pub(super) accepted: Option<usize>,
    pub(super) requests: u32,
    pub(super) finished: Option<FinalOutcome>,
    /// When it is due again.
    pub(super) due: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) host: usize,
    pub(super) life: u32,
    pub(super) at: Duration,
    pub(super) until: Duration,
    pub(super) fence: u64,
    pub(super) is_probe: bool,
    /// Whether the replica had the reply to its claim.
    pub(super) is_known: bool,
    /// When the replica learned that the subscription of its row cannot be read.
    pub(super) unread_at: Option<Duration>,
    /// The request that was made under it last.
    pub(super) request: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) row: (usize, usize),
    pub(super) host: usize,
    pub(super) at: Duration,
    pub(super) lease_until: Duration,
    /// When the response arrives, if it does.
    pub(super) arrives: Option<Duration>,
    /// When the replica had the response.
    pub(super) answered: Option<Duration>,
}

/// The pause of a push service, as the ledger has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paused {
    pub(super) since: Duration,
    pub(super) until: Timestamp,
    pub(super) reason: PauseReason,
    pub(super) is_probed: bool,
    /// Whether a response has shown since that its reason may be over.
    pub(super) is_doubtful: bool,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            rng: Rng::new(plan.seed ^ 0x0077_6f72_6c64),
            now: Duration::ZERO,
            recipients: Vec::new(),
            by_key: HashMap::new(),
            casts: Vec::new(),
            by_id: HashMap::new(),
            rows: BTreeMap::new(),
            open: BTreeSet::new(),
            missing: BTreeSet::new(),
            requests: Vec::new(),
            fired: BTreeSet::new(),
            accepted: BTreeMap::new(),
            closed: [None; SERVICES.len()],
            pauses: [None; SERVICES.len()],
            proven: None,
            weather: [None; SERVICES.len()],
            weathers: [const { Vec::new() }; SERVICES.len()],
            cut: [Duration::ZERO; PROCESSES],
            busy: [Duration::ZERO; PROCESSES],
            unread: Duration::ZERO,
            flaky: (0, Duration::ZERO),
            crashed: [const { Vec::new() }; PROCESSES],
            sluggish: (Duration::ZERO, Duration::ZERO),
            faults: [const { Vec::new() }; PROCESSES],
            troubles: [const { Vec::new() }; PROCESSES],
            quiet_since: Duration::ZERO,
            last_claim: [0; PROCESSES],
            asked: [Duration::ZERO; PROCESSES],
            unwritten: BTreeMap::new(),
            rotated: None,
            broken: None,
            trace: Vec::new(),
            injected: 0,
        }
    }

    pub(super) fn note(&mut self, at: Duration, what: fmt::Arguments<'_>) {
        self.trace
            .push(format!("{:>11.3} {what}", at.as_secs_f64()));
    }

    /// Records that a promise was broken, unless one was before.
    pub(super) fn broke(&mut self, at: Duration, what: fmt::Arguments<'_>) {
        if self.broken.is_none() {
            self.note(at, format_args!("BROKEN: {what}"));
            self.broken = Some(what.to_string());
        }
    }

    /// Records a fault of a replica.
    pub(super) fn fault(&mut self, host: usize, from: Duration, to: Duration) {
        let end = to + RECOVERY;
        let faults = &mut self.faults[host];
        // In their order, as they are looked at.
        let place = faults.partition_point(|fault| *fault <= (from, end));
        faults.insert(place, (from, end));
        self.quiet_since = self.quiet_since.max(end);
    }

    /// Records a fault of what all replicas use.
    pub(super) fn fault_of_all(&mut self, from: Duration, to: Duration) {
        for host in 0..PROCESSES {
            self.fault(host, from, to);
        }
    }

    /// Records a time in which replicas cannot send.
    pub(super) fn trouble(
        &mut self,
        hosts: impl IntoIterator<Item = usize>,
        (from, to): (Duration, Duration),
    ) {
        let end = to + RECOVERY;
        for host in hosts {
            self.troubles[host].push((from, end));
        }
        self.quiet_since = self.quiet_since.max(end);
    }

    /// Whether a fault concerned a replica at any time from `from` to `to`.
    pub(super) fn had_fault(&self, host: usize, from: Duration, to: Duration) -> bool {
        let mut faults = self.faults[host].iter();
        faults.any(|(begin, end)| *begin <= to && *end >= from)
    }

    /// Whether a replica could not send at any time from `from` to `to`, or had a fault.
    pub(super) fn had_trouble(&self, host: usize, from: Duration, to: Duration) -> bool {
        let mut troubles = self.troubles[host].iter();
        troubles.any(|(begin, end)| *begin <= to && *end >= from) || self.had_fault(host, from, to)
    }

    /// The longest time without a fault of a replica between two moments.
    pub(super) fn longest_calm(&self, host: usize, from: Duration, to: Duration) -> Duration {
        let (mut calm, mut clear_from) = (Duration::ZERO, from);
        for (begin, end) in self.faults[host].iter().copied() {
            if begin >= to {
                break;
            }
            calm = calm.max(begin.saturating_sub(clear_from));
            clear_from = clear_from.max(end);
        }
        calm.max(to.saturating_sub(clear_from))
    }

    /// When a replica first lost what it had in memory, from a moment on.
    pub(super) fn crash_since(&self, host: usize, since: Duration) -> Option<Duration> {
        let mut crashes = self.crashed[host].iter().copied();
        crashes.find(|at| *at >= since)
    }

    /// The end of the last fault or trouble of any replica.
    pub(super) const fn quiet_since(&self) -> Duration {
        self.quiet_since
    }

    /// Whether nothing but a fault of the replicas can keep this message from its recipient: since it was due, its push service
    /// has worked, and was not paused for what was before.
    pub(super) fn is_well(&self, (cast, recipient): (usize, usize)) -> bool {
        let recipient = &self.recipients[recipient];
        let is_own = recipient.stranger.is_none() && !recipient.is_gone;
        let works = || self.works_since(recipient.service, self.casts[cast].due);
        is_own && (recipient.service == self.plan.calm || works())
    }

    fn works_since(&self, service: usize, since: Duration) -> bool {
        let had_weather = self.weathers[service].iter().any(|(_, end)| *end >= since);
        !had_weather && self.closed[service].is_none_or(|closed| closed < since)
    }

    /// A push service does not work for a while.
    pub(super) fn turns(
        &mut self,
        service: usize,
        kind: Weather,
        (from, to): (Duration, Duration),
    ) {
        self.weather[service] = Some((kind, to));
        self.weathers[service].push((from, to));
    }

    pub(super) fn weather(&self, service: usize, at: Duration) -> Option<Weather> {
        let (weather, until) = self.weather[service]?;
        (at < until).then_some(weather)
    }

    /// The name of a recipient, and the last part of its endpoint.
    pub(super) fn name(&self, recipient: usize) -> String {
        let kind = match self.recipients[recipient].stranger {
            Some(_) => "stranger",
            None => "user",
        };
        format!("{kind}{recipient}")
    }

    pub(super) fn row_name(&self, (cast, recipient): (usize, usize)) -> String {
        let topic = &self.casts[cast].topic;
        format!("{topic}/{}", self.name(recipient))
    }

    /// Draws how long a call to the store takes before and after its effect, and whether it fails before or after it.
    pub(super) fn call(&mut self, at: Duration) -> Call {
        let most = match at < self.sluggish.1 {
            true => u64::try_from(self.sluggish.0.as_millis()).unwrap(),
            false => self.plan.latency,
        };
        let (before, after) = (self.rng.millis(1, most), self.rng.millis(0, most));
        let fails = at < self.flaky.1 && self.rng.percent(self.flaky.0);
        let is_after = fails && self.rng.percent(50);
        self.injected += u64::from(fails);
        Call {
            before,
            after,
            is_refused: fails && !is_after,
            is_reply_lost: is_after,
        }
    }
}

/// The course of a call to the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) before: Duration,
    pub(super) after: Duration,
    pub(super) is_refused: bool,
    pub(super) is_reply_lost: bool,
}

/// A true time of a wall time.
pub(super) fn true_time(at: Timestamp) -> Duration {
    at.since(START)
}
