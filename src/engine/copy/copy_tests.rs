use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::*;
use crate::message::Notification;
use crate::schedule::{Daily, DailyTime, NotifyType, Plan, Schedule, ScheduleLabel, ScheduleName};
use crate::store::{
    Assignment, Change, Cursor, DayCount, DeliveryLedger as _, Failure, Firing, LiveCounts,
    MemoryStore, NewBroadcast, NewDelivery, NewSubscription, RetireReason, StoreError,
    StoreErrorKind, StoredVapidKey, SubscriptionFilter, SubscriptionLimits, SubscriptionPage,
    SubscriptionRecord, SubscriptionRef, SubscriptionStore, Upserted,
};
use crate::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey};
use crate::vapid::{KeyEncryptionKeys, VapidKey};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

/// Two stores and a journal.
struct World {
    folder: TempDir,
    from: MemoryStore,
    to: MemoryStore,
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn endpoint(number: usize) -> Endpoint {
    Endpoint::parse(&format!(
        "https://updates.push.services.mozilla.com/{number}"
    ))
    .unwrap()
}

fn named(number: usize) -> SubscriptionRef {
    SubscriptionRef::from(&endpoint(number))
}

fn new(number: usize) -> NewSubscription {
    let auth = AuthSecret::from_bytes(&[1; AuthSecret::LEN]).unwrap();
    let keys = UaPublicKey::parse(P256DH).unwrap();
    let subscription = Subscription::new(endpoint(number), keys, auth);
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

async fn subscribe(store: &MemoryStore, new: &NewSubscription, now: Timestamp) -> SubscriptionId {
    let limits = SubscriptionLimits::default().with_unproven(u64::MAX);
    match store.upsert(new, &limits, now).await.unwrap() {
        Upserted::Stored { record, .. } => record.id,
        Upserted::Conflict => panic!("a conflict"),
    }
}

async fn row(store: &MemoryStore, number: usize) -> Option<SubscriptionRecord> {
    store.get(&[named(number)]).await.unwrap().remove(0)
}

async fn unsubscribe(store: &MemoryStore, number: usize) {
    let row = row(store, number).await.unwrap();
    let gone = store.apply(&[Change::delete(&row)], at(99)).await.unwrap();
    assert_eq!(gone, 1);
    store.remove_schedules(row.id).await.unwrap();
}

fn daily(id: SubscriptionId, notify_type: NotifyType, hour: u8) -> Schedule {
    let time = DailyTime::new(hour, 0).unwrap();
    let daily = Daily::new(notify_type, time, None).unwrap();
    daily.schedule(id, at(0)).unwrap()
}

fn key(created_at: Timestamp) -> StoredVapidKey {
    let key = VapidKey::generate().unwrap();
    let sealed = KeyEncryptionKeys::default().seal(&key).unwrap();
    StoredVapidKey::new(key.id(), *key.public_key(), sealed, created_at, true)
}

async fn active(store: &MemoryStore) -> KeyId {
    store.keys().await.unwrap()[0].id
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            from: MemoryStore::new(),
            to: MemoryStore::new(),
        }
    }

    async fn with_rows(rows: usize) -> Self {
        let world = Self::new();
        for number in 0..rows {
            subscribe(&world.from, &new(number), at(0)).await;
        }
        world
    }

    fn copy(&self) -> Copy {
        let journal = self.folder.path().join("journal");
        Copy::new(self.from.clone(), self.to.clone(), journal)
    }

    async fn pass(&self) -> CopyReport {
        self.copy().pass(|_| {}).await.unwrap()
    }

    async fn is_same(&self, numbers: std::ops::Range<usize>) {
        let all: Vec<_> = numbers.map(named).collect();
        let theirs = self.from.get(&all).await.unwrap();
        assert_eq!(theirs, self.to.get(&all).await.unwrap());
    }
}

#[tokio::test]
async fn rows_in_every_state_come_along_and_a_second_pass_changes_nothing() {
    let world = World::with_rows(3 * PAGE).await;
    let mut changes = Vec::new();
    for number in 0..300 {
        let key = endpoint(number).key();
        let observed_at = at(1);
        let reason = RetireReason::Gone;
        let failure = Failure::new(Some(410), Some("Gone"));
        changes.push(match number % 3 {
            0 => Change::Retire {
                key,
                reason,
                observed_at,
                failure,
            },
            1 => Change::Stale {
                key,
                observed_at,
                failure,
            },
            _ => Change::Failed { key, failure },
        });
    }
    world.from.apply(&changes, at(2)).await.unwrap();
    let mut seen = Vec::new();
    let report = world
        .copy()
        .pass(|report| seen.push(report.read))
        .await
        .unwrap();
    let total = 3 * PAGE as u64;
    assert_eq!(
        (report.total, report.read, report.written),
        (total, total, total)
    );
    assert!(report.is_first && !report.is_continued);
    assert!(seen.is_sorted() && seen.len() > 3, "{seen:?}");
    world.is_same(0..3 * PAGE).await;
    let again = world.pass().await;
    assert!(again.is_unchanged() && !again.is_first, "{again:?}");
    assert_eq!(again.read, total);
}

#[tokio::test]
async fn a_row_that_one_side_deleted_is_deleted_or_stays_deleted() {
    let world = World::with_rows(3 * PAGE).await;
    world.pass().await;
    // More than a page, in one range.
    for number in 0..PAGE + 5 {
        unsubscribe(&world.from, number).await;
    }
    // The last of them has registered with the target since.
    subscribe(&world.to, &new(0), at(10)).await;
    for number in PAGE + 5..PAGE + 9 {
        unsubscribe(&world.to, number).await;
    }
    // The last of those has registered with the source since.
    subscribe(&world.from, &new(PAGE + 5), at(10)).await;
    subscribe(&world.to, &new(9_999), at(10)).await;
    let report = world.pass().await;
    assert_eq!(report.deleted, PAGE as u64 + 4);
    assert_eq!((report.left_out, report.written), (3, 1));
    assert!(row(&world.to, 0).await.is_some());
    assert!(row(&world.to, 1).await.is_none());
    assert!(row(&world.to, PAGE + 5).await.is_some());
    assert!(row(&world.to, PAGE + 6).await.is_none());
    // It was never in the source.
    assert!(row(&world.to, 9_999).await.is_some());
    world.is_same(PAGE + 9..3 * PAGE).await;
    assert!(world.pass().await.is_unchanged());
}

/// More than the journal is asked for at once. One that stayed there has unsubscribed at the target.
#[tokio::test]
async fn a_range_that_the_source_has_lost_is_copied_in_parts() {
    let rows = 5 * PAGE;
    let world = World::with_rows(rows).await;
    world.pass().await;
    let mut numbers: Vec<_> = (0..rows).collect();
    numbers.sort_by_key(|number| endpoint(*number).key());
    let stays = numbers.remove(10);
    for number in &numbers[..2 * PAGE + 9] {
        unsubscribe(&world.from, *number).await;
    }
    unsubscribe(&world.to, stays).await;
    let report = world.pass().await;
    assert_eq!((report.deleted, report.left_out), (2 * PAGE as u64 + 9, 1));
    assert_eq!(row(&world.to, stays).await, None);
    assert!(world.pass().await.is_unchanged());
}

