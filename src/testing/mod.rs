//! A push service and browsers, in the process of your own tests.
//!
//! [`TestPushService`] stands in for the HTTP client of whatever sends, or behind a server on a loopback
//! socket. [`UserAgent`] is a browser: it subscribes, and has what arrived decrypted. [`ManualClock`] is
//! time that stands still. Nothing here reads the network.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::clock::{Clock, SystemClock};
//! use tower_web_push::encryption::encrypt;
//! use tower_web_push::message::Padding;
//! use tower_web_push::p256;
//! use tower_web_push::testing::TestPushService;
//! use tower_web_push::vapid::{Contact, VapidKey, authorization};
//! use tower_service::Service;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut push_service = TestPushService::new();
//! let browser = push_service.user_agent();
//!
//! // The page subscribes with the server's key ...
//! let key = VapidKey::generate()?;
//! let subscription = browser.subscribe(key.public_key())?;
//!
//! // ... the server sends, here by hand ...
//! let contact = Contact::parse("mailto:ops@example.com")?;
//! let origin = subscription.endpoint().origin();
//! let body = encrypt(p256::fastest(), &subscription, b"shipped", Padding::default())?;
//! let request = http::Request::post(subscription.endpoint().as_str())
//!     .header("ttl", "60")
//!     .header("content-encoding", "aes128gcm")
//!     .header("authorization", authorization(&key, origin, &contact, SystemClock::new().now())?)
//!     .body(http_body_util::Full::new(body))?;
//! let answer = push_service.call(request).await?;
//! assert_eq!(answer.status(), 201);
//!
//! // ... and the browser has it.
//! assert_eq!(browser.next().await.text(), Some("shipped"));
//! assert!(push_service.refusals().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Answers can be scripted, the way a push service has its bad days:
//!
//! ```
//! use http::StatusCode;
//! use tower_web_push::testing::{Answer, TestPushService, When};
//!
//! let push_service = TestPushService::new();
//! let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(30);
//! push_service.script(When::any().times(2), busy);
//! ```

mod checks;
mod clock;
mod dialect;
mod inbox;
mod push_service;
mod received;
mod refusal;
mod registration;
mod script;
mod service;
#[cfg(test)]
mod tests;
mod user_agent;
mod vapid_cache;

pub use clock::ManualClock;
pub use push_service::{Counts, Recording, TestPushService, TestPushServiceBuilder};
pub use received::ReceivedPush;
pub use refusal::{Refusal, RefusalReason};
pub use script::{Answer, When};
pub use service::{
    AnswerBody, AnswerFuture, Disconnected, MountedAnswerFuture, MountedPushService,
};
pub use user_agent::UserAgent;
