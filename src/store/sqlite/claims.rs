//! Claiming, settling and releasing rows in SQLite.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::{Connection, params};

use super::broadcasts::{self, Flags, Stored};
use super::content;
use super::due_origins::{self, Head};
use super::error::corrupt;
use super::query::{all, execute, first, integer};
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::readable::readable_or_none;
use crate::store::rules::deal;
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, ClaimedMessage, Claims, STEP, Settled, Settlement,
    StoreError, StoreErrorKind,
};
use crate::subscription::EndpointKey;

pub(super) const CLAIMABLE: &str = "SELECT broadcast, key, attempt, at FROM delivery \
     WHERE origin = ?1 AND at <= ?2 AND (at, broadcast) > (?4, ?5) ORDER BY at, broadcast, key LIMIT ?3";
pub(super) const NEXT_FENCE: &str =
    "UPDATE meta SET value = value + 1 WHERE name = 'fence' RETURNING value";

/// Pauses the origin until the probe's lease ends, so that there is one probe at a time.
pub(super) const PROBED: &str =
    "UPDATE origin SET paused_until = ?2, probe_fence = ?3, probe_key = ?4 WHERE id = ?1";
pub(super) const PROBES: &str =
    "SELECT probe_fence, probe_key FROM origin WHERE probe_fence IS NOT NULL";
/// Makes a probed origin due for its next probe.
pub(super) const END_PROBE: &str = "UPDATE origin SET paused_until = ?3, probe_fence = NULL, probe_key = NULL \
     WHERE probe_fence = ?1 AND probe_key = ?2";

pub(super) const LEASE: &str = "UPDATE delivery SET leased = 1, at = ?3, fence = ?4, attempt = attempt + 1 \
     WHERE broadcast = ?1 AND key = ?2";
pub(super) const FINISH: &str =
    "DELETE FROM delivery WHERE broadcast = ?1 AND key = ?2 AND leased = 1 AND fence = ?3";
pub(super) const POSTPONE: &str = "UPDATE delivery SET leased = 0, at = ?4, attempt = max(attempt - ?5, 0) \
     WHERE broadcast = ?1 AND key = ?2 AND leased = 1 AND fence = ?3 RETURNING origin";

pub(super) fn claim(
    conn: &Connection,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Claims, StoreError> {
    broadcasts::sweep(conn, now)?;
    let (origins, _) = due_origins::ready(conn, request, now)?;
    if origins.is_empty() {
        return Ok(Claims::default());
    }
    let fence =
        first(conn, NEXT_FENCE, [], |row| row.count())?.ok_or_else(|| corrupt("the fence"))?;
    let mut claim = Claim {
        conn,
        now,
        leased_until: now + request.lease,
        fence,
        broadcasts: HashMap::new(),
        skips: STEP,
        served: BTreeSet::new(),
        claims: Claims::default(),
    };
    let room = |head: &Head| match head.is_probed {
        true => 1,
        false => request.room_for(&head.origin),
    };
    let rooms: Vec<_> = origins.iter().map(room).collect();
    deal(&rooms, request.limit, |index, wanted| {
        origins
            .get(index)
            .map_or(Ok(0), |head| claim.take(head, wanted))
    })?;
    for origin in &claim.served {
        due_origins::serve(conn, *origin, fence, now)?;
    }
    Ok(claim.claims)
}

/// A claim under way.
struct Claim<'a> {
    conn: &'a Connection,
    now: Timestamp,
    leased_until: Timestamp,
    fence: u64,
    /// The broadcasts of due rows; `None` if cancelled, or without a readable id.
    broadcasts: HashMap<i64, Option<BroadcastId>>,
    /// How many more runs of cancelled rows may be skipped: such rows are swept soon.
    skips: usize,
    /// The origins of claimed rows.
    served: BTreeSet<i64>,
    claims: Claims,
}

