//! A ledger and its model, and the workers that use both.

mod compare;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastStatus, FinalOutcome, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::{Message, Urgency};
use tower_web_push::store::rules::shares;
use tower_web_push::store::{
    ClaimRequest, ClaimToken, Cursor, DeliveryLedger, Expansion, Idempotency, NewBroadcast,
    NewDelivery, Page, PageWrite, Pause, PauseReason, Settled, Settlement, SubscriptionRecord,
    Tally,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, EndpointKey, Origin, Subscription, SubscriptionId, UaPublicKey,
};
use tower_web_push::vapid::KeyId;

use super::Backend;
use super::model::{Broadcast, Model};
use super::ops::{End, ORIGINS, Op, Opening, RECIPIENTS, To, WORKERS};

type Checked<T = ()> = Result<T, TestCaseError>;

/// The user agent's key of RFC 8291 appendix A.
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
/// More rows than there ever are.
const ALL: usize = 10_000;

pub(crate) struct World {
    backend: Backend,
    /// Handles of one ledger, as in several processes.
    handles: Vec<Arc<dyn DeliveryLedger>>,
    /// The number of lists of broadcasts to expand that each handle has given since it was opened.
    lists: Vec<u64>,
    model: Model,
    now: Timestamp,
    workers: Vec<Worker>,
    /// All broadcasts so far.
    ids: Vec<BroadcastId>,
    /// All tokens so far.
    given: Vec<ClaimToken>,
}

#[derive(Default)]
struct Worker {
    seen: Vec<Expansion>,
    claimed: Vec<ClaimToken>,
}

impl World {
    pub(crate) async fn new(backend: Backend, now: Timestamp) -> Self {
        let handles = backend.open().await;
        Self {
            lists: vec![0; handles.len()],
            handles,
            model: Model {
                knows_rows: !matches!(backend, Backend::Redis(..)),
                ..Model::default()
            },
            backend,
            now,
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            ids: Vec::new(),
            given: Vec::new(),
        }
    }

    fn ledger(&self, worker: usize) -> Arc<dyn DeliveryLedger> {
        Arc::clone(&self.handles[worker % self.handles.len()])
    }

    /// Whether calls for one broadcast end the leases that are over of all, and rows of cancelled ones with them.
    const fn ends_leases_anywhere(&self) -> bool {
        matches!(self.backend, Backend::Redis(..))
    }

    fn in_secs(&self, secs: i8) -> Timestamp {
        let by = Duration::from_secs(secs.unsigned_abs().into());
        if secs < 0 {
            self.now - by
        } else {
            self.now + by
        }
    }

