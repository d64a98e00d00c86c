//! A copy into the store of an application that runs meanwhile: what happens between two calls of the copy.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::time::sleep;
use tower_web_push::copy::{Copy, CopyErrorKind, CopyReport};
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{ScheduleStore as _, StoreErrorKind};
use tower_web_push::subscription::SubscriptionId;

use super::world::*;
use crate::support::tampered_store::TamperedStore;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// The application with its store, which is the target, and a source.
struct Two {
    world: World,
    from: Arc<MemoryStore>,
    to: Arc<TamperedStore>,
    folder: TempDir,
}

impl Two {
    async fn new() -> Self {
        let world = World::at(FCM).await;
        let to = Arc::new(TamperedStore::over(&world.store));
        Self {
            world,
            from: Arc::new(MemoryStore::new()),
            to,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn pass(&self) -> CopyReport {
        let (from, to) = (Arc::clone(&self.from), Arc::clone(&self.to));
        let copy = Copy::new(from, to, self.folder.path().join("journal"));
        copy.pass(|_| {}).await.unwrap()
    }

    /// Makes a pass, and does something else once it is about to make its first call of this name.
    async fn pass_beside(&self, call: &'static str, meanwhile: impl Future<Output = ()>) {
        self.to.delay(call, 2 * SECOND);
        let later = async {
            sleep(SECOND).await;
            meanwhile.await;
        };
        self.to.take_calls();
        tokio::join!(self.pass(), later);
        assert!(self.to.take_calls().contains(&call));
        self.to.delay(call, Duration::ZERO);
    }

    /// The schedules in the target.
    async fn schedules(&self, of: Option<SubscriptionId>) -> Vec<Schedule> {
        self.world.store.schedules(of).await.unwrap()
    }
}

/// The other rows of such a source are worth more than its history.
#[tokio::test]
async fn a_damaged_history_is_left_out_and_one_that_cannot_be_read_is_not() {
    let two = Two::new().await;
    let now = two.world.clock.now();
    register(&two.from, &new(&two.world), now).await;
    let from = Arc::new(TamperedStore::over(&two.from));
    let copy = Copy::new(
        Arc::clone(&from),
        Arc::clone(&two.to),
        two.folder.path().join("journal"),
    );
    from.fail("days");
    let error = copy.pass(|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), CopyErrorKind::Source);
    from.fail_as(StoreErrorKind::Corrupt, "days");
    copy.pass(|_| {}).await.unwrap();
    assert!(two.to.take_calls().contains(&"record_days"));
}

/// A browser that is registered in one store or both.
fn new(world: &World) -> NewSubscription {
    let key = world.push.vapid_public_key();
    let subscription = world.service.user_agent().subscribe(&key).unwrap();
    NewSubscription::new(subscription, KeyId::of(&key))
}

/// The same browser with a new id.
fn again(new: &NewSubscription) -> NewSubscription {
    NewSubscription::new(new.subscription.clone(), new.default_vapid_key)
}

async fn register(
    store: &MemoryStore,
    new: &NewSubscription,
    now: Timestamp,
) -> SubscriptionRecord {
    let limits = SubscriptionLimits::default();
    match store.upsert(new, &limits, now).await.unwrap() {
        Upserted::Stored { record, .. } => *record,
        Upserted::Conflict => panic!("a conflict"),
    }
}

/// Daily at an hour, next due in an hour.
fn daily(of: SubscriptionId, hour: u8, now: Timestamp) -> Schedule {
    let plan = Plan::Subscriber {
        subscription: of,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    Schedule::new(plan, DailyTime::new(hour, 0).unwrap(), now + HOUR)
}

/// The endpoint has another id in the source. A worker of the target meets what the copy has given to that id, before the row
/// is written.
#[tokio::test(start_paused = true)]
async fn a_row_whose_id_changes_keeps_notifications_that_a_worker_has_removed() {
    let two = Two::new().await;
    let (store, now) = (&two.world.store, two.world.clock.now());
    let browser = new(&two.world);
    let former = register(store, &browser, now).await;
    store.put_schedule(&daily(former.id, 9, now)).await.unwrap();
    let row = register(&two.from, &again(&browser), now + SECOND).await;
    two.world.clock.advance(HOUR);
    two.pass_beside("put", async {
        assert_eq!(two.schedules(Some(row.id)).await.len(), 1);
        two.world.settle().await;
        assert_eq!(two.schedules(Some(row.id)).await, []);
    })
    .await;
    let kept = two.schedules(Some(row.id)).await;
    assert_eq!(kept.len(), 1);
    // The worker has fired that of the former id.
    assert!(kept[0].next_fire_at > two.world.clock.now());
    assert_eq!(two.schedules(Some(former.id)).await, []);
}

/// What the source has removed, and the target replaces.
#[tokio::test(start_paused = true)]
async fn a_schedule_that_the_target_replaces_meanwhile_is_not_removed() {
    let two = Two::new().await;
    let (store, now) = (&two.world.store, two.world.clock.now());
    let id = register(&two.from, &new(&two.world), now).await.id;
    let digest = |text: &'static str| {
        let plan = Plan::Application {
            label: ScheduleLabel::parse("digest").unwrap(),
            to: Audience::All,
            message: Message::new(text),
        };
        Schedule::new(plan, DailyTime::new(7, 0).unwrap(), now + HOUR)
    };
    for schedule in [daily(id, 9, now), digest("hello")] {
        two.from.put_schedule(&schedule).await.unwrap();
    }
    two.pass().await;
    for (of, replacement) in [
        (Some(id), daily(id, 10, now)),
        (None, digest("of the target")),
    ] {
        assert_eq!(two.schedules(of).await.len(), 1);
        let name = replacement.name();
        assert!(two.from.remove_schedule(&name).await.unwrap());
        two.pass_beside("remove_unchanged_schedule", async {
            store.put_schedule(&replacement).await.unwrap();
        })
        .await;
        assert_eq!(two.schedules(of).await, [replacement]);
    }
}

/// In the target the id is that of another browser, which has registered later.
#[tokio::test(start_paused = true)]
async fn a_browser_with_the_id_keeps_what_it_asks_for_meanwhile() {
    let two = Two::new().await;
    let (store, now) = (&two.world.store, two.world.clock.now());
    let (browser, mut other) = (new(&two.world), new(&two.world));
    let former = register(store, &browser, now).await;
    let given = daily(former.id, 9, now);
    store.put_schedule(&given).await.unwrap();
    let row = register(&two.from, &again(&browser), now + SECOND).await;
    other.id = row.id;
    register(store, &other, now + 2 * SECOND).await;
    let own = daily(row.id, 10, now);
    two.pass_beside("remove_unchanged_schedule", async {
        store.put_schedule(&own).await.unwrap();
    })
    .await;
    assert_eq!(two.schedules(Some(row.id)).await, [own]);
    assert_eq!(two.schedules(Some(former.id)).await, [given]);
}
