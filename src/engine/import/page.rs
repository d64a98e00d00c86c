//! A page of rows: stored ones are read with one call, and the others are written concurrently.

use std::collections::{HashMap, HashSet};

use tokio::task::JoinSet;

use super::{Import, ImportedSubscription, RefusalKind, RefusedRow};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::error::BoxError;
use crate::schedule::{Daily, NotifyType, Schedule, ScheduleName};
use crate::store::{
    CountFilter, Liveness, NewSubscription, StoreError, StoreErrorKind, SubscriptionRecord,
    SubscriptionRef, Upserted,
};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// The most rows that a store may have to commit together.
const FULL: usize = 64;

/// Rows that have neither endpoint nor id in common.
#[derive(Default)]
pub(super) struct Page {
    rows: Vec<ImportedSubscription>,
    keys: HashSet<EndpointKey>,
    ids: HashSet<SubscriptionId>,
}

/// The result of one row, with the number of its daily notifications.
enum Taken {
    Created(u64),
    /// The row is stored already. This many daily notifications were missing.
    Known(u64),
    Superseded,
    Refused(RefusedRow),
}

/// The parts that every row is written with.
#[derive(Clone)]
struct Writer {
    engine: Engine,
    default_vapid_key: KeyId,
    daily_after: Timestamp,
    now: Timestamp,
    is_dry_run: bool,
}

impl Page {
    pub(super) const fn is_full(&self) -> bool {
        self.rows.len() >= FULL
    }

    /// Whether it has a row with the endpoint or the id of this one.
    pub(super) fn names(&self, row: &ImportedSubscription) -> bool {
        self.keys.contains(&row.subscription.endpoint().key())
            || row.id.is_some_and(|id| self.ids.contains(&id))
    }

    pub(super) fn push(&mut self, row: ImportedSubscription) {
        self.keys.insert(row.subscription.endpoint().key());
        self.ids.extend(row.id);
        self.rows.push(row);
    }

