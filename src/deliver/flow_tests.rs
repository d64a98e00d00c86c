//! Senders and a push service in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::super::OriginGates;
use super::*;

/// What the push service does, from a moment on.
#[derive(Clone, Debug)]
struct Service {
    /// The time of an answer without load.
    latency: Duration,
    /// The largest share by which it is shorter or longer.
    jitter: f64,
    /// Requests per second that it works off; more of them wait.
    works_off: Option<f64>,
    /// Of more than about this number at once, some are answered by 503.
    at_once: Option<usize>,
    quota: Option<Quota>,
    /// Whether it answers at all.
    answers: bool,
}

/// The requests that it accepts; the rest is answered by 429.
#[derive(Clone, Copy, Debug)]
enum Quota {
    Bucket { per_second: f64, burst: f64 },
    Window { every: Duration, requests: u32 },
}

const LATENCY: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(15);

fn service() -> Service {
    Service {
        latency: LATENCY,
        jitter: 0.1,
        works_off: None,
        at_once: None,
        quota: None,
        answers: true,
    }
}

/// An attempt that ends.
#[derive(Debug)]
struct End {
    sender: usize,
    begun: Begun,
    load: Load,
    row: Row,
}

struct World {
    service: Service,
    /// The push service is not busy from then on.
    free_at: Instant,
    tokens: f64,
    filled_at: Instant,
    window: (Instant, u32),
    under_way: usize,
    senders: Vec<Flow>,
    ends: Vec<Option<End>>,
    queue: BinaryHeap<Reverse<(Instant, usize)>>,
    began: Instant,
    now: Instant,
    random: u64,
    seen: Vec<Seen>,
    /// Whether a look at the pace is in the queue.
    looks: Vec<bool>,
    /// The longest time of an acceptance.
    longest: Duration,
}

/// What a sender heard.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    accepted: u32,
    limited: u32,
    overloaded: u32,
    halved: u32,
}

impl World {
    fn new(service: Service, senders: usize, most: usize, seed: u64) -> Self {
        let now = Instant::now();
        let tokens = match service.quota {
            Some(Quota::Bucket { burst, .. }) => burst,
            _ => 0.0,
        };
        Self {
            service,
            free_at: now,
            tokens,
            filled_at: now,
            window: (now, 0),
            under_way: 0,
            senders: (0..senders).map(|_| Flow::new(1, most)).collect(),
            ends: Vec::new(),
            queue: BinaryHeap::new(),
            began: now,
            now,
            random: seed | 1,
            seen: vec![Seen::default(); senders],
            looks: vec![false; senders],
            longest: Duration::ZERO,
        }
    }

