//! Sends one message to one subscription and prints the result.
//!
//! ```sh
//! cargo run --example vapid_keys > keys.txt              # once; the page subscribes with the public key
//! cargo run --example send -- --key private.pem --contact mailto:ops@example.com subscription.json "Hello"
//! ```
//!
//! The subscription is `JSON.stringify(subscription)` of the page, from a file or (`-`) standard input.

#[path = "support/causes.rs"]
mod causes;

use std::error::Error;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tower::ServiceExt as _;
use tower_web_push::deliver::{
    Accepted, Deliver, DeliveryError, EndpointPolicy, HttpClient, Outcome,
};
use tower_web_push::message::{Message, Ttl, Urgency};
use tower_web_push::push_request::Push;
use tower_web_push::subscription::Subscription;
use tower_web_push::vapid::{Contact, VapidKey};

use causes::with_causes;

/// Sends one message to one subscription
#[derive(Parser)]
struct Arguments {
    /// The VAPID private key that the page subscribed with: a file in any form
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The contact for the push service: `mailto:` or `https:`
    #[arg(long)]
    contact: String,

    /// How long the push service keeps the message for a browser that is offline, in seconds
    #[arg(long, default_value_t = 86400)]
    ttl: u64,

    /// very-low, low, normal or high
    #[arg(long, default_value = "normal")]
    urgency: String,

    /// The subscription as JSON: a file, or - for standard input
    subscription: PathBuf,

    /// The payload: text or JSON, as the page's service worker reads it
    text: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let key = fs::read(&arguments.key).map_err(|error| of_file(&arguments.key, error))?;
    let key = VapidKey::parse(&key).map_err(|error| of_file(&arguments.key, error))?;
    let subscription = read(&arguments.subscription)?;
    let subscription = Subscription::from_json(&subscription)
        .map_err(|error| of_file(&arguments.subscription, error))?;
    let urgency = arguments.urgency.parse::<Urgency>();
    let message = arguments
        .text
        .map_or_else(Message::without_payload, Message::new)
        .with_ttl(Ttl::from_secs(arguments.ttl))
        .with_urgency(urgency.map_err(|error| of_flag("--urgency", error))?);

    // The user of this program chose the endpoint, so it may be on this machine.
    let policy = EndpointPolicy::insecure_allow_local();
    let client = HttpClient::builder().policy(policy.clone());
    let client = client.build().map_err(with_causes)?;
    let contact = Contact::parse(&arguments.contact);
    let contact = contact.map_err(|error| of_flag("--contact", error))?;
    let deliver = Deliver::new(client, contact).with_policy(policy);

    match deliver
        .oneshot(Push::new(subscription, message, Arc::new(key)))
        .await
    {
        Ok(accepted) => {
            println!("{}", in_words(&accepted));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{}", what_to_do(&error));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut input = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().read_to_end(&mut input).map(|_| input),
        _ => fs::read(path),
    };
    read.map_err(|error| of_file(path, error))
}

fn of_file(path: &Path, error: impl Error) -> String {
    format!("{}: {}", path.display(), with_causes(error))
}

fn of_flag(flag: &str, error: impl Error) -> String {
    format!("{flag}: {}", with_causes(error))
}

fn in_words(accepted: &Accepted) -> String {
    let kept = accepted.ttl().map_or_else(String::new, |ttl| {
        format!(
            " It keeps the message for at most {} seconds.",
            ttl.as_secs()
        )
    });
    format!(
        "{} took the message with status {}: it is stored or on its way, which does not mean that it is shown.{kept}",
        accepted.push_service(),
        accepted.status().as_u16(),
    )
}

fn what_to_do(error: &DeliveryError) -> String {
    let advice = match error.outcome() {
        Outcome::Gone => {
            "The subscription no longer exists. Delete it; the page has to subscribe again."
        }
        Outcome::KeyMismatch => {
            "The page subscribed with another key. Use that one, or have it subscribe again."
        }
        Outcome::SenderFault => {
            "The token was refused. Check this machine's clock, the key and the contact."
        }
        Outcome::TooLarge => {
            "The message is too long for this push service. Send less, or an address to fetch it from."
        }
        Outcome::BadRequest => {
            "The push service will never take this request. Check the endpoint and the options."
        }
        Outcome::RateLimited => "Too many messages. Wait before the next one.",
        Outcome::Transient => "The push service or the network failed. Try again later.",
        Outcome::Refused => "Nothing was sent: no push service can have this address.",
        _ => "See the reason.",
    };
    let mut lines = vec![format!("Not delivered: {error}.")];
    let mut cause = error.source();
    while let Some(error) = cause {
        lines.push(format!("Because: {error}."));
        cause = error.source();
    }
    if let Some(status) = error.status() {
        lines.push(format!("The push service answered with status {status}."));
    }
    if let Some(reason) = error.reason() {
        lines.push(format!("Its reason: {reason}."));
    }
    if let Some(pause) = error.retry_after() {
        lines.push(format!(
            "It asks for a pause of {} seconds.",
            pause.as_secs()
        ));
    }
    lines.push(advice.to_owned());
    lines.join("\n")
}
