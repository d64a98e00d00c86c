//! Imports the data of two Python servers: the Flask and Redis demo, and the Flask and SQLite server.
//!
//! ```sh
//! cargo build --release --features full --example import
//! target/release/examples/import --from redis://127.0.0.1 --vapid-private-key private_key.pem --to sqlite://web-push.db
//! target/release/examples/import --from sqlite:///srv/push/webpush.db --to sqlite://web-push.db --dry-run
//! ```
//!
//! The source is only read, and may be in use. `--help` lists the options.

#[path = "../support/causes.rs"]
mod causes;
mod from_redis;
mod from_sqlite;
#[path = "../support/secret_setting.rs"]
mod secret_setting;
#[path = "../support/store.rs"]
mod store;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::import::{Import, ImportReport, ImportedSubscription, RefusedRow};
use tower_web_push::vapid::{KeyEncryptionKeys, VapidError, VapidKey};
use tower_web_push::{BuildError, WebPush};

use causes::with_causes;
use from_redis::FromRedis;
use from_sqlite::FromSqlite;
use secret_setting::secret;
use store::StoreUrl;

/// Imports the subscriptions and keys of another Web Push server.
///
/// It adds what is missing and changes nothing that is stored, so it can be repeated: after an interruption, or for
/// rows that were stored meanwhile. But rows that were deleted here in between are imported again. Nothing is sent.
#[derive(Parser)]
#[command(after_help = AFTER_HELP)]
struct Arguments {
    /// The source: `redis://…` of the Flask and Redis demo, `sqlite://FILE` of the Flask and SQLite server
    #[arg(long, value_name = "URL")]
    from: String,

    /// The target: the `STORE_URL` of the example servers
    #[arg(long, env = "STORE_URL", value_name = "URL", hide_env_values = true)]
    to: Option<String>,

    /// A file with the target
    #[arg(long, env = "STORE_URL_FILE", value_name = "FILE")]
    to_file: Option<String>,

    /// The private key that the demo's pages subscribe with, in any form. SQLite has its keys in the file
    #[arg(long, value_name = "FILE")]
    vapid_private_key: Option<PathBuf>,

    /// Only report what would be done. An empty database gets its tables and the VAPID key all the same
    #[arg(long)]
    dry_run: bool,

    /// The zone of the other server's clock, since its times in SQLite have none: `Europe/Berlin`
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,

    /// The endpoints that are accepted: as `ENDPOINT_POLICY` of the example servers
    #[arg(long, env, value_name = "POLICY", default_value = "known")]
    endpoint_policy: String,

    /// Encrypts the stored VAPID keys: as `KEY_ENCRYPTION_KEY` of the example servers
    #[arg(long, env, value_name = "KEYS", hide_env_values = true)]
    key_encryption_key: Option<String>,

    /// A file with the keys
    #[arg(long, env, value_name = "FILE")]
    key_encryption_key_file: Option<String>,

    /// PEM file of certificates to trust in addition to the public ones, for a database behind TLS
    #[arg(long, env, value_name = "FILE")]
    extra_root_ca: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Ids: those of the demo are kept. Those of the SQLite server are numbers, which cannot be: its pages unsubscribe by their
endpoint, and need none.

Daily notifications: a time that is null becomes this minute, in UTC. What fell due since the SQLite server last sent
(settings.prev_notify_end_time, at most 24 hours ago) is sent when the example server starts.

Exit codes: 0 all of it is here; 1 it was interrupted, run it again; 2 it could not begin; 3 some rows were refused, the
others are here.";

/// The keys, and then pages of rows.
pub(crate) struct Source {
    /// The last one is the active one.
    keys: Vec<VapidKey>,
    daily_sent_until: Option<Timestamp>,
    rows: Rows,
}

enum Rows {
    Redis(FromRedis),
    Sqlite(Box<FromSqlite>),
}

pub(crate) type Row = Result<ImportedSubscription, RefusedRow>;
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let begun = match begin(&mut arguments).await {
        Ok(begun) => begun,
        Err(error) => return fail(2, error.as_ref()),
    };
    let (push, mut source) = begun;
    let import = match run(&push, &mut source, arguments.dry_run).await {
        Ok(import) => import,
        Err(error) => return fail(1, error.as_ref()),
    };
    show(&push, &source, import.report());
    if arguments.dry_run {
        println!("This was a dry run: nothing was imported.");
    }
    match import.report().refused {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(3),
    }
}

fn fail(code: u8, error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("error: {}", with_causes(error));
    if code == 1 {
        eprintln!("What was imported by then stays. Run it again.");
    }
    ExitCode::from(code)
}

