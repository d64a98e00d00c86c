//! What preparing one message costs, beside the floor under it: the backend's own key pair and ECDH.
//!
//! `cargo bench --bench prepare`. The target is `prepare` at no more than 1.10 times `agree`.
#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tower_web_push::encryption::encrypt;
use tower_web_push::message::Padding;
#[cfg(feature = "aws-lc-rs")]
use tower_web_push::p256::AwsLc;
use tower_web_push::p256::{P256, RustCrypto, UaSecretKey};
use tower_web_push::subscription::{AuthSecret, Subscription};

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

/// The floor: nothing can be faster than this with the same backend.
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

criterion_group!(benches, agree, encryption);
criterion_main!(benches);
