//! The gauges, which are read on request: most of them cost a query (feature `metrics`).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Engine;
use super::health::Step;
use crate::broadcast::{Audience, FinalOutcome};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::deliver::Outcome;
use crate::observe::{DROPPED, begin, begin_gauge, begin_histogram, describe_metrics, show};
use crate::push_service::{Pause, PauseReason, PushService};
use crate::store::{
    CountFilter, LedgerStats, LiveCounts, Liveness, StoreError, StoreErrorKind, Tally,
};
use crate::subscription::Origin;

/// Time limit of the store: shorter than the one of a scrape, which is 10 s by default.
const STORE_RESPONDS_WITHIN: Duration = Duration::from_secs(3);

/// What the ledger says.
struct Ledger {
    stats: LedgerStats,
    pauses: Vec<Pause>,
    tallies: Vec<(Origin, Tally)>,
}

/// How long what the table of subscriptions says is good for: this many times as long as reading it took, at most a minute. The
/// table may be the application's, which may count its rows.
const KEPT_TIMES: u32 = 100;
const KEPT_AT_MOST: Duration = Duration::from_secs(60);

/// What the table of subscriptions last said, and until when that is good.
pub(super) type Counted = tokio::sync::Mutex<Option<(Instant, Subscriptions)>>;

/// What the table of subscriptions says.
#[derive(Clone, Debug)]
pub(crate) struct Subscriptions {
    live: LiveCounts,
    stale: u64,
    retired: u64,
}

/// Describes the metrics to the recorder, and begins counters whose labels are known at 0.
pub(crate) fn describe() {
    describe_metrics();
    show(
        "web_push_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    for outcome in FinalOutcome::ALL {
        begin("web_push_finished_total", &[("outcome", outcome.as_str())]);
    }
    for kind in StoreErrorKind::ALL {
        begin("web_push_store_errors_total", &[("kind", kind.as_str())]);
    }
    for what in ["broadcasts", "subscriptions"] {
        begin("web_push_purged_total", &[("what", what)]);
    }
    for what in [
        "broadcasts",
        "days",
        "origins",
        "schedules",
        "subscriptions",
    ] {
        begin("web_push_unreadable_total", &[("what", what)]);
    }
    for what in ["opened", "refused"] {
        begin("web_push_outbox_total", &[("what", what)]);
    }
    for what in ["fired", "skipped"] {
        begin("web_push_daily_total", &[("what", what)]);
    }
    begin_gauge("web_push_daily_skipped_timestamp_seconds");
    begin("web_push_store_errors_total", &[("kind", DROPPED)]);
    for service in PushService::ALL {
        let labels = [("push_service", service.as_str())];
        begin_histogram("web_push_delivery_duration_seconds", &labels);
        for outcome in Outcome::ALL {
            let labels = [labels[0], ("outcome", outcome.as_str())];
            begin("web_push_attempts_total", &labels);
        }
    }
    for operation in ["claim", "settle"] {
        let labels = [("operation", operation)];
        begin_histogram("web_push_store_call_duration_seconds", &labels);
    }
    begin("web_push_key_rotations_total", &[]);
    begin("web_push_settlements_lost_total", &[]);
}

impl Engine {
    /// Sets every gauge. Those that the store did not tell in time become NaN, and `web_push_store_up` 0.
    pub(crate) async fn refresh_metrics(&self) {
        let now = self.now();
        let (ledger, subscriptions, (is_up, _)) = tokio::join!(
            within_limit(self.read_ledger(now)),
            within_limit(self.count_subscriptions(now)),
            self.is_store_up()
        );
        show("web_push_store_up", &[], truth(ledger.is_some() && is_up));
        self.show_worker(now);
        self.show_flow();
        self.show_ledger(ledger, now);
        show_subscriptions(subscriptions);
    }

    async fn read_ledger(&self, now: Timestamp) -> Result<Ledger, StoreError> {
        Ok(Ledger {
            stats: self.ledger.stats(now).await?,
            pauses: self.ledger.pauses(now).await?,
            tallies: self.ledger.tallies().await?,
        })
    }

    /// Counts the subscriptions: one scrape at a time, and not again for a while if it takes long.
    async fn count_subscriptions(&self, now: Timestamp) -> Result<Subscriptions, StoreError> {
        let mut counted = self.signals.counted.lock().await;
        let began = Instant::now();
        if let Some((_, known)) = counted.as_ref().filter(|(until, _)| began < *until) {
            return Ok(known.clone());
        }
        let read = self.read_subscriptions(now).await?;
        let took = began.elapsed();
        let until = Instant::now() + (KEPT_TIMES * took).min(KEPT_AT_MOST);
        *counted = Some((until, read.clone()));
        Ok(read)
    }

    async fn read_subscriptions(&self, now: Timestamp) -> Result<Subscriptions, StoreError> {
        let in_state = async |liveness| {
            let filter = CountFilter::new(Audience::All, liveness);
            self.subscriptions.count(&filter, now).await
        };
        Ok(Subscriptions {
            live: self.subscriptions.count_live(&[], now).await?,
            stale: in_state(Liveness::Stale).await?,
            retired: in_state(Liveness::Retired).await?,
        })
    }

