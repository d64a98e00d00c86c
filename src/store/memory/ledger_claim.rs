//! Claiming, settling and releasing rows in memory.

use std::convert::Infallible;

use super::ledger_state::{FIRST_KEY, Ledger, Seq};
use crate::clock::Timestamp;
use crate::store::rules::{AfterClaim, deal};
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, Settled, Settlement,
};
use crate::subscription::{EndpointKey, Origin};

impl Ledger {
    pub(super) fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Claims {
        self.sweep(now);
        let origins = self.ready_origins(request, now);
        let rooms: Vec<_> = origins.iter().map(|(_, room)| *room).collect();
        self.last_fence += 1;
        let mut claims = Claims::default();
        let Ok(()) = deal::<Infallible>(&rooms, request.limit, |index, wanted| {
            let taken = origins.get(index).map_or(0, |(origin, _)| {
                self.take(origin, wanted, request, now, &mut claims)
            });
            Ok(taken)
        });
        for (origin, _) in &origins {
            if self.queues.get(origin).map(|queue| queue.served) == Some(self.last_fence) {
                self.serve(origin, now);
            }
        }
        claims
    }

    /// Claims up to `wanted` rows of one origin. Returns their number.
    fn take(
        &mut self,
        origin: &Origin,
        wanted: usize,
        request: &ClaimRequest,
        now: Timestamp,
        claims: &mut Claims,
    ) -> usize {
        let mut taken = 0;
        let leased_until = now + request.lease;
        // Rows of one broadcast with the same time follow each other, so a cancelled broadcast is skipped by one lookup.
        let mut from = (Timestamp::MIN, Seq::MIN, FIRST_KEY);
        while taken < wanted {
            let Some(queue) = self.queues.get_mut(origin) else {
                break;
            };
            let next = queue.rows.range(from..).next();
            let Some(&(at, seq, key)) = next.filter(|(at, ..)| *at <= now) else {
                break;
            };
            queue.served = self.last_fence;
            let Some(broadcast) = self.broadcasts.get(&seq) else {
                break;
            };
            if broadcast.progress.cancelled {
                from = (at, seq + 1, FIRST_KEY);
                continue;
            }
            let Some(row) = self.rows.get_mut(&(seq, key)) else {
                break;
            };
            queue.rows.remove(&(at, seq, key));
            queue.rows.insert((leased_until, seq, key));
            self.leased.remove(&(at, seq, key));
            self.leased.insert((leased_until, seq, key));
            if let Some(pause) = &mut queue.pause
                && pause.reason.is_probed()
            {
                pause.until = leased_until;
                queue.probe = Some((self.last_fence, key));
            }
            row.at = leased_until;
            row.leased = true;
            row.fence = self.last_fence;
            row.attempt = row.attempt.saturating_add(1);
            let progress = &broadcast.progress;
            let token = ClaimToken::new(progress.id, key, row.fence);
            let claimed = Claimed::new(token, origin.clone(), row.attempt, leased_until);
            claims.rows.push(claimed);
            if let Some(message) = &broadcast.message {
                claims.messages.entry(progress.id).or_insert_with(|| {
                    ClaimedMessage::new(message.clone(), progress.due_at(), progress.deadline)
                });
            }
            taken += 1;
        }
        taken
    }

    pub(super) fn settle(
        &mut self,
        token: &ClaimToken,
        settlement: Settlement,
        now: Timestamp,
    ) -> Settled {
        let key = token.key;
        let Some(seq) = self.held(token) else {
            return Settled::Lost;
        };
        self.end_probe(seq, key, now);
        let Some(broadcast) = self.broadcasts.get_mut(&seq) else {
            return Settled::Lost;
        };
        match broadcast.progress.settle(settlement) {
            AfterClaim::Ended => {
                self.delete(seq, key);
            }
            AfterClaim::Due { at, uncounted } => self.put_back(seq, key, at, uncounted),
        }
        self.close_if_over(seq, now);
        Settled::Done
    }

    /// Makes a probed origin due for its next probe if the ended row was the probe.
    pub(super) fn end_probe(&mut self, seq: Seq, key: EndpointKey, now: Timestamp) {
        let Some(row) = self.rows.get(&(seq, key)) else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(&row.origin)
            && queue.probe == Some((row.fence, key))
        {
            queue.probe = None;
            if let Some(pause) = &mut queue.pause {
                pause.until = now;
            }
            let origin = row.origin.clone();
            self.bring_forward(&origin);
        }
    }

    /// Returns the broadcast of a valid token.
    fn held(&self, token: &ClaimToken) -> Option<Seq> {
        let seq = *self.by_id.get(&token.broadcast)?;
        let row = self.rows.get(&(seq, token.key))?;
        (row.leased && row.fence == token.fence).then_some(seq)
    }

    /// Makes a claimed row due at `at`. `uncounted` takes its attempt back.
    fn put_back(&mut self, seq: Seq, key: EndpointKey, at: Timestamp, uncounted: bool) {
        let Some(row) = self.rows.get_mut(&(seq, key)) else {
            return;
        };
        self.leased.remove(&(row.at, seq, key));
        if let Some(queue) = self.queues.get_mut(&row.origin) {
            queue.rows.remove(&(row.at, seq, key));
            queue.rows.insert((at, seq, key));
        }
        row.at = at;
        row.leased = false;
        row.attempt = row.attempt.saturating_sub(u32::from(uncounted));
        let origin = row.origin.clone();
        self.bring_forward(&origin);
    }
}
