//! A user agent's connection to its push service: received messages, and messages stored while it is offline.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::received::ReceivedPush;
use crate::clock::Timestamp;
use crate::message::Ttl;
use crate::subscription::Endpoint;

/// The messages of a user agent, shared with its subscriptions.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    offline: bool,
    messages: VecDeque<ReceivedPush>,
    /// The number of the latest messages that [`next`](super::UserAgent::next) has not returned yet.
    unread: usize,
    /// Messages accepted while offline, the oldest first.
    pending: VecDeque<ReceivedPush>,
}

/// The result of an accepted push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    /// Stored, in place of this number of older ones with its topic.
    Stored {
        replaced: bool,
    },
    /// TTL 0, and no user agent is connected.
    Dropped,
}

impl Inbox {
    /// Makes an inbox that keeps the last `limit` messages.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            limit,
        })
    }

    pub(super) fn accept(&self, push: &ReceivedPush) -> Fate {
        let mut state = self.lock();
        if state.offline {
            return state.store(push);
        }
        state.deliver(push, self.limit);
        drop(state);
        self.arrived.notify_waiters();
        Fate::Delivered
    }

    pub(super) fn go_offline(&self) {
        self.lock().offline = true;
    }

    /// Delivers the stored messages that have not expired by `now`. Returns the number of those that had.
    pub(super) fn go_online(&self, now: Timestamp) -> u64 {
        let mut state = self.lock();
        state.offline = false;
        let mut expired = 0;
        for push in std::mem::take(&mut state.pending) {
            if push.is_expired(now) {
                expired += 1;
            } else {
                state.deliver(&push, self.limit);
            }
        }
        drop(state);
        self.arrived.notify_waiters();
        expired
    }

    /// Drops the stored messages of a subscription that was removed.
    pub(super) fn forget(&self, endpoint: &Endpoint) {
        self.lock()
            .pending
            .retain(|push| push.endpoint() != endpoint);
    }

    pub(super) fn messages(&self) -> Vec<ReceivedPush> {
        self.lock().messages.iter().cloned().collect()
    }

    pub(super) async fn next(&self) -> ReceivedPush {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // Before the check: a message that arrives between check and wait would be missed.
            arrived.as_mut().enable();
            if let Some(push) = self.try_next() {
                return push;
            }
            arrived.await;
        }
    }

    pub(super) fn try_next(&self) -> Option<ReceivedPush> {
        let mut state = self.lock();
        let at = state.messages.len().checked_sub(state.unread)?;
        let push = state.messages.get(at).cloned()?;
        state.unread = state.unread.saturating_sub(1);
        Some(push)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn deliver(&mut self, push: &ReceivedPush, limit: usize) {
        self.messages.push_back(push.clone());
        self.unread += 1;
        while self.messages.len() > limit {
            self.messages.pop_front();
        }
        self.unread = self.unread.min(self.messages.len());
    }

    /// RFC 8030 section 5.4: replaces an undelivered message of the same topic, TTL and urgency included.
    fn store(&mut self, push: &ReceivedPush) -> Fate {
        let waiting = self.pending.len();
        if push.topic().is_some() {
            self.pending.retain(|older| {
                older.topic() != push.topic() || older.endpoint() != push.endpoint()
            });
        }
        // RFC 8030 section 5.2: deliver now or drop.
        if push.ttl() == Ttl::ZERO {
            return Fate::Dropped;
        }
        let replaced = self.pending.len() < waiting;
        self.pending.push_back(push.clone());
        Fate::Stored { replaced }
    }
}