impl Claim<'_> {
    /// Claims up to `wanted` rows of an origin. Returns their number.
    fn take(&mut self, head: &Head, wanted: usize) -> Result<usize, StoreError> {
        let mut taken = 0;
        // Rows of one broadcast with the same time follow each other, so a cancelled broadcast is skipped by one lookup.
        let mut after = (i64::MIN, i64::MIN);
        while taken < wanted {
            let missing = wanted - taken;
            let (now, limit) = (self.now.as_millis(), integer(missing));
            let values = params![head.id, now, limit, after.0, after.1];
            let rows = all(self.conn, CLAIMABLE, values, |columns| {
                let seq: i64 = columns.get()?;
                let key = EndpointKey::from_bytes(columns.bytes()?);
                Ok((seq, key, columns.count()?, columns.get::<i64>()?))
            })?;
            let mut skipped = None;
            for (seq, key, attempts, at) in &rows {
                let Some(id) = self.broadcast(*seq)? else {
                    skipped = Some((*at, *seq));
                    break;
                };
                self.lease(head, *seq, ClaimToken::new(id, *key, self.fence), *attempts)?;
                taken += 1;
            }
            match skipped {
                Some(run) if self.skips > 0 => {
                    after = run;
                    self.skips -= 1;
                }
                None if rows.len() == missing => {}
                _ => break,
            }
        }
        if taken > 0 {
            self.served.insert(head.id);
        }
        if head.is_probed
            && taken > 0
            && let Some(probe) = self.claims.rows.last()
        {
            let until = self.leased_until.as_millis();
            let key = probe.token.key;
            let values = params![head.id, until, integer(self.fence), key.as_bytes()];
            execute(self.conn, PROBED, values)?;
        }
        Ok(taken)
    }

    /// Returns a broadcast's id and keeps its message for the answer. Returns `None` if it is cancelled.
    fn broadcast(&mut self, seq: i64) -> Result<Option<BroadcastId>, StoreError> {
        if let Some(known) = self.broadcasts.get(&seq) {
            return Ok(*known);
        }
        let flags = Flags::by_seq(self.conn, seq)?;
        let id = flags.id.filter(|_| !flags.is_cancelled);
        if let Some(id) = id {
            let message = Stored::by_seq(self.conn, seq).and_then(|stored| {
                let (due_at, deadline) = (stored.progress.due_at(), stored.progress.deadline);
                let message = content::message(self.conn, seq)?;
                Ok(ClaimedMessage::new(message, due_at, deadline))
            });
            match message {
                Ok(message) => drop(self.claims.messages.insert(id, message)),
                // The rows are claimed all the same (L5). With unreadable counts their outcome could not be counted.
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        self.broadcasts.insert(seq, id);
        Ok(id)
    }

    fn lease(
        &mut self,
        head: &Head,
        seq: i64,
        token: ClaimToken,
        attempts: u64,
    ) -> Result<(), StoreError> {
        let (until, key) = (self.leased_until, token.key);
        let values = params![seq, key.as_bytes(), until.as_millis(), integer(self.fence)];
        execute(self.conn, LEASE, values)?;
        let attempt = u32::try_from(attempts.saturating_add(1)).unwrap_or(u32::MAX);
        let claimed = Claimed::new(token, head.origin.clone(), attempt, until);
        self.claims.rows.push(claimed);
        Ok(())
    }
}

pub(super) fn settle(
    conn: &Connection,
    rows: &[(ClaimToken, Settlement)],
    now: Timestamp,
) -> Result<Vec<Settled>, StoreError> {
    let mut settling = Settling::new(conn)?;
    let mut answers = Vec::with_capacity(rows.len());
    for (token, settlement) in rows {
        let is_done = match *settlement {
            Settlement::Finished(outcome) => settling.finish(token, outcome)?,
            Settlement::RetryAt(at) => settling.postpone(token, at, 0)?,
            Settlement::Deferred(at) => settling.postpone(token, at, 1)?,
        };
        settling.end_probe(token, is_done, now)?;
        answers.push(if is_done {
            Settled::Done
        } else {
            Settled::Lost
        });
    }
    settling.save(now)?;
    Ok(answers)
}

struct Loaded {
    flags: Flags,
    /// `None` if the counts cannot be read: then nothing is counted, and the rows are settled all the same.
    row: Option<Stored>,
    is_changed: bool,
}

impl Loaded {
    fn by_id(conn: &Connection, id: BroadcastId) -> Result<Option<Self>, StoreError> {
        let Some(flags) = Flags::by_id(conn, id)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            row: readable_or_none(Stored::by_seq(conn, flags.seq))?,
            flags,
            is_changed: false,
        }))
    }
}