#[tokio::test]
async fn the_later_registration_stays() {
    let world = World::with_rows(4).await;
    world.pass().await;
    let tagged = |number| {
        let mut new = new(number);
        new.tags = Some(["news".parse().unwrap()].into());
        new
    };
    subscribe(&world.from, &tagged(0), at(10)).await;
    subscribe(&world.to, &tagged(1), at(10)).await;
    let key = endpoint(1).key();
    let reason = RetireReason::Gone;
    let retire = Change::Retire {
        key,
        reason,
        observed_at: at(5),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(6)).await.unwrap();
    let report = world.pass().await;
    assert_eq!(report.written, 1);
    let (first, second) = (
        row(&world.to, 0).await.unwrap(),
        row(&world.to, 1).await.unwrap(),
    );
    assert_eq!((first.tags.len(), second.tags.len()), (1, 1));
    assert_eq!(second.retired, None);
}

/// As an administrator does.
async fn assign(store: &MemoryStore, number: usize, user: &str) {
    let row = row(store, number).await.unwrap();
    let assignment = Assignment {
        principal: Some(Some(user.into())),
        tags: Some(["news".parse().unwrap()].into()),
    };
    let new = NewSubscription::assigning(&row, assignment);
    let limits = SubscriptionLimits::default();
    store.upsert(&new, &limits, at(5)).await.unwrap();
}

/// An administrator's assignment makes no newer version of a row.
#[tokio::test]
async fn an_assignment_comes_along_and_reverts_none() {
    let world = World::with_rows(5).await;
    world.pass().await;
    for (store, number, user) in [
        (&world.from, 0, "alice"),
        (&world.from, 1, "bob"),
        (&world.to, 1, "carol"),
        (&world.to, 2, "dave"),
        (&world.to, 3, "erin"),
    ] {
        assign(store, number, user).await;
    }
    // A later response in the source.
    let accepted = Change::Accepted(endpoint(3).key());
    world.from.apply(&[accepted], at(6)).await.unwrap();
    let user = async |number| {
        let row = row(&world.to, number).await.unwrap();
        assert_eq!(row.tags.len(), usize::from(row.principal.is_some()));
        row.principal.map(|user| user.as_str().to_owned())
    };
    let expected = [
        Some("alice"),
        Some("carol"),
        Some("dave"),
        Some("erin"),
        None,
    ];
    let report = world.pass().await;
    assert_eq!((report.read, report.written), (5, 2));
    for _ in 0..2 {
        for (number, expected) in expected.iter().enumerate() {
            assert_eq!(user(number).await.as_deref(), *expected, "{number}");
        }
        let written = row(&world.to, 3).await.unwrap();
        assert_eq!(written.last_success_at, Some(at(6)));
        assert!(world.pass().await.is_unchanged());
    }
    // It is taken back.
    let row = row(&world.from, 0).await.unwrap();
    let assignment = Assignment {
        principal: Some(None),
        tags: Some([].into()),
    };
    let new = NewSubscription::assigning(&row, assignment);
    let limits = SubscriptionLimits::default();
    world.from.upsert(&new, &limits, at(7)).await.unwrap();
    assert_eq!(world.pass().await.written, 1);
    assert_eq!(user(0).await, None);
}

/// Its id moves to another endpoint between the passes.
#[tokio::test]
async fn a_renewed_subscription_keeps_its_id_and_its_notifications() {
    let world = World::with_rows(0).await;
    for number in 0..20 {
        let id = subscribe(&world.from, &new(number), at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
    }
    world.pass().await;
    for number in 0..20 {
        let mut renewed = new(number + 100);
        renewed.replaces = Some(endpoint(number).key());
        subscribe(&world.from, &renewed, at(10)).await;
    }
    world.pass().await;
    for number in 0..20 {
        assert_eq!(row(&world.to, number).await, None);
        let renewed = row(&world.to, number + 100).await.unwrap();
        assert_eq!(
            Some(&renewed),
            row(&world.from, number + 100).await.as_ref()
        );
        let schedules = world.to.schedules(Some(renewed.id)).await.unwrap();
        assert_eq!(schedules.len(), 1);
    }
}

/// Its new endpoint is on a later page: the target keeps it until then, with what it has of its own.
#[tokio::test]
async fn a_subscription_that_moves_to_a_later_page_is_not_deleted_in_between() {
    let world = World::new();
    let mut numbers: Vec<_> = (0..2 * PAGE).collect();
    numbers.sort_by_key(|number| endpoint(*number).key());
    let (first, last) = (numbers[0], numbers.pop().unwrap());
    for number in numbers {
        subscribe(&world.from, &new(number), at(0)).await;
    }
    let id = row(&world.from, first).await.unwrap().id;
    world.pass().await;
    let schedule = daily(id, NotifyType::DirectNotification, 8);
    world.to.put_schedule(&schedule).await.unwrap();
    let mut renewed = new(last);
    renewed.replaces = Some(endpoint(first).key());
    assert_eq!(subscribe(&world.from, &renewed, at(10)).await, id);
    let report = world.pass().await;
    assert_eq!(report.deleted, 0);
    assert_eq!(row(&world.to, first).await, None);
    assert_eq!(row(&world.to, last).await.unwrap().id, id);
    assert_eq!(hours(&world.to, id).await, [8]);
}

#[tokio::test]
async fn a_row_that_is_deleted_goes_with_its_notifications() {
    let world = World::with_rows(3).await;
    let id = row(&world.from, 0).await.unwrap().id;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    assert_eq!(hours(&world.to, id).await, [7]);
    unsubscribe(&world.from, 0).await;
    let report = world.pass().await;
    assert_eq!((report.deleted, report.schedules), (1, 1));
    assert_eq!(hours(&world.to, id).await, [0; 0]);
}

#[tokio::test]
async fn daily_notifications_are_added_changed_and_removed() {
    use NotifyType::{DailyCheck, DirectNotification};
    let world = World::with_rows(0).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        let id = subscribe(&world.from, &new(number), at(0)).await;
        world
            .from
            .put_schedule(&daily(id, DailyCheck, 7))
            .await
            .unwrap();
        ids.push(id);
    }
    assert_eq!(world.pass().await.schedules, 6);
    let (from, to) = (&world.from, &world.to);
    let name = |number: usize| ScheduleName::Subscriber(ids[number], DailyCheck);
    // Added, removed and changed in the source.
    from.put_schedule(&daily(ids[0], DirectNotification, 8))
        .await
        .unwrap();
    from.remove_schedule(&name(1)).await.unwrap();
    from.put_schedule(&daily(ids[2], DailyCheck, 9))
        .await
        .unwrap();
    // Added, removed and changed in the target: the last by a registration, as all changes are.
    to.put_schedule(&daily(ids[3], DirectNotification, 8))
        .await
        .unwrap();
    to.remove_schedule(&name(4)).await.unwrap();
    subscribe(to, &new(5), at(10)).await;
    to.put_schedule(&daily(ids[5], DailyCheck, 9))
        .await
        .unwrap();
    assert_eq!(world.pass().await.schedules, 3);
    let mut found = Vec::new();
    for id in &ids {
        found.push(hours(to, *id).await);
    }
    assert_eq!(
        found,
        [vec![7, 8], vec![], vec![9], vec![7, 8], vec![], vec![9]]
    );
    assert!(world.pass().await.is_unchanged());
}