    /// Applies a step to both, and compares all visible state.
    pub(crate) async fn step(&mut self, op: Op) -> Checked {
        match op {
            Op::Open(opening) => {
                let new = self.broadcast(&opening);
                self.ids.push(new.id);
                self.open(&new).await?;
            }
            Op::OpenAgain(number) => {
                if let Some(number) = modulo(number, self.model.broadcasts.len()) {
                    let new = self.model.broadcasts[number].new.clone();
                    self.open(&new).await?;
                }
            }
            Op::Look {
                worker,
                limit,
                times,
            } => {
                for _ in 0..times {
                    self.look(worker, limit).await?;
                }
            }
            Op::Page {
                worker,
                which,
                recipients,
                is_last,
            } => {
                if self.workers[worker].seen.is_empty() {
                    self.look(worker, ALL).await?;
                }
                if let Some(which) = modulo(which, self.workers[worker].seen.len()) {
                    let seen = self.workers[worker].seen[which].clone();
                    self.page(worker, &seen, &recipients, is_last).await?;
                }
            }
            Op::Claim {
                worker,
                limit,
                per_origin,
                lease,
                rooms,
            } => {
                let mut request = ClaimRequest::new(limit, Duration::from_secs(lease.into()));
                request.per_origin = per_origin;
                let rooms = rooms.into_iter().map(|(name, room)| (origin(name), room));
                request.origins = rooms.collect();
                let tokens = self.claim(worker, &request).await?;
                self.workers[worker].claimed.extend(tokens);
            }
            Op::Settle { worker, rows } => {
                let mut settled = Vec::new();
                for (number, end) in rows {
                    settled.extend(self.take(worker, number).map(|token| (token, end)));
                }
                self.settle(worker, &settled).await?;
            }
            Op::Release { worker, rows } => {
                let tokens: Vec<_> = rows
                    .into_iter()
                    .filter_map(|number| self.take(worker, number))
                    .collect();
                self.release(worker, &tokens).await?;
            }
            Op::SettleAny(tokens) => {
                let mut settled = Vec::new();
                for (number, is_forged, end) in tokens {
                    if let Some(number) = modulo(number, self.given.len()) {
                        let mut token = self.given[number];
                        token.fence += u64::from(is_forged);
                        settled.push((token, end));
                    }
                }
                self.settle(0, &settled).await?;
            }
            Op::ReleaseAny(numbers) => {
                let len = self.given.len();
                let tokens = numbers.into_iter().filter_map(|number| modulo(number, len));
                let tokens: Vec<_> = tokens.map(|number| self.given[number]).collect();
                self.release(0, &tokens).await?;
            }
            Op::Cancel(number) => {
                if let Some(number) = modulo(number, self.ids.len()) {
                    let id = self.ids[number];
                    // On Redis the last rows of one that was cancelled before may end first, and with them the broadcast.
                    let is_to_be_forgotten =
                        |one: &Broadcast| one.cancelled && one.new.forget_when_over;
                    let may_be_over = self.ends_leases_anywhere()
                        && self.model.broadcast(id).is_some_and(is_to_be_forgotten);
                    let expected = self.model.cancel(id, self.now);
                    let ledger = self.ledger(0);
                    let status = ledger.cancel(id, self.now).await.unwrap();
                    let is_over = |status: &BroadcastStatus| status.counts.pending == 0;
                    let may_be_over = may_be_over && expected.as_ref().is_some_and(is_over);
                    prop_assert!(
                        status == expected || status.is_none() && may_be_over,
                        "{status:?} instead of {expected:?}"
                    );
                    self.see_what_was_swept(&*ledger).await?;
                }
            }
            Op::Hold(number, is_held) => {
                if let Some(number) = modulo(number, self.ids.len()) {
                    let id = self.ids[number];
                    let expected = self.model.hold(id, is_held, self.now);
                    let status = self.ledger(0).hold(id, is_held, self.now).await.unwrap();
                    prop_assert_eq!(status, expected);
                }
            }
            Op::Erase { user, knows_rows } => self.erase(user, knows_rows).await?,
            Op::Expire(limit) => self.expire(limit).await?,
            Op::Pause {
                origin: number,
                secs,
                reason,
                closures,
            } => {
                let reason = PauseReason::ALL[reason % PauseReason::ALL.len()];
                let mut pause = Pause::new(origin(number), self.in_secs(secs), reason);
                pause.closures = closures;
                pause.contact = reason
                    .is_probed()
                    .then(|| format!("mailto:{secs}@example.net"));
                self.pause(&pause).await;
            }
            Op::Tally(counts) => {
                let counts: Vec<_> = counts
                    .into_iter()
                    .map(|(name, accepted, gone)| (origin(name), Tally::new(accepted, gone)))
                    .collect();
                let sums = self.ledger(1).tally(&counts, self.now).await.unwrap();
                let origins = &mut self.model.origins;
                let expected: Vec<_> = counts
                    .iter()
                    .map(|(origin, counts)| origins.tally(origin, *counts, self.now))
                    .collect();
                prop_assert_eq!(sums, expected);
            }
            Op::Wait(secs) => self.now = self.now + Duration::from_secs(secs.into()),
            Op::WaitUntilDue => {
                let next = self.ledger(0).next_due(self.now).await.unwrap();
                self.now = next.unwrap_or(self.now);
            }
            Op::Prune(secs) => {
                let before = self.now - Duration::from_secs(secs.into());
                let pruned = self.ledger(0).prune(before).await.unwrap();
                prop_assert_eq!(pruned.broadcasts, self.model.prune(before));
                prop_assert!(!pruned.more, "one step is enough");
            }
            Op::Crash => {
                self.workers.fill_with(Worker::default);
                if self.backend.is_durable() {
                    self.model.has_crashed |=
                        matches!(self.backend, Backend::SqliteFile(_) | Backend::SqliteIn(_));
                    self.handles.clear();
                    self.backend.forget_workers().await;
                    self.handles = self.backend.open().await;
                    self.lists.fill(0);
                }
            }
        }
        self.compare().await
    }

    fn broadcast(&self, opening: &Opening) -> NewBroadcast {
        // Sorted, so that a case is repeatable.
        let number = self.ids.len() as u128;
        let message = Message::new(format!("message {number}"));
        let message = message.with_urgency(opening.urgency);
        let send_at = opening.send_in.map(|secs| self.in_secs(secs));
        let due_at = send_at.unwrap_or(self.now).max(self.now);
        let deadline = due_at + Duration::from_secs(opening.lives.into());
        let to = match opening.to {
            To::All => Audience::All,
            To::User(number) => Audience::User(user(number)),
            To::Ids(one, other) => Audience::Ids(vec![record(one).id, record(other).id]),
        };
        let mut new = NewBroadcast::new(to, message, deadline);
        new.forget_when_over = opening.forgotten_when_over;
        new.id = BroadcastId::from_bytes(number.to_be_bytes());
        new.send_at = send_at;
        new.pace = opening.pace.and_then(NonZeroU32::new);
        new.recipients = opening.expected.into();
        let page = opening.page.as_ref();
        new.page = page.map(|(recipients, is_last)| page_of(recipients, *is_last));
        new.idempotency = opening
            .idempotency
            .map(|(key, request)| Idempotency::new(format!("key-{key}"), [request; 32]));
        new
    }

