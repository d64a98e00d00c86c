//! The turns of rows within their origin (L18).

use std::collections::BTreeMap;

use tower_web_push::broadcast::BroadcastId;
use tower_web_push::subscription::Origin;

/// The bounds of a turn: which of the rows that become ready in one claim is first is not always visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Turn {
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            first: self.first.max(other.first),
            last: self.last.max(other.last),
        }
    }
}

#[derive(Default)]
pub(crate) struct Turns {
    /// The highest turn claimed in each band.
    claimed: BTreeMap<(Origin, usize), Turn>,
    /// The last turn of each broadcast at each origin.
    last: BTreeMap<(BroadcastId, Origin), Turn>,
}

impl Turns {
    /// The turn of rows of a broadcast that become ready together, of which some may have kept their turns.
    pub(crate) fn next(
        &mut self,
        broadcast: BroadcastId,
        origin: &Origin,
        band: usize,
        rows: u64,
        kept: u64,
    ) -> Turn {
        let claimed = self.claimed.get(&(origin.clone(), band));
        let last = self.last.entry((broadcast, origin.clone())).or_default();
        let before = last.max(claimed.copied().unwrap_or_default());
        // The turn of a row that is alone need not be stored: no other stands behind it.
        let is_stored = rows > 1 || last.first > 0;
        *last = Turn {
            first: match is_stored {
                true => before.first + rows - kept,
                false => 0,
            },
            last: before.last + rows,
        };
        Turn {
            first: before.first + 1,
            last: before.last + rows,
        }
    }

    /// Rows of a broadcast that goes on may stand in front again.
    pub(crate) fn resumed(&mut self, broadcast: BroadcastId) {
        let theirs = self.last.iter_mut().filter(|((id, _), _)| *id == broadcast);
        theirs.for_each(|(_, turn)| turn.first = 0);
    }

    pub(crate) fn highest_claimed(&self, origin: &Origin, band: usize) -> Turn {
        let claimed = self.claimed.get(&(origin.clone(), band));
        claimed.copied().unwrap_or_default()
    }

    pub(crate) fn claimed(&mut self, origin: &Origin, band: usize, turn: Turn) {
        let claimed = self.claimed.entry((origin.clone(), band)).or_default();
        *claimed = claimed.max(turn);
    }

    /// An origin without rows may have been forgotten, with its turns.
    pub(crate) fn prune(&mut self, has_rows: impl Fn(&Origin) -> bool) {
        for ((origin, _), turn) in &mut self.claimed {
            turn.first = if has_rows(origin) { turn.first } else { 0 };
        }
        for ((_, origin), turn) in &mut self.last {
            turn.first = if has_rows(origin) { turn.first } else { 0 };
        }
    }
}