/// Also where the first pass finds it retired.
#[tokio::test]
async fn a_retired_subscription_keeps_its_notifications() {
    let world = World::with_rows(0).await;
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    let (key, reason) = (endpoint(0).key(), RetireReason::Gone);
    let retire = Change::Retire {
        key,
        reason,
        observed_at: at(1),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(1)).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(world.to.schedules(Some(id)).await.unwrap(), [schedule]);
    // Registered again in the target, and without them.
    subscribe(&world.to, &new(0), at(5)).await;
    world.to.remove_schedules(id).await.unwrap();
    assert!(world.pass().await.is_unchanged());
}

/// What the source has sent is not sent again by the target.
#[tokio::test]
async fn an_occurrence_that_the_source_has_sent_is_skipped() {
    let world = World::with_rows(0).await;
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.from.record_run(at(5)).await.unwrap();
    let (past, future) = (1_700_000_000, 4_000_000_000);
    let days = [(3, past), (4, future)];
    let days = days.map(|(live, at)| DayCount::new(live, Timestamp::from_secs(at)));
    world.from.record_days(&days).await.unwrap();
    world.pass().await;
    let next = schedule.next_fire_at + std::time::Duration::from_secs(24 * 3600);
    let firing = Firing::new(&schedule, next, None);
    world.from.fire(&[firing], at(0)).await.unwrap();
    world.pass().await;
    let there = world.to.schedules(Some(id)).await.unwrap();
    assert_eq!(there[0].next_fire_at, next);
    assert_eq!(world.to.last_run().await.unwrap(), Some(at(5)));
    // The second day has not come by the clock of the copy.
    assert_eq!(world.to.days(Timestamp::MAX).await.unwrap(), days[..1]);
    // The target is never moved back.
    let firing = Firing::new(
        &there[0],
        next + std::time::Duration::from_secs(24 * 3600),
        None,
    );
    world.to.fire(&[firing], at(0)).await.unwrap();
    assert!(world.pass().await.is_unchanged());
}

#[tokio::test]
async fn keys_come_first_and_a_rotation_comes_along() {
    let world = World::with_rows(1).await;
    let (first, second) = (key(at(0)), key(at(10)));
    world.from.insert(&first).await.unwrap();
    assert_eq!(world.pass().await.vapid_keys, 1);
    assert_eq!(
        world.to.keys().await.unwrap(),
        world.from.keys().await.unwrap()
    );
    world.from.insert(&second).await.unwrap();
    world.pass().await;
    assert_eq!(active(&world.to).await, second.id);
    assert_eq!(world.to.keys().await.unwrap().len(), 2);
    // The target's own rotation stays.
    let own = key(at(5));
    world.to.insert(&own).await.unwrap();
    let report = world.pass().await;
    assert_eq!(report.own_active_key, Some(own.id));
    assert_eq!(active(&world.to).await, own.id);
    assert!(report.is_unchanged());
}

/// A server that uses the target removes keys that no subscription has.
#[tokio::test]
async fn a_key_that_is_removed_before_its_rows_come_is_written_again() {
    let world = World::new();
    let (old, active) = (key(at(0)), key(at(10)));
    world.from.insert(&old).await.unwrap();
    world.from.insert(&active).await.unwrap();
    for number in 0..PAGE + 1 {
        let mut new = new(number);
        new.default_vapid_key = old.id;
        subscribe(&world.from, &new, at(0)).await;
    }
    let copy = world.copy();
    let pass = copy.pass(|report| {
        if report.read <= PAGE as u64 {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let removed = std::pin::pin!(world.to.remove(&old.id)).poll(&mut context);
            assert!(removed.is_ready());
        }
    });
    pass.await.unwrap();
    let there = world.to.keys().await.unwrap();
    assert!(there.iter().any(|key| key.id == old.id && !key.active));
    assert!(there.iter().any(|key| key.id == active.id && key.active));
}

/// A store whose writes fail from some page on.
#[derive(Debug)]
struct Failing {
    store: MemoryStore,
    pages: AtomicUsize,
    /// Whether it has written what it says it has not.
    loses_answers: bool,
    /// The reads after which it takes no call.
    reads: AtomicUsize,
    /// Whether it cannot read any row.
    is_damaged: bool,
}

/// A store that takes no row before its VAPID key.
#[derive(Debug)]
struct Strict(MemoryStore);

#[async_trait]
impl SubscriptionStore for Failing {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        match self.reads.load(Relaxed) {
            0 => Err(StoreErrorKind::Unavailable.into()),
            _ => self.store.upsert(new, limits, now).await,
        }
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        if self.is_damaged {
            return Err(StoreErrorKind::Corrupt.into());
        }
        let take = |left: usize| left.checked_sub(1);
        match self.reads.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => self.store.get(which).await,
            Err(_) => Err(StoreErrorKind::Unavailable.into()),
        }
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.store.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &crate::broadcast::Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.store.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        self.store
            .list_subscriptions(filter, after, limit, now)
            .await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.store.count(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        self.store.count_live(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.store.apply(changes, now).await
    }
}

#[async_trait]
impl PortableStore for Failing {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.store.unreachable(state, after, limit).await
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        assert!(rows.len() <= crate::store::STEP);
        if self
            .pages
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_err()
        {
            if self.loses_answers {
                self.store.put(rows).await?;
            }
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "the disk is full",
            ));
        }
        self.store.put(rows).await
    }
}

