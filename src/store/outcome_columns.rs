//! The columns of outcomes in SQL back ends.

/// The columns of outcomes, which have their names, in the order of
/// [`FinalOutcome::ALL`](crate::broadcast::FinalOutcome::ALL).
macro_rules! outcome_columns {
    () => {
        "accepted, gone, key_mismatch, sender_fault, too_large, bad_request, refused, expired, failed, cancelled"
    };
}
pub(super) use outcome_columns;

#[cfg(test)]
mod tests {
    use crate::broadcast::FinalOutcome;

    #[test]
    fn the_columns_of_outcomes_have_their_names() {
        let names: Vec<_> = FinalOutcome::ALL
            .iter()
            .map(|outcome| outcome.as_str())
            .collect();
        assert_eq!(outcome_columns!(), names.join(", "));
    }
}
