//! Accepting a broadcast, and telling how it goes on.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Engine;
use crate::broadcast::{Audience, BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::error::error_struct;
use crate::message::Message;
use crate::store::rules::BroadcastProgress;
use crate::store::{CountFilter, Idempotency, Liveness, NewBroadcast, Opened, StoreError};

/// How far ahead `sendAt` may be.
pub(crate) const LATEST_SEND_AT: Duration = Duration::from_secs(30 * 86_400);

/// What to broadcast.
#[derive(Clone, Debug)]
pub(crate) struct BroadcastRequest {
    pub(crate) audience: Audience,
    pub(crate) message: Message,
    pub(crate) send_at: Option<Timestamp>,
    pub(crate) idempotency: Option<Idempotency>,
    /// No caller will ask what became of it.
    pub(crate) forget_when_over: bool,
}

impl BroadcastRequest {
    /// A message to be sent at once.
    pub(crate) const fn new(audience: Audience, message: Message) -> Self {
        Self {
            audience,
            message,
            send_at: None,
            idempotency: None,
            forget_when_over: false,
        }
    }
}

/// What accepting it came to.
#[derive(Clone, Debug)]
pub(crate) enum Opening {
    New(BroadcastStatus),
    Repeat(BroadcastStatus),
    Conflict,
}

impl Engine {
    /// Accepts a broadcast: once it returns, the broadcast is as durable as the ledger.
    pub(crate) async fn open(&self, request: BroadcastRequest) -> Result<Opening, SendError> {
        let BroadcastRequest {
            audience,
            message,
            send_at,
            idempotency,
            forget_when_over,
        } = request;
        if message.is_too_large() {
            return Err(SendErrorKind::PayloadTooLarge.into());
        }
        let now = self.now();
        let send_at = send_at.filter(|at| *at > now);
        if send_at.is_some_and(|at| at > now + LATEST_SEND_AT) {
            return Err(SendErrorKind::SendAtTooFarAhead.into());
        }
        let filter = CountFilter::new(audience.clone(), Liveness::Live);
        let mut broadcast = NewBroadcast::new(audience, message, now);
        broadcast.recipients = self.subscriptions.count(&filter, now).await?;
        broadcast.deadline = broadcast.message.ttl().deadline(send_at.unwrap_or(now));
        broadcast.send_at = send_at;
        broadcast.idempotency = idempotency;
        broadcast.forget_when_over = forget_when_over;
        let opening = match self.ledger.open(&broadcast, now).await? {
            Opened::New => Opening::New(BroadcastProgress::new(&broadcast, now).status(now)),
            Opened::Repeat(status) => Opening::Repeat(status),
            Opened::Conflict => Opening::Conflict,
        };
        self.signals.wake.notify_one();
        Ok(opening)
    }

    pub(crate) async fn status(
        &self,
        id: BroadcastId,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.ledger.status(id, self.now()).await
    }

    /// Waits until a broadcast is done, at most so long; where it stands then.
    pub(crate) async fn wait_done(
        &self,
        id: BroadcastId,
        at_most: Duration,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        // Another machine's worker does not wake us.
        const LOOK_AGAIN: Duration = Duration::from_millis(250);
        let until = Instant::now() + at_most;
        loop {
            let settled = self.signals.settled.notified();
            let status = self.status(id).await?;
            let done = status.as_ref().is_none_or(BroadcastStatus::is_over);
            if done || Instant::now() >= until {
                return Ok(status);
            }
            let _ = timeout_at(until.min(Instant::now() + LOOK_AGAIN), settled).await;
        }
    }

    pub(crate) async fn cancel(
        &self,
        id: BroadcastId,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let status = self.ledger.cancel(id, self.now()).await?;
        self.signals.settled.notify_waiters();
        Ok(status)
    }
}

error_struct! {
    /// Why a message was not accepted for sending.
    SendError, SendErrorKind
}

/// What kept a message from being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The payload is above [`Message::MAX_PAYLOAD`].
    PayloadTooLarge,
    /// `sendAt` is more than 30 days ahead.
    SendAtTooFarAhead,
    /// The daily time has no next occurrence: its zone is not known here.
    NeverDue,
    /// The store did not take it: see the source.
    Store,
}

impl SendErrorKind {
    /// The stable word that HTTP answers carry as `code`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::PayloadTooLarge => "payload_too_large",
            Self::SendAtTooFarAhead => "send_at_too_far_ahead",
            Self::NeverDue => "unknown_zone",
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
            Self::Store => "the message could not be stored",
        })
    }
}

impl From<StoreError> for SendError {
    fn from(source: StoreError) -> Self {
        Self::with_source(SendErrorKind::Store, source)
    }
}
