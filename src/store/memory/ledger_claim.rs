//! Claiming, settling and releasing rows in memory.

use std::convert::Infallible;

use super::due_origins::Head;
use super::ledger_state::{Ledger, Seq};
use crate::clock::Timestamp;
use crate::store::rules::{AfterClaim, deal, sample, shares};
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, FailureSample, Settled, Settlement,
};
use crate::subscription::EndpointKey;

impl Ledger {
    pub(super) fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Claims {
        let mut spare = self.sweep(now);
        let more = self.wake(now);
        let (origins, is_cut) = self.ready_origins(request, now);
        let rooms: Vec<_> = origins.iter().map(|head| head.room).collect();
        self.last_fence += 1;
        let mut claims = Claims {
            more,
            ..Claims::default()
        };
        let unspent = spare;
        let Ok(()) = deal::<Infallible>(&rooms, request.limit, |index, wanted| {
            let Some(head) = origins.get(index) else {
                return Ok(0);
            };
            let rows = self.next_in_turn(head, wanted, &mut spare, now);
            for (seq, key) in &rows {
                self.lease(*seq, *key, now + request.lease, &mut claims);
            }
            Ok(rows.len())
        });
        // Others may stand behind those that were put aside, and origins that have no turn yet behind those that got one.
        claims.more |= spare < unspent || spare == 0;
        claims.more |= self.paused.first().is_some_and(|(at, _)| *at <= now);
        claims.more |= is_cut && claims.rows.len() < request.limit;
        for Head { origin, .. } in &origins {
            if self.queues.get(origin).map(|queue| queue.served) == Some(self.last_fence) {
                self.serve(origin, now);
            }
        }
        claims
    }

    /// Returns up to `wanted` rows of an origin to claim, shared among its bands. Rows of cancelled broadcasts in front
    /// of them end, and those of paused ones are put aside, at most `spare`.
    fn next_in_turn(
        &mut self,
        head: &Head,
        wanted: usize,
        spare: &mut usize,
        now: Timestamp,
    ) -> Vec<(Seq, EndpointKey)> {
        let Some(queue) = self.queues.get_mut(&head.origin) else {
            return Vec::new();
        };
        // The probe of a paused origin is the most urgent row.
        let take = if head.is_probed { 0 } else { queue.turns.takes };
        queue.turns.takes += 1;
        let mut passed = Vec::new();
        let bands = queue.turns.bands.each_ref().map(|band| {
            let mut rows = Vec::new();
            for &(_, seq, key) in &band.ready {
                let broadcast = self.broadcasts.get(&seq);
                let progress = broadcast.map(|broadcast| &broadcast.progress);
                if progress.is_some_and(|progress| !progress.cancelled && !progress.held) {
                    rows.push((seq, key));
                } else if passed.len() < *spare {
                    passed.push((seq, key));
                } else {
                    break;
                }
                if rows.len() == wanted {
                    break;
                }
            }
            rows
        });
        *spare -= passed.len();
        for (seq, key) in passed {
            if !self.put_aside(seq, key) {
                self.end_cancelled(seq, key, now);
                self.close_if_over(seq, now);
            }
        }
        let shares = shares(wanted, take, bands.each_ref().map(Vec::len));
        let shares = bands.into_iter().zip(shares);
        shares
            .flat_map(|(rows, share)| rows.into_iter().take(share))
            .collect()
    }

    fn lease(&mut self, seq: Seq, key: EndpointKey, until: Timestamp, claims: &mut Claims) {
        let turn = self.rows.get(&(seq, key)).and_then(|row| row.turn);
        self.take_out(seq, key);
        let (Some(row), Some(broadcast)) =
            (self.rows.get_mut(&(seq, key)), self.broadcasts.get(&seq))
        else {
            return;
        };
        row.at = until;
        row.leased = true;
        row.fence = self.last_fence;
        row.attempt = row.attempt.saturating_add(1);
        self.waiting.insert((true, until, seq, key));
        if let Some(queue) = self.queues.get_mut(&row.origin) {
            queue.served = row.fence;
            if let Some(band) = queue.turns.bands.get_mut(broadcast.band) {
                band.claimed = band.claimed.max(turn.unwrap_or_default());
            }
            if let Some(pause) = &mut queue.pause
                && pause.reason.is_probed()
            {
                pause.until = until;
                queue.probe = Some((row.fence, key));
            }
        }
        let progress = &broadcast.progress;
        let token = ClaimToken::new(progress.id, key, row.fence);
        let claimed = Claimed::new(token, row.origin.clone(), row.attempt, until);
        claims.rows.push(claimed);
        if let Some(message) = &broadcast.message {
            claims.messages.entry(progress.id).or_insert_with(|| {
                let message =
                    ClaimedMessage::new(message.clone(), progress.due_at(), progress.deadline)
                        .for_audience(&broadcast.audience);
                ClaimedMessage {
                    trace_parent: broadcast.trace_parent,
                    ..message
                }
            });
        }
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
                if let Settlement::Failed(outcome, cause) = settlement {
                    let new = FailureSample {
                        key,
                        at: now,
                        outcome,
                        cause,
                    };
                    let _ = sample(&mut broadcast.samples, new);
                }
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
        self.take_out(seq, key);
        if let Some(row) = self.rows.get_mut(&(seq, key)) {
            row.at = at;
            row.leased = false;
            row.attempt = row.attempt.saturating_sub(u32::from(uncounted));
            self.waiting.insert((false, at, seq, key));
        }
    }
}