    /// From 0 to 1.
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from((self.random >> 40) as u32) / f64::from(1 << 24)
    }

    /// Runs until this time from the start, with as many requests as there is room for. Returns what was heard.
    fn run(&mut self, until: Duration) -> Vec<Seen> {
        let until = self.began + until;
        let before = self.seen.clone();
        for sender in 0..self.senders.len() {
            self.fill(sender);
        }
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(end) = self.ends.get_mut(number).and_then(Option::take) {
                self.end(end);
            } else {
                let sender = usize::MAX - number;
                self.looks[sender] = false;
                self.fill(sender);
            }
        }
        self.now = until;
        let seen = self.seen.iter().zip(before);
        seen.map(|(now, before)| Seen {
            accepted: now.accepted - before.accepted,
            limited: now.limited - before.limited,
            overloaded: now.overloaded - before.overloaded,
            halved: now.halved - before.halved,
        })
        .collect()
    }

    fn end(&mut self, end: End) {
        if end.load != Load::Overloaded {
            self.under_way = self.under_way.saturating_sub(1);
        }
        let seen = &mut self.seen[end.sender];
        match end.load {
            Load::Accepted => {
                seen.accepted += 1;
                self.longest = self.longest.max(self.now - end.begun.at);
            }
            Load::Limited => seen.limited += 1,
            _ => seen.overloaded += 1,
        }
        let flow = &mut self.senders[end.sender];
        let limit = flow.limit();
        flow.learn(&end.begun, (&end.row, false), end.load, self.now);
        flow.ends();
        if flow.limit() < limit {
            seen.halved += 1;
        }
        self.fill(end.sender);
    }

    fn fill(&mut self, sender: usize) {
        while self.senders[sender].in_flight() < self.senders[sender].limit() {
            if let Err(at) = self.senders[sender].take(self.now) {
                if !std::mem::replace(&mut self.looks[sender], true) {
                    self.queue.push(Reverse((at, usize::MAX - sender)));
                }
                break;
            }
            self.begin(sender);
        }
    }

    fn begin(&mut self, sender: usize) {
        let number = self.ends.len();
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let row = Row {
            key: EndpointKey::from_bytes(key),
            is_proven: false,
            has_same_key: true,
            failing_since: None,
            is_test: false,
        };
        let begun = self.senders[sender].begins(self.now);
        let jitter = 1.0 + self.service.jitter * (2.0 * self.chance() - 1.0);
        let latency = self.service.latency.mul_f64(jitter);
        let (mut at, mut load) = (self.now + latency, Load::Accepted);
        if self.is_overloaded() {
            load = Load::Overloaded;
        } else if !self.is_within_quota() {
            load = Load::Limited;
        } else if let Some(rate) = self.service.works_off {
            let start = self.free_at.max(self.now);
            self.free_at = start + Duration::from_secs_f64(1.0 / rate);
            at = start + latency;
        }
        if !self.service.answers || at > self.now + TIMEOUT {
            (at, load) = (self.now + TIMEOUT, Load::Overloaded);
        }
        if load != Load::Overloaded {
            self.under_way += 1;
        }
        self.ends.push(Some(End {
            sender,
            begun,
            load,
            row,
        }));
        self.queue.push(Reverse((at, number)));
    }

    /// From a little less than its limit on, it refuses some requests of every sender.
    fn is_overloaded(&mut self) -> bool {
        let Some(at_once) = self.service.at_once else {
            return false;
        };
        let share = whole(self.under_way) / whole(at_once);
        self.chance() < (share - 0.9) * 5.0
    }

    fn is_within_quota(&mut self) -> bool {
        match self.service.quota {
            None => true,
            Some(Quota::Bucket { per_second, burst }) => {
                let passed = (self.now - self.filled_at).as_secs_f64();
                self.tokens = (self.tokens + passed * per_second).min(burst);
                self.filled_at = self.now;
                let is_within = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(is_within));
                is_within
            }
            Some(Quota::Window { every, requests }) => {
                while self.now >= self.window.0 + every {
                    self.window = (self.window.0 + every, 0);
                }
                self.window.1 += 1;
                self.window.1 <= requests
            }
        }
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn quotas() -> Vec<Quota> {
    let window = |every, requests| Quota::Window { every, requests };
    let bucket = |burst| Quota::Bucket {
        per_second: 1000.0,
        burst,
    };
    vec![
        bucket(10.0),
        bucket(100.0),
        bucket(1000.0),
        window(secs(1), 1000),
        window(Duration::from_millis(100), 100),
        window(secs(60), 60_000),
    ]
}

/// What a sender heard in the second minute, and the share of refusals.
fn after_a_minute(seed: u64, millis: u64, quota: Quota) -> (Seen, f64) {
    let service = Service {
        latency: Duration::from_millis(millis),
        quota: Some(quota),
        ..service()
    };
    let mut world = World::new(service, 1, 1000, seed);
    world.run(secs(60));
    let seen = world.run(secs(120))[0];
    let refused = f64::from(seen.limited) / f64::from(seen.accepted + seen.limited);
    (seen, refused)
}

/// Within a second all of it is used. What was accepted then must still be known when it begins anew, a minute later.
#[test]
fn a_quota_by_the_minute_is_found_by_quick_answers() {
    for millis in [5, 8, 10, 11, 13, 20] {
        let quota = Quota::Window {
            every: secs(60),
            requests: 60_000,
        };
        let (seen, refused) = after_a_minute(7, millis, quota);
        assert!(seen.accepted >= 900 * 60, "{millis} ms: {seen:?}");
        assert!(refused < 0.01, "{millis} ms: {seen:?}");
    }
}

