//! Counting subscriptions by numbers that a store keeps where rows change, so that no rows are read.

use std::collections::BTreeMap;

use super::{CountFilter, LiveCounts, Liveness};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::observe;
use crate::vapid::KeyId;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Rows that are neither retired nor stale.
    Live,
    /// Those of [`Live`](Self::Live) that have expired. Not kept, since time changes it: there are few.
    Expired,
    /// Rows that are stale and not retired.
    Stale,
    Retired,
}

/// The numbers of rows by kind, push service and VAPID key. The key is `None` if it cannot be read.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<(Kind, String, Option<KeyId>), u64>);

impl Groups {
    pub(super) fn add(
        &mut self,
        kind: Kind,
        push_service: &str,
        vapid_key: Option<KeyId>,
        rows: u64,
    ) {
        let group = (kind, push_service.to_owned(), vapid_key);
        let number = self.0.entry(group).or_default();
        *number = number.saturating_add(rows);
    }

    /// Adds a number by the stored names of its kind and group: the push service, `:`, and the VAPID key in hexadecimal.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn add_named(&mut self, kind: &str, group: &str, rows: u64) {
        let kind = match kind {
            "live" => Kind::Live,
            "expired" => Kind::Expired,
            "stale" => Kind::Stale,
            "retired" => Kind::Retired,
            _ => return,
        };
        let (push_service, digits) = group.rsplit_once(':').unwrap_or((group, ""));
        let key = u128::from_str_radix(digits, 16).ok();
        let key = key.filter(|_| digits.len() == 2 * KeyId::LEN);
        let key = key.map(|key| KeyId::from_bytes(key.to_be_bytes()));
        self.add(kind, push_service, key, rows);
    }

    /// The number of rows that a filter takes. Its audience has to be [`All`](crate::broadcast::Audience::All).
    pub(super) fn count(&self, filter: &CountFilter) -> u64 {
        let service = filter.push_service.map(|service| service.as_str());
        let (mut rows, mut expired) = (0_u64, 0);
        for ((kind, push_service, vapid_key), number) in &self.0 {
            let is_wanted = service.is_none_or(|service| service == push_service)
                && filter.vapid_key.is_none_or(|key| Some(key) == *vapid_key);
            if !is_wanted {
                continue;
            }
            match (filter.liveness, kind) {
                (Liveness::Live | Liveness::Any, Kind::Live)
                | (Liveness::Stale | Liveness::Any, Kind::Stale)
                | (Liveness::Retired | Liveness::Any, Kind::Retired) => {
                    rows = rows.saturating_add(*number);
                }
                (Liveness::Live, Kind::Expired) => expired += number,
                _ => {}
            }
        }
        rows.saturating_sub(expired)
    }

    /// The VAPID key whose rows are to be looked for: a filter takes its rows in every state, and there are none by the
    /// numbers. A key that no row uses is removed for good, and a number may be wrong, as after a change by hand.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn doubtful(filter: &CountFilter, rows: u64) -> Option<&KeyId> {
        let is_total = filter.liveness == Liveness::Any && filter.push_service.is_none();
        filter.vapid_key.as_ref().filter(|_| is_total && rows == 0)
    }

    /// Says that there is a row of a key although the numbers say that there is none. Returns the least number that there is.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn contradicted(vapid_key: &KeyId) -> u64 {
        observe::event!(
            ERROR,
            vapid_key = %vapid_key,
            "the numbers of subscriptions that the store keeps are wrong: there is none of a VAPID key that a row names"
        );
        let _ = vapid_key;
        1
    }

    /// The live rows by push service and VAPID key (S15).
    pub(super) fn count_live(&self, keys: &[KeyId]) -> LiveCounts {
        let mut counts = LiveCounts::none(keys);
        for ((kind, push_service, vapid_key), rows) in &self.0 {
            if let (Kind::Live, Some(key)) = (kind, vapid_key) {
                let expired = (Kind::Expired, push_service.clone(), *vapid_key);
                let expired = self.0.get(&expired).copied().unwrap_or_default();
                counts.add(push_service, key, rows.saturating_sub(expired));
            }
        }
        counts
    }
}

/// Reads a kept number. One below zero is damaged, and counts as zero: counting goes on with the others.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn kept_number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_else(|_| {
        observe::event!(
            ERROR,
            number,
            "a number of subscriptions that the store keeps is below zero: it counts as zero"
        );
        0
    })
}

#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod tests {
    use super::*;
    use crate::broadcast::Audience;
    use crate::push_service::PushService;

    #[test]
    fn expired_rows_are_live_rows_that_do_not_count() {
        let key = KeyId::from_bytes([0xab; KeyId::LEN]);
        let of_key = format!("fcm:{}", "ab".repeat(KeyId::LEN));
        let mut groups = Groups::default();
        for (kind, group, rows) in [
            ("live", of_key.as_str(), 10),
            ("expired", of_key.as_str(), 3),
            ("stale", of_key.as_str(), 20),
            ("retired", of_key.as_str(), 40),
            // A key that is damaged, and what a later version may count.
            ("live", "mozilla:ab", 100),
            ("tag", "fcm:news", 1_000),
        ] {
            groups.add_named(kind, group, rows);
        }
        let count = |liveness, push_service, vapid_key| {
            let mut filter = CountFilter::new(Audience::All, liveness);
            (filter.push_service, filter.vapid_key) = (push_service, vapid_key);
            groups.count(&filter)
        };
        for (liveness, all, of_fcm) in [
            (Liveness::Live, 107, 7),
            (Liveness::Stale, 20, 20),
            (Liveness::Retired, 40, 40),
            (Liveness::Any, 170, 70),
        ] {
            assert_eq!(count(liveness, None, None), all, "{liveness:?}");
            let fcm = Some(PushService::Fcm);
            assert_eq!(count(liveness, fcm, None), of_fcm, "{liveness:?}");
            assert_eq!(count(liveness, None, Some(key)), of_fcm, "{liveness:?}");
        }
        let other = KeyId::from_bytes([1; KeyId::LEN]);
        assert_eq!(count(Liveness::Any, None, Some(other)), 0);
        let live = groups.count_live(&[key, other]);
        assert_eq!(live.by_vapid_key, [(key, 7), (other, 0)].into());
        assert_eq!(live.by_push_service.get(&PushService::Fcm), Some(&7));
    }
}
