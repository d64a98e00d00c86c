//! The command line and the environment, as text: `settings.rs` says what the text may be.

use clap::Parser;

/// A Web Push server: subscriptions, direct and daily notifications, an HTTP API, and a page to try them.
///
/// Every setting is a flag or an environment variable. Give secrets by the environment: other users of the
/// machine can read a program's flags.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Flags {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) bind: String,

    /// Where everything is kept: `sqlite://FILE`, `sqlite:///absolute/FILE`, `memory:`, or shared by any number of
    /// servers `postgres://USER:PASSWORD@HOST/DATABASE?sslmode=require`, `redis://HOST`, `rediss://HOST`
    #[arg(long, env, value_name = "URL", default_value = "sqlite://web-push.db")]
    pub(crate) store_url: String,

    /// Whom a push service can write to, `mailto:` or `https:`; without it only this machine is sent to, and no
    /// browser can subscribe
    #[arg(long, env, value_name = "CONTACT")]
    pub(crate) vapid_subject: Option<String>,

    /// A key pair to go on with: PEM, base64 of DER or the raw private key; without it one is made
    #[arg(long, env, value_name = "KEY", hide_env_values = true)]
    pub(crate) vapid_private_key: Option<String>,

    /// What `Authorization: Bearer` carries for the admin routes: at least 12 characters, better 48 random ones as
    /// `openssl rand -hex 24` makes them
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,

    /// The password of the user `admin` for the admin routes, at least 12 characters
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub(crate) admin_password: Option<String>,

    /// Encrypts the stored VAPID keys: 32 random bytes in base64, as `openssl rand -base64 32` makes them; of a
    /// comma list the first encrypts, all decrypt
    #[arg(long, env, value_name = "KEYS", hide_env_values = true)]
    pub(crate) key_encryption_key: Option<String>,

    /// Where may be sent to: `known`, `public`, `local` (tests only), or a comma list of hosts
    #[arg(long, env, value_name = "POLICY", default_value = "known")]
    pub(crate) endpoint_policy: String,

    /// Other origins whose pages may use the API, as a comma list
    #[arg(long, env, value_name = "ORIGINS")]
    pub(crate) allowed_origins: Option<String>,

    /// Tags that anyone may subscribe to, as a comma list
    #[arg(long, env, value_name = "TAGS")]
    pub(crate) public_tags: Option<String>,

    /// Whether a new daily subscription is confirmed by a notification: `true` or `false`
    #[arg(long, env, value_name = "BOOL", default_value = "true")]
    pub(crate) confirmation: String,

    /// How many subscriptions there may be; above it `/subscribe` is answered 503 `store_full`
    #[arg(long, env, value_name = "NUMBER", default_value = "10000000")]
    pub(crate) max_subscriptions: String,

    /// How many of them may be of no signed-in user and without an accepted push; above it strangers are answered 503
    /// `store_full` until a broadcast has reached enough of them
    #[arg(long, env, value_name = "NUMBER", default_value = "100000")]
    pub(crate) max_unproven_subscriptions: String,

    /// How many requests a minute each address may make to `/subscribe`, `/renew`, `/unsubscribe` and `/send-test`
    /// together; 0 for any number
    #[arg(long, env, value_name = "NUMBER", default_value = "60")]
    pub(crate) public_requests_per_minute: String,

    /// How many tests and confirmations a minute are sent for each address; 0 for any number
    #[arg(long, env, value_name = "NUMBER", default_value = "20")]
    pub(crate) public_pushes_per_minute: String,

    /// A PEM file with certificates to trust besides the usual ones
    #[arg(long, env, value_name = "FILE")]
    pub(crate) extra_root_ca: Option<String>,

    /// The longest pause between two looks at due work
    #[arg(long, env, value_name = "SECONDS", default_value = "60")]
    pub(crate) seconds_between_notifications: String,

    /// What `/ping` reports
    #[arg(long, env, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    pub(crate) push_server_version: String,

    /// What is logged: a level, or directives as in `tower_web_push=debug,warn`
    #[arg(long, env, value_name = "FILTER", default_value = "info")]
    pub(crate) rust_log: String,
}