/// The first answers already wait for each other: what is taken for the time without load is too long.
#[test]
fn a_small_service_of_uneven_answers_gets_no_long_queue() {
    let latency = Duration::from_millis(20);
    let service = Service {
        latency,
        jitter: 0.170_549_509_702_779_9,
        works_off: Some(500.0),
        ..service()
    };
    let mut world = World::new(service, 1, 1000, 3_390_246_026_672_998_960);
    world.run(secs(150));
    assert!(
        world.longest.saturating_sub(latency) < latency * 2,
        "{:?}",
        world.longest
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// After the first minute, in which the rate is found.
    #[test]
    fn a_rate_limit_is_kept_and_used(
        seed: u64,
        millis in 5_u64..100,
        quota in prop::sample::select(quotas()),
    ) {
        let (seen, refused) = after_a_minute(seed, millis, quota);
        prop_assert!(seen.accepted >= 900 * 60, "{:?}", seen);
        prop_assert!(refused < 0.01, "{:?} {}", seen, refused);
    }

    /// The default ceiling, within the first second: a broadcast is not over before it is used.
    #[test]
    fn a_fast_service_gets_as_many_as_six_connections_carry_at_once(seed: u64) {
        let mut world = World::new(service(), 1, OriginGates::IN_FLIGHT, seed);
        world.run(secs(1));
        prop_assert_eq!(world.senders[0].limit(), OriginGates::IN_FLIGHT);
        let seen = world.run(secs(11))[0];
        prop_assert!(seen.accepted > 75_000, "{:?}", seen);
    }

    #[test]
    fn as_many_as_a_fast_service_takes(seed: u64, most in 100_usize..600) {
        let mut world = World::new(service(), 1, most, seed);
        world.run(secs(60));
        prop_assert_eq!(world.senders[0].limit(), most);
        prop_assert_eq!(world.seen[0].overloaded, 0);
        // At once per 50 ms.
        let seen = world.run(secs(70))[0];
        prop_assert!(f64::from(seen.accepted) > 0.9 * 200.0 * whole(most), "{:?}", seen);
    }

    /// The first limit is above what a small one takes.
    #[test]
    fn a_service_that_slows_down_is_used_without_a_long_queue(
        seed: u64,
        millis in 20_u64..200,
        at_once in 10_u32..200,
        jitter in 0.0_f64..0.2,
    ) {
        let latency = Duration::from_millis(millis);
        let rate = f64::from(at_once) / latency.as_secs_f64();
        let service = Service { latency, jitter, works_off: Some(rate), ..service() };
        let mut world = World::new(service, 1, 1000, seed);
        world.run(secs(25));
        let queued = world.longest.saturating_sub(latency);
        prop_assert!(queued < latency * 2, "{:?}", world.longest);
        world.run(secs(120));
        let seen = world.run(secs(150))[0];
        prop_assert!(f64::from(seen.accepted) > 0.9 * 30.0 * rate, "{:?}", seen);
        prop_assert!(world.longest.saturating_sub(latency) < latency * 2, "{:?}", world.longest);
    }

    #[test]
    fn two_senders_share_a_bottleneck(seed: u64, at_once in 20_usize..200) {
        let service = Service { at_once: Some(at_once), ..service() };
        let mut world = World::new(service, 2, 1000, seed);
        world.run(secs(30));
        let seen = world.run(secs(90));
        let (one, other) = (seen[0].accepted, seen[1].accepted);
        prop_assert!(one < other * 2 && other < one * 2, "{:?}", seen);
        let all = f64::from(one + other);
        prop_assert!(all > 0.6 * 60.0 * 20.0 * whole(at_once), "{:?}", seen);
    }

    #[test]
    fn it_recovers_after_an_outage(seed: u64, millis in 5_u64..200) {
        let latency = Duration::from_millis(millis);
        let mut world = World::new(Service { latency, ..service() }, 1, 100, seed);
        world.run(secs(30));
        let before = world.run(secs(40))[0];
        world.service.answers = false;
        let outage = world.run(secs(160))[0];
        // Fewer than the rows that it takes.
        prop_assert!(world.senders[0].limit() < Losses::ROWS);
        // One burst in each round, which takes the whole time limit.
        prop_assert!(outage.halved <= 8, "{:?}", outage);
        world.service.answers = true;
        world.run(secs(240));
        let after = world.run(secs(250))[0];
        prop_assert!(after.accepted > before.accepted * 9 / 10, "{:?} {:?}", before, after);
    }

    #[test]
    fn a_service_that_becomes_smaller_costs_few_refusals(seed: u64, at_once in 20_usize..80) {
        let mut world = World::new(service(), 1, 1000, seed);
        world.run(secs(10));
        world.service.at_once = Some(at_once);
        let first = world.run(secs(12))[0];
        let limit = world.senders[0].limit();
        prop_assert!(limit <= at_once * 5 / 4 + 2, "{} {:?}", limit, first);
        prop_assert!(first.halved <= 12, "{:?}", first);
        let later = world.run(secs(72))[0];
        let refused = f64::from(later.overloaded) / f64::from(later.accepted);
        prop_assert!(refused < 0.1, "{:?}", later);
    }
}

fn row(number: u8, is_proven: bool) -> Row {
    Row {
        key: EndpointKey::from_bytes([number; 32]),
        is_proven,
        has_same_key: true,
        failing_since: None,
        is_test: false,
    }
}

/// The limit after each of these requests, one after the other.
fn after(flow: &mut Flow, now: &mut Instant, row: &Row, load: Load) -> usize {
    *now += Duration::from_millis(10);
    let begun = flow.begins(*now);
    *now += Duration::from_millis(10);
    flow.learn(&begun, (row, false), load, *now);
    flow.ends();
    flow.limit()
}

#[test]
fn what_one_row_loses_says_nothing_about_the_origin() {
    for load in [Load::Limited, Load::Overloaded] {
        let (mut flow, mut now) = (Flow::new(1, 1000), Instant::now());
        for _ in 0..100 {
            assert_eq!(after(&mut flow, &mut now, &row(1, true), load), 8);
        }
        assert_eq!(flow.per_second(), None);
        let limits: Vec<_> = (2..6)
            .map(|number| after(&mut flow, &mut now, &row(number, true), load))
            .collect();
        assert!(
            limits.ends_with(&[4]) || limits.ends_with(&[2]),
            "{limits:?}"
        );
    }
}

/// They come at any load, so they must not keep the limit low: after it was halved, only new losses count.
#[test]
fn some_failures_of_many_leave_a_useful_limit() {
    let (mut flow, mut now) = (Flow::new(1, 1000), Instant::now());
    let mut lowest = usize::MAX;
    for round in 0..500_u64 {
        now += Duration::from_millis(1);
        let begun: Vec<_> = (0..flow.limit()).map(|_| flow.begins(now)).collect();
        now += LATENCY;
        for (place, begun) in begun.iter().enumerate() {
            let number = round * 1000 + place as u64;
            let mut row = row(0, true);
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            row.key = EndpointKey::from_bytes(key);
            let load = match number % 67 {
                0 => Load::Overloaded,
                _ => Load::Accepted,
            };
            flow.learn(begun, (&row, false), load, now);
        }
        begun.iter().for_each(|_| flow.ends());
        lowest = lowest.min(flow.limit());
    }
    assert!(lowest >= 8, "{lowest}");
}

#[test]
fn rows_that_were_never_accepted_do_not_count_beside_rows_that_are() {
    let (mut flow, mut now) = (Flow::new(1, 1000), Instant::now());
    for number in 0..100 {
        after(&mut flow, &mut now, &row(200, true), Load::Accepted);
        assert_eq!(
            after(&mut flow, &mut now, &row(number, false), Load::Limited),
            8
        );
    }
    // Without them they are all there is.
    now += Losses::WITHIN + Losses::WITHIN;
    let limits =
        (0..10).map(|number| after(&mut flow, &mut now, &row(number, false), Load::Limited));
    assert!(limits.last() < Some(8));
}

#[test]
fn broken_connections_and_old_failures_change_nothing() {
    let (mut flow, mut now) = (Flow::new(1, 1000), Instant::now());
    for number in 0..100 {
        assert_eq!(
            after(&mut flow, &mut now, &row(number, true), Load::Nothing),
            8
        );
        let begun = flow.begins(now);
        flow.learn(&begun, (&row(number, true), true), Load::Limited, now);
        flow.ends();
    }
    assert_eq!((flow.limit(), flow.in_flight()), (8, 0));
    assert_eq!(
        after(&mut flow, &mut now, &row(1, false), Load::Excessive),
        4
    );
}

#[test]
fn losses_of_four_rows_within_two_seconds_are_the_origins() {
    let at_every = |millis: u64| {
        let (mut losses, mut now) = (Losses::default(), Instant::now());
        (0..8).any(|number| {
            now += Duration::from_millis(millis);
            losses.is_the_origins(&row(number, true), now)
        })
    };
    assert!(at_every(600));
    assert!(
        !at_every(800),
        "the first of four is older than two seconds"
    );
}

/// A client can subscribe any number of rows that their push service limits.
#[test]
fn of_many_rows_the_latest_sixteen_are_told_apart() {
    let (mut losses, now) = (Losses::default(), Instant::now());
    for number in 0..200 {
        losses.is_the_origins(&row(number, false), now);
    }
    assert_eq!(losses.rows.len(), 16);
    assert_eq!(losses.rows[0].key, row(184, false).key);
}
