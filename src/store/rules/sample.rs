//! The samples that are kept of the failures of a broadcast.

use std::collections::HashMap;

use crate::broadcast::FinalOutcome;
use crate::store::{Failure, FailureSample, SAMPLES};

/// Adds a failed delivery to the samples of its broadcast (L25). Returns whether it was kept: then they have to be written.
///
/// There are at most [`SAMPLES`]. When they are complete, one more is kept only in the place of the last one of the kind (an
/// outcome, a status and a reason) that has most, and only if its own kind has at least two less: so each kind has some,
/// however rare it is and whenever it comes.
#[must_use = "the samples have to be written"]
pub fn sample(samples: &mut Vec<FailureSample>, new: FailureSample) -> bool {
    if samples.len() >= SAMPLES {
        let mut numbers: HashMap<(FinalOutcome, Failure), usize> = HashMap::new();
        for sample in samples.iter() {
            *numbers.entry(sample.kind()).or_default() += 1;
        }
        let most = numbers.values().copied().max().unwrap_or(0);
        let own = numbers.get(&new.kind()).copied().unwrap_or(0);
        if own + 1 >= most {
            return false;
        }
        // The first kind of those that have as many.
        let mut kinds = samples.iter().map(FailureSample::kind);
        let most = kinds.find(|kind| numbers.get(kind) == Some(&most));
        let last = samples
            .iter()
            .rposition(|sample| Some(sample.kind()) == most);
        let Some(last) = last else { return false };
        samples.remove(last);
    }
    samples.push(new);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::push_service::PushService;
    use crate::store::FailureCause;
    use crate::subscription::EndpointKey;

    fn failed(number: u8, status: u16) -> FailureSample {
        FailureSample {
            key: EndpointKey::from_bytes([number; 32]),
            at: Timestamp::from_secs(i64::from(number)),
            outcome: FinalOutcome::Gone,
            cause: FailureCause::new(PushService::Fcm, Failure::new(Some(status), None)),
        }
    }

    fn number_of(samples: &[FailureSample], status: u16) -> usize {
        let status = Some(status);
        let of = samples.iter();
        of.filter(|sample| sample.cause.failure.status == status)
            .count()
    }

    #[test]
    fn a_rare_kind_takes_the_place_of_a_frequent_one() {
        let mut samples = Vec::new();
        for number in 0..32 {
            assert!(sample(&mut samples, failed(number, 410)));
        }
        assert!(!sample(&mut samples, failed(32, 410)), "there are enough");
        for number in 0..40 {
            let kept = sample(&mut samples, failed(100 + number, 404));
            assert_eq!(kept, number < 16, "{number}");
            assert_eq!(samples.len(), SAMPLES);
        }
        assert_eq!(
            (number_of(&samples, 410), number_of(&samples, 404)),
            (16, 16)
        );
        // The earliest ones stay.
        assert_eq!(samples[0], failed(0, 410));
        assert!(!samples.contains(&failed(31, 410)));
        for status in 500..600 {
            let _ = sample(&mut samples, failed(200, status));
        }
        let kinds: std::collections::HashSet<_> = samples.iter().map(FailureSample::kind).collect();
        assert_eq!((samples.len(), kinds.len()), (SAMPLES, SAMPLES));
        assert!(number_of(&samples, 410) == 1 && number_of(&samples, 404) == 1);
    }
}