#[async_trait]
impl SubscriptionStore for Strict {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        self.0.upsert(new, limits, now).await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.0.get(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.0.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &crate::broadcast::Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.0.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        self.0.list_subscriptions(filter, after, limit, now).await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.0.count(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        self.0.count_live(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.0.apply(changes, now).await
    }
}

#[async_trait]
impl PortableStore for Strict {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.0.unreachable(state, after, limit).await
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        let keys = self.0.keys().await?;
        let has_key = |row: &SubscriptionRecord| keys.iter().any(|key| key.id == row.vapid_key);
        assert!(rows.iter().all(has_key), "a row came before its key");
        self.0.put(rows).await
    }
}

/// A worker that uses the target would take it for one whose key is lost. The source gets the key while it is copied.
#[tokio::test]
async fn no_row_comes_before_its_key() {
    for is_retired in [false, true] {
        let world = World::new();
        world.from.insert(&key(at(0))).await.unwrap();
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Strict(world.to.clone()));
        let mut is_written = false;
        let pass = copy.pass(|_| {
            if std::mem::replace(&mut is_written, true) {
                return;
            }
            let late = async {
                let fresh = key(at(10));
                world.from.insert(&fresh).await.unwrap();
                let mut new = new(0);
                new.default_vapid_key = fresh.id;
                subscribe(&world.from, &new, at(10)).await;
                let retire = Change::Retire {
                    key: endpoint(0).key(),
                    reason: RetireReason::Gone,
                    observed_at: at(11),
                    failure: Failure::new(Some(410), None),
                };
                if is_retired {
                    world.from.apply(&[retire], at(11)).await.unwrap();
                }
            };
            late.now_or_never().unwrap();
        });
        assert_eq!(pass.await.unwrap().written, 1);
        assert!(row(&world.to, 0).await.is_some(), "{is_retired}");
    }
}

#[tokio::test]
async fn a_pass_that_stopped_continues_behind_what_the_target_has() {
    let world = World::with_rows(5 * PAGE).await;
    let mut copied = 0;
    for attempt in 0..4 {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(1),
            loses_answers: false,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        let error = copy.pass(|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::Target);
        copied += PAGE as u64;
        let to = Side::new(world.to.clone());
        assert_eq!(to.count(at(0)).await.unwrap(), copied, "{attempt}");
    }
    let report = world.pass().await;
    assert!(report.is_continued && report.is_first);
    assert_eq!(
        (report.read, report.written),
        (5 * PAGE as u64, PAGE as u64)
    );
    world.is_same(0..5 * PAGE).await;
    assert!(world.pass().await.is_unchanged());
}

/// The target has the rows of a page, and the journal does not say so yet.
#[tokio::test]
async fn what_changes_after_a_pass_that_stopped_comes_along_and_reverts_nothing() {
    let world = World::with_rows(6).await;
    let stopped = async || {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers: true,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
    };
    let users = async || {
        let mut users = Vec::new();
        for number in 0..6 {
            let row = row(&world.to, number).await;
            users.push(row.map(|row| row.principal.map(|user| user.as_str().to_owned())));
        }
        users
    };
    let user = |name: &str| Some(Some(name.to_owned()));
    stopped().await;
    assert_eq!(users().await, vec![Some(None); 6]);
    assign(&world.from, 0, "alice").await;
    assign(&world.to, 1, "bob").await;
    for (store, name) in [(&world.from, "carol"), (&world.to, "dave")] {
        assign(store, 2, name).await;
    }
    unsubscribe(&world.from, 3).await;
    let mut expected = vec![user("alice"), user("bob"), user("dave"), None];
    expected.resize(6, Some(None));
    for _ in 0..2 {
        world.pass().await;
        assert_eq!(users().await, expected);
    }
    assert!(world.pass().await.is_unchanged());
    // A later one, which had assigned before it stopped.
    assign(&world.from, 4, "erin").await;
    subscribe(&world.from, &new(9), at(10)).await;
    stopped().await;
    assign(&world.from, 4, "frank").await;
    assign(&world.from, 5, "grace").await;
    expected[4] = user("frank");
    expected[5] = user("grace");
    for _ in 0..2 {
        world.pass().await;
        assert_eq!(users().await, expected);
    }
    assert!(row(&world.to, 9).await.is_some());
}

/// It is in no page of the source any more, and in no journal but that of what was about to be written.
#[tokio::test]
async fn what_is_assigned_after_a_pass_that_stopped_stays_though_the_row_is_retired() {
    let world = World::with_rows(1).await;
    let mut copy = world.copy();
    copy.to.subscriptions = Arc::new(Failing {
        store: world.to.clone(),
        pages: AtomicUsize::new(0),
        loses_answers: true,
        reads: AtomicUsize::new(usize::MAX),
        is_damaged: false,
    });
    copy.pass(|_| {}).await.unwrap_err();
    assign(&world.to, 0, "bob").await;
    let retire = Change::Retire {
        key: endpoint(0).key(),
        reason: RetireReason::Gone,
        observed_at: at(1),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(2)).await.unwrap();
    world.pass().await;
    let row = row(&world.to, 0).await.unwrap();
    assert_eq!(row.principal, Some("bob".into()));
    assert!(row.retired.is_some(), "{row:?}");
}

/// Each time after it has recorded what it is about to write.
#[tokio::test]
async fn a_pass_that_stops_twice_on_one_page_knows_all_that_the_target_may_have() {
    let world = World::with_rows(4).await;
    let stopped = async |writes| {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers: writes,
            reads: AtomicUsize::new(if writes { usize::MAX } else { 1 }),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
    };
    let user = async |number| {
        let row = row(&world.to, number).await;
        row.map(|row| row.principal.map(|user| user.as_str().to_owned()))
    };
    // The target has all of them.
    stopped(true).await;
    assign(&world.from, 0, "alice").await;
    unsubscribe(&world.from, 1).await;
    subscribe(&world.from, &new(2), at(5)).await;
    // It has none of this.
    stopped(false).await;
    assign(&world.from, 0, "frank").await;
    // Now it has a later registration, which leaves the source then.
    stopped(true).await;
    assert!(
        row(&world.to, 2)
            .await
            .is_some_and(|row| row.last_seen_at == at(5))
    );
    unsubscribe(&world.from, 2).await;
    stopped(false).await;
    for _ in 0..2 {
        world.pass().await;
        assert_eq!(user(0).await, Some(Some("frank".to_owned())));
        assert_eq!(user(1).await, None);
        assert_eq!(user(2).await, None);
        assert_eq!(user(3).await, Some(None));
    }
    // The same beside a pass that has ended.
    subscribe(&world.from, &new(3), at(9)).await;
    stopped(true).await;
    unsubscribe(&world.from, 3).await;
    stopped(false).await;
    world.pass().await;
    assert_eq!(user(3).await, None);
}

/// Else all of its subscribers would be taken for ones who have left.
#[tokio::test]
async fn a_store_that_was_emptied_is_refused() {
    for is_source in [true, false] {
        let mut world = World::with_rows(10).await;
        world.pass().await;
        match is_source {
            true => world.from = MemoryStore::new(),
            false => world.to = MemoryStore::new(),
        }
        let error = world.copy().pass(|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::LostRows);
        let kept = if is_source { &world.to } else { &world.from };
        assert!(row(kept, 3).await.is_some());
    }
}

