//! Requests that the server certainly has not processed.

use std::time::Duration;

use super::Jitter;

/// Whether the server certainly has not processed a request that was sent: its connection was closed with a lower last
/// stream (RFC 9113 section 6.8), or it refused the stream (section 8.7).
pub(super) fn is_unprocessed(error: &h2::Error) -> bool {
    let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || (error.is_reset() && is_refused))
}

/// Whether the server asked for fewer requests (RFC 9113 section 7).
pub(super) fn asks_for_calm(error: &h2::Error) -> bool {
    error.is_remote() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// The repeats of one request that was not processed.
#[derive(Debug, Default)]
pub(super) struct Repeats(u32);

impl Repeats {
    /// Bounds the requests to a server that processes none. One that ends its connection after each response still serves
    /// a hundred requests that start together: they spread over the pauses.
    const MAX: u32 = 32;
    /// The longest pause after a server asked for fewer requests.
    const CALM: Duration = Duration::from_secs(1);
    /// The longest pause before a request is sent again.
    const LONGEST: Duration = Duration::from_millis(500);

    /// The pause before the request is sent again, zero the first time unless the server asked for calm. Returns `None` after
    /// 32 repeats.
    pub(super) fn pause(&mut self, asked_for_calm: bool) -> Option<Duration> {
        let repeats = self.0;
        self.0 = repeats.saturating_add(1);
        match repeats {
            Self::MAX.. => None,
            _ if asked_for_calm => Some(Jitter::random().of(Self::CALM)),
            0 => Some(Duration::ZERO),
            _ => {
                let ceiling = 1_u64.checked_shl(repeats).unwrap_or(u64::MAX);
                let ceiling = Duration::from_millis(ceiling).min(Self::LONGEST);
                Some(Jitter::random().of(ceiling))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At once, then after pauses of up to twice as long as the last ones, for less than 13 seconds in all.
    #[test]
    fn a_request_is_repeated_less_and_less_often_and_not_for_ever() {
        for asks_for_calm in [false, true] {
            let mut repeats = Repeats::default();
            let pauses: Vec<_> = std::iter::from_fn(|| repeats.pause(asks_for_calm)).collect();
            assert_eq!(pauses.len(), 32);
            assert_eq!(repeats.pause(asks_for_calm), None, "for good");
            if asks_for_calm {
                assert!(pauses.iter().all(|pause| *pause <= Repeats::CALM));
                continue;
            }
            assert_eq!(pauses[0], Duration::ZERO);
            let ceilings = (1..9).map(|repeat| Duration::from_millis(1 << repeat));
            let ceilings = ceilings.chain(std::iter::repeat(Repeats::LONGEST));
            assert!(
                pauses[1..]
                    .iter()
                    .zip(ceilings)
                    .all(|(pause, most)| *pause <= most)
            );
        }
    }

    /// h2 ends a connection for the same reason itself, after too many errors of the server.
    #[test]
    fn only_the_server_asks_for_calm() {
        let own = h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM);
        assert!(!own.is_remote() && !asks_for_calm(&own));
    }
}
