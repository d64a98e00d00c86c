//! One row of the other side, and what is wrong with it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::schedule::Daily;
use crate::subscription::{Subscription, SubscriptionId};
use crate::vapid::KeyId;

/// A subscription that another library or server has stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportedSubscription {
    /// What the browser handed over.
    pub subscription: Subscription,
    /// The id that pages know it by; a fresh one where there is none.
    pub id: Option<SubscriptionId>,
    /// Who it belongs to.
    pub principal: Option<Principal>,
    /// Its labels, at most 32.
    pub tags: BTreeSet<Tag>,
    /// The VAPID key that the browser subscribed with. Where nothing is said, the one of
    /// [`active_vapid_key`](super::Import::active_vapid_key), and without that the one that is active here.
    pub vapid_key: Option<KeyId>,
    /// When it was stored there; now where nothing is said.
    pub created_at: Option<Timestamp>,
    /// Its daily notifications; of several of one type the first counts.
    pub daily: Vec<Daily>,
    /// What the other side calls the row, for the report: `subscription 17`. Without one a refusal shows the endpoint's
    /// origin and a short hash.
    pub row: Option<String>,
}

impl ImportedSubscription {
    /// A subscription of nobody in particular.
    #[must_use]
    pub const fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            id: None,
            principal: None,
            tags: BTreeSet::new(),
            vapid_key: None,
            created_at: None,
            daily: Vec::new(),
            row: None,
        }
    }

    pub(super) fn refused(self, kind: RefusalKind, source: Option<BoxError>) -> RefusedRow {
        let endpoint = self.subscription.endpoint();
        RefusedRow {
            row: self.row.unwrap_or_else(|| format!("{endpoint:?}")),
            kind,
            source,
        }
    }
}

/// A row that is not imported, and why.
#[derive(Debug)]
pub struct RefusedRow {
    row: String,
    kind: RefusalKind,
    source: Option<BoxError>,
}

impl RefusedRow {
    /// A row that the caller could not make a subscription of.
    ///
    /// # Security
    ///
    /// Both are shown in the report: neither must hold a key, an `auth` or an endpoint.
    pub fn new(row: impl Into<String>, why: impl Into<BoxError>) -> Self {
        Self {
            row: row.into(),
            kind: RefusalKind::Unreadable,
            source: Some(why.into()),
        }
    }

    /// What the row is called.
    #[must_use]
    pub fn row(&self) -> &str {
        &self.row
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        self.kind
    }
}

impl fmt::Display for RefusedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.row, self.kind)
    }
}

impl Error for RefusedRow {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The caller could not make a subscription of it: the cause is the caller's.
    Unreadable,
    /// The endpoint policy refuses its endpoint; the cause says why.
    EndpointNotAllowed,
    /// Its expiration time is past.
    Expired,
    /// Its VAPID key is not live here: hand the key over first.
    UnknownVapidKey,
    /// More than 32 tags.
    TooManyTags,
    /// Its principal has as many subscriptions as the limits allow. None of them has to go for it.
    PrincipalFull,
    /// The store has no room for it, or for its daily notification.
    StoreFull,
    /// A daily notification that would never come: its zone is not known here.
    NeverDue,
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "it cannot be imported",
            Self::EndpointNotAllowed => "the endpoint policy refuses it",
            Self::Expired => "it has expired",
            Self::UnknownVapidKey => "its VAPID key is unknown",
            Self::TooManyTags => "it has more than 32 tags",
            Self::PrincipalFull => "its principal has reached the limit of subscriptions",
            Self::StoreFull => "the store is full",
            Self::NeverDue => "its daily notification has no next occurrence",
        })
    }
}
