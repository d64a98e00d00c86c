//! Lists for operators: filters, pages, and the bound of the work for one of them.

use super::readable::readable_or_none;
use super::{Liveness, STEP, StoreError, SubscriptionRecord};
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::subscription::EndpointKey;

/// A filter of broadcasts (L24). The default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct BroadcastFilter {
    /// In one of these states. Empty: in any.
    pub states: Vec<BroadcastState>,
    /// Accepted after this moment.
    pub created_after: Option<Timestamp>,
    /// Accepted before this moment.
    pub created_before: Option<Timestamp>,
}

impl BroadcastFilter {
    /// Whether it takes only broadcasts that are not over: a ledger with an index of these reads no others. A cancelled one
    /// may be either.
    #[must_use]
    pub fn is_of_open(&self) -> bool {
        let is_open = |state: &BroadcastState| {
            !matches!(state, BroadcastState::Done | BroadcastState::Cancelled)
        };
        !self.states.is_empty() && self.states.iter().all(is_open)
    }

    /// Whether it takes a broadcast.
    #[must_use]
    pub fn takes(&self, status: &BroadcastStatus) -> bool {
        (self.states.is_empty() || self.states.contains(&status.state))
            && self.created_after.is_none_or(|at| status.created_at > at)
            && self.created_before.is_none_or(|at| status.created_at < at)
    }

    /// What stands directly behind the first broadcast that a list may have: a time, and the octets of an id or nothing.
    #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
    pub(super) fn end(&self, after: Option<&BroadcastCursor>) -> (Timestamp, Vec<u8>) {
        let cursor = after.map(|cursor| (cursor.created_at, cursor.id.as_bytes().to_vec()));
        let before = self.created_before.map(|at| (at, Vec::new()));
        let ends = [cursor, before].into_iter().flatten();
        ends.min()
            .unwrap_or_else(|| (Timestamp::MAX, vec![0xff; 17]))
    }
}

/// A place in a list of broadcasts: that of the last one that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "L24 names both")]
pub struct BroadcastCursor {
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Its id.
    pub id: BroadcastId,
}

impl BroadcastCursor {
    /// Makes a cursor behind a broadcast.
    #[must_use]
    pub const fn new(created_at: Timestamp, id: BroadcastId) -> Self {
        Self { created_at, id }
    }
}

impl From<&BroadcastStatus> for BroadcastCursor {
    fn from(status: &BroadcastStatus) -> Self {
        Self::new(status.created_at, status.id)
    }
}

/// A page of a list of broadcasts (L24).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "L24 names both")]
pub struct BroadcastPage {
    /// Broadcasts, the newest first. There may be more although these are few, or none.
    pub broadcasts: Vec<BroadcastStatus>,
    /// Where the list goes on. `None`: there are no more.
    pub next: Option<BroadcastCursor>,
}

/// A filter of subscriptions (S20).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct SubscriptionFilter {
    /// Of this user.
    pub user: Option<Principal>,
    /// With this tag.
    pub tag: Option<Tag>,
    /// At this push service.
    pub push_service: Option<PushService>,
    /// In this state.
    pub liveness: Liveness,
}

impl Default for SubscriptionFilter {
    /// Takes all, in every state.
    fn default() -> Self {
        Self {
            user: None,
            tag: None,
            push_service: None,
            liveness: Liveness::Any,
        }
    }
}

/// A page of a list of subscriptions (S20).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "S20 names both")]
pub struct SubscriptionPage {
    /// Rows by key. There may be more although these are few, or none.
    pub rows: Vec<SubscriptionRecord>,
    /// Where the list goes on. `None`: there are no more.
    pub next: Option<EndpointKey>,
}

/// One page of a list while it is read in parts: at most [`STEP`] rows are looked at.
pub(super) struct Listing<T, P> {
    limit: usize,
    /// The number of rows that may still be looked at.
    left: usize,
    found: Vec<T>,
    damaged: u64,
    place: Option<P>,
    is_over: bool,
}

impl<T, P: Clone> Listing<T, P> {
    /// Rows read at once where few match.
    const AT_ONCE: usize = 100;

    /// A page that begins behind `after`.
    pub(super) const fn new(limit: usize, after: Option<P>) -> Self {
        Self {
            limit,
            left: STEP,
            found: Vec::new(),
            damaged: 0,
            place: after,
            is_over: false,
        }
    }

