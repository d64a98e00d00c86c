//! Messages per second to one push service that answers after 50 ms and allows 100 streams on each connection.
//!
//! `cargo bench --bench throughput --all-features`. Real sockets, TLS and HTTP/2: the push service runs on a thread of its
//! own in this process, the sender on two others, with its messages in memory. The rate includes the time in which the number of
//! requests in flight grows from 8. `-- LATENCY_MS STREAMS IN_FLIGHT MESSAGES LANES` changes the numbers; `IN_FLIGHT` is the most
//! requests in flight. With two or more `LANES` each round is made twice: by one sender on two threads, and by as many senders as
//! there are lanes, each with a thread, a store and connections of its own and a part of the messages.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

// Only a part of the tests' support is used.
#[allow(dead_code)]
#[path = "../tests/support/push_server.rs"]
mod push_server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use std::{fs, thread};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tower_web_push::broadcast::BroadcastState;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::{EndpointPolicy, OriginGates};
use tower_web_push::p256::UaSecretKey;
use tower_web_push::store::{
    MemoryStore, NewSubscription, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

use push_server::{acceptor, certificate};

/// Longer only if the code is broken.
const LIMIT: Duration = Duration::from_secs(300);
const ROUNDS: usize = 3;

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let number = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    let latency = Duration::from_millis(number(0, 50) as u64);
    let (streams, in_flight) = (number(1, 100), number(2, OriginGates::IN_FLIGHT));
    let lanes = number(4, 1).max(1);
    let messages = number(3, 100_000) / lanes * lanes;

    let service = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(PUSH_SERVICE)
        .enable_all()
        .build()
        .unwrap();
    let listener = service.block_on(TcpListener::bind(("127.0.0.1", 0)));
    let listener = listener.unwrap();
    let port = listener.local_addr().unwrap().port();
    let certified = certificate();
    let tls = acceptor(&[b"h2"], &certified);
    let connections = Arc::new(AtomicUsize::new(0));
    service.spawn(serve(
        listener,
        tls,
        latency,
        u32::try_from(streams).unwrap(),
        Arc::clone(&connections),
    ));
    let sender = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!("{messages} messages, answers after {latency:?}, {streams} streams per connection");
    println!("at most {in_flight} requests in flight");
    let ca_pem = certified.cert.pem();
    let so_far = || connections.load(Ordering::SeqCst);
    for _ in 0..ROUNDS {
        let before = so_far();
        let sent = sender.block_on(send(port, ca_pem.clone(), in_flight, messages));
        report(
            "one sender, two threads",
            messages,
            &sent,
            so_far() - before,
        );
        if lanes > 1 {
            let before = so_far();
            let sent = in_lanes(port, &ca_pem, in_flight, messages, lanes);
            let what = format!("{lanes} senders, a thread each");
            report(&what, messages, &sent, so_far() - before);
        }
    }
}

/// What a round took: the time from the first claim to the last answer, and the CPU time of all threads but the push service's.
struct Sent {
    took: Duration,
    cpu: Duration,
}

fn report(what: &str, messages: usize, sent: &Sent, connections: usize) {
    println!(
        "{what}: {:7.0} messages/s, {:5.1} us of CPU each, over {connections} connections",
        messages as f64 / sent.took.as_secs_f64(),
        sent.cpu.as_secs_f64() * 1e6 / messages as f64,
    );
}

/// Sends from threads that share nothing, as if each core had a lane of its own.
fn in_lanes(port: u16, ca_pem: &str, in_flight: usize, messages: usize, lanes: usize) -> Sent {
    let (begin, wait) = (Barrier::new(lanes), Barrier::new(lanes));
    let all = thread::scope(|scope| {
        let lane = || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (ca_pem, in_flight) = (ca_pem.to_owned(), in_flight / lanes);
                let sender = Sender::new(port, ca_pem, in_flight, messages / lanes);
                // One that fails waits for the others all the same, which would wait for it.
                let sender = tokio::spawn(sender).await;
                begin.wait();
                let sent = tokio::spawn(async { sender.unwrap().send().await }).await;
                wait.wait();
                sent.unwrap()
            })
        };
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let sent = lanes.into_iter().map(|lane| lane.join().unwrap());
        sent.collect::<Vec<_>>()
    });
    // Each lane has measured the CPU time of all, until it was done.
    Sent {
        took: all.iter().map(|sent| sent.took).max().unwrap(),
        cpu: all.iter().map(|sent| sent.cpu).max().unwrap(),
    }
}

