//! Sharing a claim among origins.

use std::collections::VecDeque;

/// Shares `limit` rows among origins in rounds, so that an origin with few rows does not wait for one with many (L5).
///
/// `rooms` are the limits by origin, in the order of their turns: the least recently served first. `take(index, n)` takes
/// up to `n` rows of an origin and returns their number; fewer than `n` means that there are no more. In each round every
/// origin that may have more gets an equal share of the rest, at least one row, and never more than its limit.
///
/// # Errors
///
/// The first error of `take`.
///
/// # Examples
///
/// ```
/// use tower_web_push::store::rules::deal;
///
/// let mut stock = [1_000, 3];
/// let mut taken = [0, 0];
/// deal(&[100, 100], 50, |origin, wanted| {
///     let got = wanted.min(stock[origin]);
///     stock[origin] -= got;
///     taken[origin] += got;
///     Ok::<_, std::convert::Infallible>(got)
/// })?;
/// assert_eq!(taken, [47, 3]);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
pub fn deal<E>(
    rooms: &[usize],
    limit: usize,
    mut take: impl FnMut(usize, usize) -> Result<usize, E>,
) -> Result<(), E> {
    let mut rounds = Rounds::new(rooms, limit);
    while let Some(round) = rounds.next_round() {
        for (origin, wanted) in round {
            let got = take(origin, wanted)?;
            rounds.took(origin, wanted, got);
        }
    }
    Ok(())
}

/// [`deal`] one round at a time, for a store that takes the rows of all origins in one statement.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    left: usize,
    /// The origins that may have more rows, with their limits, in the order of their turns.
    hungry: VecDeque<(usize, usize)>,
}

impl Rounds {
    /// Starts with the limits by origin and the total limit.
    pub(crate) fn new(rooms: &[usize], limit: usize) -> Self {
        let hungry = rooms.iter().copied().enumerate();
        Self {
            left: limit,
            hungry: hungry.filter(|(_, room)| *room > 0).collect(),
        }
    }

    /// Returns the next round: indexes of origins with the number of rows to take. `None` if nothing is left to take.
    pub(crate) fn next_round(&self) -> Option<Vec<(usize, usize)>> {
        if self.left == 0 || self.hungry.is_empty() {
            return None;
        }
        let share = (self.left / self.hungry.len()).max(1);
        let mut left = self.left;
        let mut round = Vec::new();
        for &(origin, room) in &self.hungry {
            let wanted = share.min(room).min(left);
            if wanted == 0 {
                break;
            }
            left -= wanted;
            round.push((origin, wanted));
        }
        Some(round)
    }

    /// Records that an origin had `got` of the `wanted` rows.
    pub(crate) fn took(&mut self, origin: usize, wanted: usize, got: usize) {
        self.left = self.left.saturating_sub(got);
        let place = self.hungry.iter().position(|(hungry, _)| *hungry == origin);
        let Some((_, room)) = place.and_then(|place| self.hungry.remove(place)) else {
            return;
        };
        let room = room.saturating_sub(got);
        if got >= wanted && room > 0 {
            self.hungry.push_back((origin, room));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn dealt(stock: Vec<usize>, limit: usize, per_origin: usize) -> Vec<usize> {
        let rooms = vec![per_origin; stock.len()];
        dealt_within(&rooms, stock, limit)
    }

    fn dealt_within(rooms: &[usize], mut stock: Vec<usize>, limit: usize) -> Vec<usize> {
        let mut got = vec![0; stock.len()];
        deal::<Infallible>(rooms, limit, |origin, wanted| {
            let taken = wanted.min(stock[origin]);
            stock[origin] -= taken;
            got[origin] += taken;
            Ok(taken)
        })
        .unwrap();
        got
    }

    #[test]
    fn an_origin_with_few_rows_gets_them_all() {
        assert_eq!(dealt(vec![1000, 3, 1000], 100, 100), [49, 3, 48]);
        assert_eq!(dealt(vec![3, 1000], 100, 100), [3, 97]);
    }

    #[test]
    fn more_origins_than_rows_are_served_from_the_first() {
        assert_eq!(dealt(vec![9, 9, 9], 2, 9), [1, 1, 0]);
    }

    /// Rows of cancelled broadcasts are due but yield nothing when they are taken.
    #[test]
    fn what_one_has_not_goes_to_those_that_got_nothing_yet() {
        assert_eq!(dealt(vec![0, 9, 9], 2, 9), [0, 1, 1]);
        assert_eq!(dealt(vec![0, 0, 9, 9, 9], 3, 9), [0, 0, 1, 1, 1]);
    }

    #[test]
    fn no_origin_gets_more_than_its_limit() {
        assert_eq!(dealt(vec![9, 9], 100, 4), [4, 4]);
        assert_eq!(dealt(vec![9, 9], 100, 0), [0, 0]);
        assert_eq!(dealt_within(&[1, 9, 3], vec![9, 9, 9], 100), [1, 9, 3]);
    }

    #[test]
    fn nothing_is_dealt_where_there_is_nothing() {
        assert_eq!(dealt(vec![], 100, 4), [0; 0]);
        assert_eq!(dealt(vec![0, 0], 100, 4), [0, 0]);
        assert_eq!(dealt(vec![9], 0, 4), [0]);
    }
}
