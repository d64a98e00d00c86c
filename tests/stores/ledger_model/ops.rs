//! Steps on a ledger. Numbers are taken modulo the number of candidates, so that every sequence is valid.

use proptest::collection::vec;
use proptest::prelude::*;
use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::message::Urgency;
use tower_web_push::push_service::PushService;
use tower_web_push::store::{Failure, FailureCause, Settlement};

/// The number of workers that claim and expand.
pub(crate) const WORKERS: usize = 3;
/// The number of origins. Recipient `n` belongs to origin `n % ORIGINS`.
pub(crate) const ORIGINS: u8 = 4;
pub(crate) const RECIPIENTS: u8 = 16;
/// Recipient `n` belongs to user `n / 4`, the last four to no user.
pub(crate) const USERS: u8 = 3;

/// One step. Times are seconds from the time of the step, and few, so that they often coincide.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Open(Opening),
    /// Opens the same broadcast again, as after a lost answer.
    OpenAgain(usize),
    /// A worker reads expandable broadcasts some times, and keeps the last result for later: of eight lists one differs.
    Look {
        worker: usize,
        limit: usize,
        times: usize,
    },
    /// A worker writes a page after the cursor that it last read.
    Page {
        worker: usize,
        which: usize,
        recipients: Vec<u8>,
        is_last: bool,
    },
    Claim {
        worker: usize,
        limit: usize,
        per_origin: usize,
        lease: u8,
        rooms: Vec<(u8, usize)>,
    },
    /// Settles rows that the worker has claimed.
    Settle {
        worker: usize,
        rows: Vec<(usize, End)>,
    },
    Release {
        worker: usize,
        rows: Vec<usize>,
    },
    /// Uses old tokens, or the fence after theirs.
    SettleAny(Vec<(usize, bool, End)>),
    ReleaseAny(Vec<usize>),
    Cancel(usize),
    /// Pauses a broadcast, or lets it go on.
    Hold(usize, bool),
    /// Of a user with all of their subscriptions, or without any that the caller knows.
    Erase {
        user: u8,
        knows_rows: bool,
    },
    /// Expires in steps until nothing is late.
    Expire(usize),
    Pause {
        origin: u8,
        secs: i8,
        reason: usize,
        closures: u32,
    },
    Tally(Vec<(u8, u64, u64)>),
    Wait(u8),
    /// Advances to the next due time.
    WaitUntilDue,
    Prune(u8),
    /// All workers lose their tokens. A store in a file is opened again.
    Crash,
}

#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// The idempotency key and fingerprint.
    pub(crate) idempotency: Option<(u8, u8)>,
    pub(crate) send_in: Option<i8>,
    /// The due time.
    pub(crate) lives: u8,
    pub(crate) expected: u8,
    pub(crate) to: To,
    pub(crate) urgency: Urgency,
    /// The most recipients per second.
    pub(crate) pace: Option<u32>,
    pub(crate) forgotten_when_over: bool,
    /// The recipients of the first page, and whether there are no others.
    pub(crate) page: Option<(Vec<u8>, bool)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    All,
    User(u8),
    /// Two subscriptions, of one user or of two.
    Ids(u8, u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Finished(usize),
    Failed(usize),
    RetryIn(i8),
    DeferIn(i8),
}

impl End {
    pub(crate) fn failed(number: usize) -> Settlement {
        let status = [None, Some(404), Some(410)][number % 3];
        let cause = FailureCause::new(PushService::Other, Failure::new(status, None));
        Settlement::Failed(Self::outcome(number), cause)
    }

    pub(crate) fn outcome(number: usize) -> FinalOutcome {
        FinalOutcome::ALL[number % FinalOutcome::ALL.len()]
    }
}

