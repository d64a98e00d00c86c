//! The command line and the environment, as text; `settings.rs` parses it.

use clap::Parser;

use super::commands::Command;

/// A Web Push server: subscriptions, direct and daily notifications, an HTTP API, and a page to try them.
///
/// Every setting is a flag or an environment variable. Give secrets by the environment, or in files named by the
/// settings that end in `_FILE`: other users of the machine can read a program's flags.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Flags {
    /// Address and port to listen on, or a Unix socket as `unix:/run/web-push/http.sock`; port 0 takes a free one. Sockets
    /// of a service manager (LISTEN_FDS) go first
    #[arg(long, env, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) bind: String,

    /// The mode of the file of a Unix socket, in octal: who may connect
    #[arg(long, env, value_name = "MODE", default_value = "660")]
    pub(crate) socket_mode: String,

    /// A PEM file with the certificate of this server and those between it and its root, for https without a proxy; needs
    /// TLS_PRIVATE_KEY. Changed files are read again
    #[arg(long, env, value_name = "FILE")]
    pub(crate) tls_certificate: Option<String>,

    /// A PEM file with the private key of TLS_CERTIFICATE
    #[arg(long, env, value_name = "FILE")]
    pub(crate) tls_private_key: Option<String>,

    /// How many seconds the start waits for a database server that is not up yet, at most 86400. Meanwhile `/live` is
    /// answered, and everything else by 503
    #[arg(long, env, value_name = "SECONDS", default_value = "60")]
    pub(crate) wait_for_store: String,

    /// The store: `sqlite://FILE`, `sqlite:///absolute/FILE`, `memory:`, or shared by any number of
    /// servers `postgres://USER:PASSWORD@HOST/DATABASE?sslmode=require` (`&sslrootcert=FILE` for a database's own
    /// certificates), `redis://HOST`, `rediss://HOST`. `?schema=NAME` (PostgreSQL, else web_push) and `?prefix=NAME` (Redis,
    /// else web-push) separate several installations. In a password, write other characters than letters and digits
    /// as %XX [default: sqlite://web-push.db]
    // Not clap's default: STORE_URL and STORE_URL_FILE exclude each other, so it must be known whether this was given.
    #[arg(long, env, value_name = "URL", hide_env_values = true, global = true)]
    pub(crate) store_url: Option<String>,

    /// A file that holds the STORE_URL, which may have a password in it
    #[arg(long, env, value_name = "FILE", global = true)]
    pub(crate) store_url_file: Option<String>,

    /// The contact that push services can write to, `mailto:` or `https:`; without it nothing is sent and no browser
    /// can subscribe
    #[arg(long, env, value_name = "CONTACT")]
    pub(crate) vapid_subject: Option<String>,

    /// The private key of an existing VAPID key pair to adopt: PEM or base64 of a PEM file, DER or the 32 octets in base64 or
    /// hex, JWK. Without it a key pair is made at the first start
    #[arg(long, env, value_name = "KEY", hide_env_values = true)]
    pub(crate) vapid_private_key: Option<String>,

    /// A file that holds the VAPID_PRIVATE_KEY
    #[arg(long, env, value_name = "FILE")]
    pub(crate) vapid_private_key_file: Option<String>,

    /// The id or the public key of a VAPID key that the store must have; without it, the server does not start: `keyId`
    /// or `vapidKey` of `GET /vapid`
    #[arg(long, env, value_name = "KEY")]
    pub(crate) expect_vapid_key: Option<String>,

    /// Whether an empty store is used; with `false`, the server does not start on one, as on an empty volume or in
    /// another folder
    #[arg(long, env, value_name = "BOOL", default_value = "true")]
    pub(crate) create_store: String,

    /// The bearer token of the admin routes: at least 12 characters, better 48 random ones as
    /// `openssl rand -hex 24` makes them
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,

    /// A file that holds the ADMIN_TOKEN
    #[arg(long, env, value_name = "FILE")]
    pub(crate) admin_token_file: Option<String>,

    /// The password of the user `admin` for the admin routes, at least 12 characters
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub(crate) admin_password: Option<String>,

    /// A file that holds the ADMIN_PASSWORD
    #[arg(long, env, value_name = "FILE")]
    pub(crate) admin_password_file: Option<String>,

    /// Encrypts the stored VAPID keys: 32 random bytes in base64, as `openssl rand -base64 32` makes them; of a
    /// comma list the first encrypts, all decrypt. With it, a stored key in the clear is refused
    #[arg(long, env, value_name = "KEYS", hide_env_values = true, global = true)]
    pub(crate) key_encryption_key: Option<String>,

    /// A file that holds the KEY_ENCRYPTION_KEY
    #[arg(long, env, value_name = "FILE", global = true)]
    pub(crate) key_encryption_key_file: Option<String>,

    /// Encrypts stored VAPID keys that are in the clear, instead of refusing them: for the one start in which a store
    /// that was used without KEY_ENCRYPTION_KEY gets one
    #[arg(long, env, value_name = "BOOL", default_value = "false")]
    pub(crate) seal_clear_keys: String,

    /// Which endpoints are allowed: a comma list of `known` (the browsers' push services), `public` (any public host) and
    /// hosts (`push.example.com`, `*.example.com`), with a port where it is not 443 (`ntfy.example.com:8443`); or
    /// `local`, for tests: this machine by http too, which needs a loopback BIND
    #[arg(long, env, value_name = "POLICY", default_value = "known")]
    pub(crate) endpoint_policy: String,

    /// Other origins whose pages may use the API, also with the visitor's cookies, as a comma list:
    /// `https://shop.example`
    #[arg(long, env, value_name = "ORIGINS")]
    pub(crate) allowed_origins: Option<String>,

    /// How many proxies in front of the server add the address of their client to `X-Forwarded-For` or `Forwarded`; with
    /// 0 these headers are ignored, and limits per address apply to the address of the connection
    #[arg(long, env, value_name = "NUMBER", default_value = "0")]
    pub(crate) trusted_proxies: String,

    /// The addresses from which the proxies connect, as a comma list of addresses and blocks (`10.0.0.0/8`); headers of
    /// proxies are ignored in requests from others. Without it every connection is a proxy's
    #[arg(long, env, value_name = "ADDRESSES")]
    pub(crate) proxy_addresses: Option<String>,

    /// The header in which the nearest proxy names the signed-in user, as in `Remote-User`; needs TRUSTED_PROXIES, and a
    /// proxy that removes this header from what clients send. Where other machines can connect it needs PROXY_ADDRESSES
    #[arg(long, env, value_name = "HEADER")]
    pub(crate) principal_header: Option<String>,

    /// The key of the tokens (JWT) in which the application's backend names the signed-in user, as `Authorization: Bearer`:
    /// a secret of at least 32 characters for HS256, a public key in PEM for ES256
    #[arg(long, env, value_name = "KEY", hide_env_values = true)]
    pub(crate) principal_token_key: Option<String>,

    /// A file that holds the PRINCIPAL_TOKEN_KEY
    #[arg(long, env, value_name = "FILE")]
    pub(crate) principal_token_key_file: Option<String>,

    /// The algorithm of these tokens, HS256 or ES256; no other is accepted
    #[arg(long, env, value_name = "ALGORITHM", default_value = "HS256")]
    pub(crate) principal_token_algorithm: String,

    /// The audience (`aud`) that these tokens need
    #[arg(long, env, value_name = "AUDIENCE", default_value = "web-push")]
    pub(crate) principal_token_audience: String,

    /// Whether only signed-in users may subscribe: `true` or `false`; needs PRINCIPAL_HEADER or PRINCIPAL_TOKEN_KEY
    #[arg(long, env, value_name = "BOOL", default_value = "false")]
    pub(crate) require_principal: String,

    /// Tags that anyone may subscribe to, as a comma list
    #[arg(long, env, value_name = "TAGS")]
    pub(crate) public_tags: Option<String>,

    /// Whether a new daily subscription is confirmed by a notification: `true` or `false`
    #[arg(long, env, value_name = "BOOL", default_value = "true")]
    pub(crate) confirmation: String,

    /// Whether the operator's console is served at `/console`: `true` or `false`. It can do nothing without the admin
    /// credentials; the routes of the API stay
    #[arg(long, env, value_name = "BOOL", default_value = "true")]
    pub(crate) console: String,

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

    /// Keeps all subscriptions of a push service while more than this percentage of its responses say that they are gone;
    /// 100 deletes them whatever the share, for a list that is known to be old
    #[arg(long, env, value_name = "PERCENT", default_value = "30")]
    pub(crate) retire_at_most: String,

    /// A PEM file with certificates to trust besides the usual ones
    #[arg(long, env, value_name = "FILE", global = true)]
    pub(crate) extra_root_ca: Option<String>,

    /// The longest pause between two polls for due work, in seconds, at most 86400
    #[arg(long, env, value_name = "SECONDS", default_value = "60")]
    pub(crate) seconds_between_notifications: String,

    /// The version that `/ping` reports
    #[arg(long, env, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    pub(crate) push_server_version: String,

    /// The log filter: a level (off, error, warn, info, debug, trace), and levels of targets, as in
    /// `warn,tower_web_push=debug`. Default level: info
    #[arg(long, env, value_name = "FILTER", default_value = "info")]
    pub(crate) rust_log: String,

    /// The form of the log: `text`, or `json` with an object in each line
    #[arg(long, env, value_name = "FORM", default_value = "text")]
    pub(crate) log_format: String,

    /// Exports the spans of broadcasts, pages, claims and attempts to a collector of OpenTelemetry at this address, as
    /// http://127.0.0.1:4318: OTLP over HTTP as JSON, to `/v1/traces`. Without it there are none. OTEL_SERVICE_NAME,
    /// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER (with _ARG), OTEL_BSP_* and OTEL_SPAN_* are read as OpenTelemetry says
    #[arg(long, env, value_name = "URL", hide_env_values = true)]
    pub(crate) otel_exporter_otlp_endpoint: Option<String>,

    /// The headers of requests to the collector, as a comma list with %XX for other characters:
    /// `authorization=Bearer%20TOKEN`
    #[arg(long, env, value_name = "HEADERS", hide_env_values = true)]
    pub(crate) otel_exporter_otlp_headers: Option<String>,

    /// A file that holds the OTEL_EXPORTER_OTLP_HEADERS
    #[arg(long, env, value_name = "FILE")]
    pub(crate) otel_exporter_otlp_headers_file: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}
