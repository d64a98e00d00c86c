//! How a claim is shared among origins.

/// Deals `limit` rows in rounds to origins that have room for so many, so that one with few rows is not left
/// behind one with many.
///
/// `take(index, n)` takes up to `n` rows and answers how many it got; fewer than `n` means that there are
/// no more. In each round every origin that may have more gets an equal share of what is left, at least
/// one row and in all at most its room.
pub(super) fn deal<E>(
    rooms: &[usize],
    limit: usize,
    mut take: impl FnMut(usize, usize) -> Result<usize, E>,
) -> Result<(), E> {
    let mut left = limit;
    let mut hungry: Vec<(usize, usize)> = rooms.iter().copied().enumerate().collect();
    while left > 0 && !hungry.is_empty() {
        let share = (left / hungry.len()).max(1);
        let mut still_hungry = Vec::with_capacity(hungry.len());
        for (origin, room) in hungry {
            let wanted = share.min(left).min(room);
            if wanted == 0 {
                continue;
            }
            let got = take(origin, wanted)?;
            left = left.saturating_sub(got);
            if got >= wanted {
                still_hungry.push((origin, room.saturating_sub(got)));
            }
        }
        hungry = still_hungry;
    }
    Ok(())
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