/// A moment to begin at, and any sequence of steps.
pub(crate) fn ops() -> impl Strategy<Value = (i64, Vec<Op>)> {
    // Before 1970 for the first steps, in 2027, and at the end of the year 9999.
    let begin = prop_oneof![1 => Just(-30), 4 => Just(1_800_000_000), 1 => Just(253_402_300_770)];
    (begin, vec(op(), 1..70))
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<u8>().prop_map(usize::from);
    let worker = 0..WORKERS;
    prop_oneof![
            4 => opening().prop_map(Op::Open),
            1 => index.clone().prop_map(Op::OpenAgain),
            2 => (worker.clone(), 1_usize..4, 1_usize..9)
                .prop_map(|(worker, limit, times)| Op::Look { worker, limit, times }),
            6 => (worker.clone(), index.clone(), vec(0..RECIPIENTS, 0..8), any::<bool>()).prop_map(
                |(worker, which, recipients, is_last)| Op::Page { worker, which, recipients, is_last }
            ),
            7 => (worker.clone(), 0_usize..10, 0_usize..6, 1_u8..9, rooms()).prop_map(
                |(worker, limit, per_origin, lease, rooms)| {
                    Op::Claim { worker, limit, per_origin, lease,
                        rooms,
    }
                }
            ),
            5 => (worker.clone(), vec((index.clone(), end()), 0..5))
                .prop_map(|(worker, rows)| Op::Settle { worker, rows }),
            2 => (worker, vec(index.clone(), 0..3)).prop_map(|(worker, rows)| Op::Release { worker, rows }),
            2 => vec((index.clone(), prop::bool::weighted(0.2), end()), 0..4).prop_map(Op::SettleAny),
            1 => vec(index.clone(), 0..3).prop_map(Op::ReleaseAny),
            1 => index.clone().prop_map(Op::Cancel),
            3 => (index.clone(), any::<bool>()).prop_map(|(which, is_held)| Op::Hold(which, is_held)),
            1 => (0..USERS, prop::bool::weighted(0.8))
                .prop_map(|(user, knows_rows)| Op::Erase { user, knows_rows }),
            1 => (1_usize..6).prop_map(Op::Expire),
            3 => (0..ORIGINS, -2_i8..12, index, 1_u32..4).prop_map(|(origin, secs, reason, closures)| {
                Op::Pause { origin, secs, reason, closures }
            }),
            1 => vec((0..ORIGINS, 0_u64..400, 0_u64..400), 0..3).prop_map(Op::Tally),
            5 => (0_u8..7).prop_map(Op::Wait),
            2 => Just(Op::WaitUntilDue),
            1 => (0_u8..20).prop_map(Op::Prune),
            1 => Just(Op::Crash),
        ]
}

fn opening() -> impl Strategy<Value = Opening> {
    let idempotency = prop::option::weighted(0.3, (0_u8..3, 0_u8..2));
    let send_in = prop::option::weighted(0.3, -2_i8..10);
    let to = prop_oneof![
        3 => Just(To::All),
        1 => (0..USERS).prop_map(To::User),
        1 => (0..RECIPIENTS, 0..RECIPIENTS).prop_map(|(one, other)| To::Ids(one, other)),
    ];
    let forgotten = prop::bool::weighted(0.2);
    let urgency = prop::sample::select(Urgency::ALL);
    let page = (vec(0..RECIPIENTS, 0..6), any::<bool>());
    let page = prop::option::weighted(0.3, page);
    let pace = prop::option::weighted(0.3, 1_u32..5);
    (
        idempotency,
        send_in,
        0_u8..40,
        0_u8..6,
        to,
        urgency,
        pace,
        forgotten,
        page,
    )
        .prop_map(
            |(
                idempotency,
                send_in,
                lives,
                expected,
                to,
                urgency,
                pace,
                forgotten_when_over,
                page,
            )| {
                Opening {
                    idempotency,
                    send_in,
                    lives,
                    expected,
                    to,
                    urgency,
                    pace,
                    forgotten_when_over,
                    page,
                }
            },
        )
}

/// The weights of the steps.
fn rooms() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop_oneof![3 => Just(Vec::new()), 1 => vec((0..ORIGINS, 0_usize..3), 1..3)]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        2 => any::<u8>().prop_map(|number| End::Finished(usize::from(number))),
        1 => any::<u8>().prop_map(|number| End::Failed(usize::from(number))),
        1 => (-2_i8..60).prop_map(End::RetryIn),
        1 => (-2_i8..60).prop_map(End::DeferIn),
    ]
}