/// As a server does that acknowledged them before they were on its disk.
#[tokio::test]
async fn rows_that_the_target_has_lost_are_not_taken_for_unsubscribed() {
    let world = World::with_rows(3 * PAGE).await;
    world.pass().await;
    let mut numbers: Vec<_> = (0..3 * PAGE).collect();
    numbers.sort_by_key(|number| endpoint(*number).key());
    // Of the first page.
    for number in &numbers[..PAGE / 2 + 1] {
        unsubscribe(&world.to, *number).await;
    }
    let error = world.copy().pass(|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), CopyErrorKind::LostRows);
    for name in ["journal", "journal.part"] {
        std::fs::remove_file(world.folder.path().join(name)).unwrap();
    }
    world.pass().await;
    world.is_same(0..3 * PAGE).await;
    // Half of a page may have left.
    for number in &numbers[..PAGE / 2] {
        unsubscribe(&world.to, *number).await;
    }
    assert_eq!(world.pass().await.left_out, PAGE as u64 / 2);
}

#[tokio::test]
async fn who_leaves_the_source_leaves_a_target_with_a_later_registration_of_before() {
    let world = World::with_rows(1).await;
    subscribe(&world.to, &new(0), at(5)).await;
    world.pass().await;
    unsubscribe(&world.from, 0).await;
    assert_eq!(world.pass().await.deleted, 1);
    assert_eq!(row(&world.to, 0).await, None);
}

#[tokio::test]
async fn a_row_that_is_written_again_gets_its_notifications_again() {
    let world = World::new();
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    unsubscribe(&world.to, 0).await;
    subscribe(&world.from, &new(0), at(10)).await;
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(world.to.schedules(Some(id)).await.unwrap(), [schedule]);
}

/// When the daily notifications of a subscription are.
async fn hours(store: &MemoryStore, id: SubscriptionId) -> Vec<u8> {
    let schedules = store.schedules(Some(id)).await.unwrap();
    schedules.iter().map(|one| one.time.hour()).collect()
}

/// The endpoint has one id in the source and another one in the target, and the pass stops once the row is written.
#[tokio::test]
async fn a_row_whose_id_changes_keeps_its_notifications_when_the_pass_stops() {
    use NotifyType::{DailyCheck, DirectNotification};
    let world = World::new();
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    unsubscribe(&world.to, 0).await;
    let other = subscribe(&world.to, &new(0), at(10)).await;
    assert_ne!(other, id);
    for schedule in [
        daily(other, DailyCheck, 7),
        daily(other, DirectNotification, 8),
    ] {
        world.to.put_schedule(&schedule).await.unwrap();
    }
    world.pass().await;
    assert_eq!(row(&world.to, 0).await.unwrap().id, other);
    // The browser registers with the source again.
    subscribe(&world.from, &new(0), at(20)).await;
    for loses_answers in [false, true] {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
        let id = row(&world.to, 0).await.unwrap().id;
        assert_eq!(hours(&world.to, id).await, [7, 8], "{loses_answers}");
    }
    world.pass().await;
    assert_eq!(row(&world.to, 0).await.unwrap().id, id);
    assert_eq!(hours(&world.to, id).await, [7, 8]);
    // Without a failure the former id keeps none.
    unsubscribe(&world.to, 0).await;
    let other = subscribe(&world.to, &new(0), at(30)).await;
    let schedule = daily(other, DirectNotification, 8);
    world.to.put_schedule(&schedule).await.unwrap();
    subscribe(&world.from, &new(0), at(40)).await;
    world.pass().await;
    assert_eq!(hours(&world.to, other).await, [0; 0]);
    assert_eq!(hours(&world.to, id).await, [8]);
}

/// Those that it has are its own.
#[tokio::test]
async fn an_id_is_given_the_types_that_it_does_not_have() {
    use NotifyType::{DailyCheck, DirectNotification};
    let world = World::new();
    let [former, id] = [SubscriptionId::random(), SubscriptionId::random()];
    for schedule in [
        daily(former, DailyCheck, 7),
        daily(former, DirectNotification, 8),
        daily(id, DailyCheck, 9),
    ] {
        world.to.put_schedule(&schedule).await.unwrap();
    }
    let given = world.copy().ledgers().give(former, id).await.unwrap();
    let missing = daily(id, DirectNotification, 8).name();
    assert!(given.iter().map(Schedule::name).eq([missing]));
    let mut hours = hours(&world.to, id).await;
    hours.sort_unstable();
    assert_eq!(hours, [8, 9]);
}

#[tokio::test]
async fn a_later_registration_in_the_target_keeps_its_notifications() {
    let world = World::new();
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    subscribe(&world.to, &new(0), at(10)).await;
    world.from.remove_schedules(id).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    assert_eq!(world.to.schedules(Some(id)).await.unwrap(), [schedule]);
}

fn scheduled(label: &str, hour: u8, text: &str) -> Schedule {
    let plan = Plan::Application {
        label: ScheduleLabel::parse(label).unwrap(),
        to: Audience::All,
        message: Notification::new(text).into(),
    };
    Schedule::new(plan, DailyTime::new(hour, 0).unwrap(), at(0))
}

/// The names of the application's schedules, with the hour and the number of octets of each.
async fn of_the_application(store: &MemoryStore) -> Vec<(String, u8, usize)> {
    let mut all = Vec::new();
    for schedule in store.schedules(None).await.unwrap() {
        let Plan::Application { label, .. } = &schedule.plan else {
            panic!("a subscriber's");
        };
        all.push((
            label.to_string(),
            schedule.time.hour(),
            octets_of(&schedule),
        ));
    }
    all
}

#[tokio::test]
async fn the_schedules_of_the_application_come_along() {
    let world = World::new();
    let schedule = scheduled("morning", 7, "hello");
    world.from.put_schedule(&schedule).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(world.to.schedules(None).await.unwrap(), [schedule]);
    assert!(world.pass().await.is_unchanged());
}

/// By `unschedule`, or by `forget` for its only user.
#[tokio::test]
async fn a_schedule_of_the_application_that_the_target_removed_is_not_written_again() {
    let world = World::new();
    for label in ["digest", "morning"] {
        let schedule = scheduled(label, 7, "hello");
        world.from.put_schedule(&schedule).await.unwrap();
    }
    assert_eq!(world.pass().await.schedules, 2);
    let digest = scheduled("digest", 7, "").name();
    assert!(world.to.remove_schedule(&digest).await.unwrap());
    for _ in 0..2 {
        assert!(world.pass().await.is_unchanged());
        let left = of_the_application(&world.to).await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, "morning");
    }
    // Also if the old servers, which still run, have changed it meanwhile.
    let changed = scheduled("digest", 8, "hello again");
    world.from.put_schedule(&changed).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    // It has left both. What is new in the source is copied.
    world.from.remove_schedule(&digest).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    world.from.put_schedule(&changed).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
}

