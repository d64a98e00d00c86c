//! Futures dropped at every await: `run`, `tick` and `enqueue`. Nothing is lost, and only requests in flight are sent
//! twice.

mod world;

use std::future::poll_fn;
use std::pin::pin;

use tokio::task::yield_now;
use tokio::time::timeout;
use tower_web_push::engine::KeyRing;
use tower_web_push::{Audience, Message, RunErrorKind};

use world::{LIMIT, RECIPIENTS, Trouble, World};

/// More polls than any of the futures here needs.
const MANY: usize = 10_000;

/// The moment when a future is dropped.
#[derive(Clone, Copy, Debug)]
enum Drop {
    /// Right after a poll.
    AfterThePoll,
    /// Before its next poll: its event has happened.
    BeforeTheNext,
}

const BOTH: [Drop; 2] = [Drop::AfterThePoll, Drop::BeforeTheNext];

/// Polls a future this number of times and drops it. Returns its output if it completed.
async fn polled<F: Future>(future: F, polls: usize, drop: Drop) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        use std::task::Poll::{Pending, Ready};
        if left == 0 {
            return Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Ready(output) => Ready(Some(output)),
            Pending if left == 0 && matches!(drop, Drop::AfterThePoll) => Ready(None),
            Pending => Pending,
        }
    })
    .await
}

/// The state of a world when its worker was dropped.
struct Dropped {
    sent: u64,
    settled: u64,
}

impl Dropped {
    async fn of(world: &World) -> Self {
        Self {
            sent: world.service.counts().accepted,
            settled: world.status().await.counts.accepted,
        }
    }

    /// Every recipient got the message: once, or twice if its first outcome was not written.
    async fn is_made_good(&self, world: &World) {
        world.run_to_the_end().await;
        let got = world.got();
        assert!(got.iter().all(|times| (1..=2).contains(times)), "{got:?}");
        let unsettled = self.sent - self.settled;
        assert_eq!(got.iter().sum::<u64>(), RECIPIENTS + unsettled);
        let status = world.status().await;
        assert!(status.counts.pending == 0 && status.counts.accepted == RECIPIENTS);
        assert_eq!(world.ledger_stats().await, (0, 0));
    }
}

