//! The origins that can be claimed from, and when others can.
//!
//! An origin with ready rows waits until its pause is over. Then it has a place in the order of turns of origins, by the
//! fence of the last claim of its rows. Claims read the first ones. What is stored may be too early (a row was deleted, a
//! pause was written), never too late: an origin that is not due when it is read waits again.

use super::ledger_state::{Ledger, Queue};
use crate::clock::Timestamp;
use crate::store::rules::is_aside;
use crate::store::{ClaimRequest, STEP};
use crate::subscription::Origin;

/// The place of an origin.
#[derive(Clone, Copy, Default)]
pub(super) enum Place {
    #[default]
    None,
    Paused(Timestamp),
    Ready(u64),
}

/// An origin with rows to claim.
pub(super) struct Head {
    pub(super) origin: Origin,
    /// The most rows to claim.
    pub(super) room: usize,
    pub(super) is_probed: bool,
}

impl Queue {
    /// The time from which its first ready row can be claimed.
    fn due_at(&self) -> Option<Timestamp> {
        (!self.turns.is_empty()).then(|| self.paused_until())
    }
}

impl Ledger {
    /// Makes sure that an origin is read when its first ready row can be claimed.
    pub(super) fn bring_forward(&mut self, origin: &Origin) {
        let Some(queue) = self.queues.get_mut(origin) else {
            return;
        };
        let Some(at) = queue.due_at() else {
            return;
        };
        match queue.place {
            Place::Ready(_) => return,
            Place::Paused(known) if known <= at => return,
            Place::Paused(known) => {
                self.paused.remove(&(known, origin.clone()));
            }
            Place::None => {}
        }
        queue.place = Place::Paused(at);
        self.paused.insert((at, origin.clone()));
    }

    /// Takes an origin out of its place.
    pub(super) fn displace(&mut self, origin: &Origin) {
        let Some(queue) = self.queues.get_mut(origin) else {
            return;
        };
        match std::mem::take(&mut queue.place) {
            Place::Paused(at) => self.paused.remove(&(at, origin.clone())),
            Place::Ready(turn) => self.ready.remove(&(turn, origin.clone())),
            Place::None => false,
        };
    }

    fn give_turn(&mut self, origin: Origin) {
        if let Some(queue) = self.queues.get_mut(&origin) {
            queue.place = Place::Ready(queue.served);
            self.ready.insert((queue.served, origin));
        }
    }

    /// Returns origins with ready rows that the request admits, those served longest ago first, and whether others may
    /// stand behind them.
    pub(super) fn ready_origins(
        &mut self,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> (Vec<Head>, bool) {
        for _ in 0..STEP {
            let Some((_, origin)) = self.paused.first().filter(|(at, _)| *at <= now) else {
                break;
            };
            let origin = origin.clone();
            self.displace(&origin);
            self.give_turn(origin);
        }
        let most = request.limit.saturating_add(request.origins.len()) + STEP;
        let (mut found, mut idle) = (Vec::new(), Vec::new());
        let named = match request.per_origin {
            0 => self.ready_named(request),
            _ => Vec::new(),
        };
        let others = (request.per_origin > 0).then_some(&self.ready);
        // Any number of those that are not admitted may stand in front.
        let with_room = named.iter().chain(others.into_iter().flatten());
        let with_room = with_room.filter_map(|(_, origin)| {
            let room = request.most_of(origin);
            (room > 0).then_some((origin, room))
        });
        let mut is_cut = false;
        for (reads, (origin, room)) in with_room.enumerate() {
            is_cut = found.len() == request.limit || reads == most;
            if is_cut {
                break;
            }
            let Some(queue) = self.queues.get(origin) else {
                continue;
            };
            if queue.due_at().is_none_or(|at| at > now) {
                idle.push(origin.clone());
                continue;
            }
            let pause = queue.pause.as_ref();
            let is_probed = pause.is_some_and(|pause| pause.reason.is_probed());
            found.push(Head {
                origin: origin.clone(),
                room: if is_probed { 1 } else { room },
                is_probed,
            });
        }
        for origin in idle {
            self.displace(&origin);
            self.bring_forward(&origin);
        }
        (found, is_cut)
    }

    /// The origins with a turn that the request names and admits, in the order of their turns.
    fn ready_named(&self, request: &ClaimRequest) -> Vec<(u64, Origin)> {
        let named = request.origins.iter().filter(|(_, room)| **room > 0);
        let named = named.filter_map(|(origin, _)| match self.queues.get(origin)?.place {
            Place::Ready(turn) => Some((turn, origin.clone())),
            Place::None | Place::Paused(_) => None,
        });
        let mut named: Vec<_> = named.collect();
        named.sort_unstable();
        named
    }

    /// Gives an origin its next turn, after a claim of its rows.
    pub(super) fn serve(&mut self, origin: &Origin, now: Timestamp) {
        self.displace(origin);
        let Some(queue) = self.queues.get(origin) else {
            return;
        };
        if queue.due_at().is_some_and(|at| at <= now) {
            self.give_turn(origin.clone());
        } else {
            self.bring_forward(origin);
        }
    }

    /// The time from which a row can be claimed; `now` or earlier if one can be now.
    pub(super) fn next_claim(&self, now: Timestamp) -> Option<Timestamp> {
        let queue = |origin: &Origin| self.queues.get(origin);
        let ready = self.ready.iter().map(|(_, origin)| origin);
        let paused = self.paused.iter().map(|(_, origin)| origin);
        let first_ready: Vec<_> = ready
            .take(STEP)
            .filter_map(|origin| queue(origin)?.due_at())
            .collect();
        // There may be more: a claim reads further, and moves those that cannot be claimed from.
        if self.ready.len() > STEP && first_ready.iter().all(|at| *at > now) {
            return Some(now);
        }
        let cut = self.paused.iter().nth(STEP).map(|(at, _)| *at);
        let paused = paused
            .take(STEP)
            .filter_map(|origin| queue(origin)?.due_at());
        let ready = first_ready.into_iter().chain(paused).chain(cut);
        // A claim makes this many rows ready at most: if all of them wait for the end of a pause, it has work.
        let waiting = [true, false].into_iter().flat_map(|leased| {
            let rows = self.waiting_rows(leased, Timestamp::MIN).enumerate();
            let mut rows = rows.take_while(move |(place, (at, ..))| *at <= now && *place < STEP);
            let due = rows.by_ref().map(|(place, (at, seq, key))| {
                let row = self.rows.get(&(seq, key));
                let paused_until = row
                    .and_then(|row| queue(&row.origin))
                    .map(Queue::paused_until);
                if place + 1 == STEP {
                    at
                } else {
                    at.max(paused_until.unwrap_or(at))
                }
            });
            let due: Vec<_> = due.collect();
            let later = self.waiting_rows(leased, now).find(|(at, ..)| *at > now);
            let later = later.filter(|(at, ..)| !is_aside(*at));
            due.into_iter().chain(later.map(|(at, ..)| at))
        });
        ready.chain(waiting).min()
    }
}
