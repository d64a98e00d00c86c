//! Claiming, settling and releasing rows in SQLite.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::params;

use super::broadcasts::{self, BY_ID, BY_SEQ, Flags, Stored};
use super::connection::Connection;
use super::content;
use super::due_origins::{self, Head, Served};
use super::error::corrupt;
use super::query::{all, execute, first, integer};
use super::{holding, samples, turns};
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::readable::readable_or_none;
use crate::store::rules::{BANDS, deal, due_at, sample, shares};
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, Claims, FailureSample, Settled, Settlement, StoreError,
};
use crate::subscription::EndpointKey;

/// With the number of the next attempt: damage of one row's attempts must not end all claims.
pub(super) const CLAIMABLE: &str = "SELECT broadcast, key, turn, min(max(attempt, 0), 4294967294) + 1 \
     FROM delivery INDEXED BY delivery_ready \
     WHERE origin = ?1 AND band = ?2 AND turn IS NOT NULL ORDER BY turn, broadcast, key LIMIT ?3";
pub(super) const NEXT_FENCE: &str =
    "UPDATE meta SET value = value + 1 WHERE name = 'fence' RETURNING value";

/// Pauses the origin until the probe's lease ends, so that there is one probe at a time.
pub(super) const PROBED: &str =
    "UPDATE origin SET paused_until = ?2, probe_fence = ?3, probe_key = ?4 WHERE id = ?1";
pub(super) const PROBES: &str = "SELECT probe_fence, probe_key FROM origin INDEXED BY origin_probe WHERE probe_fence IS NOT NULL";
/// Makes a probed origin due for its next probe.
pub(super) const END_PROBE: &str = "UPDATE origin INDEXED BY origin_probe SET paused_until = ?3, probe_fence = NULL, probe_key = NULL \
     WHERE probe_fence = ?1 AND probe_key = ?2";

/// `RETURNING` would cost as much again: SQLite makes a table for what it returns.
pub(super) const LEASE: &str = "UPDATE delivery SET turn = NULL, leased = 1, at = ?3, fence = ?4, worker = ?5, attempt = ?6 \
     WHERE broadcast = ?1 AND key = ?2";
pub(super) const FINISH: &str =
    "DELETE FROM delivery WHERE broadcast = ?1 AND key = ?2 AND leased = 1 AND fence = ?3";
pub(super) const POSTPONE: &str = "UPDATE delivery SET turn = NULL, leased = 0, at = ?4, attempt = max(attempt - ?5, 0) \
     WHERE broadcast = ?1 AND key = ?2 AND leased = 1 AND fence = ?3";

pub(super) fn claim(
    conn: &Connection,
    request: &ClaimRequest,
    worker: Option<i64>,
    now: Timestamp,
) -> Result<Claims, StoreError> {
    let spare = broadcasts::sweep(conn, now)?;
    let claims = Claims {
        more: turns::wake(conn, now)? | due_origins::wake(conn, now)?,
        ..Claims::default()
    };
    let front = due_origins::ready(conn, request, now)?;
    let origins = front.heads;
    if origins.is_empty() {
        return Ok(Claims {
            more: claims.more || front.is_cut,
            ..claims
        });
    }
    let fence =
        first(conn, NEXT_FENCE, [], |row| row.count())?.ok_or_else(|| corrupt("the fence"))?;
    let mut claim = Claim {
        conn,
        now,
        leased_until: now + request.lease,
        fence,
        worker,
        broadcasts: HashMap::new(),
        spare,
        served: BTreeMap::new(),
        claims,
    };
    let room = |head: &Head| match head.is_probed {
        true => 1,
        false => request.most_of(&head.origin),
    };
    let rooms: Vec<_> = origins.iter().map(room).collect();
    deal(&rooms, request.limit, |index, wanted| {
        origins
            .get(index)
            .map_or(Ok(0), |head| claim.take(head, wanted))
    })?;
    for (origin, served) in &claim.served {
        due_origins::serve(conn, *origin, fence, served)?;
    }
    let mut claims = claim.claims;
    claims.more |= front.is_cut && claims.rows.len() < request.limit;
    Ok(claims)
}

