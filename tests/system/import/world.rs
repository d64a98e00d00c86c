//! An application on memory, a push service, and rows of a source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::yield_now;
use tower_web_push::broadcast::{Audience, Principal, Tag};
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::import::{Import, ImportReport, ImportedSubscription, RefusedRow};
use tower_web_push::schedule::{Daily, DailyTime, NotifyType, Schedule};
use tower_web_push::store::{
    Change, CountFilter, MemoryStore, NewSubscription, ScheduleStore, StoreError, StoredVapidKey,
    SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Upserted, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, EndpointKey, Subscription, UaPublicKey};
use tower_web_push::testing::{ManualClock, TestPushService};
use tower_web_push::{WebPush, WebPushBuilder};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// 08:00 UTC.
pub(crate) const EIGHT: Timestamp = Timestamp::from_secs(1_800_000_000);
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

pub(crate) struct World {
    pub(crate) push: WebPush,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) service: TestPushService,
    pub(crate) clock: ManualClock,
}

/// Everything that an import may change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    pub(crate) rows: Vec<SubscriptionRecord>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) keys: Vec<StoredVapidKey>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_, builder| builder).await
    }

    pub(crate) async fn with(
        configure: impl FnOnce(&Arc<MemoryStore>, WebPushBuilder) -> WebPushBuilder,
    ) -> Self {
        let clock = ManualClock::new(EIGHT);
        let service = TestPushService::builder().clock(clock.clone()).build();
        let store = Arc::new(MemoryStore::new());
        let builder = WebPush::builder("mailto:ops@example.com")
            .store(Arc::clone(&store))
            .client(service.clone())
            .clock(clock.clone())
            .endpoint_policy(EndpointPolicy::public_hosts());
        Self {
            push: configure(&store, builder).build().await.unwrap(),
            store,
            service,
            clock,
        }
    }

    /// Imports these rows. Returns the import.
    pub(crate) async fn import<I>(&self, rows: I) -> Import
    where
        I: IntoIterator<Item = ImportedSubscription> + Send,
        I::IntoIter: Send,
    {
        let mut import = self.push.import();
        let rows: Vec<_> = rows.into_iter().map(Ok::<_, RefusedRow>).collect();
        import.add(rows).await.unwrap();
        import
    }

    /// Stores a subscription as its page posts it.
    pub(crate) async fn subscribe(&self, new: &NewSubscription) -> SubscriptionRecord {
        subscribe(&*self.store, new, self.clock.now()).await
    }

    pub(crate) async fn row(&self, number: u32) -> Option<SubscriptionRecord> {
        let which = [SubscriptionRef::Key(endpoint(number).key())];
        self.store.get(&which).await.unwrap().remove(0)
    }

    pub(crate) async fn content(&self) -> Content {
        content(&*self.store).await
    }

    /// Ticks until there is nothing to do.
    pub(crate) async fn settle(&self) {
        while !self.push.tick().await.unwrap().is_idle() {}
    }
}

/// Returns the rows of endpoints 0 to 99, in any state.
pub(crate) async fn content<S>(store: &S) -> Content
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let all: Vec<_> = (0..100)
        .map(|number| SubscriptionRef::Key(endpoint(number).key()))
        .collect();
    let rows = store.get(&all).await.unwrap();
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    let mut schedules = Vec::new();
    for row in &rows {
        schedules.extend(store.schedules(Some(row.id)).await.unwrap());
    }
    Content {
        rows,
        schedules,
        keys: store.keys().await.unwrap(),
    }
}

pub(crate) async fn subscribe(
    store: &impl SubscriptionStore,
    new: &NewSubscription,
    now: Timestamp,
) -> SubscriptionRecord {
    let limits = SubscriptionLimits::default();
    match store.upsert(new, &limits, now).await.unwrap() {
        Upserted::Stored { record, .. } => *record,
        Upserted::Conflict => panic!("a page may subscribe"),
    }
}

pub(crate) fn endpoint(number: u32) -> Endpoint {
    Endpoint::parse(&format!("https://push.example.net/{number}")).unwrap()
}

/// Makes a subscription of its own endpoint; `auth` determines its keys.
pub(crate) fn subscription(number: u32, auth: u8) -> Subscription {
    let auth = AuthSecret::from_bytes(&[auth; AuthSecret::LEN]).unwrap();
    Subscription::new(endpoint(number), UaPublicKey::parse(P256DH).unwrap(), auth)
}

pub(crate) fn imported(number: u32) -> ImportedSubscription {
    let mut imported = ImportedSubscription::new(subscription(number, 1));
    imported.row = Some(format!("row {number}"));
    imported
}

pub(crate) fn daily(hour: u8, text: &str) -> Daily {
    of_type(NotifyType::DirectNotification, hour, text)
}

pub(crate) fn of_type(notify_type: NotifyType, hour: u8, text: &str) -> Daily {
    let time = DailyTime::new(hour, 0).unwrap();
    Daily::new(notify_type, time, Some(text)).unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

type Hook = Box<dyn FnMut() -> Result<Option<NewSubscription>, StoreError> + Send>;

/// A subscriptions table that fails, or makes another upsert, just before an upsert.
pub(crate) struct Meddled {
    pub(crate) table: Arc<MemoryStore>,
    pub(crate) before_upsert: std::sync::Mutex<Hook>,
}

impl Meddled {
    pub(crate) fn new(
        table: &Arc<MemoryStore>,
        hook: impl FnMut() -> Result<Option<NewSubscription>, StoreError> + Send + 'static,
    ) -> Self {
        Self {
            table: Arc::clone(table),
            before_upsert: std::sync::Mutex::new(Box::new(hook)),
        }
    }
}

impl std::fmt::Debug for Meddled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddled")
    }
}

#[async_trait]
impl SubscriptionStore for Meddled {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let other = (self.before_upsert.lock().unwrap())()?;
        if let Some(other) = other {
            subscribe(&*self.table, &other, EIGHT).await;
        }
        let upserted = self.table.upsert(new, limits, now).await;
        // The response is in flight: the caller may be dropped before it arrives.
        yield_now().await;
        upserted
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.table.get(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.table.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.table.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        let table = &self.table;
        table.list_subscriptions(filter, after, limit, now).await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.table.count(filter, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.table.apply(changes, now).await
    }
}

/// Created, updated, unchanged, superseded, refused.
pub(crate) fn counts(report: &ImportReport) -> [u64; 5] {
    [
        report.created,
        report.updated,
        report.unchanged,
        report.superseded,
        report.refused,
    ]
}
