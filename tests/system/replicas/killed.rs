//! A server that is killed, or stopped for a while: the others send what it had claimed, long before its leases end.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::NoTls;
use tower_web_push::clock::Timestamp;

use super::beats::Beats;
use super::comings_and_goings::LEASE;
use super::history::Recorder;
use super::traffic::now;
use super::world::{ANSWERS_AFTER, IN_FLIGHT, Replica, World, until};
use crate::support::servers::Kind;

const RECIPIENTS: usize = 4_000;
/// A server claims several times a second while it sends, so that its last lease ends later than this.
const BEFORE_THE_LEASE_ENDS: Duration = Duration::from_secs(LEASE.as_secs() - 5);
/// What a process says when it has made the rows of another one due.
const RESCUE: &str = "has ended without settling its rows";
/// The longest time from the last sign of life of a process to the rescue of its rows. The last second is that between two looks
/// of the others. It begins anew where one of these could not write its own signs of life, which says nothing of anyone.
const RESCUED_WITHIN: Duration = Duration::from_secs(5 + 1);
/// Answers whose outcome is not written yet: a worker that has 256 writes them, and others come meanwhile, which it writes next.
const UNWRITTEN: usize = 2 * 256;
/// For what was sent before a server was stopped, to arrive. Others take its rows later: it begins nothing 1.5 s after its last
/// sign of life, and they wait for 3 s.
pub(super) const ON_THE_WAY: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_killed_server_are_sent_by_the_other_on_postgres() {
    the_rows_of_a_killed_server_are_sent_by_the_other(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_killed_server_are_sent_by_the_other_on_redis() {
    the_rows_of_a_killed_server_are_sent_by_the_other(Kind::Redis).await;
}

async fn the_rows_of_a_killed_server_are_sent_by_the_other(kind: Kind) {
    let Some(world) = World::on(kind).await else {
        return;
    };
    let [killed, other] = two(&world).await;
    let beats = Beats::watch(kind, &world).await;
    let broadcast = other.notify(RECIPIENTS).await;
    world.traffic.taken(RECIPIENTS / 4).await;
    is_sending(&killed).await;
    killed.process.kill().await;
    let killed_at = now();
    is_rescued(&other, &beats, killed_at).await;
    assert!(now().since(killed_at) < BEFORE_THE_LEASE_ENDS);
    other.done(&broadcast, RECIPIENTS).await;
    let doubles = doubles(&world, &[killed_at], None);
    doubles.are_of(1);
    println!("{kind:?}: {doubles:?} of {RECIPIENTS}");
    assert_eq!(other.process.terminate().await.code(), Some(0));
}

/// After a restart of the only server.
#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_killed_server_are_sent_by_the_next_one_on_postgres() {
    the_rows_of_a_killed_server_are_sent_by_the_next_one(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_killed_server_are_sent_by_the_next_one_on_redis() {
    the_rows_of_a_killed_server_are_sent_by_the_next_one(Kind::Redis).await;
}

async fn the_rows_of_a_killed_server_are_sent_by_the_next_one(kind: Kind) {
    let Some(world) = World::on(kind).await else {
        return;
    };
    let killed = world.start("axum_server").await;
    let beats = Beats::watch(kind, &world).await;
    world.subscribe(&killed.vapid_key().await, 300).await;
    let broadcast = killed.notify(300).await;
    world.traffic.taken(50).await;
    is_sending(&killed).await;
    killed.process.kill().await;
    let killed_at = now();
    let next = world.start("hyper_server").await;
    // It has to see for itself that the other one gives no sign of life.
    is_rescued(&next, &beats, now()).await;
    assert!(now().since(killed_at) < BEFORE_THE_LEASE_ENDS);
    next.done(&broadcast, 300).await;
    let doubles = doubles(&world, &[killed_at], None);
    doubles.are_of(1);
    assert_eq!(next.process.terminate().await.code(), Some(0));
}

/// It is held for dead, its rows are sent by the other, and what it finds in its memory when it continues it does not send.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_stopped_begins_nothing_that_others_have_sent_on_postgres() {
    a_server_that_was_stopped_begins_nothing_that_others_have_sent(Kind::Postgres).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_stopped_begins_nothing_that_others_have_sent_on_redis() {
    a_server_that_was_stopped_begins_nothing_that_others_have_sent(Kind::Redis).await;
}

async fn a_server_that_was_stopped_begins_nothing_that_others_have_sent(kind: Kind) {
    let Some(world) = World::on(kind).await else {
        return;
    };
    let [stopped, other] = two(&world).await;
    let beats = Beats::watch(kind, &world).await;
    let broadcast = other.notify(RECIPIENTS).await;
    world.traffic.taken(RECIPIENTS / 4).await;
    is_sending(&stopped).await;
    let stopped_at = stop(kind, &world, &stopped).await;
    is_rescued(&other, &beats, stopped_at).await;
    assert!(now().since(stopped_at) < BEFORE_THE_LEASE_ENDS);
    let some = world.traffic.number_taken() + RECIPIENTS / 10;
    world.traffic.taken(some.min(RECIPIENTS)).await;
    let continued_at = now();
    stopped.process.signal("CONT").await;
    for server in [&other, &stopped] {
        server.done(&broadcast, RECIPIENTS).await;
    }
    until("it says what has happened to it", async || {
        let printed = stopped.process.printed();
        printed.contains("no sign of life of this process")
    })
    .await;
    let doubles = doubles(&world, &[stopped_at], Some(continued_at));
    println!("{kind:?}: {doubles:?} of {RECIPIENTS}");
    // It works again, under another number.
    let another = stopped.notify(RECIPIENTS).await;
    is_sending(&stopped).await;
    stopped.done(&another, RECIPIENTS).await;
    for server in [other, stopped] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

/// Stops a server. One that is stopped within a transaction holds up the others until that times out, which is not what is
/// tested here: then it is stopped again.
async fn stop(kind: Kind, world: &World, server: &Replica) -> Timestamp {
    loop {
        is_sending(server).await;
        server.process.signal("STOP").await;
        let stopped_at = now();
        if kind == Kind::Redis || !has_open_transactions(world).await {
            return stopped_at;
        }
        server.process.signal("CONT").await;
    }
}

/// Whether a transaction waits for its client, and still does a little later.
async fn has_open_transactions(world: &World) -> bool {
    let url = world.database.url();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    sleep(Duration::from_millis(300)).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
         AND state_change < clock_timestamp() - interval '250 ms'";
    let row = client.query_one(sql, &[]).await.unwrap();
    row.get::<_, i64>(0) > 0
}

/// One of two servers is killed again and again. `WEB_PUSH_TEST_KILLS=50` does it more often.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_kills_in_a_row_on_postgres() {
    nothing_is_lost_by_kills_in_a_row(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_kills_in_a_row_on_redis() {
    nothing_is_lost_by_kills_in_a_row(Kind::Redis).await;
}

async fn nothing_is_lost_by_kills_in_a_row(kind: Kind) {
    let kills = std::env::var("WEB_PUSH_TEST_KILLS").ok();
    let kills: usize = kills.map_or(5, |kills| kills.parse().unwrap());
    let Some(world) = World::on(kind).await else {
        return;
    };
    let [mut first, mut second] = two(&world).await;
    // The first claim of each waits for a number for two seconds only, and names none then.
    let beats = Beats::watch(kind, &world).await;
    until("both have a number", async || beats.number() == 2).await;
    drop(beats);
    let recorder = Recorder::start(kind, &world).await;
    let mut broadcasts = Vec::new();
    let (mut killed_at, mut started_at) = (Vec::new(), Vec::new());
    for kill in 1..=kills {
        // One broadcast for each kill, however fast the servers are.
        broadcasts.push(second.notify(RECIPIENTS).await);
        is_sending(&first).await;
        first.process.kill().await;
        killed_at.push(now());
        first = second;
        started_at.push(now());
        second = world.start("hyper_server").await;
        // They take turns: of many, none would be over within the time limit.
        if kill % 5 == 0 || kill == kills {
            for broadcast in broadcasts.drain(..) {
                second.done(&broadcast, RECIPIENTS).await;
            }
        }
    }
    let doubles = doubles(&world, &killed_at, None);
    let all = RECIPIENTS * kills;
    assert_eq!(world.traffic.by_delivery().len(), all);
    println!("{kind:?}: {doubles:?} of {all}");
    doubles.are_of(kills);
    recorder.check(&world, all, &started_at).await;
    for server in [first, second] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

/// Two servers with subscribers.
async fn two(world: &World) -> [Replica; 2] {
    let (one, other) = tokio::join!(world.start("axum_server"), world.start("hyper_server"));
    let key = one.vapid_key().await;
    world.subscribe(&key, RECIPIENTS).await;
    [one, other]
}

async fn is_sending(server: &Replica) {
    until("it is sending", async || {
        server.metric("web_push_in_flight").await > 0.0
    })
    .await;
}

/// Waits until a server has made all rows of another one due. It began that in time: by the moment in its log, however busy this
/// machine is afterwards.
async fn is_rescued(by: &Replica, beats: &Beats, silent_since: Timestamp) {
    let mut line = None;
    until("the others take its rows", async || {
        let printed = by.process.printed();
        let found = printed.lines().find(|line| line.contains(RESCUE));
        line = found.map(str::to_owned);
        line.is_some()
    })
    .await;
    let line = line.unwrap();
    let moment = line.split_whitespace().next().unwrap();
    let moment: jiff::Timestamp = moment.parse().unwrap_or_else(|_| panic!("{line}"));
    let moment = Timestamp::from_millis(moment.as_millisecond());
    let silence = moment.since(silent_since);
    let counted = moment.since(beats.calm_since(silent_since, moment));
    println!("rescued after {silence:?}, of which {counted:?} count");
    assert!(counted <= RESCUED_WITHIN, "{silence:?}, {counted:?}");
    // A process that has rows stays known. What it had sent last may have been written a moment later.
    let afterwards = silent_since + Duration::from_secs(1);
    until("none of its rows is left", async || {
        beats.are_all_after(afterwards)
    })
    .await;
}

/// What was sent twice, by how far it was when a server ended.
#[derive(Debug, Default)]
pub(super) struct Doubles {
    /// Before its answer.
    in_flight: usize,
    /// After its answer. On a busy machine that came later than at its time.
    answered: usize,
    /// A request of a server that was stopped had stood in its memory: it went out when the server continued.
    kept: usize,
}

impl Doubles {
    /// Checks that servers that ended so many times left no more than they may.
    fn are_of(&self, ends: usize) {
        assert!(self.in_flight <= ends * IN_FLIGHT, "{self:?}");
        assert!(self.answered <= ends * UNWRITTEN, "{self:?}");
    }
}

/// Everything was sent, and again only what was under way when a server ended.
pub(super) fn doubles(
    world: &World,
    ended_at: &[Timestamp],
    continued_at: Option<Timestamp>,
) -> Doubles {
    let mut doubles = Doubles::default();
    for (delivery, times) in world.traffic.by_delivery() {
        let mut times = times;
        times.sort_unstable();
        for pair in times.windows(2) {
            let is_explained = |ended: &&Timestamp| {
                let sent_before = pair[0] < **ended + ON_THE_WAY;
                sent_before && pair[1] > **ended
            };
            if let Some(ended) = ended_at.iter().find(is_explained) {
                match pair[0] + ANSWERS_AFTER > *ended {
                    true => doubles.in_flight += 1,
                    false => doubles.answered += 1,
                }
                continue;
            }
            let is_kept = |at| pair[1] > at;
            assert!(
                continued_at.is_some_and(is_kept),
                "{delivery:?}: {times:?}, and {ended_at:?}, {continued_at:?}"
            );
            doubles.kept += 1;
        }
    }
    assert!(doubles.kept <= IN_FLIGHT, "{doubles:?}");
    doubles
}
