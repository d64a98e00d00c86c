//! Whether the time of comparing and decoding secrets depends on them, as `dudect` measures it (Reparaz, Balasch and
//! Verbauwhede, "Dude, is my code constant time?", 2017): two classes of inputs in random order, and Welch's t-test on the
//! times of each.
//!
//! `cargo bench --bench constant_time`. A |t| above 10 is a difference for certain, below 4.5 none was found in this run. The first
//! line is a comparison that stops at the first different octet: the measurement has to see it. A busy machine only hides
//! differences; it makes none.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

use std::hint::black_box;
use std::time::Instant;

use tower_web_push::secret::SecretBytes;
use tower_web_push::subscription::AuthSecret;
use tower_web_push::vapid::SealedVapidKey;

/// Measurements of each line.
const SAMPLES: usize = 400_000;
/// Calls of one measurement, since the clock is coarse.
const CALLS: usize = 16;
/// The share of the longest times that is left out: interrupts and other processes.
const CROPPED: f64 = 0.05;

/// Running mean and variance (Welford).
#[derive(Clone, Copy, Default)]
struct Class {
    number: f64,
    mean: f64,
    squares: f64,
}

impl Class {
    fn add(&mut self, time: f64) {
        self.number += 1.0;
        let distance = time - self.mean;
        self.mean += distance / self.number;
        self.squares += distance * (time - self.mean);
    }

    fn variance_of_mean(&self) -> f64 {
        self.squares / (self.number - 1.0) / self.number
    }
}

/// Random octets that need not be unpredictable (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn octets<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// Measures one call for the two classes of inputs, and prints the t value.
fn measure<T>(
    name: &str,
    mut input: impl FnMut(bool, &mut Random) -> T,
    call: impl Fn(&T) -> bool,
) -> f64 {
    let mut random = Random(8030);
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let is_second = random.next() & 1 == 1;
        let given = input(is_second, &mut random);
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(call(black_box(&given)));
        }
        times.push((is_second, start.elapsed().as_nanos() as f64));
    }
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let longest = sorted[((SAMPLES - 1) as f64 * (1.0 - CROPPED)) as usize];
    let mut classes = [Class::default(); 2];
    for (is_second, time) in times.into_iter().filter(|(_, time)| *time <= longest) {
        classes[usize::from(is_second)].add(time);
    }
    let [one, other] = classes;
    let t = (one.mean - other.mean) / (one.variance_of_mean() + other.variance_of_mean()).sqrt();
    let per_call = |class: Class| class.mean / CALLS as f64;
    println!(
        "{name}: t = {t:.1}, {:.2} ns and {:.2} ns a call",
        per_call(one),
        per_call(other)
    );
    t
}

/// Octets that are equal to the expected ones, or differ in the first one.
fn equal_or_not<const N: usize>(expected: [u8; N]) -> impl FnMut(bool, &mut Random) -> [u8; N] {
    move |is_other, random| {
        let mut octets = expected;
        let change = random.next() as u8 | 1;
        octets[0] ^= if is_other { change } else { 0 };
        octets
    }
}

fn main() {
    // `cargo test --benches` only has to know that it builds.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mut random = Random(1);
    let expected: [u8; 64] = random.octets();
    let control = measure(
        "a comparison that is not constant-time",
        equal_or_not(expected),
        |given| {
            let mut pairs = given.iter().zip(&expected);
            pairs.all(|(one, other)| black_box(one) == black_box(other))
        },
    );
    assert!(control.abs() > 10.0, "this machine measures nothing");

    let secret = SecretBytes::new(expected);
    let mut given = equal_or_not(expected);
    measure(
        "SecretBytes, equal or not",
        |other, random| SecretBytes::new(given(other, random)),
        |given| *given == secret,
    );

    let octets: [u8; 16] = random.octets();
    let auth = AuthSecret::from_bytes(&octets).unwrap();
    let mut given = equal_or_not(octets);
    let make = |other, random: &mut Random| AuthSecret::from_bytes(&given(other, random)).unwrap();
    measure("AuthSecret, equal or not", make, |given| *given == auth);

    let text = |octets: &[u8]| SealedVapidKey::new(octets.escape_ascii().to_string());
    let digits: [u8; 43] = std::array::from_fn(|_| b'a' + (random.next() % 26) as u8);
    let sealed = text(&digits);
    let make = |other, random: &mut Random| {
        let mut digits = digits;
        digits[0] = if other {
            b'A' + (random.next() % 26) as u8
        } else {
            digits[0]
        };
        text(&digits)
    };
    measure("SealedVapidKey, equal or not", make, |given| {
        *given == sealed
    });

    // Decoding: one text all the time, or any.
    let fixed = auth.secret_to_base64url();
    let make = |any, random: &mut Random| {
        let octets = random.octets::<16>();
        let other = AuthSecret::from_bytes(&octets)
            .unwrap()
            .secret_to_base64url();
        if any { other } else { fixed.clone() }
    };
    measure(
        "AuthSecret from base64url, fixed or random",
        make,
        |given| AuthSecret::parse(given).is_ok(),
    );
}