/// Settlements under way: each broadcast is read once and written once.
struct Settling<'a> {
    conn: &'a Connection,
    broadcasts: HashMap<BroadcastId, Option<Loaded>>,
    /// The probes of paused origins. Usually empty.
    probes: HashSet<(u64, [u8; 32])>,
}

impl<'a> Settling<'a> {
    fn new(conn: &'a Connection) -> Result<Self, StoreError> {
        let probes = all(conn, PROBES, [], |row| Ok((row.count()?, row.bytes()?)))?;
        Ok(Self {
            conn,
            broadcasts: HashMap::new(),
            probes: probes.into_iter().collect(),
        })
    }

    fn end_probe(
        &self,
        token: &ClaimToken,
        is_held: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let probe = (token.fence, *token.key.as_bytes());
        if is_held && self.probes.contains(&probe) {
            let values = params![integer(token.fence), token.key.as_bytes(), now.as_millis()];
            execute(self.conn, END_PROBE, values)?;
        }
        Ok(())
    }

    fn broadcast(&mut self, id: BroadcastId) -> Result<Option<&mut Loaded>, StoreError> {
        let loaded = match self.broadcasts.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Loaded::by_id(self.conn, id)?),
        };
        Ok(loaded.as_mut())
    }

    /// Deletes and counts a row. Returns whether the token was valid.
    fn finish(&mut self, token: &ClaimToken, outcome: FinalOutcome) -> Result<bool, StoreError> {
        let conn = self.conn;
        let Some(loaded) = self.broadcast(token.broadcast)? else {
            return Ok(false);
        };
        let values = params![loaded.flags.seq, token.key.as_bytes(), integer(token.fence)];
        let is_held = execute(conn, FINISH, values)? > 0;
        if let (true, Some(row)) = (is_held, &mut loaded.row) {
            row.progress.counts.add(outcome, 1);
            loaded.is_changed = true;
        }
        Ok(is_held)
    }

    /// Makes a row due at `at` and takes `untried` attempts back. Rows of cancelled broadcasts end instead.
    fn postpone(
        &mut self,
        token: &ClaimToken,
        at: Timestamp,
        untried: u32,
    ) -> Result<bool, StoreError> {
        let conn = self.conn;
        let Some(loaded) = self.broadcast(token.broadcast)? else {
            return Ok(false);
        };
        if loaded.flags.is_cancelled {
            return self.finish(token, FinalOutcome::Cancelled);
        }
        let values = params![
            loaded.flags.seq,
            token.key.as_bytes(),
            integer(token.fence),
            at.as_millis(),
            untried,
        ];
        let origin: Option<i64> = first(conn, POSTPONE, values, |row| row.get())?;
        if let Some(origin) = origin {
            due_origins::bring_forward(conn, origin, at)?;
        }
        Ok(origin.is_some())
    }

    fn save(self, now: Timestamp) -> Result<(), StoreError> {
        let changed = self.broadcasts.into_values().flatten();
        for loaded in changed.filter(|loaded| loaded.is_changed) {
            if let Some(mut row) = loaded.row {
                row.save(self.conn, now)?;
            }
        }
        Ok(())
    }
}
