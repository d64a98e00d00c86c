//! Moving here: subscriptions and VAPID keys that another library or server has stored.
//!
//! The [guide](crate::guide::moving_here) says what to bring, and what differs afterwards.
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
//! // The key first: without it no subscription that was made with it can be reached.
//! import.active_vapid_key(&VapidKey::parse(&*key)?).await?;
//!
//! // Then the rows, as lazily as they come: a table of (id, user, JSON.stringify(subscription)).
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

use self::page::Page;
use super::Engine;
use crate::broadcast::Tag;
use crate::clock::Timestamp;
use crate::schedule::firing::GRACE;
use crate::store::StoreError;
use crate::vapid::{KeyId, VapidError, VapidKey};

/// An import under way, made by [`WebPush::import`](crate::WebPush::import): its VAPID keys first, then its subscriptions, in as many calls as
/// there are pages.
///
/// It adds what is missing and changes nothing that is there:
///
/// - A subscription whose endpoint is here already stays as it is, whatever its keys, its user, its tags and its state:
///   its page has posted it here, and knows better. Only a daily notification of a type that it lacks is added, where
///   keys, id and user are those of the row.
/// - One that was renewed since, and left its id to its new endpoint, does not come back.
/// - Nothing is sent: there are no confirmation pushes.
///
/// So it can be run again, after an interruption or for what was stored meanwhile, and beside a server that takes
/// subscriptions at the same time. But there is no memory of what was deleted: whoever unsubscribed here, or ended a
/// daily notification, between two runs gets it again with the second.
///
/// The endpoint policy and the limits hold as for `POST /subscribe`, but for two things. An imported subscription never
/// takes the place of another one of its principal. And [`SubscriptionLimits::unproven`] does not hold for imported
/// subscriptions, but they count: after an import of more than that, strangers are refused until a broadcast has
/// reached enough of them, or the limit is raised.
///
/// [`SubscriptionLimits::unproven`]: crate::store::SubscriptionLimits::unproven
pub struct Import {
    engine: Engine,
    /// Keys that came with it: in a dry run the key ring does not know them.
    keys: HashSet<KeyId>,
    /// The other side's active key.
    active: Option<KeyId>,
    daily_sent_until: Option<Timestamp>,
    is_dry_run: bool,
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
            report: ImportReport::default(),
        }
    }

    /// Only looks: the report says what would be done, as far as the store's room for it is not the question. What
    /// the source has twice, pages apart, counts twice.
    #[must_use]
    pub const fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// When the other side last sent its daily notifications. What has fallen due since then is sent at once, as
    /// after any downtime: each at most once, and at most 24 hours late. Where nothing is said, nothing is due
    /// before its next time.
    #[must_use]
    pub const fn daily_sent_until(mut self, moment: Timestamp) -> Self {
        self.daily_sent_until = Some(moment);
        self
    }

    /// Takes over a VAPID key: subscriptions that were made with it can be reached from now on.
    ///
    /// # Errors
    ///
    /// A store that does not answer, or a system without randomness.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, the key may be there. Calling it again does no harm.
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

    /// The same for the key that the other side's pages subscribe with: the key of all subscriptions that name none.
    ///
    /// It becomes the active one here too, so that no page has to subscribe again, where it is new here and no
    /// subscription uses the one that is active now. To make sure, give it to
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

    /// Takes over subscriptions, 64 at a time: a lazy iterator is never held as a whole. A row that cannot be imported
    /// is counted and named, and stops no other.
    ///
    /// # Errors
    ///
    /// A store that does not answer. What was imported by then stays; do the same again.
    ///
    /// # Cancel safety
    ///
    /// As for an error: dropped in between, each row is imported or not, though a daily notification may be missing. Do
    /// the same again.
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
                    // Whatever a row shares with one before it is judged by what that one left in the store.
                    if page.is_full() || page.names(&row) {
                        std::mem::take(&mut page).write(self).await?;
                    }
                    page.push(row);
                }
            }
        }
        page.write(self).await
    }

    /// What it came to so far.
    #[must_use]
    pub const fn report(&self) -> &ImportReport {
        &self.report
    }

    /// What can be said of a row alone.
    fn check(&self, row: ImportedSubscription) -> Result<ImportedSubscription, RefusedRow> {
        let subscription = &row.subscription;
        if let Err(error) = self.engine.endpoint_policy.check(subscription.endpoint()) {
            return Err(row.refused(RefusalKind::EndpointNotAllowed, Some(error.into())));
        }
        let is_past = |at| at <= self.engine.now();
        let wrong = if subscription.expiration_time().is_some_and(is_past) {
            RefusalKind::Expired
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

    /// The moment after which daily notifications are due.
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
