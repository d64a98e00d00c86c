//! A push service and user agents in the process of a test.
//!
//! [`TestPushService`] replaces the HTTP client of a sender, or runs behind a server on a loopback socket.
//! [`UserAgent`] is a browser: it subscribes and decrypts the messages it receives. [`ManualClock`] is a clock that
//! the test sets. Nothing here uses the network.
//!
//! # Examples
//!
//! ```
//! use tower_web_push::deliver::EndpointPolicy;
//! use tower_web_push::testing::TestPushService;
//! use tower_web_push::{Message, WebPush};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let push_service = TestPushService::new();
//! let push = WebPush::builder("mailto:ops@example.com")
//!     .client(push_service.clone())
//!     // Its endpoints are at https://push.example.net, which is not a known push service.
//!     .endpoint_policy(EndpointPolicy::public_hosts())
//!     .build()
//!     .await?;
//!
//! // A page subscribes with the server's key, the server sends, and the browser receives.
//! let browser = push_service.user_agent();
//! let subscription = browser.subscribe(&push.vapid_public_key())?;
//! push.deliver(&subscription, Message::new("shipped")).await?;
//! assert_eq!(browser.next().await.text(), Some("shipped"));
//! # Ok(())
//! # }
//! ```
//!
//! Answers can be scripted, for example those of a push service with a fault:
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
pub use push_service::{Recording, ServiceCounts, TestPushService, TestPushServiceBuilder};
pub use received::ReceivedPush;
pub use refusal::{Refusal, RefusalReason};
pub use script::{Answer, When};
pub use service::{
    AnswerBody, AnswerFuture, Disconnected, MountedAnswerFuture, MountedPushService,
};
pub use user_agent::UserAgent;