/// Drops a `run` that is told to stop after this number of messages, after each of its polls.
async fn runs_are_dropped(drops: &[Drop], trouble: Trouble, told_after: u64) {
    for &drop in drops {
        let (mut polls, mut with_unsettled, mut halfway) = (0, 0, 0);
        loop {
            let world = World::with(trouble).await;
            world.enqueue().await;
            let run = world.push.run(world.taken(told_after));
            let ended = polled(run, polls, drop).await;
            // The runtime drops attempts in flight, but not at once.
            yield_now().await;
            let dropped = Dropped::of(&world).await;
            let leased = world.ledger_stats().await.1;
            dropped.is_made_good(&world).await;
            if let Some(ended) = ended {
                ended.unwrap();
                assert!(dropped.sent >= told_after && leased == 0);
                assert_eq!(dropped.sent, dropped.settled);
                assert!(world.elapsed() >= trouble.lasts());
                break;
            }
            with_unsettled += usize::from(dropped.sent > dropped.settled);
            halfway += usize::from((1..RECIPIENTS).contains(&dropped.settled));
            polls += 1;
            assert!(polls < MANY);
        }
        println!("{drop:?}: {polls} polls, {with_unsettled} unsettled, {halfway} halfway");
        // The difficult cases were included.
        assert!(with_unsettled > 0);
        assert!(halfway > 0 || told_after < RECIPIENTS);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_may_be_dropped_at_any_await() {
    runs_are_dropped(&BOTH, Trouble::OneIsBusy, RECIPIENTS).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_ending_may_be_dropped_at_any_await() {
    runs_are_dropped(&BOTH, Trouble::OneIsBusy, RECIPIENTS / 2).await;
}

/// A dropped probe does not leave the gate closed for ever.
#[tokio::test(start_paused = true)]
async fn a_run_that_probes_may_be_dropped_at_any_await() {
    runs_are_dropped(&[Drop::BeforeTheNext], Trouble::SenderIsRefused, RECIPIENTS).await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_may_be_dropped_at_any_await() {
    for drop in BOTH {
        let mut polls = 0;
        loop {
            let world = World::new().await;
            world.enqueue().await;
            let ended = polled(world.push.tick(), polls, drop).await;
            yield_now().await;
            let dropped = Dropped::of(&world).await;
            dropped.is_made_good(&world).await;
            if let Some(ended) = ended {
                ended.unwrap();
                assert_eq!(dropped.sent, dropped.settled);
                assert!(dropped.sent > 0);
                break;
            }
            polls += 1;
            assert!(polls < MANY);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_enqueue_was_accepted_wholly_or_not_at_all() {
    for drop in BOTH {
        let (mut polls, mut accepted) = (0, 0);
        loop {
            let world = World::new().await;
            let enqueue = world.push.enqueue(Audience::All, Message::new("x"));
            let ended = polled(enqueue, polls, drop).await;
            while !world.push.tick().await.unwrap().is_idle() {}
            world.retry_is_due().await;
            while !world.push.tick().await.unwrap().is_idle() {}
            let got = world.got();
            let times = got[0];
            assert!(
                times <= 1 && got.iter().all(|other| *other == times),
                "{got:?}"
            );
            assert_eq!(world.ledger_stats().await, (0, 0));
            if let Some(ended) = ended {
                assert_eq!((ended.unwrap().recipients, times), (RECIPIENTS, 1));
                break;
            }
            accepted += times;
            polls += 1;
            assert!(polls < MANY);
        }
        assert!(
            accepted > 0 && accepted < polls as u64,
            "{accepted} of {polls}"
        );
    }
}

/// The store is lost while outcomes are written: the messages are sent again.
#[tokio::test(start_paused = true)]
async fn a_message_whose_outcome_cannot_be_written_is_sent_again() {
    let world = World::new().await;
    world.enqueue().await;
    world.store.fail("settle");
    let failed = world.push.tick().await.unwrap_err();
    assert_eq!(failed.kind(), RunErrorKind::Store);
    let dropped = Dropped::of(&world).await;
    assert!(dropped.sent > 0 && dropped.settled == 0);
    world.store.fail(None);
    dropped.is_made_good(&world).await;
}

/// Another process has made a new key, and the store fails when this process reads it: its subscriptions wait.
#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_read_makes_no_row_stale() {
    const MORE: u64 = 5;
    let world = World::new().await;
    let key = world.push.vapid_public_key();
    let all = 2 * RECIPIENTS + MORE;
    let run = timeout(LIMIT, world.push.run(world.taken(all)));
    let run = tokio::spawn(run);
    world.enqueue().await;
    world
        .service
        .wait_until(|counts| counts.accepted >= RECIPIENTS)
        .await;
    let other = world.another().await;
    other.rotate_vapid_key().await.unwrap();
    assert_eq!(
        world.push.vapid_public_key(),
        key,
        "it has not read the new key"
    );
    world.subscribe_with(&other.vapid_public_key(), MORE).await;
    world.store.fail("keys");
    world.enqueue().await;
    world
        .service
        .wait_until(|counts| counts.accepted >= 2 * RECIPIENTS)
        .await;
    world.store.fail(None);
    let ended = run.await.unwrap();
    ended.expect("some message is not sent").unwrap();
    let status = world.status().await;
    assert_eq!(
        (status.recipients, status.counts.accepted),
        (RECIPIENTS + MORE, RECIPIENTS + MORE)
    );
}

/// A row whose key cannot be read is not claimed again before the key can be read.
#[tokio::test(start_paused = true)]
async fn a_row_whose_key_cannot_be_read_waits_in_the_store() {
    let world = World::new().await;
    let other = world.another().await;
    other.rotate_vapid_key().await.unwrap();
    world.subscribe_with(&other.vapid_public_key(), 1).await;
    world.enqueue().await;
    world.store.fail("keys");
    let mut claimed = 0;
    for _ in 0..3 {
        claimed += world.push.tick().await.unwrap().attempted;
    }
    assert_eq!(claimed as u64, RECIPIENTS + 1);
    world.store.fail(None);
    tokio::time::advance(KeyRing::LOOK_AGAIN).await;
    assert_eq!(world.push.tick().await.unwrap().attempted, 1);
    // Another row waits for its `Retry-After`.
    assert_eq!(world.status().await.counts.accepted, RECIPIENTS);
}
