//! Wrong passwords by peer.

use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::PeerAddr;
use super::authorizer::Denied;

/// The wrong passwords of each peer within a minute.
#[derive(Debug)]
pub(super) struct WrongPasswords {
    /// In the order of their first wrong password, which is the order in which their minutes are over.
    by_peer: LruCache<PeerAddr, Minute>,
    /// Those of requests without an address, and of peers beyond [`MAX_PEERS`](Self::MAX_PEERS).
    others: Minute,
}

impl WrongPasswords {
    /// More than the 65,536 networks of an IPv6 site (/48), so that a single site cannot use up all entries. An entry
    /// takes about 100 octets, and only a wrong password adds one.
    const MAX_PEERS: usize = 100_000;

    /// Refuses a peer with ten wrong passwords within the last minute.
    pub(super) fn check(&mut self, peer: Option<PeerAddr>, now: Instant) -> Result<(), Denied> {
        self.forget_past(now);
        self.minute_of(peer)
            .map_or(Ok(()), |minute| minute.check(now))
    }

    /// Counts a wrong password.
    pub(super) fn count(&mut self, peer: Option<PeerAddr>, now: Instant) {
        match (self.minute_of(peer), peer) {
            (Some(minute), _) => minute.count(now),
            (None, Some(peer)) => {
                let mut minute = Minute::default();
                minute.count(now);
                self.by_peer.put(peer, minute);
            }
            (None, None) => self.others.count(now),
        }
    }

    /// Returns the counter of a peer, or `None` for a peer without one while entries are free.
    fn minute_of(&mut self, peer: Option<PeerAddr>) -> Option<&mut Minute> {
        let is_full = self.by_peer.len() >= Self::MAX_PEERS;
        match peer {
            // `peek`, which keeps the order.
            Some(peer) if self.by_peer.contains(&peer) => self.by_peer.peek_mut(&peer),
            Some(_) if !is_full => None,
            _ => Some(&mut self.others),
        }
    }

    fn forget_past(&mut self, now: Instant) {
        let is_past = |(_, minute): (&PeerAddr, &Minute)| minute.left(now).is_zero();
        while self.by_peer.peek_lru().is_some_and(is_past) {
            self.by_peer.pop_lru();
        }
    }
}

impl Default for WrongPasswords {
    fn default() -> Self {
        Self {
            by_peer: LruCache::unbounded(),
            others: Minute::default(),
        }
    }
}

/// The wrong passwords since the first one, for a minute.
#[derive(Debug, Default)]
struct Minute {
    first: Option<Instant>,
    number: u32,
}

impl Minute {
    const MOST: u32 = 10;
    const LENGTH: Duration = Duration::from_secs(60);

    fn check(&mut self, now: Instant) -> Result<(), Denied> {
        let retry_after = self.left(now);
        if retry_after.is_zero() {
            *self = Self::default();
        } else if self.number >= Self::MOST {
            return Err(Denied::TooManyFailures { retry_after });
        }
        Ok(())
    }

    fn left(&self, now: Instant) -> Duration {
        self.first.map_or(Duration::ZERO, |first| {
            Self::LENGTH.saturating_sub(now.saturating_duration_since(first))
        })
    }

    fn count(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.number = self.number.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: usize) -> Option<PeerAddr> {
        let number = u32::try_from(number).unwrap();
        Some(PeerAddr::new(Ipv4Addr::from(number).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_many_peers_takes_bounded_memory_and_guesses() {
        let mut wrong = WrongPasswords::default();
        let start = Instant::now();
        let mut compared = 0;
        for number in 0..WrongPasswords::MAX_PEERS + 50_000 {
            if wrong.check(peer(number), start).is_ok() {
                wrong.count(peer(number), start);
                compared += 1;
            }
        }
        assert_eq!(wrong.by_peer.len(), WrongPasswords::MAX_PEERS);
        assert_eq!(compared, WrongPasswords::MAX_PEERS + 10);
        // A peer that has its place keeps its own ten.
        assert_eq!(wrong.check(peer(0), start), Ok(()));

        let later = start + Minute::LENGTH;
        assert_eq!(wrong.check(peer(WrongPasswords::MAX_PEERS), later), Ok(()));
        assert_eq!(wrong.by_peer.len(), 0, "a minute later they are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_shared_minute_begins_anew_when_it_is_over() {
        let mut wrong = WrongPasswords::default();
        let start = Instant::now();
        for minute in 0..3 {
            let now = start + Minute::LENGTH * minute;
            for _ in 0..Minute::MOST {
                assert_eq!(wrong.check(None, now), Ok(()), "{minute}");
                wrong.count(None, now);
            }
            let retry_after = Minute::LENGTH;
            let refused = Err(Denied::TooManyFailures { retry_after });
            assert_eq!(wrong.check(None, now), refused, "{minute}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_begins_with_the_first_wrong_password() {
        let mut wrong = WrongPasswords::default();
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        for (number, secs) in [(1, 0), (2, 30), (1, 50)] {
            wrong.check(peer(number), at(secs)).unwrap();
            wrong.count(peer(number), at(secs));
        }
        assert_eq!(wrong.by_peer.len(), 2);
        wrong.check(peer(3), at(60)).unwrap();
        assert_eq!(wrong.by_peer.len(), 1, "the one of the later minute");
        assert!(wrong.by_peer.contains(&peer(2).unwrap()));
    }
}
