//! Invariants of every claim (L5, L6, L18), whichever rows the ledger chooses.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{ClaimRequest, Claimed, Claims};
use tower_web_push::subscription::Origin;

use super::model::{Model, Row};
use super::turns::Turn;

/// The band and the turn of a ready row.
type Place = (usize, Turn);

fn place(row: &Row) -> Place {
    (row.band, row.turn.unwrap())
}

impl Model {
    /// Checks a claim, and applies it to the model.
    pub(crate) fn claimed(
        &mut self,
        request: &ClaimRequest,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<(), TestCaseError> {
        self.wake(now);
        let mut left: BTreeMap<Origin, Vec<Place>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| self.is_claimable(row, now)) {
            if self.room(request, &row.origin) > 0 {
                left.entry(row.origin.clone()).or_default().push(place(row));
            }
        }
        let asides = self.rows_put_aside(request, &left, now);
        let eligible = left.len();
        let possible: usize = left
            .iter()
            .map(|(origin, rows)| rows.len().min(self.room(request, origin)))
            .sum();
        // Rows of paused broadcasts may have stood in front of others.
        let lacks_some = claims.more && self.puts_aside(now);
        prop_assert!(claims.rows.len() <= possible.min(request.limit));
        prop_assert!(
            lacks_some || claims.rows.len() == possible.min(request.limit),
            "as many as there are, and no more than asked for: {} of {}",
            claims.rows.len(),
            possible
        );

        let mut taken: BTreeMap<Origin, Vec<Place>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for claimed in &claims.rows {
            let token = claimed.token;
            prop_assert!(seen.insert((token.broadcast, token.key)), "twice");
            prop_assert!(token.fence > self.last_fence, "a number that was given");
            let row = self
                .rows
                .iter()
                .find(|row| row.broadcast == token.broadcast && row.key == token.key);
            let row = row.ok_or_else(|| TestCaseError::fail("a row that is not there"))?;
            prop_assert!(!row.is_leased(now), "somebody else holds it");
            prop_assert!(self.is_claimable(row, now), "not due, cancelled or paused");
            prop_assert_eq!(&claimed.origin, &row.origin);
            prop_assert_eq!(claimed.attempt, row.attempt + 1);
            prop_assert_eq!(claimed.leased_until, now + request.lease);
            let index = left
                .get_mut(&row.origin)
                .and_then(|left| Some((left.iter().position(|one| *one == place(row))?, left)));
            let (index, left) =
                index.ok_or_else(|| TestCaseError::fail("an origin without room"))?;
            left.swap_remove(index);
            taken
                .entry(row.origin.clone())
                .or_default()
                .push(place(row));

            let broadcast = self.broadcast(token.broadcast).unwrap();
            let message = claims.messages.get(&token.broadcast);
            let message = message.ok_or_else(|| TestCaseError::fail("a row without a message"))?;
            prop_assert_eq!(&message.message, &broadcast.new.message);
            prop_assert_eq!(message.due_at, broadcast.due_at());
            prop_assert_eq!(message.deadline, broadcast.new.deadline);
        }
        let mut claimed = Vec::new();
        for (origin, rows) in &taken {
            prop_assert!(rows.len() <= self.room(request, origin));
            let lines = match self.knows_rows {
                true => self.rows_in_turn(origin, rows, &left[origin])?,
                false => self.flows_in_turn(origin, &claims.rows)?,
            };
            claimed.extend(
                lines
                    .into_iter()
                    .map(|(band, turn)| (origin.clone(), band, turn)),
            );
        }
        if request.limit >= eligible && !lacks_some {
            prop_assert_eq!(taken.len(), eligible, "an origin was left out");
        }

        for claimed in &claims.rows {
            let token = claimed.token;
            let is_it = |row: &Row| row.broadcast == token.broadcast && row.key == token.key;
            let place = self.rows.iter().position(is_it).unwrap();
            if !self.knows_rows {
                // The first turn of its broadcast is taken, also if it was the turn of another row.
                let origin = &self.rows[place].origin;
                let is_beside =
                    |row: &Row| row.broadcast == token.broadcast && row.origin == *origin;
                let beside = (0..self.rows.len()).filter(|other| is_beside(&self.rows[*other]));
                let ready = beside.filter(|other| self.rows[*other].turn.is_some());
                let first = ready.min_by_key(|other| self.rows[*other].turn.map(|turn| turn.last));
                let left = self.rows[place].turn;
                self.rows[first.unwrap()].turn = left;
            }
            let row = &mut self.rows[place];
            row.turn = None;
            row.resumed_at = None;
            row.at = claimed.leased_until;
            row.fence = Some(token.fence);
            row.attempt = claimed.attempt;
        }
        for place in asides {
            self.rows[place].is_aside = true;
        }
        for (origin, band, turn) in claimed {
            self.turns.claimed(&origin, band, turn);
        }
        for claimed in &claims.rows {
            let until = now + request.lease;
            self.origins.claimed(&claimed.origin, claimed.token, until);
        }
        let highest = claims.rows.iter().map(|row| row.token.fence).max();
        self.last_fence = self.last_fence.max(highest.unwrap_or(0));
        Ok(())
    }

