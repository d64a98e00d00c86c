//! A row of the source, and the reason for a refusal.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::error::BoxError;
use crate::schedule::Daily;
use crate::subscription::{Subscription, SubscriptionId};
use crate::vapid::KeyId;

/// A subscription that another library or server stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportedSubscription {
    /// The subscription as the browser made it.
    pub subscription: Subscription,
    /// The id that pages know it by. Default: a new one.
    pub id: Option<SubscriptionId>,
    /// The user it belongs to.
    pub principal: Option<Principal>,
    /// Its labels, at most 32.
    pub tags: BTreeSet<Tag>,
    /// The VAPID key that the browser subscribed with. Default: the key given to
    /// [`active_vapid_key`](super::Import::active_vapid_key), else the active key here.
    pub vapid_key: Option<KeyId>,
    /// When it was stored by the source. Default: now.
    pub created_at: Option<Timestamp>,
    /// Its daily notifications. Of several of one type the first counts.
    pub daily: Vec<Daily>,
    /// The name of the row in the report: `subscription 17`. Default: the endpoint's origin and a short hash.
    pub row: Option<String>,
}

impl ImportedSubscription {
    /// Makes a row without a user and tags.
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

/// A row that was not imported, with the reason.
#[derive(Debug)]
pub struct RefusedRow {
    row: String,
    kind: RefusalKind,
    source: Option<BoxError>,
}

impl RefusedRow {
    /// Makes a refusal of a row that the caller could not read.
    ///
    /// # Security
    ///
    /// Both texts are shown in the report: neither must contain a key, an `auth` or an endpoint.
    pub fn new(row: impl Into<String>, why: impl Into<BoxError>) -> Self {
        Self {
            row: row.into(),
            kind: RefusalKind::Unreadable,
            source: Some(why.into()),
        }
    }

    /// Returns the name of the row.
    #[must_use]
    pub fn row(&self) -> &str {
        &self.row
    }

    /// Returns the reason.
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

/// The reason why a row was not imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The caller could not read it: see the source.
    Unreadable,
    /// The endpoint policy refuses its endpoint: see the source.
    EndpointNotAllowed,
    /// Its expiration time is past.
    Expired,
    /// Its VAPID key is unknown: import the key first.
    UnknownVapidKey,
    /// Its principal is longer than [`Principal::MAX_LEN`].
    PrincipalTooLong,
    /// More than 32 tags.
    TooManyTags,
    /// Its principal has reached the limit of subscriptions. An import does not remove others.
    PrincipalFull,
    /// The store is full.
    StoreFull,
    /// A daily notification has no next occurrence: its zone is unknown.
    NeverDue,
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "it cannot be imported",
            Self::EndpointNotAllowed => "the endpoint policy refuses it",
            Self::Expired => "it has expired",
            Self::UnknownVapidKey => "its VAPID key is unknown",
            Self::PrincipalTooLong => "its principal is longer than 1024 octets",
            Self::TooManyTags => "it has more than 32 tags",
            Self::PrincipalFull => "its principal has reached the limit of subscriptions",
            Self::StoreFull => "the store is full",
            Self::NeverDue => "its daily notification has no next occurrence",
        })
    }
}
