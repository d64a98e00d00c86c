//! The limit alone: what raises and lowers it.

use super::*;

const RTT: Duration = Duration::from_millis(50);

/// A limit, and the time.
struct Origin {
    limit: Concurrency,
    now: Instant,
}

impl Origin {
    fn new(least: usize, most: usize) -> Self {
        Self {
            limit: Concurrency::new(least, most),
            now: Instant::now(),
        }
    }

    /// A round trip of this number of requests at once, with this reply to all. Returns the limit after it.
    fn round(&mut self, requests: usize, reply: Reply) -> usize {
        self.round_of(requests, reply, RTT)
    }

    fn round_of(&mut self, requests: usize, reply: Reply, rtt: Duration) -> usize {
        // After the end of the round before.
        self.now += Duration::from_millis(1);
        let began = self.now;
        for _ in 0..requests {
            self.limit.begins(began);
        }
        self.now += rtt;
        for in_flight in 1..=requests {
            let sample = Sample {
                began,
                ended: self.now,
                in_flight,
                at_end: requests,
                reply,
            };
            self.limit.on_sample(&sample, 0.0);
        }
        self.limit.limit()
    }

    fn full(&mut self, reply: Reply) -> usize {
        let limit = self.limit.limit();
        self.round(limit, reply)
    }
}

#[test]
fn it_doubles_up_to_six_hundred_and_then_grows_by_one() {
    for reply in [Reply::Accepted, Reply::Answered] {
        let mut origin = Origin::new(1, 1000);
        let mut rounds = 0;
        while origin.full(reply) < 600 {
            rounds += 1;
        }
        // Those that began first, with less than half of it in use, do not count.
        assert!((6..=10).contains(&rounds), "{rounds}");
        let before = origin.limit.limit();
        let after = (0..20).map(|_| origin.full(reply)).last().unwrap();
        assert!((10..=21).contains(&(after - before)), "{before} {after}");
    }
}

/// A queue of the push service delays every answer, this process only those that came while it was busy.
#[test]
fn answers_of_which_some_are_as_quick_as_before_do_not_stop_the_growth() {
    let mut origin = Origin::new(1, 1000);
    // The time at little load.
    origin.round(1, Reply::Accepted);
    for _ in 0..200 {
        let limit = origin.limit.limit();
        origin.limit.begins(origin.now);
        let began = origin.now;
        origin.now += RTT * 2;
        for in_flight in 1..=limit {
            let is_quick = in_flight % 4 == 0;
            let sample = Sample {
                began: if is_quick { began + RTT } else { began },
                ended: origin.now,
                in_flight,
                at_end: limit,
                reply: Reply::Accepted,
            };
            origin.limit.on_sample(&sample, 0.0);
        }
    }
    assert!(origin.limit.limit() >= 600, "{}", origin.limit.limit());
}

#[test]
fn a_burst_of_losses_halves_it_once_and_the_next_burst_again() {
    let mut origin = Origin::new(1, 1000);
    while origin.full(Reply::Accepted) < 64 {}
    let before = origin.limit.limit();
    assert_eq!(origin.full(Reply::Lost), before / 2);
    assert_eq!(origin.full(Reply::Lost), before / 4);
    // From here on it grows by one in each round.
    let after = origin.full(Reply::Accepted);
    assert!(after <= before / 4 + 1, "{after}");
}

#[test]
fn floor_and_ceiling_hold() {
    let mut origin = Origin::new(3, 20);
    for _ in 0..100 {
        assert!(origin.full(Reply::Accepted) <= 20);
    }
    assert_eq!(origin.limit.limit(), 20);
    for _ in 0..20 {
        assert!(origin.full(Reply::Lost) >= 3);
    }
    assert_eq!(origin.limit.limit(), 3);
    // Nor do answers that become slower bring it below the floor.
    let mut origin = Origin::new(40, 100);
    assert_eq!(origin.round(1, Reply::Accepted), 40);
    for _ in 0..20 {
        assert!(origin.round_of(40, Reply::Accepted, RTT * 2) >= 40);
    }
    assert_eq!(Concurrency::new(5, 1).limit(), 5, "no panic");
    assert_eq!(Concurrency::new(0, 0).limit(), 1);
}

#[test]
fn it_does_not_grow_while_less_than_half_of_it_is_used() {
    let mut origin = Origin::new(1, 1000);
    for _ in 0..100 {
        assert_eq!(origin.round(3, Reply::Accepted), 8);
    }
    assert!(origin.round(8, Reply::Accepted) > 8);
}

