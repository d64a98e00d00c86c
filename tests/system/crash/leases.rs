//! Leases of the library: rows that kill their worker, late outcomes, leases that are too short.

use std::time::Duration;

use tempfile::TempDir;
use tower_web_push::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, FinalOutcome};
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::deliver::{EndpointPolicy, RetryPolicy};
use tower_web_push::store::{
    ClaimRequest, Claimed, Cursor, DeliveryLedger as _, NewDelivery, NewSubscription, Settled,
    Settlement, SqliteStore, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::testing::{ManualClock, TestPushService};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

const ATTEMPTS: u32 = 3;
const LEASE: Duration = Duration::from_secs(10);

/// One recipient, and two handles on one file: the worker's, and another process's.
struct World {
    push: WebPush,
    own: SqliteStore,
    other: SqliteStore,
    service: TestPushService,
    clock: ManualClock,
    broadcast: BroadcastId,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let own = SqliteStore::open(&path).await.unwrap();
        let other = SqliteStore::open(&path).await.unwrap();
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let service = TestPushService::builder().clock(clock.clone()).build();
        let second = Duration::from_secs(1);
        let push = WebPush::builder("mailto:ops@example.com")
            .store(own.clone())
            .clock(clock.clone())
            .client(service.clone())
            .endpoint_policy(EndpointPolicy::public_hosts())
            .retry_policy(RetryPolicy::new(second, second, ATTEMPTS))
            .build()
            .await
            .unwrap();
        let key = push.vapid_public_key();
        let subscription = service.user_agent().subscribe(&key).unwrap();
        let new = NewSubscription::new(subscription, KeyId::of(&key));
        let (limits, now) = (SubscriptionLimits::default(), clock.now());
        own.upsert(&new, &limits, now).await.unwrap();
        let queued = push
            .enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap();
        // Written without a ledger: a worker would claim it as well.
        let expansion = own.expandable(1, now).await.unwrap().remove(0);
        let endpoint = new.subscription.endpoint();
        let row = NewDelivery::new(endpoint.key(), endpoint.origin().clone());
        let end = Cursor::End;
        own.enqueue_page(expansion.id, &expansion.cursor, &[row], &end, now)
            .await
            .unwrap();
        Self {
            push,
            own,
            other,
            service,
            clock,
            broadcast: queued.broadcast,
            _folder: folder,
        }
    }

    /// A worker that claims and dies. Returns after its lease has expired.
    async fn claimed_by_a_worker_that_dies(&self) -> Claimed {
        let claimed = claim(&self.other, self.clock.now()).await;
        self.clock.advance(LEASE);
        claimed
    }

    async fn status(&self) -> BroadcastStatus {
        self.push.status(self.broadcast).await.unwrap().unwrap()
    }
}

async fn claim(store: &SqliteStore, now: Timestamp) -> Claimed {
    let request = ClaimRequest::new(9, LEASE);
    store.claim(&request, now).await.unwrap().rows.remove(0)
}

#[tokio::test]
async fn a_row_whose_worker_dies_each_time_is_finished_after_its_attempts() {
    let world = World::new().await;
    for attempt in 1..=ATTEMPTS {
        let claimed = world.claimed_by_a_worker_that_dies().await;
        assert_eq!(claimed.attempt, attempt);
    }
    world.push.tick().await.unwrap();
    let status = world.status().await;
    assert_eq!(
        (status.state, status.counts.failed),
        (BroadcastState::Done, 1)
    );
    assert_eq!(world.service.counts().requests, 0);
}

#[tokio::test]
async fn a_row_whose_worker_dies_each_time_but_the_last_is_sent() {
    let world = World::new().await;
    for _ in 1..ATTEMPTS {
        world.claimed_by_a_worker_that_dies().await;
    }
    world.push.tick().await.unwrap();
    let status = world.status().await;
    assert_eq!(
        (status.state, status.counts.accepted),
        (BroadcastState::Done, 1)
    );
    assert_eq!(world.service.counts().accepted, 1);
}

#[tokio::test]
async fn an_outcome_after_the_lease_is_lost_changes_nothing() {
    for late in [
        Settlement::Finished(FinalOutcome::Accepted),
        Settlement::RetryAt(Timestamp::MIN),
    ] {
        let world = World::new().await;
        let first = world.claimed_by_a_worker_that_dies().await;
        let now = world.clock.now();
        let second = claim(&world.own, now).await;
        let before = world.status().await;
        let settled = world.other.settle(&[(first.token, late)], now).await;
        assert_eq!(settled.unwrap(), [Settled::Lost]);
        world.other.release(&[first.token], now).await.unwrap();
        assert_eq!(world.status().await, before);
        assert_eq!(world.own.stats(now).await.unwrap().leased, 1);
        // Nor does it take the row from its new owner.
        let end = Settlement::Finished(FinalOutcome::Gone);
        let settled = world.own.settle(&[(second.token, end)], now).await;
        assert_eq!(settled.unwrap(), [Settled::Done]);
        // And the outcome is not counted a second time.
        let settled = world.other.settle(&[(first.token, late)], now).await;
        assert_eq!(settled.unwrap(), [Settled::Lost]);
        let status = world.status().await;
        assert_eq!((status.counts.gone, status.counts.finished()), (1, 1));
    }
}

/// As long as no other worker has claimed the row, its outcome counts.
#[tokio::test]
async fn an_outcome_after_the_lease_but_before_another_claim_counts() {
    let world = World::new().await;
    let claimed = world.claimed_by_a_worker_that_dies().await;
    let end = Settlement::Finished(FinalOutcome::Accepted);
    let now = world.clock.now();
    let settled = world.other.settle(&[(claimed.token, end)], now).await;
    assert_eq!(settled.unwrap(), [Settled::Done]);
    assert_eq!(world.status().await.counts.accepted, 1);
}
