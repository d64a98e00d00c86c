//! A store that does not answer, or whose clock differs.

use std::error::Error as _;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tower_web_push::store::VapidKeyStore as _;
use tower_web_push::{BuildErrorKind, RunErrorKind};

use super::world::*;
use crate::support::tampered_store::TamperedStore;

/// A process manager kills after about this time, so it has to be enough.
const PATIENCE: Duration = Duration::from_secs(8);

#[tokio::test(start_paused = true)]
async fn run_stops_on_shutdown_whichever_call_the_store_does_not_answer() {
    for call in [
        "server_time",
        "pauses",
        "expire",
        "claim",
        "get",
        "apply",
        "settle",
        "next_due",
        "next_fire_at",
    ] {
        let world = World::at(FCM).await;
        world.subscriber().await;
        let store = Arc::new(TamperedStore::over(&world.store));
        let push = world
            .replica_with(|builder| builder.store(Arc::clone(&store)))
            .await;
        store.hang(call);
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
        world.enqueue().await;
        // It waits for the store: nothing else is left to do.
        sleep(MINUTE).await;
        assert!(store.has_hung(), "{call} is not called");
        assert!(!run.is_finished(), "{call}");
        let told = Instant::now();
        drop(stop);
        let ended = run.await.unwrap();
        assert!(told.elapsed() < PATIENCE, "{call}: {:?}", told.elapsed());
        // Outcomes that cannot be written are an error. The purge does not hold up the delivery whose effects cannot be
        // written.
        let is_unsettled = ["apply", "settle"].contains(&call);
        assert_eq!(ended.is_err(), is_unsettled, "{call}: {ended:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_not_the_servers_is_refused_when_it_is_built() {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let now = clock.now();
    let store = Arc::new(TamperedStore::over(&MemoryStore::new()));
    let build = || {
        let builder = WebPush::builder("mailto:ops@example.com").clock(clock.clone());
        builder.store(Arc::clone(&store)).build()
    };
    for (server, words) in [
        (now + Duration::from_secs(30), "30 s behind"),
        (now - Duration::from_secs(30), "30 s ahead of"),
    ] {
        store.set_server_time(server);
        let error = build().await.unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::ClockSkew);
        let source = error.source().unwrap().to_string();
        assert!(source.contains(words), "{source}");
    }
    assert_eq!(store.keys().await.unwrap().len(), 0, "nothing was written");
    for close in [now + Duration::from_secs(9), now - Duration::from_secs(9)] {
        store.set_server_time(close);
        build().await.unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_was_changed_since_is_refused_by_run() {
    let world = World::at(FCM).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world
        .replica_with(|builder| builder.store(Arc::clone(&store)))
        .await;
    store.set_server_time(world.clock.now() + Duration::from_secs(30));
    let error = push.run(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::ClockSkew);
}
