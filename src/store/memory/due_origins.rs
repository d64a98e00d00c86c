//! The origins that can be claimed from, and when others can.
//!
//! An origin with rows waits until its first row is due and its pause is over. Then it is ready and has a place in the
//! order of turns, by the fence of the last claim of its rows. Claims read the first ones. What is stored may be too early
//! (a row was deleted, a pause was written), never too late: an origin that is not due when it is read waits again.

use super::ledger_state::{Ledger, Queue};
use crate::clock::Timestamp;
use crate::store::{ClaimRequest, STEP};
use crate::subscription::Origin;

/// The place of an origin.
#[derive(Clone, Copy, Default)]
pub(super) enum Place {
    #[default]
    None,
    Waiting(Timestamp),
    Ready(u64),
}

impl Queue {
    /// The time from which its first row can be claimed.
    fn due_at(&self) -> Option<Timestamp> {
        Some(self.head()?.max(self.paused_until()))
    }
}

impl Ledger {
    /// Makes sure that an origin is read when its first row can be claimed.
    pub(super) fn bring_forward(&mut self, origin: &Origin) {
        let Some(queue) = self.queues.get_mut(origin) else {
            return;
        };
        let Some(at) = queue.due_at() else {
            return;
        };
        match queue.place {
            Place::Ready(_) => return,
            Place::Waiting(known) if known <= at => return,
            Place::Waiting(known) => {
                self.waiting.remove(&(known, origin.clone()));
            }
            Place::None => {}
        }
        queue.place = Place::Waiting(at);
        self.waiting.insert((at, origin.clone()));
    }

    /// Takes an origin out of its place.
    pub(super) fn displace(&mut self, origin: &Origin) {
        let Some(queue) = self.queues.get_mut(origin) else {
            return;
        };
        match std::mem::take(&mut queue.place) {
            Place::Waiting(at) => self.waiting.remove(&(at, origin.clone())),
            Place::Ready(turn) => self.ready.remove(&(turn, origin.clone())),
            Place::None => false,
        };
    }

    fn make_ready(&mut self, origin: Origin) {
        if let Some(queue) = self.queues.get_mut(&origin) {
            queue.place = Place::Ready(queue.served);
            self.ready.insert((queue.served, origin));
        }
    }

    /// Returns origins with due rows that the request has room for, those served longest ago first, with that room.
    pub(super) fn ready_origins(
        &mut self,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Vec<(Origin, usize)> {
        for _ in 0..STEP {
            let Some((_, origin)) = self.waiting.first().filter(|(at, _)| *at <= now) else {
                break;
            };
            let origin = origin.clone();
            self.displace(&origin);
            self.make_ready(origin);
        }
        let most = request.limit.saturating_add(request.rooms.len()) + STEP;
        let (mut found, mut idle) = (Vec::new(), Vec::new());
        for (_, origin) in self.ready.iter().take(most) {
            if found.len() == request.limit {
                break;
            }
            let room = request.room_for(origin);
            let Some(queue) = self.queues.get(origin).filter(|_| room > 0) else {
                continue;
            };
            if queue.due_at().is_none_or(|at| at > now) {
                idle.push(origin.clone());
                continue;
            }
            let is_probed = queue.pause.as_ref();
            let is_probed = is_probed.is_some_and(|pause| pause.reason.is_probed());
            found.push((origin.clone(), if is_probed { 1 } else { room }));
        }
        for origin in idle {
            self.displace(&origin);
            self.bring_forward(&origin);
        }
        found
    }

    /// Gives an origin its next turn, after a claim of its rows.
    pub(super) fn serve(&mut self, origin: &Origin, now: Timestamp) {
        self.displace(origin);
        let Some(queue) = self.queues.get(origin) else {
            return;
        };
        if queue.due_at().is_some_and(|at| at <= now) {
            self.make_ready(origin.clone());
        } else {
            self.bring_forward(origin);
        }
    }

    /// The time from which a row can be claimed; `now` or earlier if one can be now.
    pub(super) fn next_claim(&self, now: Timestamp) -> Option<Timestamp> {
        let due_at = |origin: &Origin| self.queues.get(origin)?.due_at();
        let mut next: Option<Timestamp> = None;
        for (_, origin) in self.ready.iter().take(STEP) {
            let at = due_at(origin);
            if at.is_some_and(|at| at <= now) {
                return at;
            }
            next = next.into_iter().chain(at).min();
        }
        for (at, origin) in self.waiting.iter().take(STEP) {
            if next.is_some_and(|next| next <= *at) {
                break;
            }
            next = next.into_iter().chain(due_at(origin)).min();
        }
        next
    }
}