    async fn open(&mut self, new: &NewBroadcast) -> Checked {
        let opened = self.ledger(0).open(new, self.now).await.unwrap();
        prop_assert_eq!(opened, self.model.open(new, self.now));
        Ok(())
    }

    async fn look(&mut self, worker: usize, limit: usize) -> Checked {
        let found = self.ledger(worker).expandable(limit, self.now).await;
        let found = found.unwrap();
        let of = |is_urgent| self.model.expandable(is_urgent, self.now);
        let (urgent, others) = (of(true), of(false));
        // Of eight lists of one, another broadcast is in one (L3): which one, the number of the list decides.
        let handle = worker % self.handles.len();
        let take = self.lists[handle];
        let of_each = shares(limit, take, [urgent.len(), others.len(), 0]);
        let urgent = urgent.iter().take(of_each[0]);
        let listed = urgent.chain(others.iter().take(of_each[1]));
        let mut moments = Vec::new();
        for one in &found {
            let broadcast = self.model.broadcast(one.id);
            let broadcast = broadcast.ok_or_else(|| TestCaseError::fail("nothing to expand"))?;
            prop_assert_eq!(one.audience.as_ref(), Some(&broadcast.new.audience));
            prop_assert_eq!(one.cursor, broadcast.cursor);
            let urgency = broadcast.new.message.urgency();
            prop_assert_eq!(one.pace, broadcast.new.pace);
            prop_assert_eq!(one.is_urgent, urgency == Urgency::High);
            moments.push((urgency == Urgency::High, broadcast.expand_at));
        }
        // The order of equal ones is up to the ledger.
        let expected = listed.map(|one| {
            let urgency = one.new.message.urgency();
            (urgency == Urgency::High, one.expand_at)
        });
        let expected: Vec<_> = expected.collect();
        prop_assert_eq!(moments, expected, "list {} of this handle", take);
        self.lists[handle] += 1;
        self.workers[worker].seen = found;
        Ok(())
    }

    async fn page(
        &mut self,
        worker: usize,
        seen: &Expansion,
        recipients: &[u8],
        is_last: bool,
    ) -> Checked {
        let Page { rows, next } = page_of(recipients, is_last);
        let written = self
            .ledger(worker)
            .enqueue_page(seen.id, &seen.cursor, &rows, &next, self.now)
            .await
            .unwrap();
        let expected = self
            .model
            .enqueue_page(seen.id, seen.cursor, &rows, next, self.now);
        prop_assert_eq!(written, expected);
        if written == PageWrite::Stale {
            self.workers[worker].seen.retain(|one| one != seen);
        }
        Ok(())
    }

    async fn claim(&mut self, worker: usize, request: &ClaimRequest) -> Checked<Vec<ClaimToken>> {
        let ledger = self.ledger(worker);
        let claims = ledger.claim(request, self.now).await.unwrap();
        self.model.claimed(request, &claims, self.now)?;
        self.see_what_was_swept(&*ledger).await?;
        let tokens: Vec<_> = claims.rows.iter().map(|row| row.token).collect();
        self.given.extend(&tokens);
        Ok(tokens)
    }

    /// Claims, and other calls that end rows, end some or all rows of cancelled broadcasts.
    pub(super) async fn see_what_was_swept(&mut self, ledger: &dyn DeliveryLedger) -> Checked {
        for (id, tokens) in self.model.abandoned(self.now) {
            let cancelled = async || {
                let status = ledger.status(id, self.now).await.unwrap();
                status.map(|status| status.counts.cancelled)
            };
            let before = self.model.status(id, self.now).unwrap().counts.cancelled;
            // One that is forgotten when it is over had all of them swept.
            let swept = match cancelled().await {
                Some(cancelled) => usize::try_from(cancelled - before).unwrap(),
                None => tokens.len(),
            };
            prop_assert!(swept <= tokens.len());
            if swept == 0 {
                continue;
            }
            // Which ones is not visible, so all end in the model.
            let ends = Settlement::Finished(FinalOutcome::Cancelled);
            let settled: Vec<_> = tokens.iter().map(|token| (*token, ends)).collect();
            let answers = ledger.settle(&settled, self.now).await.unwrap();
            let done = answers.iter().filter(|one| **one == Settled::Done).count();
            prop_assert_eq!(done, tokens.len() - swept);
            for token in &tokens {
                self.model.settle(token, ends, self.now);
            }
        }
        Ok(())
    }