async fn serve(
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
    latency: Duration,
    streams: u32,
    connections: Arc<AtomicUsize>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        tcp.set_nodelay(true).unwrap();
        let tls = tls.clone();
        tokio::spawn(async move {
            let stream = tls.accept(tcp).await.unwrap();
            let answer = service_fn(|request: http::Request<Incoming>| async move {
                let _ = request.into_body().collect().await;
                tokio::time::sleep(latency).await;
                Response::builder().status(201).body(Empty::<Bytes>::new())
            });
            let _gone = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

async fn send(port: u16, ca_pem: String, in_flight: usize, messages: usize) -> Sent {
    let sender = Sender::new(port, ca_pem, in_flight, messages).await;
    // On the threads of the runtime, and not on this one.
    tokio::spawn(sender.send()).await.unwrap()
}

/// A crate with its subscriptions in memory.
struct Sender {
    push: WebPush,
    messages: usize,
}

impl Sender {
    async fn new(port: u16, ca_pem: String, in_flight: usize, messages: usize) -> Self {
        let store = Arc::new(MemoryStore::new());
        let push = WebPush::builder("mailto:ops@example.com")
            .store(Arc::clone(&store))
            .endpoint_policy(EndpointPolicy::insecure_allow_local())
            .extra_root_ca_pem(ca_pem)
            .in_flight_per_origin(in_flight)
            .build()
            .await
            .unwrap();
        let secret = UaSecretKey::random().unwrap();
        let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
        let limits = SubscriptionLimits::default();
        let key = KeyId::of(&push.vapid_public_key());
        let now = SystemClock::new().now();
        stream::iter(0..messages)
            .for_each_concurrent(64, |number| {
                let endpoint = format!("https://localhost:{port}/{number}");
                let endpoint = Endpoint::parse(&endpoint).unwrap();
                // It is not decrypted, so the keys of one browser are enough.
                let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
                let new = NewSubscription::new(subscription, key);
                let (store, limits) = (&store, &limits);
                async move {
                    store.upsert(&new, limits, now).await.unwrap();
                }
            })
            .await;
        Self { push, messages }
    }

    /// Sends a broadcast.
    async fn send(self) -> Sent {
        let Self { push, messages } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
        let (began, cpu) = (Instant::now(), sender_cpu());
        let message = Message::new(vec![b'x'; 200]);
        let queued = push.enqueue(Audience::All, message).await.unwrap();
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let status = push.status(queued.broadcast).await.unwrap().unwrap();
            if status.state == BroadcastState::Done {
                assert_eq!(status.counts.accepted, messages as u64, "{status:?}");
                break;
            }
            assert!(began.elapsed() < LIMIT, "{status:?}");
        }
        let (took, cpu) = (began.elapsed(), sender_cpu().saturating_sub(cpu));
        drop(stop);
        running.await.unwrap().unwrap();
        Sent { took, cpu }
    }
}

const PUSH_SERVICE: &str = "push-service";

/// Returns the CPU time of the process's threads so far, except for the push service's; zero without `/proc`.
fn sender_cpu() -> Duration {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    let stats = tasks.flatten();
    let stats = stats.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let senders = stats.filter(|stat| !stat.contains(PUSH_SERVICE));
    senders.map(|stat| cpu_of(&stat)).sum()
}

/// User and system time: the 14th and 15th field, of which the name, in parentheses, is the second.
fn cpu_of(stat: &str) -> Duration {
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let times = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // A tick is 10 ms on every Linux.
    Duration::from_millis(ticks * 10)
}
