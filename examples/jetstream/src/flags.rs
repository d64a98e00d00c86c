//! What can be set: by flags, or in the environment under the names that the crate's example servers use.

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

/// Where everything is.
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
    /// Where subscriptions and VAPID keys are: sqlite://FILE, with the feature of that name also postgres://… and redis://…
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
    /// Deliver, until SIGTERM; start as many of these as you like
    Work(Work),
    /// List the jobs that could not be worked on
    DeadLetters(DeadLetters),
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// The notification's title
    pub(crate) title: String,
    /// Its text
    #[arg(long)]
    pub(crate) body: Option<String>,
    /// What a click on it opens
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Seconds that the message is worth delivering
    #[arg(long, default_value_t)]
    pub(crate) ttl: Ttl,
    /// Only to this user's subscriptions
    #[arg(long, conflicts_with = "tag")]
    pub(crate) user: Option<String>,
    /// Only to subscriptions with this tag
    #[arg(long)]
    pub(crate) tag: Option<Tag>,
    /// The broadcast's name, a UUID: called again with the name it printed, an interrupted call is completed
    #[arg(long)]
    pub(crate) id: Option<BroadcastId>,
}

#[derive(Debug, Args)]
pub(crate) struct Work {
    /// Whom push services can write to: mailto: or https:
    #[arg(long, env)]
    pub(crate) vapid_subject: Contact,
    /// What VAPID keys are sealed with in the store: base64url of 32 bytes, comma list
    #[arg(long, env, hide_env_values = true)]
    pub(crate) key_encryption_key: Option<String>,
    /// Where may be sent to: known, public, local (tests only), or a comma list of hosts
    #[arg(long, env, default_value = "known")]
    pub(crate) endpoint_policy: EndpointPolicy,
    /// Jobs in hand at once
    #[arg(long, default_value_t = 4)]
    pub(crate) jobs: usize,
    /// Recipients of a job that are served before it is written down how far it got
    #[arg(long, default_value_t = 100)]
    pub(crate) part: usize,
    /// Requests under way at once
    #[arg(long, default_value_t = 200)]
    pub(crate) concurrency: usize,
    /// Seconds without a sign of life after which a worker counts as dead
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub(crate) ack_wait: Duration,
    /// Deliveries of a job that comes to nothing, before it is a dead letter
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
