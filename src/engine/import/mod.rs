//! Import of subscriptions and VAPID keys that another library or server stored.
//!
//! The [guide](crate::guide::moving_here) lists what to bring and what differs afterwards.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::import::{ImportedSubscription, RefusedRow};
//! use tower_web_push::vapid::VapidKey;
//! use tower_web_push::{Subscription, WebPush};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
//! # const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
//! # let key = VapidKey::generate()?.secret_to_pkcs8_pem();
//! # let table = vec![
//! #     (17, "alice", format!(r#"{{"endpoint":"https://fcm.googleapis.com/fcm/send/x","keys":{{"p256dh":"{P256DH}","auth":"{AUTH}"}}}}"#)),
//! #     (18, "bob", "{}".to_owned()),
//! # ];
//! let push = WebPush::builder("mailto:ops@example.com").build().await?;
//! let mut import = push.import();
//!
//! // The key first: subscriptions that were made with it cannot be reached without it.
//! import.active_vapid_key(&VapidKey::parse(&*key)?).await?;
//!
//! // Then the rows, from a lazy iterator: a table of (id, user, JSON.stringify(subscription)).
//! let rows = table.into_iter().map(|(id, user, json)| {
//!     let row = format!("row {id}");
//!     match Subscription::from_json(json.as_bytes()) {
//!         Ok(subscription) => {
//!             let mut imported = ImportedSubscription::new(subscription);
//!             imported.principal = Some(user.into());
//!             imported.row = Some(row);
//!             Ok(imported)
//!         }
//!         Err(error) => Err(RefusedRow::new(row, error)),
//!     }
//! });
//! import.add(rows).await?;
//!
//! let report = import.report();
//! assert_eq!((report.created, report.refused), (1, 1));
//! assert_eq!(report.refusals[0].to_string(), "row 18: it cannot be imported");
//! # Ok(())
//! # }
//! ```

mod page;
mod report;
mod row;

pub use report::ImportReport;
pub use row::{ImportedSubscription, RefusalKind, RefusedRow};

use std::collections::HashSet;
use std::fmt;

use self::page::{Page, Room};
use super::Engine;
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::schedule::firing::GRACE;
use crate::store::StoreError;
use crate::vapid::{KeyId, VapidError, VapidKey};

/// An import in progress, made by [`WebPush::import`](crate::WebPush::import): its VAPID keys first, then its
/// subscriptions, in any number of calls.
///
/// It adds what is missing and changes nothing that is stored:
///
/// - A subscription whose endpoint is stored stays as it is, with any keys, user, tags and state: its page has posted
///   it here, so the stored one is newer. Only a daily notification of a missing type is added, if keys, id and user
///   are those of the row.
/// - A subscription that was renewed since, and left its id to its new endpoint, is not imported again.
/// - Nothing is sent: there are no confirmation pushes.
///
/// So it can be repeated, after an interruption or for rows that were stored meanwhile, and while a server accepts
/// subscriptions. But deletions are not remembered: a subscription or daily notification that a user removed here
/// between two runs is imported again by the second.
///
/// The endpoint policy and the limits hold as for `POST /subscribe`, with two exceptions. An imported subscription
/// never replaces another one of its principal. And [`SubscriptionLimits::unproven`] does not hold for imported
/// subscriptions, but they count: after an import of more than that, registrations without a principal are refused
/// until a broadcast has reached enough of them, or the limit is raised.
///
/// [`SubscriptionLimits::unproven`]: crate::store::SubscriptionLimits::unproven
pub struct Import {
    engine: Engine,
    /// Imported keys: in a dry run the key ring does not have them.
    keys: HashSet<KeyId>,
    /// The active key of the source.
    active: Option<KeyId>,
    daily_sent_until: Option<Timestamp>,
    is_dry_run: bool,
    room: Room,
    report: ImportReport,
}