    /// The ready rows of paused broadcasts that a claim certainly meets (L21): it asks for more rows than there are others,
    /// and one of each origin.
    fn rows_put_aside(
        &self,
        request: &ClaimRequest,
        others: &BTreeMap<Origin, Vec<Place>>,
        now: Timestamp,
    ) -> Vec<usize> {
        let all: usize = others.values().map(Vec::len).sum();
        let held = self.rows.iter().filter(|row| self.is_held(row.broadcast));
        let origins: HashSet<_> = held.map(|row| &row.origin).collect();
        let is_met = |row: &Row| {
            let others = others.get(&row.origin).map_or(0, Vec::len);
            row.turn.is_some()
                && self.is_held(row.broadcast)
                && self.origins.paused_until(&row.origin) <= now
                && request.limit > all + origins.len()
                && self.room(request, &row.origin) > others
        };
        let rows = self.rows.iter().enumerate();
        let met = rows.filter(|(_, row)| is_met(row));
        met.map(|(place, _)| place).collect()
    }

    /// Checks the rows taken at an origin one by one. Returns the turns that were claimed.
    fn rows_in_turn(
        &self,
        origin: &Origin,
        taken: &[Place],
        left: &[Place],
    ) -> Result<Vec<(usize, Turn)>, TestCaseError> {
        for (band, turn) in taken {
            let mut left = left.iter().filter(|(other, _)| other == band);
            prop_assert!(
                left.all(|(_, left)| turn.first <= left.last),
                "a row of {:?} was left whose turn was before {:?}",
                origin,
                turn
            );
        }
        Ok(taken.to_vec())
    }

    /// Checks the numbers of rows taken of each broadcast at an origin, for a ledger that keeps the turns of broadcasts: a
    /// row that ended unclaimed leaves its turn to the one behind it. Returns the bounds of the turns that were claimed.
    fn flows_in_turn(
        &self,
        origin: &Origin,
        taken: &[Claimed],
    ) -> Result<Vec<(usize, Turn)>, TestCaseError> {
        // The latest turns of each broadcast's rows in its band, and the number of those taken.
        let mut flows: BTreeMap<_, (Vec<u64>, usize)> = BTreeMap::new();
        let ready = self.rows.iter().filter(|row| row.origin == *origin);
        let ready = ready.filter(|row| row.turn.is_some());
        let ready = ready.filter(|row| !self.is_cancelled(row.broadcast));
        for row in ready.filter(|row| !self.is_held(row.broadcast)) {
            let (band, turn) = place(row);
            let (turns, claimed) = flows.entry((band, row.broadcast)).or_default();
            turns.push(turn.last);
            let is_taken =
                |one: &Claimed| (one.token.broadcast, one.token.key) == (row.broadcast, row.key);
            *claimed += usize::from(taken.iter().any(is_taken));
        }
        let mut lines: BTreeMap<usize, Turn> = BTreeMap::new();
        for ((band, _), (turns, claimed)) in &mut flows {
            turns.sort_unstable();
            if let Some(place) = claimed.checked_sub(1) {
                let begin = self.turns.highest_claimed(origin, *band).first.max(1);
                let turn = Turn {
                    first: begin + place as u64,
                    last: turns[place],
                };
                let line = lines.entry(*band).or_default();
                *line = line.max(turn);
            }
        }
        for ((band, broadcast), (turns, claimed)) in &flows {
            let (next, line) = (turns.get(*claimed), lines.get(band));
            prop_assert!(
                next.zip(line)
                    .is_none_or(|(next, line)| line.first <= *next),
                "a row of {:?} at {:?} was left whose turn was before {:?}: {:?}",
                broadcast,
                origin,
                line,
                flows
            );
        }
        Ok(lines.into_iter().collect())
    }
}
