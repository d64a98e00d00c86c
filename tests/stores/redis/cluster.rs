//! A cluster of three nodes: all of a store's keys are on one of them.

use std::time::{Duration, Instant};

use tokio::process::Command;
use tower_web_push::broadcast::{Audience, BroadcastState, FinalOutcome};
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule};
use tower_web_push::store::redis_rs::cluster::ClusterClientBuilder;
use tower_web_push::store::redis_rs::cmd;
use tower_web_push::store::{
    Change, ClaimRequest, CountFilter, DeliveryLedger, Failure, Firing, Liveness, NewBroadcast,
    RedisBuilder, RedisStore, RetireReason, ScheduleStore, Settlement, StoreErrorKind,
    SubscriptionLimits, SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::SubscriptionId;

use super::world::{LEASE, ask, at, claim, connection, sending, status, subscription};
use crate::support::servers::{Kind, Server};

const OPTIONS: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];

async fn cluster() -> Option<Vec<Server>> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Server::start(Kind::Redis, &OPTIONS).await?);
    }
    let address = |node: &Server| format!("127.0.0.1:{}", node.port());
    let create = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(nodes.iter().map(address))
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .output();
    let output = create.await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Some(nodes)
}

async fn connect(nodes: &[Server], prefix: &str) -> RedisStore {
    let builder = RedisStore::builder().prefix(prefix);
    connect_with(nodes, &builder.listen(nodes[0].url())).await
}

async fn connect_with(nodes: &[Server], builder: &RedisBuilder) -> RedisStore {
    let client = ClusterClientBuilder::new(nodes.iter().map(Server::url))
        .retries(3)
        .min_retry_wait(10)
        .max_retry_wait(100)
        .build()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // The nodes agree on the slots shortly afterwards.
        if let Ok(connection) = client.get_async_connection().await {
            match builder.clone().with_cluster(connection).await {
                Ok(store) => return store,
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
        }
        assert!(Instant::now() < deadline, "no cluster");
    }
}

#[tokio::test]
async fn a_whole_round_on_a_cluster() {
    let Some(nodes) = cluster().await else {
        return;
    };
    let without_listening = connect_with(&nodes, &RedisStore::builder()).await;
    let mut addresses: Vec<_> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    addresses.sort_unstable();
    let description = without_listening.description();
    let expected = format!(" at {}/0 (", addresses.join(","));
    assert!(description.contains(&expected), "{description}");
    // These three prefixes are on three different nodes.
    for prefix in ["a", "b", "c"] {
        let store = connect(&nodes, prefix).await;
        let mut hints = store.changes();
        hints.next().await;
        let id = sending(&store, 1200, 3).await;
        hints.next().await;
        let rows = claim(&store, 600, at(0)).await;
        assert_eq!(rows.len(), 600);
        let accepted = Settlement::Finished(FinalOutcome::Accepted);
        let ends: Vec<_> = rows[..400]
            .iter()
            .map(|row| (row.token, accepted))
            .collect();
        store.settle(&ends, at(1)).await.unwrap();
        let tokens: Vec<_> = rows[400..].iter().map(|row| row.token).collect();
        store.release(&tokens, at(1)).await.unwrap();
        assert_eq!(store.next_due(at(1)).await.unwrap(), Some(at(1)));
        assert_eq!(store.stats(at(1)).await.unwrap().depth, 800);
        assert_eq!(store.expire(300, at(3600)).await.unwrap(), 300);
        store.cancel(id, at(3600)).await.unwrap();
        let end = status(&store, id, at(3600)).await;
        assert_eq!(end.state, BroadcastState::Cancelled);
        assert_eq!((end.counts.accepted, end.counts.cancelled), (400, 500));
        assert!(store.server_time().await.unwrap().is_some());
        assert_eq!(store.prune(at(3601)).await.unwrap().broadcasts, 1);

        let limits = SubscriptionLimits::default();
        for number in 0..20 {
            let mut new = subscription(number);
            new.principal = Some("alice".into());
            store.upsert(&new, &limits, at(0)).await.unwrap();
        }
        let page = store.page(&Audience::All, None, 100, at(0)).await.unwrap();
        assert_eq!(page.len(), 20);
        let key = page[0].subscription.endpoint().key();
        let reason = RetireReason::Gone;
        let observed_at = at(1);
        let retire = Change::Retire {
            key,
            reason,
            observed_at,
            failure: Failure::default(),
        };
        let purge = Change::Purge {
            before: at(9),
            expired_before: at(9),
        };
        assert_eq!(store.apply(&[retire, purge], at(2)).await.unwrap(), 2);
        let all = CountFilter::new(Audience::user("alice"), Liveness::Any);
        assert_eq!(store.count(&all, at(2)).await.unwrap(), 19);
        assert!(store.keys().await.unwrap().is_empty());

        let plan = Plan::Subscriber {
            subscription: SubscriptionId::random(),
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(7, 0).unwrap(), at(5));
        store.put_schedule(&schedule).await.unwrap();
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(99));
        let firing = Firing::new(&schedule, at(86_405), Some(new));
        store.fire(&[firing], at(5)).await.unwrap();
        assert_eq!(store.next_fire_at().await.unwrap(), Some(at(86_405)));
        assert_eq!(store.expandable(9, at(5)).await.unwrap().len(), 1);
    }
}