#[tokio::test]
async fn schedules_of_the_application_are_changed_and_removed_as_in_the_source() {
    let world = World::new();
    let (from, to) = (&world.from, &world.to);
    let put = async |store: &MemoryStore, label, hour, text| {
        let schedule = scheduled(label, hour, text);
        store.put_schedule(&schedule).await.unwrap();
    };
    let name = |label| scheduled(label, 0, "").name();
    for label in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        put(from, label, 7, "hello").await;
    }
    // The target had made one of its own before the first pass.
    put(to, "h", 9, "of the target").await;
    assert_eq!(world.pass().await.schedules, 7);
    // In the source: another time, another text, removed.
    put(from, "a", 8, "hello").await;
    put(from, "b", 7, "hello to all").await;
    from.remove_schedule(&name("c")).await.unwrap();
    // Only in the target: another text. In both: another one each; removed here and changed there.
    put(to, "d", 7, "of the target").await;
    put(from, "e", 8, "hello").await;
    put(to, "e", 9, "of the target").await;
    from.remove_schedule(&name("f")).await.unwrap();
    put(to, "f", 9, "of the target").await;
    // The same again, as servers that start do: only the drawn tag is another one.
    put(to, "g", 7, "hello").await;
    put(from, "h", 7, "hello").await;
    put(to, "i", 9, "of the target").await;
    assert_eq!(world.pass().await.schedules, 3);
    let of_target = octets_of(&scheduled("a", 0, "of the target"));
    let hello = octets_of(&scheduled("a", 0, "hello"));
    let expected = [
        ("a", 8, hello),
        ("b", 7, octets_of(&scheduled("a", 0, "hello to all"))),
        ("d", 7, of_target),
        ("e", 9, of_target),
        ("f", 9, of_target),
        ("g", 7, hello),
        ("h", 9, of_target),
        ("i", 9, of_target),
    ];
    let expected = expected.map(|(label, hour, octets)| (label.to_owned(), hour, octets));
    assert_eq!(of_the_application(to).await, expected);
    assert!(world.pass().await.is_unchanged());
    assert_eq!(of_the_application(to).await, expected);
}

fn octets_of(schedule: &Schedule) -> usize {
    let Plan::Application { message, .. } = &schedule.plan else {
        panic!("a subscriber's");
    };
    message.payload().map_or(0, |payload| payload.len())
}

async fn of(user: &str, number: usize, store: &MemoryStore, now: Timestamp) -> SubscriptionId {
    let mut new = new(number);
    new.principal = Some(user.into());
    subscribe(store, &new, now).await
}

/// A user's text would be shown to the next user of the browser.
#[tokio::test]
async fn who_takes_over_a_browser_gets_no_notifications_of_the_former_user() {
    use NotifyType::{DailyCheck, DirectNotification};
    for (here, there, left) in [(0, 10, false), (20, 10, true)] {
        let world = World::new();
        // The other order of ids: one row of alice, which bob has taken over in the other store.
        let theirs = of(if left { "bob" } else { "alice" }, 0, &world.from, at(here)).await;
        let ours = of(if left { "alice" } else { "bob" }, 0, &world.to, at(there)).await;
        assert_ne!(theirs, ours);
        let of_alice = if left {
            (&world.to, ours)
        } else {
            (&world.from, theirs)
        };
        let schedule = daily(of_alice.1, DailyCheck, 7);
        of_alice.0.put_schedule(&schedule).await.unwrap();
        for _ in 0..2 {
            world.pass().await;
            for id in [theirs, ours] {
                assert_eq!(hours(&world.to, id).await, [0; 0], "{left}");
            }
        }
        // Bob's own, of the same type, comes along, and stays.
        let id = subscribe(&world.from, &new(0), at(30)).await;
        let _ = of("bob", 0, &world.from, at(31)).await;
        world.from.remove_schedules(id).await.unwrap();
        for hour in [8, 9] {
            for notify_type in [DailyCheck, DirectNotification] {
                let schedule = daily(id, notify_type, hour);
                world.from.put_schedule(&schedule).await.unwrap();
            }
            world.pass().await;
            assert_eq!(hours(&world.to, id).await, [hour, hour], "{left}");
        }
    }
}

/// The former user's are in both stores before.
#[tokio::test]
async fn a_browser_that_changes_hands_between_the_passes_keeps_no_notifications() {
    for in_source in [true, false] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [7]);
        let taken = if in_source { &world.from } else { &world.to };
        assert_eq!(of("bob", 0, taken, at(10)).await, id);
        taken.remove_schedules(id).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [0; 0], "{in_source}");
        // What bob has set in the target is not taken for alice's.
        if in_source {
            continue;
        }
        let own = daily(id, NotifyType::DailyCheck, 9);
        world.to.put_schedule(&own).await.unwrap();
        world.pass().await;
        of("bob", 0, &world.from, at(20)).await;
        world.from.remove_schedules(id).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [9]);
    }
}

/// Its id stays, with another user and another endpoint. It may be retired since.
#[tokio::test]
async fn a_subscription_that_another_user_renewed_keeps_no_notifications() {
    for is_retired in [false, true] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        world.pass().await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.to.put_schedule(&schedule).await.unwrap();
        let mut renewed = new(1);
        renewed.principal = Some("bob".into());
        renewed.replaces = Some(endpoint(0).key());
        assert_eq!(subscribe(&world.from, &renewed, at(10)).await, id);
        if is_retired {
            let retire = Change::Retire {
                key: endpoint(1).key(),
                reason: RetireReason::Gone,
                observed_at: at(11),
                failure: Failure::new(Some(410), None),
            };
            world.from.apply(&[retire], at(11)).await.unwrap();
        }
        world.pass().await;
        assert_eq!(row(&world.to, 1).await.unwrap().id, id);
        assert_eq!(hours(&world.to, id).await, [0; 0], "{is_retired}");
    }
}

/// A row that the target does not take, since its endpoint has a newer one there, leaves the other row of its id alone.
#[tokio::test]
async fn a_retired_row_that_is_not_written_gives_no_notifications() {
    let world = World::new();
    let id = of("alice", 0, &world.from, at(0)).await;
    world.pass().await;
    let mut renewed = new(1);
    renewed.principal = Some("bob".into());
    renewed.replaces = Some(endpoint(0).key());
    subscribe(&world.from, &renewed, at(10)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    let retire = Change::Retire {
        key: endpoint(1).key(),
        reason: RetireReason::Gone,
        observed_at: at(11),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(11)).await.unwrap();
    of("bob", 1, &world.to, at(30)).await;
    world.pass().await;
    assert_eq!(
        row(&world.to, 0).await.and_then(|row| row.principal),
        Some("alice".into())
    );
    assert_eq!(hours(&world.to, id).await, [0; 0]);
}

/// As one user, or none, has it in both stores. An administrator's assignment hands nothing over.
#[tokio::test]
async fn notifications_of_one_user_follow_the_later_registration() {
    for user in [None, Some("alice")] {
        let world = World::new();
        let mut new = new(0);
        new.principal = user.map(Into::into);
        let theirs = subscribe(&world.from, &new, at(20)).await;
        let ours = subscribe(&world.to, &new, at(10)).await;
        let schedule = daily(ours, NotifyType::DailyCheck, 7);
        world.to.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, theirs).await, [7]);
        assign(&world.from, 0, "carol").await;
        world.pass().await;
        assert_eq!(hours(&world.to, theirs).await, [7]);
    }
}

