//! Samples of the failed deliveries of a broadcast.

use super::Failure;
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::subscription::EndpointKey;

/// The most samples of one broadcast (L25): about 6 KiB.
pub const SAMPLES: usize = 32;

/// What a delivery failed of, for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct FailureCause {
    /// The push service of its subscription.
    pub push_service: PushService,
    /// Why the last request failed.
    pub failure: Failure,
}

impl FailureCause {
    /// Makes a value of the two.
    #[must_use]
    pub const fn new(push_service: PushService, failure: Failure) -> Self {
        Self {
            push_service,
            failure,
        }
    }
}

/// A recipient that a broadcast did not reach, as an example of others (L25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct FailureSample {
    /// The subscription. It may have been deleted since.
    pub key: EndpointKey,
    /// When it was settled.
    pub at: Timestamp,
    /// How it finished.
    pub outcome: FinalOutcome,
    /// Why.
    pub cause: FailureCause,
}

impl FailureSample {
    /// What makes samples alike: outcome, status and reason.
    pub(super) const fn kind(&self) -> (FinalOutcome, Failure) {
        (self.outcome, self.cause.failure)
    }
}

/// Samples as text: a line for each. The last three words are its kind, by which the script of Redis tells them apart.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
pub(super) mod text {
    use std::fmt::Write as _;

    use super::{FailureCause, FailureSample};
    use crate::broadcast::FinalOutcome;
    use crate::clock::Timestamp;
    use crate::encoding::{base64_any, base64url};
    use crate::push_service::PushService;
    use crate::store::{Failure, ReasonWord};
    use crate::subscription::EndpointKey;

    /// What stands for no status and no reason. A reason is prefixed.
    const NONE: &str = "-";

    pub(in super::super) fn line(sample: &FailureSample) -> String {
        let FailureSample {
            key,
            at,
            outcome,
            cause:
                FailureCause {
                    push_service,
                    failure: Failure { status, reason },
                },
        } = sample;
        let mut line = format!("{} {} ", at.as_millis(), base64url(key.as_bytes()));
        let _ = write!(line, "{} {outcome} ", push_service.as_str());
        let _ = match status {
            Some(status) => write!(line, "{status} "),
            None => write!(line, "{NONE} "),
        };
        match reason {
            Some(reason) => line.extend(["=", reason.as_str()]),
            None => line.push_str(NONE),
        }
        line
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(in super::super) fn text(samples: &[FailureSample]) -> String {
        let lines: Vec<_> = samples.iter().map(line).collect();
        lines.join("\n")
    }

    /// Reads samples. Lines that cannot be read are left out: they are no more than examples.
    pub(in super::super) fn read(text: &str) -> Vec<FailureSample> {
        text.lines().filter_map(read_line).collect()
    }

    fn read_line(line: &str) -> Option<FailureSample> {
        let mut words = line.split(' ');
        let mut word = || words.next();
        let at = Timestamp::from_millis(word()?.parse().ok()?);
        let key: &[u8] = &base64_any(word()?)?;
        let service = word()?;
        let service = PushService::ALL
            .iter()
            .find(|known| known.as_str() == service);
        let outcome = word()?;
        let outcome = FinalOutcome::ALL
            .iter()
            .find(|known| known.as_str() == outcome);
        let status = match word()? {
            NONE => None,
            status => Some(status.parse().ok()?),
        };
        let reason = word()?.strip_prefix('=').and_then(ReasonWord::of);
        Some(FailureSample {
            key: EndpointKey::from_bytes(key.try_into().ok()?),
            at,
            outcome: *outcome?,
            cause: FailureCause::new(*service?, Failure { status, reason }),
        })
    }

    #[cfg(test)]
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    mod tests {
        use super::*;

        #[test]
        fn samples_come_back_and_damaged_lines_are_left_out() {
            let sample = |number: u8, status: Option<u16>, reason: Option<&str>| {
                let failure = Failure::new(status, reason);
                FailureSample {
                    key: EndpointKey::from_bytes([number; 32]),
                    at: Timestamp::from_millis(i64::from(number) - 2),
                    outcome: FinalOutcome::ALL[usize::from(number)],
                    cause: FailureCause::new(PushService::ALL[usize::from(number)], failure),
                }
            };
            let longest = "x".repeat(ReasonWord::MAX_LEN);
            let samples = [
                sample(1, None, None),
                sample(2, Some(410), Some("-")),
                sample(3, Some(999), Some(&longest)),
                sample(4, None, Some("timeout")),
            ];
            let written = text(&samples);
            assert_eq!(read(&written), samples);
            assert!(written.len() <= samples.len() * 192, "{}", written.len());
            assert_eq!(read(""), []);
            let damaged = format!("?\n{}\n{}x y", line(&samples[0]), line(&samples[1]));
            assert_eq!(read(&damaged)[0], samples[0]);
            assert_eq!(read("1 AA fcm gone - -"), []);
        }
    }
}