    pub(super) async fn write(self, import: &mut Import) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let engine = import.engine.clone();
        let now = engine.now();
        let writer = Writer {
            default_vapid_key: import
                .active
                .unwrap_or_else(|| engine.key_ring.active().id()),
            daily_after: import.daily_after(now),
            now,
            is_dry_run: import.is_dry_run,
            engine,
        };
        let mut standing = writer.standing(&self.rows).await?.into_iter();
        if !import.is_dry_run {
            // What was written is counted anew.
            import.room = Room::default();
        }
        // The tasks belong to this call: dropping it stops them all, each before or after its change.
        let mut tasks = JoinSet::new();
        for row in self.rows {
            let standing = standing.next().flatten();
            if standing.is_none()
                && let Some(kind) = writer.refusal(&row, &mut import.room).await?
            {
                import.report.refuse(row.refused(kind, None));
                continue;
            }
            let writer = writer.clone();
            tasks.spawn(async move { writer.take(row, standing).await });
        }
        while let Some(taken) = tasks.join_next().await {
            let report = &mut import.report;
            match taken.map_err(panicked)?? {
                Taken::Created(daily) => {
                    report.created += 1;
                    report.daily += daily;
                }
                Taken::Known(0) => report.unchanged += 1,
                Taken::Known(daily) => {
                    report.updated += 1;
                    report.daily += daily;
                }
                Taken::Superseded => report.superseded += 1,
                Taken::Refused(refused) => report.refuse(refused),
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Returns the row stored under each row's endpoint, or else under its id.
    async fn standing(
        &self,
        rows: &[ImportedSubscription],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let names = rows.iter().flat_map(|row| {
            let key = SubscriptionRef::Key(row.subscription.endpoint().key());
            [key, row.id.map_or(key, SubscriptionRef::Id)]
        });
        let names: Vec<_> = names.collect();
        let mut found = self.engine.subscriptions.get(&names).await?.into_iter();
        let mut one = || found.next().flatten();
        Ok(rows
            .iter()
            .map(|_| {
                let (of_endpoint, of_id) = (one(), one());
                of_endpoint.or(of_id)
            })
            .collect())
    }

    /// Why a row that is not stored is refused. Otherwise it takes a place of its principal.
    async fn refusal(
        &self,
        row: &ImportedSubscription,
        room: &mut Room,
    ) -> Result<Option<RefusalKind>, StoreError> {
        // Of any id: the row may get its own later.
        let id = SubscriptionId::from_bytes([0; 16]);
        if self.schedules(id, row.daily.clone()).is_none() {
            return Ok(Some(RefusalKind::NeverDue));
        }
        let has_place = room.take(self, row.principal.as_ref()).await?;
        Ok((!has_place).then_some(RefusalKind::PrincipalFull))
    }

    async fn take(
        self,
        mut row: ImportedSubscription,
        standing: Option<SubscriptionRecord>,
    ) -> Result<Taken, StoreError> {
        let wanted = std::mem::take(&mut row.daily);
        if let Some(standing) = standing {
            return self.keep(row, &standing, wanted).await;
        }
        let id = row.id.unwrap_or_else(SubscriptionId::random);
        if !self.is_dry_run {
            let mut new = NewSubscription::new(row.subscription.clone(), self.default_vapid_key);
            new.id = id;
            new.principal.clone_from(&row.principal);
            new.tags = Some(std::mem::take(&mut row.tags));
            new.vapid_key = row.vapid_key;
            new.only_if_unknown = true;
            // The browser was last seen by the source, and its keys are not newer than that.
            let created_at = row.created_at.map_or(self.now, |at| at.min(self.now));
            // Rows that the operator imports are exempt from the limit on unproven rows.
            let limits = self.engine.limits.with_unproven(u64::MAX);
            let subscriptions = &self.engine.subscriptions;
            match subscriptions.upsert(&new, &limits, created_at).await {
                Ok(Upserted::Stored { .. }) => {}
                Ok(Upserted::Conflict) => {
                    // The page subscribed here at the same time.
                    let rows = std::slice::from_ref(&row);
                    let standing = self.standing(rows).await?.into_iter().next().flatten();
                    return match standing {
                        Some(standing) => self.keep(row, &standing, wanted).await,
                        None => Ok(Taken::Superseded),
                    };
                }
                Err(error) => return full(row, error),
            }
        }
        match self.put(id, wanted, &[]).await {
            Ok(daily) => Ok(Taken::Created(daily)),
            Err(error) => full(row, error),
        }
    }

    /// Keeps the stored row and adds its missing daily notifications.
    async fn keep(
        &self,
        row: ImportedSubscription,
        standing: &SubscriptionRecord,
        wanted: Vec<Daily>,
    ) -> Result<Taken, StoreError> {
        let theirs = |principal| standing.principal.as_ref() == Some(principal);
        let is_same = standing.subscription.endpoint() == row.subscription.endpoint()
            && standing.subscription.same_keys(&row.subscription)
            && row.id.is_none_or(|id| id == standing.id)
            && row.principal.as_ref().is_none_or(theirs);
        if !is_same {
            return Ok(Taken::Superseded);
        }
        if wanted.is_empty() || standing.retired.is_some() {
            return Ok(Taken::Known(0));
        }
        let stored = self.engine.ledger.schedules(Some(standing.id)).await?;
        match self.put(standing.id, wanted, &stored).await {
            Ok(daily) => Ok(Taken::Known(daily)),
            Err(error) => full(row, error),
        }
    }

    /// Stores the daily notifications of types that are not stored yet. Returns their number.
    async fn put(
        &self,
        id: SubscriptionId,
        wanted: Vec<Daily>,
        stored: &[Schedule],
    ) -> Result<u64, StoreError> {
        let is_stored = |notify_type: NotifyType| {
            let name = ScheduleName::Subscriber(id, notify_type);
            stored.iter().any(|schedule| schedule.name() == name)
        };
        let mut missing = wanted;
        missing.retain(|daily| !is_stored(daily.notify_type()));
        let schedules = self.schedules(id, missing).unwrap_or_default();
        for schedule in &schedules {
            if !self.is_dry_run {
                self.engine.put_schedule(schedule).await?;
            }
        }
        Ok(schedules.len() as u64)
    }

    /// Returns the schedules of a subscription, one of each type, or `None` if one would never be due.
    fn schedules(&self, id: SubscriptionId, wanted: Vec<Daily>) -> Option<Vec<Schedule>> {
        let mut types = HashSet::new();
        wanted
            .into_iter()
            .filter(|daily| types.insert(daily.notify_type()))
            .map(|daily| daily.schedule(id, self.daily_after))
            .collect()
    }
}

/// The number of further subscriptions that each principal may have: of a page, or of a whole dry run, which stores none.
#[derive(Default)]
pub(super) struct Room(HashMap<Principal, u64>);

impl Room {
    /// Takes a place. Returns `false` if there is none.
    async fn take(
        &mut self,
        writer: &Writer,
        principal: Option<&Principal>,
    ) -> Result<bool, StoreError> {
        let Some(principal) = principal else {
            return Ok(true);
        };
        let left = match self.0.get(principal) {
            Some(left) => *left,
            None => {
                let of_principal = Audience::User(principal.clone());
                let filter = CountFilter::new(of_principal, Liveness::Any);
                let subscriptions = &writer.engine.subscriptions;
                let stored = subscriptions.count(&filter, writer.now).await?;
                let limit = writer.engine.limits.per_principal;
                u64::from(limit.max(1)).saturating_sub(stored)
            }
        };
        self.0.insert(principal.clone(), left.saturating_sub(1));
        Ok(left > 0)
    }
}

/// A full store refuses only this row. Any other error stops the call.
fn full(row: ImportedSubscription, error: StoreError) -> Result<Taken, StoreError> {
    match error.kind() {
        StoreErrorKind::Full => Ok(Taken::Refused(row.refused(RefusalKind::StoreFull, None))),
        _ => Err(error),
    }
}

fn panicked(error: impl Into<BoxError>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::{AuthSecret, Subscription, SubscriptionId, UaPublicKey};

    const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

    fn row(number: usize, id: Option<SubscriptionId>) -> ImportedSubscription {
        let endpoint = format!("https://updates.push.services.mozilla.com/{number}");
        let auth = AuthSecret::from_bytes(&[1; AuthSecret::LEN]).unwrap();
        let keys = UaPublicKey::parse(P256DH).unwrap();
        let subscription = Subscription::new(endpoint.parse().unwrap(), keys, auth);
        let mut row = ImportedSubscription::new(subscription);
        row.id = id;
        row
    }

    #[test]
    fn a_page_names_the_endpoints_and_the_ids_of_its_rows() {
        let [id, other] = [1, 2].map(|octet| SubscriptionId::from_bytes([octet; 16]));
        let mut page = Page::default();
        page.push(row(1, Some(id)));
        for (number, id, is_named) in [
            (1, None, true),
            (1, Some(other), true),
            (2, Some(id), true),
            (2, Some(other), false),
            (2, None, false),
        ] {
            assert_eq!(page.names(&row(number, id)), is_named, "{number} {id:?}");
        }
    }
}
