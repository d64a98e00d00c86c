//! What the log says of faults that take time: slow calls of the store, messages that are accepted late, and broadcasts whose end
//! could not be read.

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::world::*;
use crate::support::tampered_store::TamperedStore;

/// A worker that has nothing to do tells what is due at the end of its poll interval.
const POLL: Duration = Duration::from_secs(10);

/// The lines that are logged on this thread, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Takes the lines so far that have this text.
    fn take(&self, text: &str) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        let lines = String::from_utf8(lines).unwrap();
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(push: &WebPush) -> JoinHandle<()> {
    let running = push.run(pending());
    tokio::spawn(async move { running.await.unwrap() })
}

impl World {
    /// Lets seconds pass on both clocks.
    async fn pass(&self, seconds: u32) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            sleep(Duration::from_secs(1)).await;
        }
    }
}

fn assert_has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls_of_the_store_are_a_line_a_minute_for_each_operation() {
    const LINE: &str = "calls of the store took long";
    let (log, _guard) = Log::begin();
    let world = World::at(FCM).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world
        .replica_with(|builder| builder.store(Arc::clone(&store)).poll_interval(POLL))
        .await;
    store.delay("claim", Duration::from_millis(999));
    push.tick().await.unwrap();
    assert_eq!(log.take(LINE), [""; 0], "it is not slow");
    for (takes, lines) in [(1000, 1), (2500, 0), (1500, 0)] {
        store.delay("claim", Duration::from_millis(takes));
        push.tick().await.unwrap();
        let told = log.take(LINE);
        assert_eq!(told.len(), lines, "{takes}: {told:?}");
        for line in told {
            assert_has(
                &line,
                &["WARN", "operation=\"claim\"", "calls=1", "longest=1s"],
            );
        }
    }
    store.delay("status", Duration::from_secs(1));
    let sent = world.enqueue().await;
    push.status(sent).await.unwrap();
    assert_has(&log.take(LINE).join("|"), &["operation=\"status\""]);
    // The others are told without another one.
    store.delay("none", Duration::ZERO);
    let running = run(&push);
    world.pass(90).await;
    running.abort();
    let told = log.take(LINE);
    assert_eq!(told.len(), 1, "{told:?}");
    let parts = ["operation=\"claim\"", "calls=2", "longest=2.5s"];
    assert_has(&told[0], &parts);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_is_told_of_too() {
    let (log, _guard) = Log::begin();
    let world = World::at(FCM).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world
        .replica_with(|builder| builder.store(Arc::clone(&store)))
        .await;
    let sent = world.enqueue().await;
    store.hang("status");
    let asked = timeout(Duration::from_secs(7), push.status(sent));
    asked.await.unwrap_err();
    let told = log.take("calls of the store took long").join("|");
    assert_has(&told, &["operation=\"status\"", "longest=7s"]);
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_accepted_late_are_a_line_a_minute_for_each_push_service() {
    const LINE: &str = "messages were accepted late";
    let (log, _guard) = Log::begin();
    let world = World::with(FCM, |builder| builder.poll_interval(POLL)).await;
    world.subscribers(3).await;
    world.prove().await;
    assert_eq!(log.take(LINE), [""; 0]);
    world.enqueue().await;
    world.clock.advance(Duration::from_secs(59));
    world.settle().await;
    assert_eq!(log.take(LINE), [""; 0], "it is not late");
    world.enqueue().await;
    world.clock.advance(MINUTE);
    world.settle().await;
    let told = log.take(LINE);
    assert_eq!(told.len(), 1, "{told:?}");
    let parts = ["WARN", "push_service=\"fcm\"", "messages=1", "latest=60s"];
    assert_has(&told[0], &parts);
    world.enqueue().await;
    world.clock.advance(5 * MINUTE);
    world.settle().await;
    assert_eq!(log.take(LINE), [""; 0], "within the minute");
    let running = run(&world.push);
    world.pass(90).await;
    running.abort();
    let told = log.take(LINE);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_has(&told[0], &["messages=5", "latest=300s"]);
}

/// It is asked for again when the store answers.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_broadcast_is_told_after_an_outage() {
    let (log, _guard) = Log::begin();
    let world = World::at(FCM).await;
    world.subscribers(10).await;
    world.prove().await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world
        .replica_with(|builder| builder.store(Arc::clone(&store)).poll_interval(POLL))
        .await;
    store.fail("status");
    let running = run(&push);
    let sent = push.enqueue(Audience::All, Message::new("x")).await;
    let sent = sent.unwrap().broadcast;
    world.pass(30).await;
    assert!(store.take_calls().contains(&"status"));
    assert_eq!(log.take("broadcast over"), [""; 0]);
    store.fail(None);
    world.pass(90).await;
    running.abort();
    let told = log.take("broadcast over");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_has(&told[0], &[&sent.to_string(), "accepted=10"]);
}
