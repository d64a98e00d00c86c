//! The moments of rows that are put aside while their broadcast is paused (L21).

use crate::clock::Timestamp;

/// The first of these moments, in milliseconds: in 146 million years. No clock comes there, right or wrong.
pub(crate) const ASIDE: i64 = 1 << 62;

/// [`ASIDE`] in statements.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
macro_rules! aside_sql {
    () => {
        "4611686018427387904"
    };
}
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use aside_sql;

/// The moment of the rows of one broadcast, by its number in the store.
pub(crate) fn aside(broadcast: i64) -> Timestamp {
    Timestamp::from_millis(ASIDE.saturating_add(broadcast))
}

/// The moment until which a row waits that is due then, in milliseconds: never one of rows that were put aside, however far.
pub(crate) fn due_at(at: Timestamp) -> i64 {
    at.as_millis().min(ASIDE - 1)
}

/// Whether a row that waits until then was put aside.
pub(crate) fn is_aside(at: Timestamp) -> bool {
    at.as_millis() >= ASIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_have_moments_of_their_own() {
        assert_ne!(aside(1), aside(2));
        assert!(is_aside(aside(1)) && is_aside(Timestamp::MAX));
        assert!(!is_aside(Timestamp::from_millis(ASIDE - 1)));
        for far in [aside(0), Timestamp::MAX] {
            assert!(!is_aside(Timestamp::from_millis(due_at(far))));
        }
        assert_eq!(due_at(Timestamp::from_millis(-7)), -7);
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        assert_eq!(ASIDE.to_string(), aside_sql!());
    }
}
