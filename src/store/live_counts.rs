//! Numbers of live rows, in groups.

use std::collections::BTreeMap;

use crate::push_service::PushService;
use crate::vapid::KeyId;

/// The numbers of live rows at each push service, and of some VAPID keys (S15).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct LiveCounts {
    /// For each push service, zero included.
    pub by_push_service: BTreeMap<PushService, u64>,
    /// For each VAPID key that was asked for, zero included.
    pub by_vapid_key: BTreeMap<KeyId, u64>,
}

impl LiveCounts {
    /// Makes a value with zero for each push service and these keys.
    #[must_use]
    pub fn none(keys: &[KeyId]) -> Self {
        Self {
            by_push_service: PushService::ALL
                .iter()
                .map(|service| (*service, 0))
                .collect(),
            by_vapid_key: keys.iter().map(|key| (*key, 0)).collect(),
        }
    }

    /// Adds live rows of one push service, given by its stored name, and of one VAPID key, asked for or not.
    pub fn add(&mut self, push_service: &str, vapid_key: &KeyId, rows: u64) {
        for (service, count) in &mut self.by_push_service {
            if service.as_str() == push_service {
                *count = count.saturating_add(rows);
            }
        }
        if let Some(count) = self.by_vapid_key.get_mut(vapid_key) {
            *count = count.saturating_add(rows);
        }
    }

    /// Returns the number of all live rows.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_push_service.values().sum()
    }
}
