//! One broadcast to 1,000,000 subscriptions in SQLite, from acceptance to the last settlement, and the peak of memory.
//!
//! `cargo bench --bench million --all-features`, some minutes. Three processes: a push service over TLS and HTTP/2, which
//! decrypts one message of 10,000; one that fills the database, whose memory is not counted; and the sender, with two threads.
//! All of them share this machine. `-- NUMBER` changes the number of subscriptions.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

// Only a part of the tests' support is used.
#[allow(dead_code)]
#[path = "../tests/support/push_server.rs"]
mod push_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tower_web_push::broadcast::BroadcastState;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::encryption::decrypt;
use tower_web_push::p256::{self, UaSecretKey};
use tower_web_push::store::{
    NewSubscription, SqliteStore, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription, UaPublicKey};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

use push_server::{PushServer, STREAMS, answer, certificate};

const PAYLOAD: &[u8] = &[b'x'; 200];
/// One message of this number is decrypted.
const SAMPLE: u64 = 10_000;
/// Longer only if the code is broken.
const LIMIT: Duration = Duration::from_secs(900);
/// The secret of the browsers, which only the push service process needs to keep.
const AUTH: &[u8; 16] = b"sixteen octets..";

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let folder = |at: usize| PathBuf::from(&words[at + 1]);
    let role = |name: &str| words.iter().position(|word| word == name);
    let number = words.iter().find_map(|word| word.parse().ok());
    let number = number.unwrap_or(1_000_000);
    if let Some(at) = role("serve") {
        runtime(1).block_on(serve(&folder(at)));
    } else if let Some(at) = role("fill") {
        runtime(2).block_on(fill(&folder(at), number));
    } else if let Some(at) = role("send") {
        runtime(2).block_on(send(&folder(at), number));
    } else if role("--bench").is_some() {
        // `cargo test --benches` only checks that it builds.
        measure(number);
    }
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// Ends the process on drop.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(number: u64) {
    let folder = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let role = |name: &str| {
        let mut command = Command::new(&this);
        command.arg(name).arg(folder.path()).arg(number.to_string());
        command
    };
    let _service = Service(role("serve").spawn().unwrap());
    let ready = folder.path().join("ready");
    while !ready.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    for name in ["fill", "send"] {
        assert!(role(name).status().unwrap().success(), "{name}");
    }
    println!("repeat it: cargo bench --bench million --all-features -- {number}");
}

/// Answers at once, and decrypts some of the messages.
async fn serve(folder: &Path) {
    let secret = Arc::new(UaSecretKey::random().unwrap());
    let auth = AuthSecret::from_bytes(AUTH).unwrap();
    let (count, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let public = *secret.public();
    let failed = Arc::clone(&wrong);
    let server = PushServer::start_on(
        listener,
        &certificate(),
        Some(&[b"h2"]),
        STREAMS,
        move |request| {
            let (secret, auth) = (Arc::clone(&secret), auth.clone());
            let is_sample = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(SAMPLE);
            let failed = Arc::clone(&failed);
            Box::pin(async move {
                let body = request.into_body().collect().await;
                let text = body.map(|body| {
                    is_sample.then(|| decrypt(p256::fastest(), &secret, &auth, &body.to_bytes()))
                });
                match text {
                    Ok(None) => answer(201, &[], ""),
                    Ok(Some(Ok(text))) if text == PAYLOAD => answer(201, &[], ""),
                    _ => {
                        failed.fetch_add(1, Ordering::SeqCst);
                        answer(400, &[], "")
                    }
                }
            })
        },
    );
    fs::write(folder.join("ca.pem"), &server.ca_pem).unwrap();
    fs::write(folder.join("port"), server.port().to_string()).unwrap();
    fs::write(folder.join("key"), public.as_bytes()).unwrap();
    fs::write(folder.join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

async fn push(folder: &Path) -> (WebPush, SqliteStore) {
    let store = SqliteStore::open(folder.join("push.db")).await.unwrap();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .extra_root_ca_pem(read(folder, "ca.pem"))
        .build()
        .await
        .unwrap();
    (push, store)
}

async fn fill(folder: &Path, number: u64) {
    let (push, store) = push(folder).await;
    let port = String::from_utf8(read(folder, "port")).unwrap();
    let public = UaPublicKey::from_bytes(&read(folder, "key")).unwrap();
    let auth = AuthSecret::from_bytes(AUTH).unwrap();
    let (limits, now) = (SubscriptionLimits::default(), SystemClock::new().now());
    let key = KeyId::of(&push.vapid_public_key());
    let began = Instant::now();
    stream::iter(0..number)
        .for_each_concurrent(256, |number| {
            // As long as those of FCM.
            let endpoint = format!("https://localhost:{port}/fcm/send/{number:0>150}");
            let endpoint = Endpoint::parse(&endpoint).unwrap();
            let subscription = Subscription::new(endpoint, public, auth.clone());
            let mut new = NewSubscription::new(subscription, key);
            // Those of a user are not limited in number as a whole.
            new.principal = Some(number.to_string().into());
            let (store, limits) = (&store, &limits);
            async move {
                store.upsert(&new, limits, now).await.unwrap();
            }
        })
        .await;
    println!("{number} subscriptions stored in {:.0?}", began.elapsed());
    store.close().await.unwrap();
}

async fn send(folder: &Path, number: u64) {
    let (push, store) = push(folder).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    let began = Instant::now();
    let queued = push.enqueue(Audience::All, Message::new(PAYLOAD)).await;
    let (queued, accepted) = (queued.unwrap(), began.elapsed());
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let status = loop {
        look.tick().await;
        let status = push.status(queued.broadcast).await.unwrap().unwrap();
        if status.state == BroadcastState::Done {
            break status;
        }
        assert!(began.elapsed() < LIMIT, "{status:?}");
    };
    let took = began.elapsed();
    assert_eq!(status.counts.accepted, number, "{status:?}");
    println!(
        "{number} sent and settled in {took:.1?}: {:.0} messages/s; accepted in {accepted:.1?}; peak of memory {} MB",
        number as f64 / took.as_secs_f64(),
        peak_memory() / 1000
    );
    drop(stop);
    running.await.unwrap().unwrap();
    store.close().await.unwrap();
}

/// The highest resident size of this process in kB, or zero without `/proc`.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
