//! `GET /stats`: numbers of subscriptions and deliveries, delays, and paused push services.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;

use crate::api::WebPushService;
use crate::api::problem::Problem;
use crate::api::reply::{self, Reply};
use crate::broadcast::Audience;
use crate::deliver::OriginGate;
use crate::moment::iso8601;
use crate::store::{CountFilter, DayCount, Liveness, OutboxStats, StoreErrorKind};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsAnswer {
    subscriptions: SubscriptionStats,
    /// Live subscriptions at the beginning of each day, the earliest first.
    days: Vec<DayAnswer>,
    ledger: LedgerAnswer,
    /// What applications enqueued in transactions of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox: Option<OutboxAnswer>,
    gates: Vec<Gate>,
    /// The flow of requests of this process to the push services.
    origins: Vec<OriginAnswer>,
    /// Push services for which pruning is suspended.
    retiring_stopped: Vec<Doubted>,
    worker: WorkerAnswer,
    /// VAPID keys that rows name and the server does not have.
    missing_keys: Vec<MissingKey>,
}

#[derive(Serialize)]
struct DayAnswer {
    /// A date in UTC.
    day: String,
    live: u64,
}

impl DayAnswer {
    fn of(count: &DayCount) -> Self {
        let mut day = iso8601(count.day);
        day.truncate(day.find('T').unwrap_or(day.len()));
        Self {
            day,
            live: count.live,
        }
    }
}

/// The worker of this process.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerAnswer {
    /// The steps that fail.
    failing: Vec<FailingAnswer>,
    /// The number of broadcasts that cannot be read or expanded.
    parked: usize,
    /// Some of them.
    parked_broadcasts: Vec<ParkedAnswer>,
    /// The number of messages that wait because the store cannot read their subscription.
    unreadable: usize,
}

#[derive(Serialize)]
struct FailingAnswer {
    step: &'static str,
    since: String,
    error: String,
}

#[derive(Serialize)]
struct ParkedAnswer {
    broadcast: String,
    until: String,
    error: String,
}

/// The most parked broadcasts in one response.
const PARKED: usize = 32;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionStats {
    total: u64,
    live: u64,
    stale: u64,
    retired: u64,
    /// Of the live ones.
    by_push_service: BTreeMap<&'static str, u64>,
    /// Of the live ones.
    by_vapid_key: BTreeMap<String, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LedgerAnswer {
    depth: u64,
    leased: u64,
    oldest_due: Option<String>,
}

#[derive(Serialize)]
struct OutboxAnswer {
    /// Entries that no worker has seen yet.
    waiting: u64,
    /// Entries that cannot be sent, kept for an operator.
    refused: u64,
}

/// A push service that gets no requests for a while.
#[derive(Serialize)]
struct Gate {
    origin: String,
    until: String,
    reason: &'static str,
    /// The number of consecutive closures for this reason.
    closures: u32,
}

/// The most origins in one response.
const ORIGINS: usize = 32;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OriginAnswer {
    origin: String,
    /// Requests without a response.
    in_flight: usize,
    /// The most of them.
    limit: usize,
    /// The most requests that begin in a second, if the push service limits them.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<u64>,
}

impl OriginAnswer {
    fn of(gate: &OriginGate) -> Self {
        Self {
            origin: gate.origin().as_str().to_owned(),
            in_flight: gate.in_flight(),
            limit: gate.limit(),
            per_second: gate.per_second(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MissingKey {
    key_id: String,
    /// Live subscriptions that name it.
    subscriptions: u64,
}

#[derive(Serialize)]
struct Doubted {
    origin: String,
    /// Of its latest responses.
    gone: u64,
    accepted: u64,
}

pub(super) async fn stats(api: &WebPushService) -> Result<Reply, Problem> {
    let now = api.engine.now();
    let ledger = api.engine.ledger.stats(now).await?;
    let pauses = api.engine.ledger.pauses(now).await?;
    // A history that is damaged takes nothing else away.
    let days = match api.engine.ledger.days(now).await {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Vec::new(),
        days => days?,
    };
    let answer = StatsAnswer {
        subscriptions: subscriptions(api).await?,
        days: days.iter().map(DayAnswer::of).collect(),
        ledger: LedgerAnswer {
            depth: ledger.depth,
            leased: ledger.leased,
            oldest_due: ledger.oldest_due.map(iso8601),
        },
        outbox: outbox(api).await?,
        gates: pauses
            .into_iter()
            .map(|pause| Gate {
                origin: pause.origin.as_str().to_owned(),
                until: iso8601(pause.until),
                reason: pause.reason.as_str(),
                closures: pause.closures,
            })
            .collect(),
        origins: api
            .engine
            .gates
            .all()
            .iter()
            .take(ORIGINS)
            .map(|gate| OriginAnswer::of(gate))
            .collect(),
        retiring_stopped: api
            .engine
            .ledger
            .tallies()
            .await?
            .into_iter()
            .filter(|(_, tally)| api.engine.prune_breaker.is_open(*tally))
            .map(|(origin, tally)| Doubted {
                origin: origin.as_str().to_owned(),
                gone: tally.gone,
                accepted: tally.accepted,
            })
            .collect(),
        worker: worker(api),
        missing_keys: api
            .engine
            .missing_keys(now)
            .await?
            .into_iter()
            .map(|(id, subscriptions)| MissingKey {
                key_id: id.to_string(),
                subscriptions,
            })
            .collect(),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

async fn outbox(api: &WebPushService) -> Result<Option<OutboxAnswer>, Problem> {
    let ledger = &api.engine.ledger;
    if !ledger.has_outbox() {
        return Ok(None);
    }
    let OutboxStats { waiting, refused } = ledger.outbox_stats().await?;
    Ok(Some(OutboxAnswer { waiting, refused }))
}

fn worker(api: &WebPushService) -> WorkerAnswer {
    let (signals, now) = (&api.engine.signals, api.engine.now());
    let failing = signals.health.failing().into_iter();
    let parked = signals.parked.list(PARKED, now).into_iter();
    WorkerAnswer {
        failing: failing
            .map(|failing| FailingAnswer {
                step: failing.step.as_str(),
                since: iso8601(failing.since),
                error: failing.error,
            })
            .collect(),
        parked: signals.parked.len(now),
        parked_broadcasts: parked
            .map(|parked| ParkedAnswer {
                broadcast: parked.id.to_string(),
                until: iso8601(parked.until),
                error: parked.error,
            })
            .collect(),
        unreadable: signals.unreadable.len(api.engine.now()),
    }
}

async fn subscriptions(api: &WebPushService) -> Result<SubscriptionStats, Problem> {
    let now = api.engine.now();
    let store = &api.engine.subscriptions;
    let all = |liveness| CountFilter::new(Audience::All, liveness);
    let keys: Vec<_> = api
        .engine
        .key_ring
        .live()
        .iter()
        .map(|key| key.id())
        .collect();
    let live = store.count_live(&keys, now).await?;
    Ok(SubscriptionStats {
        total: store.count(&all(Liveness::Any), now).await?,
        live: live.total(),
        stale: store.count(&all(Liveness::Stale), now).await?,
        retired: store.count(&all(Liveness::Retired), now).await?,
        by_push_service: live
            .by_push_service
            .iter()
            .map(|(service, count)| (service.as_str(), *count))
            .collect(),
        by_vapid_key: live
            .by_vapid_key
            .iter()
            .map(|(key, count)| (key.to_string(), *count))
            .collect(),
    })
}
