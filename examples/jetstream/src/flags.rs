//! Settings: flags, or environment variables with the names of the crate's example servers.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tower_web_push::broadcast::{BroadcastId, Tag};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Ttl;
use tower_web_push::vapid::Contact;

#[derive(Debug, Parser)]
#[command(about = "Web Push driven by NATS JetStream")]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The addresses of NATS and the store.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// The NATS server; nats://USER:PASSWORD@HOST:PORT or tls://…
    #[arg(
        long,
        env,
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    pub(crate) nats_url: String,
    /// The store of subscriptions and VAPID keys: sqlite://FILE, with the feature of that name also postgres://… and
    /// redis://…
    #[arg(
        long,
        env,
        hide_env_values = true,
        default_value = "sqlite://web-push.db"
    )]
    pub(crate) store_url: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept a broadcast: one job for each page of subscriptions
    Produce(Produce),
    /// Deliver, until SIGTERM; start as many of these as needed
    Work(Work),
    /// List the jobs that failed repeatedly
    DeadLetters(DeadLetters),
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// The notification's title
    pub(crate) title: String,
    /// Its text
    #[arg(long)]
    pub(crate) body: Option<String>,
    /// The address that a click on it opens
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The TTL in seconds
    #[arg(long, default_value_t)]
    pub(crate) ttl: Ttl,
    /// Only to this user's subscriptions
    #[arg(long, conflicts_with = "tag")]
    pub(crate) user: Option<String>,
    /// Only to subscriptions with this tag
    #[arg(long)]
    pub(crate) tag: Option<Tag>,
    /// The broadcast's id, a UUID: with the id that an interrupted call printed, this call completes it
    #[arg(long)]
    pub(crate) id: Option<BroadcastId>,
}

#[derive(Debug, Args)]
pub(crate) struct Work {
    /// The contact for push services: mailto: or https:
    #[arg(long, env)]
    pub(crate) vapid_subject: Contact,
    /// The key-encryption keys of the stored VAPID keys: base64url of 32 bytes, comma list
    #[arg(long, env, hide_env_values = true)]
    pub(crate) key_encryption_key: Option<String>,
    /// The endpoint policy: known, public, local (tests only), or a comma list of hosts
    #[arg(long, env, default_value = "known")]
    pub(crate) endpoint_policy: EndpointPolicy,
    /// Jobs processed at once
    #[arg(long, default_value_t = 4)]
    pub(crate) jobs: usize,
    /// Recipients of a job that are served before its progress is stored
    #[arg(long, default_value_t = 100)]
    pub(crate) part: usize,
    /// Requests in flight at once
    #[arg(long, default_value_t = 200)]
    pub(crate) concurrency: usize,
    /// Seconds without a progress message after which a worker counts as dead
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub(crate) ack_wait: Duration,
    /// Deliveries of a job without a result, before it becomes a dead letter
    #[arg(long, default_value_t = 5)]
    pub(crate) max_deliver: i64,
}

#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    /// Put them back into the queue instead
    #[arg(long)]
    pub(crate) replay: bool,
    /// Only these, by their numbers
    pub(crate) numbers: Vec<u64>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err("not a whole number of seconds above 0".to_owned()),
    }
}