impl Import {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            keys: HashSet::new(),
            active: None,
            daily_sent_until: None,
            is_dry_run: false,
            room: Room::default(),
            report: ImportReport::default(),
        }
    }

    /// Makes a dry run: the report shows what would be done, apart from a full store. A row that the source has
    /// twice counts twice, also against the limit of its principal. Against the limit of a principal count the rows that are stored when its first
    /// one comes, and those that would be created since: a number for each principal is held in memory.
    #[must_use]
    pub const fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// Sets when the source last sent its daily notifications. Occurrences that have become due since then are sent
    /// at once, as after any downtime: each at most once, and at most 24 hours late. Default: nothing is due before
    /// its next time.
    #[must_use]
    pub const fn daily_sent_until(mut self, moment: Timestamp) -> Self {
        self.daily_sent_until = Some(moment);
        self
    }

    /// Imports a VAPID key. Subscriptions that were made with it can be reached from now on.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable or the system has no randomness.
    ///
    /// # Cancel safety
    ///
    /// If dropped while the store writes, the key may be stored. The call can be repeated.
    pub async fn vapid_key(&mut self, key: &VapidKey) -> Result<KeyId, VapidError> {
        if !self.is_dry_run {
            let ring = &self.engine.key_ring;
            ring.refresh().await?;
            if ring.get(&key.id()).is_none() {
                ring.adopt(key, self.engine.now()).await?;
            }
        }
        self.keys.insert(key.id());
        Ok(key.id())
    }

    /// Imports the key that pages of the source subscribe with: the key of all subscriptions that name none.
    ///
    /// It becomes the active key here too, so that no page has to subscribe again, if it is new here and no
    /// subscription uses the key that is active now. To make sure, pass it to
    /// [`WebPushBuilder::vapid_private_key`](crate::WebPushBuilder::vapid_private_key) before the first start.
    ///
    /// # Errors
    ///
    /// As [`vapid_key`](Self::vapid_key).
    ///
    /// # Cancel safety
    ///
    /// As [`vapid_key`](Self::vapid_key).
    pub async fn active_vapid_key(&mut self, key: &VapidKey) -> Result<KeyId, VapidError> {
        if !self.is_dry_run {
            let engine = &self.engine;
            let ring = &engine.key_ring;
            ring.adopt_as_active(key, &*engine.subscriptions, engine.now())
                .await?;
        }
        self.keys.insert(key.id());
        self.active = Some(key.id());
        Ok(key.id())
    }

    /// Imports subscriptions, 64 at a time: a lazy iterator is never held as a whole. A row that cannot be imported
    /// is counted and reported, and does not stop the others.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable. Rows imported by then stay. The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// If dropped, each row is imported or not, though a daily notification may be missing. The call can be repeated.
    pub async fn add<I>(&mut self, rows: I) -> Result<(), StoreError>
    where
        I: IntoIterator<Item = Result<ImportedSubscription, RefusedRow>> + Send,
        I::IntoIter: Send,
    {
        let mut page = Page::default();
        for row in rows {
            match row.and_then(|row| self.check(row)) {
                Err(refused) => self.report.refuse(refused),
                Ok(row) => {
                    // A row that shares an endpoint or id with an earlier one is compared with what that one stored.
                    if page.is_full() || page.names(&row) {
                        std::mem::take(&mut page).write(self).await?;
                    }
                    page.push(row);
                }
            }
        }
        page.write(self).await
    }

    /// Returns the report so far.
    #[must_use]
    pub const fn report(&self) -> &ImportReport {
        &self.report
    }

    /// Checks a row without the store.
    fn check(&self, row: ImportedSubscription) -> Result<ImportedSubscription, RefusedRow> {
        let subscription = &row.subscription;
        if let Err(error) = self.engine.endpoint_policy.check(subscription.endpoint()) {
            return Err(row.refused(RefusalKind::EndpointNotAllowed, Some(error.into())));
        }
        let is_past = |at| at <= self.engine.now();
        let wrong = if subscription.expiration_time().is_some_and(is_past) {
            RefusalKind::Expired
        } else if row.principal.as_ref().is_some_and(Principal::is_too_long) {
            RefusalKind::PrincipalTooLong
        } else if row.tags.len() > Tag::MAX_PER_SUBSCRIPTION {
            RefusalKind::TooManyTags
        } else if row.vapid_key.is_some_and(|key| !self.has_key(&key)) {
            RefusalKind::UnknownVapidKey
        } else {
            return Ok(row);
        };
        Err(row.refused(wrong, None))
    }

    fn has_key(&self, id: &KeyId) -> bool {
        self.keys.contains(id) || self.engine.key_ring.get(id).is_some()
    }

    /// Returns the time after which daily notifications are due.
    fn daily_after(&self, now: Timestamp) -> Timestamp {
        self.daily_sent_until
            .map_or(now, |sent_until| sent_until.clamp(now - GRACE, now))
    }
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "room_tests.rs"]
mod tests;