/// Moves some keys of a slot to another node, as `redis-cli --cluster reshard` does.
async fn migrate(from: &Server, to: &Server, slot: &str, some: &str) {
    let keys: Vec<Vec<u8>> = ask(&from.url(), &["CLUSTER", "GETKEYSINSLOT", slot, some]).await;
    assert!(!keys.is_empty());
    let mut migrate = cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(to.port());
    migrate.arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
    let moved: Result<String, _> = migrate
        .query_async(&mut connection(&from.url()).await)
        .await;
    assert_eq!(moved.unwrap(), "OK");
}

#[tokio::test]
async fn a_slot_that_moves_takes_no_half_of_a_change() {
    let Some(nodes) = cluster().await else {
        return;
    };
    let store = connect(&nodes, "a").await;
    let slot: u32 = ask(&nodes[0].url(), &["CLUSTER", "KEYSLOT", "{a}"]).await;
    let slot = slot.to_string();
    let mut sizes = Vec::new();
    for node in &nodes {
        sizes.push(ask::<usize>(&node.url(), &["DBSIZE"]).await);
    }
    let from = &nodes[sizes.iter().position(|size| *size > 0).unwrap()];
    let to = &nodes[sizes.iter().position(|size| *size == 0).unwrap()];
    let id = sending(&store, 30, 3).await;
    let of = async |node: &Server| ask::<String>(&node.url(), &["CLUSTER", "MYID"]).await;
    let (from_id, to_id) = (of(from).await, of(to).await);
    let set = async |node: &Server, words: &[&str]| {
        let words = [&["CLUSTER", "SETSLOT", &slot], words].concat();
        assert_eq!(ask::<String>(&node.url(), &words).await, "OK");
    };
    set(to, &["IMPORTING", &from_id]).await;
    set(from, &["MIGRATING", &to_id]).await;
    let refused = async |moved: usize| {
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
        let open = store.open(&new, at(0)).await.unwrap_err();
        assert_eq!(open.kind(), StoreErrorKind::Unavailable, "{open:?}");
        let claims = store.claim(&ClaimRequest::new(9, LEASE), at(0)).await;
        let claims = claims.unwrap_err();
        assert_eq!(claims.kind(), StoreErrorKind::Unavailable, "{claims:?}");
        assert_eq!(ask::<usize>(&to.url(), &["DBSIZE"]).await, moved);
        // Single commands find their key on either node.
        assert_eq!(status(&store, id, at(0)).await.recipients, 30);
    };
    refused(0).await;
    migrate(from, to, &slot, "5").await;
    refused(5).await;
    migrate(from, to, &slot, "1000").await;
    assert_eq!(ask::<usize>(&from.url(), &["DBSIZE"]).await, 0);
    for node in [to, from] {
        set(node, &["NODE", &to_id]).await;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let request = ClaimRequest::new(100, LEASE);
    let claims = loop {
        match store.claim(&request, at(0)).await {
            Ok(claims) => break claims,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
    };
    assert_eq!(claims.rows.len(), 30);
}
