//! The guide: fourteen pages.
//!
//! - [What happens to a message](what_happens_to_a_message): from the call that accepts it to its final outcome, and the
//!   effect of a crash in between.
//! - [What the push service said, and what we do](what_the_push_service_said): every response, the rule that follows, and
//!   where the rule can be changed.
//! - [Daily notifications](daily_notifications): their time, recipients and content.
//! - [In your own transaction](in_your_own_transaction): a message that is sent if and only if the application's own
//!   transaction commits, from any language.
//! - [In the browser](in_the_browser): the client and the service worker, and how they handle failures.
//! - [In front of strangers](in_front_of_strangers): the limits for unauthenticated clients, each with its default, reason and
//!   test.
//! - [Users and tags](users_and_tags) on a standalone server: a header of the proxy, or a token of the application's backend.
//! - [Threat model](threat_model): each attacker, what they can do, what stops them, and the test that proves it.
//! - [When something breaks](when_something_breaks): faults, what each costs, how it shows, what to do.
//! - [Watching it](watching_it): metrics, dashboard, alerts and logs for operators.
//! - [Choosing a store](choosing_a_store): comparison, sizing, monitoring and scaling.
//! - [In production](in_production): a checklist, and files for systemd, containers, Kubernetes and proxies.
//! - [Moving here](moving_here) from another library or server: what to bring, and what differs.
//! - [Driving it yourself](driving_it_yourself): delivery from a queue, a log or a job library of your own.

#[doc = include_str!("choosing_a_store.md")]
pub mod choosing_a_store {}

#[doc = include_str!("daily_notifications.md")]
pub mod daily_notifications {}

#[doc = include_str!("driving_it_yourself.md")]
pub mod driving_it_yourself {}

#[doc = include_str!("in_front_of_strangers.md")]
pub mod in_front_of_strangers {}

#[doc = include_str!("in_production.md")]
pub mod in_production {}

#[doc = include_str!("in_the_browser.md")]
pub mod in_the_browser {}

#[doc = include_str!("in_your_own_transaction.md")]
pub mod in_your_own_transaction {}

#[doc = include_str!("moving_here.md")]
pub mod moving_here {}

#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

#[doc = include_str!("users_and_tags.md")]
pub mod users_and_tags {}

#[doc = include_str!("what_happens_to_a_message.md")]
pub mod what_happens_to_a_message {}

#[doc = include_str!("what_the_push_service_said.md")]
pub mod what_the_push_service_said {}

#[doc = include_str!("watching_it.md")]
pub mod watching_it {}

#[doc = include_str!("when_something_breaks.md")]
pub mod when_something_breaks {}