#[test]
fn it_falls_back_to_the_first_limit_while_it_is_not_used_and_no_further() {
    let mut origin = Origin::new(1, 1000);
    while origin.full(Reply::Accepted) < 100 {}
    origin.now += Concurrency::UNUSED;
    // Once, however many requests begin then.
    for _ in 0..3 {
        origin.limit.begins(origin.now);
        assert!((50..60).contains(&origin.limit.limit()));
    }
    origin.now += Concurrency::UNUSED * 10;
    origin.limit.begins(origin.now);
    assert_eq!(origin.limit.limit(), 8);
    // What it was is found again by doubling.
    let mut rounds = 0;
    while origin.full(Reply::Accepted) < 60 {
        rounds += 1;
    }
    assert!(rounds <= 8, "{rounds}");

    // So it is after a loss, above which it grew by one in each round.
    let mut grown = Origin::new(1, 1000);
    while grown.full(Reply::Accepted) < 64 {}
    grown.full(Reply::Lost);
    while grown.full(Reply::Accepted) < 80 {}
    grown.now += Concurrency::UNUSED * 10;
    grown.limit.begins(grown.now);
    assert_eq!(grown.limit.limit(), 8);
    let mut rounds = 0;
    while grown.full(Reply::Accepted) < 60 {
        rounds += 1;
    }
    assert!(rounds <= 10, "{rounds}");

    let mut low = Origin::new(1, 1000);
    while low.full(Reply::Lost) > 1 {}
    low.now += Concurrency::UNUSED * 10;
    low.limit.begins(low.now);
    assert_eq!(low.limit.limit(), 1);

    let mut high = Origin::new(40, 1000);
    while high.full(Reply::Accepted) < 100 {}
    high.now += Concurrency::UNUSED * 10;
    high.limit.begins(high.now);
    assert_eq!(high.limit.limit(), 40, "the floor holds");
}

/// A message now and then does not use it.
#[test]
fn it_falls_back_while_little_of_it_is_used() {
    let mut origin = Origin::new(1, 1000);
    while origin.full(Reply::Accepted) < 100 {}
    for _ in 0..13 {
        origin.now += Concurrency::UNUSED / 4;
        origin.round(1, Reply::Accepted);
    }
    let limit = origin.limit.limit();
    assert!((8..=30).contains(&limit), "{limit}");
}

/// They began one after the other, and are lost one after the other: all of them before the first loss was known.
#[test]
fn a_burst_that_takes_its_time_halves_it_once() {
    let mut origin = Origin::new(1, 1000);
    while origin.full(Reply::Accepted) < 64 {}
    let before = origin.limit.limit();
    origin.now += RTT;
    for number in 1..=40 {
        let began = origin.now + Duration::from_millis(1) * number;
        let sample = Sample {
            began,
            ended: began + RTT,
            in_flight: 40,
            at_end: 40,
            reply: Reply::Lost,
        };
        origin.limit.on_sample(&sample, 0.0);
    }
    assert_eq!(origin.limit.limit(), before / 2);
}

/// Their time is that of a load, whichever of them began first.
#[test]
fn the_time_of_a_request_that_began_alone_is_not_that_of_little_load_if_others_followed() {
    let mut origin = Origin::new(1, 1000);
    origin.full(Reply::Accepted);
    let before = origin.limit.latency.base;
    for _ in 0..40 {
        origin.now += RTT * 5;
        let sample = Sample {
            began: origin.now - RTT * 4,
            ended: origin.now,
            in_flight: 1,
            at_end: 8,
            reply: Reply::Accepted,
        };
        origin.limit.on_sample(&sample, 0.0);
    }
    assert_eq!(origin.limit.latency.base, before);
}

#[test]
fn the_floor_holds_while_a_slow_origin_is_measured_again() {
    let mut origin = Origin::new(40, 1000);
    for _ in 0..5 {
        origin.full(Reply::Accepted);
    }
    while !origin.limit.latency.measures() {
        let limit = origin.limit.limit();
        origin.round_of(limit, Reply::Accepted, RTT * 2);
    }
    assert_eq!(origin.limit.limit(), 40);
}

