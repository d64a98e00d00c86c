//! Accepting a broadcast and waiting for its end.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::expand::{expected, first_page};
use super::{Engine, Queued};
use crate::broadcast::{
    Audience, Broadcast, BroadcastId, BroadcastState, BroadcastStatus, FinalOutcome,
};
use crate::clock::Timestamp;
use crate::error::error_struct;
use crate::observe;
use crate::store::{Idempotency, NewBroadcast, Opened, StoreError};

/// The latest `sendAt`, from now.
pub(crate) const LATEST_SEND_AT: Duration = Duration::from_secs(30 * 86_400);
/// Steps of one cancellation, of 1,000 rows each: about half a second on SQLite. Claims do the rest.
const CANCEL_STEPS: usize = 20;

impl Engine {
    /// Accepts a broadcast. Once it returns, the broadcast is as durable as the ledger.
    pub(crate) async fn enqueue(&self, broadcast: Broadcast) -> Result<Queued, SendError> {
        let span = observe::Span::enqueue(broadcast.trace_parent.as_ref());
        let accepted = span.around(self.accept(broadcast)).await;
        match &accepted {
            Ok(queued) => {
                span.broadcast(queued.broadcast);
                span.recipients(queued.recipients);
                span.outcome(if queued.is_repeat { "repeat" } else { "queued" });
            }
            Err(error) => span.failed(error.kind().code()),
        }
        accepted
    }

    async fn accept(&self, broadcast: Broadcast) -> Result<Queued, SendError> {
        let now = self.now();
        check(&broadcast, now)?;
        let new = self.resolve(broadcast, now).await?;
        let queued = match self.ledger.open(&new, now).await? {
            Opened::New => {
                let rows = new.page.as_ref().map_or(0, |page| page.rows.len());
                let endings = &self.signals.endings;
                if rows > 0 {
                    endings.note_written(new.id, rows as u64, Instant::now());
                }
                Queued::new(new.id, new.recipients)
            }
            Opened::Repeat(status) => Queued::repeat(status.id, status.recipients),
            Opened::Conflict => return Err(SendErrorKind::IdempotencyConflict.into()),
        };
        self.signals.wake.notify_one();
        Ok(queued)
    }

    /// The number of live subscriptions of an audience.
    pub(crate) async fn estimate(&self, audience: &Audience) -> Result<u64, StoreError> {
        expected(self, audience, None, self.now()).await
    }

    /// What the ledger opens for a broadcast: with its deadline, its recipients and the rows of a small audience.
    pub(super) async fn resolve(
        &self,
        broadcast: Broadcast,
        now: Timestamp,
    ) -> Result<NewBroadcast, StoreError> {
        // The audience of what is sent later is resolved then, and rows are written at a pace if there is one.
        let is_immediate = broadcast.send_at.is_none_or(|at| at <= now);
        let page = match (is_immediate, broadcast.pace) {
            (true, None) => first_page(self, &broadcast.audience, now).await?,
            _ => None,
        };
        let recipients = expected(self, &broadcast.audience, page.as_ref(), now).await?;
        let mut new = self.unresolved(broadcast, now);
        new.recipients = recipients;
        new.page = page;
        Ok(new)
    }

    /// The same without its recipients, whose number is exact once all of them are written.
    pub(super) fn unresolved(&self, broadcast: Broadcast, now: Timestamp) -> NewBroadcast {
        let trace_parent = broadcast.trace_parent_or_current();
        let key = broadcast.idempotency_key.as_deref();
        let idempotency = key.map(|key| Idempotency::new(key, broadcast.fingerprint()));
        let send_at = broadcast.send_at.filter(|at| *at > now);
        // While the clocks disagree, the later one: an accepted message must not be past its deadline when they agree.
        let accepted_at = self.clock.latest();
        let deadline = broadcast
            .message
            .ttl()
            .deadline(send_at.unwrap_or(accepted_at));
        let (id, audience, message) = (BroadcastId::at(now), broadcast.audience, broadcast.message);
        let mut new = NewBroadcast::with_id(id, audience, message, deadline);
        new.send_at = send_at;
        new.pace = broadcast.pace;
        new.idempotency = idempotency;
        new.trace_parent = trace_parent;
        new.forget_when_over = broadcast.forget_when_over;
        new
    }

    pub(crate) async fn status(
        &self,
        id: BroadcastId,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.ledger.status(id, self.now()).await
    }

    /// Waits until a broadcast is over, at most for a time. Returns its status then.
    pub(crate) async fn wait_until_over(
        &self,
        id: BroadcastId,
        at_most: Duration,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        // Another machine's worker does not wake this process.
        const LOOK_AGAIN: Duration = Duration::from_millis(250);
        // `None` is a time that no clock reaches: the caller waits for as long as it takes.
        let until = Instant::now().checked_add(at_most);
        loop {
            let settled = self.signals.settled.notified();
            let status = self.status(id).await?;
            let done = status.as_ref().is_none_or(BroadcastStatus::is_over);
            let now = Instant::now();
            if done || until.is_some_and(|until| now >= until) {
                return Ok(status);
            }
            let again = now + LOOK_AGAIN;
            let _ = timeout_at(until.map_or(again, |until| until.min(again)), settled).await;
        }
    }