    /// The worker of this process. Nothing of it asks the store.
    fn show_worker(&self, now: Timestamp) {
        let signals = &self.signals;
        show("web_push_worker_running", &[], truth(self.has_own_worker()));
        show(
            "web_push_clock_fault",
            &[],
            truth(self.clock.fault().is_some()),
        );
        show(
            "web_push_parked_broadcasts",
            &[],
            number(signals.parked.len(now)),
        );
        show(
            "web_push_unreadable_rows",
            &[],
            number(signals.unreadable.len(now)),
        );
        show(
            "web_push_missing_keys",
            &[],
            number(self.count_missing_keys()),
        );
        // The wall clock of Prometheus, not the one that is guarded.
        let claimed = signals.health.claimed_ago();
        let never = if self.has_own_worker() { 0.0 } else { f64::NAN };
        let claimed = claimed.map_or(never, |ago| secs(SystemClock::new().now() - ago));
        show("web_push_last_claim_timestamp_seconds", &[], claimed);
        let interval = self.poll_interval.as_secs_f64();
        show("web_push_poll_interval_seconds", &[], interval);
        let failing = signals.health.failing();
        for step in Step::ALL {
            let is_failing = failing.iter().any(|failing| failing.step == *step);
            show(
                "web_push_step_failing",
                &[("step", step.as_str())],
                truth(is_failing),
            );
        }
    }

    /// The requests of this process, by push service.
    fn show_flow(&self) {
        let mut flows: HashMap<PushService, (usize, usize)> = HashMap::new();
        for gate in self.gates.all() {
            let (in_flight, limit) = flows
                .entry(PushService::of_origin(gate.origin()))
                .or_default();
            *in_flight += gate.in_flight();
            *limit += gate.limit();
        }
        for service in PushService::ALL {
            let labels = [("push_service", service.as_str())];
            let (in_flight, limit) = flows.get(service).copied().unwrap_or_default();
            show("web_push_requests_in_flight", &labels, number(in_flight));
            show("web_push_requests_limit", &labels, number(limit));
        }
    }

    fn show_ledger(&self, ledger: Option<Ledger>, now: Timestamp) {
        let stats = ledger.as_ref().map(|ledger| ledger.stats);
        let of = |value: fn(&LedgerStats) -> u64| {
            stats.as_ref().map_or(f64::NAN, |stats| count(value(stats)))
        };
        show("web_push_ledger_rows", &[], of(|stats| stats.depth));
        show("web_push_ledger_leased", &[], of(|stats| stats.leased));
        for service in PushService::ALL {
            let waiting = stats.map_or(f64::NAN, |stats| {
                // Each may be the one, if the ledger does not tell them apart.
                let oldest = match stats.oldest_due_at.earliest() {
                    Some(_) => stats.oldest_due_at.at(*service),
                    None => stats.oldest_due,
                };
                oldest.map_or(0.0, |due| now.since(due).as_secs_f64())
            });
            let labels = [("push_service", service.as_str())];
            show("web_push_oldest_due_age_seconds", &labels, waiting);
        }
        // The pauses that all processes share; while they cannot be read, those that this one knows.
        let closed: Vec<_> = match &ledger {
            Some(ledger) => {
                let pauses = ledger.pauses.iter();
                pauses
                    .map(|pause| (PushService::of_origin(&pause.origin), pause.reason))
                    .collect()
            }
            None => {
                let gates = self.gates.closed(now).into_iter();
                gates
                    .map(|(origin, closed)| (PushService::of_origin(&origin), closed.reason))
                    .collect()
            }
        };
        for service in PushService::ALL {
            for reason in PauseReason::ALL {
                let gates = closed
                    .iter()
                    .filter(|gate| **gate == (*service, *reason))
                    .count();
                let labels = [
                    ("push_service", service.as_str()),
                    ("reason", reason.as_str()),
                ];
                show("web_push_gates_closed", &labels, number(gates));
            }
            let suspended = ledger.as_ref().map_or(f64::NAN, |ledger| {
                let tallies = ledger.tallies.iter();
                let open = tallies.filter(|(origin, tally)| {
                    PushService::of_origin(origin) == *service && self.prune_breaker.is_open(*tally)
                });
                number(open.count())
            });
            let labels = [("push_service", service.as_str())];
            show("web_push_pruning_suspended", &labels, suspended);
        }
    }
}

fn show_subscriptions(read: Option<Subscriptions>) {
    let of = |value: fn(&Subscriptions) -> u64| {
        read.as_ref().map_or(f64::NAN, |read| count(value(read)))
    };
    let states = [
        ("live", of(|read| read.live.total())),
        ("stale", of(|read| read.stale)),
        ("retired", of(|read| read.retired)),
    ];
    for (state, rows) in states {
        show("web_push_subscriptions", &[("state", state)], rows);
    }
    for service in PushService::ALL {
        let live = read.as_ref().map_or(f64::NAN, |read| {
            count(
                read.live
                    .by_push_service
                    .get(service)
                    .copied()
                    .unwrap_or_default(),
            )
        });
        show(
            "web_push_live_subscriptions",
            &[("push_service", service.as_str())],
            live,
        );
    }
}

/// What the store answers in time.
async fn within_limit<T>(read: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    timeout(STORE_RESPONDS_WITHIN, read).await.ok()?.ok()
}

const fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
const fn count(rows: u64) -> f64 {
    rows as f64
}

const fn number(rows: usize) -> f64 {
    count(rows as u64)
}

fn secs(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let millis = at.as_millis() as f64;
    millis / 1000.0
}