async fn begin(arguments: &mut Arguments) -> Result<(WebPush, Source), BoxError> {
    let (to, to_file) = (arguments.to.take(), arguments.to_file.take());
    arguments.to = secret("STORE_URL", to, to_file)?;
    arguments.key_encryption_key = secret(
        "KEY_ENCRYPTION_KEY",
        arguments.key_encryption_key.take(),
        arguments.key_encryption_key_file.take(),
    )?;
    let given = match &arguments.vapid_private_key {
        Some(path) => {
            let told = |why: String| format!("--vapid-private-key: {}: {why}", path.display());
            let text = fs::read(path).map_err(|error| told(error.to_string()))?;
            let key = VapidKey::parse(&text);
            Some(key.map_err(|error| told(with_causes(error)))?)
        }
        None => None,
    };
    let source = match arguments.from.split_once("://") {
        Some(("redis" | "rediss", _)) => {
            let key = given.ok_or("--vapid-private-key is needed: Redis has no keys")?;
            Source {
                keys: vec![key],
                daily_sent_until: None,
                rows: Rows::Redis(
                    FromRedis::open(&arguments.from)
                        .await
                        .map_err(|error| format!("--from: {}", with_causes(error)))?,
                ),
            }
        }
        Some(("sqlite", path)) if !path.is_empty() => {
            FromSqlite::open(path, given, &arguments.zone)?
        }
        // The URL may contain a password.
        _ => return Err("--from: neither redis:// nor sqlite://FILE".into()),
    };
    let push = open(arguments, source.keys.last()).await?;
    Ok((push, source))
}

async fn open(arguments: &Arguments, active: Option<&VapidKey>) -> Result<WebPush, BoxError> {
    let to = arguments.to.as_deref();
    let to = to.ok_or("--to or STORE_URL is needed")?;
    let mut to = StoreUrl::parse(to).map_err(|why| format!("--to: {why}"))?;
    match &to {
        // Opening it would create the file. Importing into an empty store is importing into memory.
        StoreUrl::Sqlite(path) if arguments.dry_run && !path.exists() => to = StoreUrl::Memory,
        StoreUrl::Memory if !arguments.dry_run => {
            return Err("--to: memory would be forgotten at once".into());
        }
        _ => {}
    }
    // Nothing is sent, so the contact is never used.
    let mut builder = WebPush::builder("mailto:none@localhost")
        .insecure_local_contact()
        .endpoint_policy(
            arguments
                .endpoint_policy
                .parse::<EndpointPolicy>()
                .map_err(|error| format!("--endpoint-policy: {}", with_causes(error)))?,
        );
    if let Some(keys) = &arguments.key_encryption_key {
        let keys = KeyEncryptionKeys::parse(keys)
            .map_err(|error| format!("--key-encryption-key: {}", with_causes(error)))?;
        builder = builder.key_encryption_keys(keys);
    }
    // In an empty store it is the first key, so that none is made.
    let first = match active {
        Some(key) => Some(VapidKey::parse(key.secret_to_pkcs8_pem().as_bytes())?),
        None => None,
    };
    let extra_root_ca = match &arguments.extra_root_ca {
        Some(path) => {
            let pem = fs::read(path)
                .map_err(|error| format!("--extra-root-ca: {}: {error}", path.display()))?;
            Some(pem)
        }
        None => None,
    };
    let opened = to
        .open(builder, first, true, extra_root_ca.as_deref())
        .await;
    // A file is closed with its last handle, which the `WebPush` owns.
    let (builder, _) = opened.map_err(|error| format!("--to: {}", with_causes(error)))?;
    builder
        .build()
        .await
        .map_err(|error: BuildError| error.into())
}

async fn run(push: &WebPush, source: &mut Source, dry_run: bool) -> Result<Import, BoxError> {
    let mut import = push.import();
    if dry_run {
        import = import.dry_run();
    }
    if let Some(moment) = source.daily_sent_until {
        import = import.daily_sent_until(moment);
    }
    keys(&mut import, &source.keys).await?;
    while let Some(page) = source.rows.next_page().await? {
        import.add(page).await?;
    }
    Ok(import)
}

async fn keys(import: &mut Import, keys: &[VapidKey]) -> Result<(), VapidError> {
    if let Some((active, older)) = keys.split_last() {
        for key in older {
            import.vapid_key(key).await?;
        }
        import.active_vapid_key(active).await?;
    }
    Ok(())
}

impl Rows {
    async fn next_page(&mut self) -> Result<Option<Vec<Row>>, BoxError> {
        match self {
            Self::Redis(rows) => Ok(rows.next_page().await?),
            Self::Sqlite(rows) => Ok(rows.next_page()?),
        }
    }
}

fn show(push: &WebPush, source: &Source, report: &ImportReport) {
    println!(
        "VAPID keys: {} read, active here: {}",
        source.keys.len(),
        push.vapid_public_key()
    );
    println!(
        "Subscriptions: {} created, {} updated, {} unchanged, {} superseded, {} refused",
        report.created, report.updated, report.unchanged, report.superseded, report.refused
    );
    println!("Daily notifications: {} new", report.daily);
    let seen = report.created + report.updated + report.unchanged + report.superseded;
    if seen + report.refused == 0 {
        println!("The source has no subscriptions: is it the right database?");
    }
    for refused in &report.refusals {
        println!("Refused: {}", with_causes(refused));
    }
    let more = report.refused - report.refusals.len() as u64;
    if more > 0 {
        println!("Refused: {more} more");
    }
    if let Rows::Sqlite(rows) = &source.rows {
        for note in rows.notes() {
            println!("Note: {note}");
        }
    }
}