/// A claim under way.
struct Claim<'a> {
    conn: &'a Connection,
    now: Timestamp,
    leased_until: Timestamp,
    fence: u64,
    worker: Option<i64>,
    /// The broadcasts of ready rows.
    broadcasts: HashMap<i64, Of>,
    /// How many more rows of cancelled broadcasts may be ended, and of paused ones put aside.
    spare: usize,
    /// The origins of claimed rows.
    served: BTreeMap<i64, Served>,
    claims: Claims,
}

/// The broadcast of a ready row.
#[derive(Clone, Copy)]
enum Of {
    Live(BroadcastId),
    Held,
    /// Or without a readable id.
    Cancelled,
}

/// A ready row.
struct Ready {
    seq: i64,
    token: ClaimToken,
    turn: i64,
    /// The number of its next attempt.
    attempt: u32,
}

impl Claim<'_> {
    /// Claims up to `wanted` rows of an origin, shared among its bands. Returns their number.
    fn take(&mut self, head: &Head, wanted: usize) -> Result<usize, StoreError> {
        let mut bands: [Vec<Ready>; BANDS] = Default::default();
        for (band, rows) in bands.iter_mut().enumerate() {
            *rows = self.next_in_turn(head, band, wanted)?;
        }
        let taken = self.served.get(&head.id);
        // The probe of a paused origin is the most urgent row.
        let take = match head.is_probed {
            true => 0,
            false => taken.map_or(head.takes, |served| served.takes),
        };
        let shares = shares(wanted, take, bands.each_ref().map(Vec::len));
        let before = self.claims.rows.len();
        for (band, (rows, share)) in bands.iter().zip(shares).enumerate() {
            for row in rows.iter().take(share) {
                self.lease(head, row)?;
                let served = self.served.entry(head.id).or_insert(Served {
                    takes: head.takes,
                    claimed: [0; BANDS],
                });
                if let Some(claimed) = served.claimed.get_mut(band) {
                    *claimed = (*claimed).max(row.turn);
                }
            }
        }
        let taken = self.claims.rows.len() - before;
        if let Some(served) = self.served.get_mut(&head.id) {
            served.takes = served.takes.wrapping_add(1);
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

    /// Returns up to `wanted` rows of a band that are next in turn. Rows of cancelled broadcasts among them end, and those of
    /// paused ones are put aside.
    fn next_in_turn(
        &mut self,
        head: &Head,
        band: usize,
        wanted: usize,
    ) -> Result<Vec<Ready>, StoreError> {
        loop {
            let values = params![head.id, integer(band), integer(wanted)];
            let rows = all(self.conn, CLAIMABLE, values, |columns| {
                let seq: i64 = columns.get()?;
                let key = EndpointKey::from_bytes(columns.bytes()?);
                Ok((seq, key, columns.get::<i64>()?, columns.count()?))
            })?;
            let (mut live, mut cancelled) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
            let before = self.spare;
            for (seq, key, turn, attempt) in rows {
                match self.broadcast(seq)? {
                    Of::Live(id) => live.push(Ready {
                        seq,
                        token: ClaimToken::new(id, key, self.fence),
                        turn,
                        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
                    }),
                    // The next claim goes on with them.
                    Of::Cancelled | Of::Held if self.spare == 0 => self.claims.more = true,
                    Of::Cancelled => {
                        self.spare -= 1;
                        cancelled.entry(seq).or_default().push(key);
                    }
                    Of::Held => {
                        self.spare -= 1;
                        holding::put_aside(self.conn, seq, key)?;
                        // Others may stand behind it.
                        self.claims.more = true;
                    }
                }
            }
            if self.spare == before {
                return Ok(live);
            }
            for (seq, keys) in cancelled {
                broadcasts::end_cancelled(self.conn, seq, &keys, self.now)?;
            }
        }
    }

    /// Returns the broadcast of a row, and keeps its message for the answer.
    fn broadcast(&mut self, seq: i64) -> Result<Of, StoreError> {
        if let Some(known) = self.broadcasts.get(&seq) {
            return Ok(*known);
        }
        let found = first(self.conn, BY_SEQ, [seq], |columns| {
            let flags = Flags::read(columns);
            let of = match flags.id.filter(|_| !flags.is_cancelled) {
                Some(_) if flags.is_held => Of::Held,
                Some(id) => Of::Live(id),
                None => Of::Cancelled,
            };
            Ok((of, Stored::read(columns.again())))
        })?;
        let of = match found {
            Some((Of::Live(id), stored)) => {
                let message = stored.and_then(|stored| {
                    let times = (stored.progress.due_at(), stored.progress.deadline);
                    content::message(self.conn, seq, times)
                });
                // The rows are claimed all the same (L5). With unreadable counts their outcome could not be counted.
                if let Some(message) = readable_or_none(message)? {
                    self.claims.messages.insert(id, message);
                }
                Of::Live(id)
            }
            Some((of, _)) => of,
            None => Of::Cancelled,
        };
        self.broadcasts.insert(seq, of);
        Ok(of)
    }

    fn lease(&mut self, head: &Head, row: &Ready) -> Result<(), StoreError> {
        let values = params![
            row.seq,
            row.token.key.as_bytes(),
            self.leased_until.as_millis(),
            integer(self.fence),
            self.worker,
            row.attempt,
        ];
        execute(self.conn, LEASE, values)?;
        let (origin, until) = (head.origin.clone(), self.leased_until);
        let claimed = Claimed::new(row.token, origin, row.attempt, until);
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
            Settlement::Failed(outcome, cause) => {
                let is_done = settling.finish(token, outcome)?;
                if is_done {
                    let (key, at) = (token.key, now);
                    let new = FailureSample {
                        key,
                        at,
                        outcome,
                        cause,
                    };
                    settling.sample(token.broadcast, new)?;
                }
                is_done
            }
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
    /// Read with the first failure.
    samples: Option<Vec<FailureSample>>,
    has_new_samples: bool,
}

impl Loaded {
    fn by_id(conn: &Connection, id: BroadcastId) -> Result<Option<Self>, StoreError> {
        first(conn, BY_ID, [id.as_bytes()], |columns| {
            Ok(Self {
                flags: Flags::read(columns),
                row: readable_or_none(Stored::read(columns.again()))?,
                is_changed: false,
                samples: None,
                has_new_samples: false,
            })
        })
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
        // One that cannot be read is no row's: its pause ends in time.
        let probes = all(conn, PROBES, [], |row| Ok((row.count(), row.bytes())))?;
        let probes = probes.into_iter().filter_map(|probe| match probe {
            (Ok(fence), Ok(key)) => Some((fence, key)),
            _ => None,
        });
        Ok(Self {
            conn,
            broadcasts: HashMap::new(),
            probes: probes.collect(),
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

    /// Adds a sample to a broadcast.
    fn sample(&mut self, id: BroadcastId, new: FailureSample) -> Result<(), StoreError> {
        let conn = self.conn;
        let Some(loaded) = self.broadcast(id)? else {
            return Ok(());
        };
        let mut samples = match loaded.samples.take() {
            Some(samples) => samples,
            None => samples::load(conn, loaded.flags.seq)?,
        };
        loaded.has_new_samples |= sample(&mut samples, new);
        loaded.samples = Some(samples);
        Ok(())
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
            due_at(at),
            untried,
        ];
        Ok(execute(conn, POSTPONE, values)? > 0)
    }

    fn save(self, now: Timestamp) -> Result<(), StoreError> {
        for loaded in self.broadcasts.into_values().flatten() {
            // Before the broadcast, which may be forgotten.
            if let (true, Some(samples)) = (loaded.has_new_samples, loaded.samples) {
                samples::save(self.conn, loaded.flags.seq, &samples)?;
            }
            if let (true, Some(mut row)) = (loaded.is_changed, loaded.row) {
                row.save(self.conn, now)?;
            }
        }
        Ok(())
    }
}
