//! The cost of preparing one message, and its lower bound: the backend's own key pair and ECDH.
//!
//! `cargo bench --bench prepare`. The target is `prepare` (encrypt, the cached token, the request) at no more
//! than 1.10 times `agree`; the last line printed is that ratio for 200 octets, both measured in this run.
#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tower_web_push::clock::Timestamp;
use tower_web_push::encryption::encrypt;
use tower_web_push::message::{Message, Padding};
#[cfg(feature = "aws-lc-rs")]
use tower_web_push::p256::AwsLc;
use tower_web_push::p256::{P256, RustCrypto, UaSecretKey};
use tower_web_push::push_request::Push;
use tower_web_push::subscription::{AuthSecret, Subscription};
use tower_web_push::vapid::{Contact, Signer, VapidKey};

const BACKENDS: &[(&str, &dyn P256)] = &[
    ("p256", &RustCrypto),
    #[cfg(feature = "aws-lc-rs")]
    ("aws-lc-rs", &AwsLc),
];

/// Octets: a short text, a usual notification, the largest payload.
const PAYLOADS: [usize; 3] = [64, 512, 3993];

fn subscription() -> Subscription {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let endpoint = "https://push.example.net/p/1".parse().unwrap();
    Subscription::new(endpoint, *secret.public(), auth)
}

/// The lower bound with the same backend.
fn agree(c: &mut Criterion) {
    let subscription = subscription();
    let mut group = c.benchmark_group("agree");
    for (name, backend) in BACKENDS {
        group.bench_function(*name, |b| {
            b.iter(|| backend.agree(black_box(subscription.ua_public())));
        });
    }
    group.finish();
}

fn encryption(c: &mut Criterion) {
    let subscription = subscription();
    let mut group = c.benchmark_group("encrypt");
    group.throughput(Throughput::Elements(1));
    for (name, backend) in BACKENDS {
        for octets in PAYLOADS {
            let payload = vec![b'x'; octets];
            group.bench_with_input(BenchmarkId::new(*name, octets), &payload, |b, payload| {
                b.iter(|| encrypt(*backend, &subscription, black_box(payload), Padding::None));
            });
        }
    }
    group.finish();
}

/// The parts between a message and the HTTP client.
struct Prepared {
    push: Push,
    signer: Signer,
    contact: Contact,
    now: Timestamp,
}

impl Prepared {
    fn new(octets: usize) -> Self {
        let message = Message::new(vec![b'x'; octets]);
        Self {
            push: Push::new(
                subscription(),
                message,
                Arc::new(VapidKey::generate().unwrap()),
            ),
            signer: Signer::new(),
            contact: Contact::parse("mailto:ops@example.com").unwrap(),
            now: Timestamp::from_secs(1_800_000_000),
        }
    }

    fn request(&self, backend: &dyn P256) -> usize {
        let request = self
            .push
            .request(backend, &self.signer, &self.contact, self.now)
            .unwrap();
        request.body().as_bytes().len()
    }
}

fn prepare(c: &mut Criterion) {
    let mut group = c.benchmark_group("prepare");
    group.throughput(Throughput::Elements(1));
    for (name, backend) in BACKENDS {
        let prepared = Prepared::new(200);
        group.bench_function(BenchmarkId::new(*name, 200), |b| {
            b.iter(|| prepared.request(*backend));
        });
    }
    group.finish();
    for (name, backend) in BACKENDS {
        println!(
            "ratio/{name}: prepare(200) is {:.3} x agree",
            ratio(*backend)
        );
    }
}

/// Returns the median of many short, alternating measurements, so that other load on the machine affects both alike.
fn ratio(backend: &dyn P256) -> f64 {
    const ROUNDS: usize = 201;
    const CALLS: u32 = 50;
    let prepared = Prepared::new(200);
    let subscription = subscription();
    let time = |call: &dyn Fn()| -> Duration {
        let begun = Instant::now();
        (0..CALLS).for_each(|_| call());
        begun.elapsed()
    };
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let floor = time(&|| {
                let _ = black_box(backend.agree(subscription.ua_public()));
            });
            let whole = time(&|| {
                black_box(prepared.request(backend));
            });
            whole.as_secs_f64() / floor.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ROUNDS / 2]
}

criterion_group!(benches, agree, encryption, prepare);
criterion_main!(benches);