    /// Takes a token from the worker.
    fn take(&mut self, worker: usize, number: usize) -> Option<ClaimToken> {
        let claimed = &mut self.workers[worker].claimed;
        Some(claimed.swap_remove(modulo(number, claimed.len())?))
    }

    async fn settle(&mut self, worker: usize, ends: &[(ClaimToken, End)]) -> Checked {
        let settled: Vec<_> = ends
            .iter()
            .map(|(token, end)| match *end {
                End::Finished(number) => (*token, Settlement::Finished(End::outcome(number))),
                End::Failed(number) => (*token, End::failed(number)),
                End::RetryIn(secs) => (*token, Settlement::RetryAt(self.in_secs(secs))),
                End::DeferIn(secs) => (*token, Settlement::Deferred(self.in_secs(secs))),
            })
            .collect();
        let answers = self.ledger(worker).settle(&settled, self.now).await;
        let expected: Vec<_> = settled
            .iter()
            .map(|(token, settlement)| self.model.settle(token, *settlement, self.now))
            .collect();
        prop_assert_eq!(answers.unwrap(), expected);
        Ok(())
    }

    async fn release(&mut self, worker: usize, tokens: &[ClaimToken]) -> Checked {
        let ledger = self.ledger(worker);
        ledger.release(tokens, self.now).await.unwrap();
        for token in tokens {
            let back = Settlement::Deferred(self.now);
            self.model.settle(token, back, self.now);
        }
        Ok(())
    }

    async fn pause(&mut self, pause: &Pause) {
        let ledger = self.ledger(1);
        ledger.pause(pause, self.now).await.unwrap();
        self.model.origins.pause(pause, self.now);
    }

    async fn erase(&mut self, number: u8, knows_rows: bool) -> Checked {
        let (ledger, user) = (self.ledger(0), user(number));
        let theirs = (0..RECIPIENTS).filter(|recipient| knows_rows && recipient / 4 == number);
        let rows: Vec<_> = theirs.map(record).collect();
        // On Redis those of cancelled broadcasts whose lease has ended may end before, with those of others.
        let abandoned = self.model.abandoned(self.now).into_values().flatten();
        let keys: Vec<_> = rows
            .iter()
            .map(|row| row.subscription.endpoint().key())
            .collect();
        let is_theirs =
            |token: &ClaimToken| self.ends_leases_anywhere() && keys.contains(&token.key);
        let may_be_over = abandoned.filter(is_theirs).count() as u64;
        let expected = self.model.erase(&user, &rows, self.now);
        let erased = ledger.erase(&user, &rows, self.now).await.unwrap();
        prop_assert_eq!(erased.broadcasts, expected.broadcasts);
        prop_assert!(
            erased.deliveries <= expected.deliveries
                && erased.deliveries + may_be_over >= expected.deliveries,
            "{erased:?} instead of {expected:?}"
        );
        self.see_what_was_swept(&*ledger).await
    }

    async fn expire(&mut self, limit: usize) -> Checked {
        let mut ended = 0;
        loop {
            let more = self.ledger(0).expire(limit, self.now).await.unwrap();
            prop_assert!(more <= limit as u64);
            ended += more;
            if more < limit as u64 {
                break;
            }
        }
        prop_assert_eq!(ended, self.model.expire(self.now));
        self.see_what_was_swept(&*self.ledger(0)).await
    }
}

fn origin(number: u8) -> Origin {
    Origin::parse(&format!("https://push{}.example.net", number % ORIGINS)).unwrap()
}

/// The subscription of a recipient, the same each time.
fn record(number: u8) -> SubscriptionRecord {
    let endpoint = Endpoint::parse(&format!("{}/{number}", origin(number).as_str())).unwrap();
    let auth = AuthSecret::from_bytes(&[number; AuthSecret::LEN]).unwrap();
    let subscription = Subscription::new(endpoint, UaPublicKey::parse(P256DH).unwrap(), auth);
    let id = SubscriptionId::from_bytes([number; 16]);
    let vapid_key = KeyId::from_bytes([1; KeyId::LEN]);
    SubscriptionRecord::new(id, subscription, vapid_key, Timestamp::from_secs(0))
}

fn key(number: u8) -> EndpointKey {
    record(number).subscription.endpoint().key()
}

fn user(number: u8) -> Principal {
    Principal::from(format!("user {number}"))
}

fn modulo(number: usize, len: usize) -> Option<usize> {
    number.checked_rem(len)
}

fn page_of(recipients: &[u8], is_last: bool) -> Page {
    let rows: Vec<_> = recipients
        .iter()
        .map(|number| NewDelivery::new(key(*number), origin(*number)))
        .collect();
    let next = match rows.last() {
        Some(last) if !is_last => Cursor::After(last.key),
        _ => Cursor::End,
    };
    Page::new(rows, next)
}
