//! How long rows have been waiting, by push service.

use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::subscription::Origin;

/// The earliest due times of rows, by push service. Each is noted, and the earliest is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldestDue([Option<Timestamp>; PushService::ALL.len()]);

impl OldestDue {
    /// Notes the due time of a row at an origin; `None` if the origin's name cannot be read.
    pub fn note(&mut self, origin: Option<&Origin>, due: Timestamp) {
        let service = origin.map_or(PushService::Other, PushService::of_origin);
        let place = PushService::ALL.iter().position(|one| *one == service);
        if let Some(known) = place.and_then(|place| self.0.get_mut(place)) {
            *known = Some(known.map_or(due, |known| known.min(due)));
        }
    }

    /// Returns the earliest time at a push service.
    #[must_use]
    pub fn at(&self, service: PushService) -> Option<Timestamp> {
        let mut all = PushService::ALL.iter().zip(self.0);
        all.find(|(one, _)| **one == service)?.1
    }

    /// Returns the earliest time of all.
    #[must_use]
    pub fn earliest(&self) -> Option<Timestamp> {
        self.0.into_iter().flatten().min()
    }

    /// Leaves out times that have not come.
    #[must_use]
    pub fn until(self, now: Timestamp) -> Self {
        Self(self.0.map(|due| due.filter(|due| *due <= now)))
    }
}

/// The origins of push services that every browser of a vendor uses, whose rows are always looked at: any number of other origins
/// may stand in front of them.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
pub(super) fn always_told() -> impl Iterator<Item = String> {
    PushService::hosts().map(|host| format!("https://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_each_push_service_is_kept() {
        let at = Timestamp::from_secs;
        let origin = |host: &str| Origin::parse(&format!("https://{host}")).unwrap();
        let mut oldest = OldestDue::default();
        assert_eq!(oldest.earliest(), None);
        for (host, due) in [
            ("fcm.googleapis.com", 7),
            ("web.push.apple.com", 9),
            ("fcm.googleapis.com", 5),
            ("push.stranger.example", 3),
            ("fcm.googleapis.com", 6),
        ] {
            oldest.note(Some(&origin(host)), at(due));
        }
        oldest.note(None, at(4));
        assert_eq!(oldest.at(PushService::Fcm), Some(at(5)));
        assert_eq!(oldest.at(PushService::Apple), Some(at(9)));
        assert_eq!(oldest.at(PushService::Other), Some(at(3)));
        assert_eq!(oldest.at(PushService::Mozilla), None);
        assert_eq!(oldest.earliest(), Some(at(3)));
        let due = oldest.until(at(5));
        assert_eq!(due.at(PushService::Fcm), Some(at(5)));
        assert_eq!(due.at(PushService::Apple), None);
    }
}