/// A browser that registers again without a user keeps that of its row.
#[tokio::test]
async fn a_later_registration_without_a_user_keeps_the_notifications() {
    for in_source in [true, false] {
        let world = World::new();
        let (with, without) = match in_source {
            true => (&world.from, &world.to),
            false => (&world.to, &world.from),
        };
        let id = of("alice", 0, with, at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        with.put_schedule(&schedule).await.unwrap();
        subscribe(without, &new(0), at(10)).await;
        // Also by later passes.
        for _ in 0..2 {
            world.pass().await;
            let there = row(&world.to, 0).await.unwrap();
            match in_source {
                // The target's row is the later one, and has no user: the next one who signs in is not alice.
                true => {
                    assert_eq!(there.principal, None);
                    assert_eq!(hours(&world.to, there.id).await, [0; 0]);
                }
                false => {
                    assert_eq!(there.principal, Some("alice".into()));
                    assert_eq!(hours(&world.to, there.id).await, [7]);
                }
            }
        }
    }
}

/// In both stores, between two passes: nothing of the former user is taken for known.
#[tokio::test]
async fn the_next_user_in_both_stores_keeps_their_notifications() {
    for (in_source, in_target) in [(12, 11), (11, 12)] {
        for is_in_source in [true, false] {
            let world = World::new();
            let id = of("alice", 0, &world.from, at(0)).await;
            let schedule = daily(id, NotifyType::DailyCheck, 7);
            world.from.put_schedule(&schedule).await.unwrap();
            world.pass().await;
            assert_eq!(hours(&world.to, id).await, [7]);
            for (store, seen) in [(&world.from, in_source), (&world.to, in_target)] {
                store.remove_schedules(id).await.unwrap();
                of("bob", 0, store, at(seen)).await;
            }
            let store = if is_in_source { &world.from } else { &world.to };
            let theirs = row(store, 0).await.unwrap().id;
            let schedule = daily(theirs, NotifyType::DailyCheck, 9);
            store.put_schedule(&schedule).await.unwrap();
            world.pass().await;
            let there = row(&world.to, 0).await.unwrap();
            assert_eq!(hours(&world.to, there.id).await, [9]);
        }
    }
}

/// When the pass goes on, the target has the row already, as if its user had removed the notifications there.
#[tokio::test]
async fn a_pass_that_stopped_behind_a_row_copies_its_notifications() {
    for user in ["alice", "bob"] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [7]);
        if user == "alice" {
            unsubscribe(&world.to, 0).await;
        }
        assert_eq!(of(user, 0, &world.from, at(10)).await, id);
        let schedule = daily(id, NotifyType::DailyCheck, 9);
        world.from.put_schedule(&schedule).await.unwrap();
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers: true,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
        drop(copy);
        let there = row(&world.to, 0).await.unwrap();
        assert_eq!(there.principal, Some(user.into()));
        assert_eq!(hours(&world.to, id).await, [0; 0]);
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [9], "{user}");
    }
}

/// One of the rows that it would replace is newer, and all of them stay.
#[tokio::test]
async fn a_row_that_the_target_does_not_take_removes_no_notifications() {
    for is_retired in [false, true] {
        let world = World::new();
        let id = of("bob", 0, &world.from, at(20)).await;
        // Those of its endpoint and of its id: alice's is the older one.
        let mut there = [row(&world.from, 0).await.unwrap(), new_row(0)];
        there[0].subscription = new(1).subscription;
        if is_retired {
            let retire = Change::Retire {
                key: endpoint(0).key(),
                reason: RetireReason::Gone,
                observed_at: at(21),
                failure: Failure::new(Some(410), None),
            };
            world.from.apply(&[retire], at(21)).await.unwrap();
        }
        let (older, newer) = match is_retired {
            true => (0, 1),
            false => (1, 0),
        };
        there[older].last_seen_at = at(10);
        there[older].principal = Some("alice".into());
        there[newer].last_seen_at = at(30);
        world.to.put(&there).await.unwrap();
        let schedule = daily(there[older].id, NotifyType::DailyCheck, 7);
        world.to.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        let ids = there.iter().map(|row| row.id.into()).collect::<Vec<_>>();
        let left = world.to.get(&ids).await.unwrap();
        assert_eq!(left, there.clone().map(Some), "{is_retired}");
        assert!(there.iter().any(|row| row.id == id));
        assert_eq!(hours(&world.to, there[older].id).await, [7], "{is_retired}");
    }
}

fn new_row(number: usize) -> SubscriptionRecord {
    let NewSubscription {
        id,
        subscription,
        default_vapid_key,
        ..
    } = new(number);
    SubscriptionRecord::new(id, subscription, default_vapid_key, at(0))
}

/// Nothing tells whose those are.
#[tokio::test]
async fn notifications_of_a_row_that_is_missing_or_unreadable_do_not_pass_to_that_of_the_source() {
    use NotifyType::{DailyCheck, DirectNotification};
    for is_damaged in [false, true] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        let schedule = daily(id, DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        let schedule = daily(id, DirectNotification, 8);
        world.to.put_schedule(&schedule).await.unwrap();
        if !is_damaged {
            let there = row(&world.to, 0).await.unwrap();
            let deletion = [Change::delete(&there)];
            world.to.apply(&deletion, at(5)).await.unwrap();
        }
        assert_eq!(of("bob", 0, &world.from, at(10)).await, id);
        let schedule = daily(id, DailyCheck, 9);
        world.from.put_schedule(&schedule).await.unwrap();
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(usize::MAX),
            loses_answers: false,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged,
        });
        copy.pass(|_| {}).await.unwrap();
        assert_eq!(hours(&world.to, id).await, [9], "{is_damaged}");
    }
}