    /// The place behind which to read and the number of rows, or `None` if the page is complete.
    pub(super) fn wanted(&self) -> Option<(Option<P>, usize)> {
        let missing = self.limit.saturating_sub(self.found.len());
        let wanted = missing.max(Self::AT_ONCE).min(self.left);
        (missing > 0 && wanted > 0 && !self.is_over).then(|| (self.place.clone(), wanted))
    }

    /// Takes what was read: the place of each row, and the row if the filter takes it. One that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// Any error of a row but [`Corrupt`](super::StoreErrorKind::Corrupt).
    pub(super) fn take(
        &mut self,
        rows: impl IntoIterator<Item = (P, Result<Option<T>, StoreError>)>,
        wanted: usize,
    ) -> Result<(), StoreError> {
        let mut read = 0;
        for (place, row) in rows {
            read += 1;
            // The rest is read again with the next page.
            if self.found.len() == self.limit {
                return Ok(());
            }
            self.left = self.left.saturating_sub(1);
            self.place = Some(place);
            match readable_or_none(row)? {
                Some(row) => self.found.extend(row),
                None => self.damaged += 1,
            }
        }
        self.is_over = read < wanted;
        Ok(())
    }

    /// Takes rows that cannot be damaged.
    pub(super) fn look(&mut self, rows: impl IntoIterator<Item = (P, Option<T>)>, wanted: usize) {
        let rows = rows.into_iter().map(|(place, row)| (place, Ok(row)));
        // Only an error of a row is one.
        let _ = self.take(rows, wanted);
    }

    /// Returns the rows and the place where the list goes on. `what` names rows in the log if some cannot be read.
    pub(super) fn finish(self, what: &'static str) -> (Vec<T>, Option<P>) {
        if self.damaged > 0 {
            crate::observe::event!(
                ERROR,
                rows = self.damaged,
                what,
                "rows that the store cannot read are left out"
            );
            crate::observe::count_unreadable(what, self.damaged);
        }
        let next = self.place.filter(|_| !self.is_over);
        (self.found, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    /// Lists numbers from 1 to `last` that are multiples of `of`.
    fn list(
        limit: usize,
        after: Option<usize>,
        last: usize,
        of: usize,
    ) -> (Vec<usize>, Option<usize>, usize) {
        let mut listing = Listing::new(limit, after);
        let mut read = 0;
        while let Some((after, wanted)) = listing.wanted() {
            let first = after.unwrap_or(0) + 1;
            let rows = (first..=last)
                .take(wanted)
                .map(|number| (number, Ok((number % of == 0).then_some(number))));
            let rows: Vec<_> = rows.collect();
            read += rows.len();
            listing.take(rows, wanted).unwrap();
        }
        let (found, next) = listing.finish("numbers");
        (found, next, read)
    }

    #[test]
    fn a_page_is_full_or_has_a_place_to_go_on() {
        assert_eq!(list(3, None, 9, 1), (vec![1, 2, 3], Some(3), 9));
        assert_eq!(list(3, Some(6), 9, 1), (vec![7, 8, 9], None, 3));
        assert_eq!(list(3, Some(9), 9, 1), (vec![], None, 0));
        assert_eq!(list(0, Some(5), 9, 1), (vec![], Some(5), 0));
    }

    #[test]
    fn few_matches_do_not_read_on_without_end() {
        let (found, next, read) = list(5, None, 1_000_000, 400);
        assert_eq!((found, next), (vec![400, 800], Some(STEP)));
        assert_eq!(read, STEP);
        let (found, next, _) = list(5, None, 1_000_000, 7_000);
        assert_eq!((found, next), (vec![], Some(STEP)));
    }

    #[test]
    fn damaged_rows_are_left_out_and_other_errors_are_not() {
        let mut listing: Listing<u8, u8> = Listing::new(2, None);
        let corrupt = Err(StoreErrorKind::Corrupt.into());
        let rows = vec![(1, corrupt), (2, Ok(Some(2))), (3, Ok(None))];
        listing.take(rows, 3).unwrap();
        let unavailable = Err(StoreErrorKind::Unavailable.into());
        assert!(listing.take(vec![(4, unavailable)], 3).is_err());
        assert_eq!(listing.finish("rows"), (vec![2], Some(4)));
    }
}