    /// Pauses a broadcast, or lets it go on.
    pub(crate) async fn hold(
        &self,
        id: BroadcastId,
        is_held: bool,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let status = self.ledger.hold(id, is_held, self.now()).await?;
        self.signals.wake.notify_one();
        Ok(status)
    }

    pub(crate) async fn cancel(
        &self,
        id: BroadcastId,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        // For the count only.
        let before = match cfg!(feature = "metrics") {
            true => self.ledger.status(id, self.now()).await.ok().flatten(),
            false => None,
        };
        let mut status = self.ledger.cancel(id, self.now()).await?;
        // Claims end what is left after the last step; leased rows are settled.
        let mut left = 0;
        for _ in 1..CANCEL_STEPS {
            let before = pending(&status);
            if before == 0 {
                break;
            }
            status = self.ledger.cancel(id, self.now()).await?;
            left = pending(&status);
            // Leased rows are left.
            if left == before {
                left = 0;
                break;
            }
        }
        let cancelled = count_cancelled(before.as_ref(), status.as_ref(), left);
        if cancelled > 0 {
            self.signals.endings.note(id, cancelled, Instant::now());
        }
        self.signals.settled.notify_waiters();
        Ok(status)
    }
}

/// Refuses what no store would accept.
pub(super) fn check(broadcast: &Broadcast, now: Timestamp) -> Result<(), SendErrorKind> {
    if broadcast.message.is_too_large() {
        return Err(SendErrorKind::PayloadTooLarge);
    }
    let key = broadcast.idempotency_key.as_deref();
    if key.is_some_and(|key| !Broadcast::is_idempotency_key(key)) {
        return Err(SendErrorKind::InvalidIdempotencyKey);
    }
    if broadcast
        .send_at
        .is_some_and(|at| at > now + LATEST_SEND_AT)
    {
        return Err(SendErrorKind::SendAtTooFarAhead);
    }
    Ok(())
}

fn pending(status: &Option<BroadcastStatus>) -> u64 {
    status.as_ref().map_or(0, |status| status.counts.pending)
}

/// Counts recipients that a call has cancelled, and those that claims will end because of it. A repeated call counts none.
/// Returns their number.
fn count_cancelled(
    before: Option<&BroadcastStatus>,
    after: Option<&BroadcastStatus>,
    left: u64,
) -> u64 {
    if before.is_some_and(|before| before.state == BroadcastState::Cancelled) {
        return 0;
    }
    let cancelled =
        |status: Option<&BroadcastStatus>| status.map_or(0, |status| status.counts.cancelled);
    let new = cancelled(after).saturating_sub(cancelled(before));
    observe::count_finished(FinalOutcome::Cancelled.as_str(), left + new);
    left + new
}

error_struct! {
    /// The reason why a message was not accepted for sending.
    SendError, SendErrorKind
}

/// The kind of a [`SendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The payload is above [`Message::MAX_PAYLOAD`](crate::Message::MAX_PAYLOAD).
    PayloadTooLarge,
    /// `sendAt` is more than 30 days ahead.
    SendAtTooFarAhead,
    /// The daily time has no next occurrence: its zone is unknown.
    NeverDue,
    /// The idempotency key is not 1 to 255 visible ASCII characters.
    InvalidIdempotencyKey,
    /// The idempotency key was used for another broadcast.
    IdempotencyConflict,
    /// The store is unavailable or failed: see the source.
    Store,
}

impl SendErrorKind {
    /// Returns the stable word that HTTP responses carry as `code`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::PayloadTooLarge => "payload_too_large",
            Self::SendAtTooFarAhead => "send_at_too_far_ahead",
            Self::NeverDue => "unknown_zone",
            Self::InvalidIdempotencyKey => "invalid_idempotency_key",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Store => "store_unavailable",
        }
    }
}

impl fmt::Display for SendErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PayloadTooLarge => "the payload is larger than 3993 octets",
            Self::SendAtTooFarAhead => "sendAt is more than 30 days ahead",
            Self::NeverDue => "the daily time has no next occurrence",
            Self::InvalidIdempotencyKey => {
                "the idempotency key is not 1 to 255 visible ASCII characters"
            }
            Self::IdempotencyConflict => "the idempotency key was used for another broadcast",
            Self::Store => "the message could not be stored",
        })
    }
}

impl From<StoreError> for SendError {
    fn from(source: StoreError) -> Self {
        Self::with_source(SendErrorKind::Store, source)
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "accept_tests.rs"]
mod tests;
