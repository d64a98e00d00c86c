//! Sharing the rows that are claimed at an origin among the bands of urgency.

use crate::message::Urgency;

/// The number of bands at an origin.
pub const BANDS: usize = 3;

/// The band of a message's rows (L18): 0 for [`Urgency::High`], 1 for [`Urgency::Normal`], 2 for the two below it.
#[must_use]
pub const fn band(urgency: Urgency) -> usize {
    match urgency {
        Urgency::High => 0,
        Urgency::Normal => 1,
        Urgency::Low | Urgency::VeryLow => 2,
    }
}

/// Shares `wanted` rows among the bands of an origin (L18). Returns the number of rows to claim in each band.
///
/// `ready` are the numbers of rows that each band has; counting each up to `wanted` is enough. `take` is a number that grows by one with each
/// claim of rows at this origin: with fewer than eight rows a band passes one on in some claims only, and `take` selects
/// them.
///
/// The first band gets at most seven of eight rows while others have rows. The second gets at most seven of eight of the
/// rest while the third has rows. What a band does not use goes to the others, so that no row is left while there is
/// something to claim.
///
/// # Examples
///
/// ```
/// use tower_web_push::store::rules::shares;
///
/// assert_eq!(shares(16, 0, [1_000, 1_000, 0]), [14, 2, 0]);
/// assert_eq!(shares(16, 0, [1, 1_000, 1_000]), [1, 14, 1]);
/// assert_eq!(shares(16, 0, [0, 2, 1_000]), [0, 2, 14]);
///
/// // Of eight claims of one row, one is not urgent.
/// let urgent = |take: &u64| shares(1, *take, [9, 9, 0]) == [1, 0, 0];
/// assert_eq!((0..8).filter(urgent).count(), 7);
/// ```
#[must_use]
pub fn shares(wanted: usize, take: u64, ready: [usize; BANDS]) -> [usize; BANDS] {
    let [high, normal, low] = ready;
    let for_others = eighth(wanted, take).min(normal.saturating_add(low));
    let high = high.min(wanted - for_others);
    let rest = wanted - high;
    // Another rotation than the first one: else of claims of one row those that are not urgent would all be low.
    let for_low = eighth(rest, take.wrapping_add(take / 8)).min(low);
    let normal = normal.min(rest - for_low);
    let low = low.min(rest - normal);
    [high, normal, low]
}

/// An eighth of a number of rows: rounded up in some of eight takes, so that it is exact on average.
fn eighth(rows: usize, take: u64) -> usize {
    let rotation = usize::try_from(take % 8).unwrap_or_default();
    rows / 8 + usize::from(rows % 8 + rotation >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1_000;

    fn sums(wanted: usize, takes: u64, ready: [usize; BANDS]) -> [usize; BANDS] {
        let mut sums = [0; BANDS];
        for take in 0..takes {
            let shares = shares(wanted, take, ready);
            for (sum, share) in sums.iter_mut().zip(shares) {
                *sum += share;
            }
        }
        sums
    }

    #[test]
    fn urgencies_are_banded_in_their_order() {
        let bands: Vec<_> = Urgency::ALL.iter().map(|urgency| band(*urgency)).collect();
        assert_eq!(bands, [2, 2, 1, 0]);
        assert!(bands.iter().all(|band| *band < BANDS));
    }

    #[test]
    fn every_band_keeps_its_share_however_few_rows_are_taken_at_once() {
        for wanted in [1, 3, 7, 8, 9, 16, 100, 1024] {
            let total = wanted * 64;
            let [high, normal, low] = sums(wanted, 64, [wanted; BANDS]);
            assert_eq!((high, high + normal + low), (total / 8 * 7, total));
            assert!(low >= total / 64 && low <= total / 8, "{wanted}: {low}");
            let [_, normal, low] = sums(wanted, 64, [0, wanted, wanted]);
            assert_eq!((normal, low), (total / 8 * 7, total / 8));
            let [high, _, low] = sums(wanted, 64, [wanted, 0, wanted]);
            assert_eq!((high, low), (total / 8 * 7, total / 8));
        }
        assert_eq!(sums(1, 64, [1; BANDS]), [56, 7, 1]);
    }

    #[test]
    fn what_one_band_does_not_use_goes_to_the_others() {
        for take in 0..64 {
            for wanted in [0, 1, 2, 8, 15, 40] {
                for high in [0, 1, 5, MANY] {
                    for normal in [0, 1, 5, MANY] {
                        for low in [0, 1, 5, MANY] {
                            let ready = [high, normal, low];
                            let shares = shares(wanted, take, ready);
                            let sum: usize = shares.iter().sum();
                            assert_eq!(sum, wanted.min(high + normal + low), "{ready:?}");
                            let fit = shares.iter().zip(ready).all(|(share, has)| *share <= has);
                            assert!(fit, "{shares:?} of {ready:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_take_of_one_row_is_the_most_urgent() {
        assert_eq!(shares(1, 0, [1, 1, 1]), [1, 0, 0]);
        assert_eq!(shares(1, 0, [0, 1, 1]), [0, 1, 0]);
    }

    #[test]
    fn no_number_is_too_large() {
        let shares = shares(usize::MAX, u64::MAX, [usize::MAX; BANDS]);
        assert_eq!(shares.iter().sum::<usize>(), usize::MAX);
    }
}