/// After it the origin has few requests at once anyway.
#[test]
fn a_loss_ends_the_measurement_of_a_slow_origin() {
    let mut origin = Origin::new(1, 1000);
    for _ in 0..5 {
        origin.full(Reply::Accepted);
    }
    while !origin.limit.latency.measures() {
        let limit = origin.limit.limit();
        origin.round_of(limit, Reply::Accepted, RTT * 2);
    }
    assert_eq!(origin.limit.limit(), Latency::UNLOADED);
    assert!(origin.round(1, Reply::Lost) > Latency::UNLOADED);
}

#[test]
fn slow_answers_stop_the_growth_and_do_not_shrink_it() {
    let mut origin = Origin::new(1, 1000);
    for _ in 0..3 {
        origin.full(Reply::Accepted);
    }
    let before = origin.limit.limit();
    // The mean follows within this round.
    let stopped = origin.round_of(before, Reply::Accepted, RTT * 4);
    for _ in 0..50 {
        let limit = origin.limit.limit();
        assert_eq!(origin.round_of(limit, Reply::Accepted, RTT * 4), stopped);
    }
    // Another answer's time says nothing.
    for _ in 0..3 {
        let limit = origin.limit.limit();
        origin.round_of(limit, Reply::Answered, RTT / 50);
    }
    assert!(origin.limit.limit() > stopped);
}

/// The way to the push service may have become longer: with few requests at once it shows.
#[test]
fn an_origin_that_is_slow_for_long_is_measured_again() {
    let mut origin = Origin::new(1, 1000);
    for _ in 0..3 {
        origin.full(Reply::Accepted);
    }
    let mut limits = Vec::new();
    for _ in 0..400 {
        let limit = origin.limit.limit();
        limits.push(origin.round_of(limit, Reply::Accepted, RTT * 2));
    }
    assert!(limits.contains(&Latency::UNLOADED), "{limits:?}");
    assert!(*limits.last().unwrap() > limits[1] + 20, "{limits:?}");
}

/// One quick or slow answer is no time at little load.
#[test]
fn an_origin_is_measured_by_four_answers() {
    let mut origin = Origin::new(1, 1000);
    for _ in 0..5 {
        origin.full(Reply::Accepted);
    }
    while !origin.limit.latency.measures() {
        let limit = origin.limit.limit();
        origin.round_of(limit, Reply::Accepted, RTT * 2);
    }
    for answer in 1..=4 {
        origin.round_of(1, Reply::Accepted, RTT * 2);
        assert_eq!(origin.limit.latency.measures(), answer < 4, "{answer}");
    }
}

/// Half of a millisecond is no sign of a queue.
#[test]
fn answers_of_a_millisecond_that_take_one_more_do_not_stop_the_growth() {
    let mut origin = Origin::new(1, 1000);
    let (near, loaded) = (Duration::from_millis(1), Duration::from_micros(2100));
    origin.round_of(1, Reply::Accepted, near);
    let mut rounds = 0;
    while origin.limit.limit() < 600 {
        let limit = origin.limit.limit();
        origin.round_of(limit, Reply::Accepted, loaded);
        rounds += 1;
    }
    assert!(rounds <= 12, "{rounds}");
}

/// By a quarter, and not below the first limit.
#[test]
fn the_first_growth_ends_a_quarter_lower() {
    let mut origin = Origin::new(1, 1000);
    origin.round(1, Reply::Accepted);
    let before = origin.full(Reply::Accepted);
    assert!((11..=15).contains(&before), "{before}");
    origin.limit.begins(origin.now);
    let sample = Sample {
        began: origin.now,
        ended: origin.now + RTT * 10,
        in_flight: before,
        at_end: before,
        reply: Reply::Accepted,
    };
    // All of the last round were quick, and so was the first of this one.
    while origin.limit.doubles {
        origin.limit.on_sample(&sample, 0.0);
    }
    let after = origin.limit.limit();
    assert!((9..=11).contains(&after), "{before} {after}");
}

#[test]
fn the_shortest_time_is_that_of_at_least_half_of_those_in_flight() {
    let [quick, slow] = [1, 2].map(Duration::from_millis);
    let mut round = Round::default();
    assert_eq!(round.shortest(quick, 40), quick);
    // Those of the next round, which stand beside it.
    for _ in 0..20 {
        assert_eq!(round.shortest(slow, 40), quick);
    }
    assert_eq!(round.shortest(slow, 40), slow);
    // One in the middle of a round counts for the rest of it and for the next one.
    assert_eq!(round.shortest(quick, 40), quick);
    for _ in 0..18 + 20 {
        assert_eq!(round.shortest(slow, 40), quick);
    }
    assert_eq!(round.shortest(slow, 40), slow);
}
