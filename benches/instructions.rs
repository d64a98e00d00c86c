//! Prepares messages in a function that an instrumented run counts the instructions of: `./test instructions`.
//!
//! Arguments: a backend, `p256` or `aws-lc-rs`, and the number of messages of 200 octets. By itself it measures nothing.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

use std::hint::black_box;
use std::sync::Arc;

use tower_web_push::clock::Timestamp;
use tower_web_push::message::{Message, Padding};
use tower_web_push::p256::{AwsLc, P256, RustCrypto, UaSecretKey};
use tower_web_push::push_request::Push;
use tower_web_push::subscription::{AuthSecret, Subscription};
use tower_web_push::vapid::{Contact, Signer, VapidKey};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` runs every bench, with an argument of its own.
    let [backend, messages] = &args[..] else {
        return;
    };
    let backend: &dyn P256 = match backend.as_str() {
        "p256" => &RustCrypto,
        _ => &AwsLc,
    };
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let endpoint = "https://push.example.net/p/1".parse().unwrap();
    let subscription = Subscription::new(endpoint, *secret.public(), auth);
    let message = Message::new(vec![b'x'; 200]).with_padding(Padding::None);
    let key = Arc::new(VapidKey::generate().unwrap());
    let push = Push::new(subscription, message, key);
    let signer = Signer::new();
    // The first one signs the token and draws what the library keeps of randomness.
    prepare(&push, backend, &signer);
    for _ in 0..messages.parse().unwrap() {
        counted_prepare(&push, backend, &signer);
    }
}

/// What is counted, by its name.
#[inline(never)]
fn counted_prepare(push: &Push, backend: &dyn P256, signer: &Signer) {
    prepare(push, backend, signer);
}

fn prepare(push: &Push, backend: &dyn P256, signer: &Signer) {
    let contact = Contact::parse("mailto:ops@example.com").unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let request = push.request(backend, signer, &contact, now).unwrap();
    black_box(request);
}