/// When it is repeated, nothing tells any more that they were those of another user.
#[tokio::test]
async fn a_restoration_that_stopped_behind_a_row_leaves_none_of_the_former_user() {
    let world = World::new();
    let id = of("alice", 0, &world.to, at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.to.put_schedule(&schedule).await.unwrap();
    let mut bob = row(&world.to, 0).await.unwrap();
    bob.principal = Some("bob".into());
    bob.last_seen_at = at(10);
    world.from.put(&[bob.clone()]).await.unwrap();
    let mut file = Vec::new();
    let exported = export(world.from.clone(), &mut file, Secrets::Included, |_| {});
    exported.await.unwrap();
    let mut lines = std::io::Cursor::new(file);
    let mut to = Side::new(world.to.clone());
    to.subscriptions = Arc::new(Failing {
        store: world.to.clone(),
        pages: AtomicUsize::new(0),
        loses_answers: true,
        reads: AtomicUsize::new(usize::MAX),
        is_damaged: false,
    });
    let into = RestoreInto::Existing;
    let stopped = restore::restore_to(&to, &mut lines, into, |_| {}).await;
    assert_eq!(stopped.unwrap_err().kind(), CopyErrorKind::Target);
    lines.set_position(0);
    let report = restore(world.to.clone(), &mut lines, into, |_| {}).await;
    assert_eq!(report.unwrap().subscriptions, 0);
    assert_eq!(row(&world.to, 0).await, Some(bob));
    assert_eq!(hours(&world.to, id).await, [0; 0]);
}

#[tokio::test]
async fn a_row_that_is_retired_and_stale_counts_once() {
    let world = World::with_rows(2).await;
    let (key, observed_at) = (endpoint(0).key(), at(1));
    let failure = Failure::new(Some(410), None);
    let stale = Change::Stale {
        key,
        observed_at,
        failure,
    };
    let retire = Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at,
        failure,
    };
    world.from.apply(&[stale, retire], at(2)).await.unwrap();
    let there = row(&world.from, 0).await.unwrap();
    assert!(there.stale_since.is_some() && there.retired.is_some());
    let report = world.pass().await;
    assert_eq!((report.total, report.read, report.written), (2, 2, 2));
}

#[tokio::test]
async fn all_pages_of_retired_and_stale_rows_come_along() {
    let rows = 4 * PAGE + 6;
    let world = World::with_rows(rows).await;
    let (observed_at, failure) = (at(1), Failure::new(Some(410), None));
    let changes: Vec<_> = (0..rows)
        .map(|number| match (endpoint(number).key(), number % 2) {
            (key, 0) => Change::Stale {
                key,
                observed_at,
                failure,
            },
            (key, _) => Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at,
                failure,
            },
        })
        .collect();
    world.from.apply(&changes, at(2)).await.unwrap();
    assert_eq!(world.pass().await.written, rows as u64);
    world.is_same(0..rows).await;
}

/// What the source has sent of it is not sent again by the target, which is never moved back.
#[tokio::test]
async fn an_occurrence_of_the_application_that_the_source_has_sent_is_skipped() {
    let world = World::new();
    let schedule = scheduled("digest", 7, "x");
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    let day = std::time::Duration::from_secs(24 * 3600);
    let next = schedule.next_fire_at + day;
    let firing = Firing::new(&schedule, next, None);
    world.from.fire(&[firing], at(0)).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
    let there = world.to.schedules(None).await.unwrap();
    assert_eq!(there[0].next_fire_at, next);
    let firing = Firing::new(&there[0], next + day, None);
    world.to.fire(&[firing], at(0)).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    let there = world.to.schedules(None).await.unwrap();
    assert_eq!(there[0].next_fire_at, next + day);
}

/// Whoever switches off the source needs to know of them.
#[tokio::test]
async fn messages_that_are_pending_in_the_source_are_reported() {
    let world = World::with_rows(2).await;
    let deadline = at(4_000_000_000);
    let message = Notification::new("hello").into();
    let broadcast = NewBroadcast::new(Audience::All, message, deadline);
    world.from.open(&broadcast, at(0)).await.unwrap();
    let rows: Vec<_> = (0..2)
        .map(|number| NewDelivery::new(endpoint(number).key(), endpoint(number).origin().clone()))
        .collect();
    let (start, end) = (Cursor::Start, Cursor::End);
    let page = world
        .from
        .enqueue_page(broadcast.id, &start, &rows, &end, at(0));
    page.await.unwrap();
    assert_eq!(world.pass().await.pending, 2);
    world.from.cancel(broadcast.id, at(0)).await.unwrap();
    assert_eq!(world.pass().await.pending, 0);
}

/// Browsers subscribe with it.
#[tokio::test]
async fn a_target_with_keys_keeps_its_active_key() {
    let world = World::new();
    let (own, theirs) = (key(at(0)), key(at(10)));
    world.to.insert(&own).await.unwrap();
    world.from.insert(&theirs).await.unwrap();
    let report = world.pass().await;
    assert_eq!(active(&world.to).await, own.id);
    assert_eq!(world.to.keys().await.unwrap().len(), 2);
    assert_eq!(
        (report.own_active_key, report.vapid_keys),
        (Some(own.id), 1)
    );
}

/// Servers may have a higher limit than the default.
#[tokio::test]
async fn an_assignment_removes_no_other_device_of_the_user() {
    let world = World::new();
    let limits = SubscriptionLimits::new(u64::MAX, u32::MAX).with_unproven(u64::MAX);
    for number in 0..=40 {
        let mut new = new(number);
        new.principal = (number < 40).then(|| "alice".into());
        world.from.upsert(&new, &limits, at(0)).await.unwrap();
    }
    world.pass().await;
    let assignment = Assignment {
        principal: Some(Some("alice".into())),
        tags: None,
    };
    let unowned = row(&world.from, 40).await.unwrap();
    let new = NewSubscription::assigning(&unowned, assignment);
    world.from.upsert(&new, &limits, at(1)).await.unwrap();
    assert_eq!(world.pass().await.written, 1);
    for number in 0..=40 {
        let row = row(&world.to, number).await.unwrap();
        assert_eq!(row.principal, Some("alice".into()), "{number}");
    }
}

#[tokio::test]
async fn another_text_of_a_daily_notification_comes_along() {
    let world = World::with_rows(1).await;
    let id = row(&world.from, 0).await.unwrap().id;
    let put = async |store: &MemoryStore, text| {
        let time = DailyTime::new(7, 0).unwrap();
        let daily = Daily::new(NotifyType::DirectNotification, time, Some(text)).unwrap();
        let schedule = daily.schedule(id, at(0)).unwrap();
        store.put_schedule(&schedule).await.unwrap();
    };
    let text = async || match &world.to.schedules(Some(id)).await.unwrap()[0].plan {
        Plan::Subscriber { message, .. } => message.clone().unwrap(),
        Plan::Application { .. } => panic!("the application's"),
    };
    put(&world.from, "a").await;
    world.pass().await;
    put(&world.from, "b").await;
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(text().await, "b");
    assert!(world.pass().await.is_unchanged());
    // A later registration in the target has another one.
    subscribe(&world.to, &new(0), at(10)).await;
    put(&world.to, "c").await;
    assert!(world.pass().await.is_unchanged());
    assert_eq!(text().await, "c");
}

/// Also after a first pass that was interrupted.
#[tokio::test]
async fn a_store_that_was_emptied_after_an_interruption_is_refused() {
    for is_source in [true, false] {
        let mut world = World::with_rows(5 * PAGE).await;
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(3),
            loses_answers: false,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
        drop(copy);
        match is_source {
            true => world.from = MemoryStore::new(),
            false => world.to = MemoryStore::new(),
        }
        let error = world.copy().pass(|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::LostRows, "{is_source}");
    }
}
