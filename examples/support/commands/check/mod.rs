//! `check`: what is wrong with a server before it starts, or why a subscriber gets nothing.

mod names;
mod subscription;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tower_web_push::WebPush;
use tower_web_push::check::{Finding, FindingKind, check_store, check_subscription};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::store::{MemoryStore, StoredVapidKey, VapidKeyStore as _};
use tower_web_push::vapid::KeyId;

use self::names::{check_host, check_names, check_policy};
use self::subscription::{check_endpoint, find, send};
use super::super::causes::with_causes;
use super::super::flags::Flags;
use super::super::settings::Settings;
use super::super::store::StoreUrl;
use super::stores::{self, WholeStore};

/// What to check beside the server itself.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A subscription to check too: its id, or a file with its endpoint (an endpoint on the command line could be read by
    /// others). Nothing is sent to it
    #[arg(long, value_name = "ID or FILE")]
    subscription: Option<String>,

    /// Sends this subscription one test notification, and says in words what the push service answered
    #[arg(long, requires = "subscription")]
    send: bool,
}

/// Prints findings and counts those that are wrong.
#[derive(Default)]
struct Findings {
    wrong: u32,
}

impl Findings {
    fn ok(&self, text: impl AsRef<str>) {
        println!("ok    {}", text.as_ref());
    }

    /// Something that may be intended.
    fn note(&self, text: impl AsRef<str>) {
        println!("note  {}", text.as_ref());
    }

    /// Those of the crate.
    fn add(&mut self, found: Vec<Finding>) {
        for Finding {
            kind, text, hint, ..
        } in found
        {
            match kind {
                FindingKind::Fine => self.ok(text),
                FindingKind::Wrong => self.wrong(text, hint),
                _ => self.note(text),
            }
        }
    }

    fn wrong(&mut self, text: impl AsRef<str>, hint: &str) {
        self.wrong += 1;
        println!("WRONG {}", text.as_ref());
        println!("      {hint}");
    }
}

pub(super) async fn run(arguments: &Arguments, flags: Flags) -> ExitCode {
    let mut findings = Findings::default();
    match Settings::check(flags) {
        Ok(settings) => {
            findings.ok("settings: they can be read");
            check_all(arguments, settings, &mut findings).await;
        }
        Err(error) => findings.wrong(
            format!("settings: {error}"),
            "Correct it and run the check again: the rest depends on it.",
        ),
    }
    match findings.wrong {
        0 => {
            println!("Nothing is wrong.");
            ExitCode::SUCCESS
        }
        1 => {
            println!("One thing is wrong.");
            ExitCode::FAILURE
        }
        many => {
            println!("{many} things are wrong.");
            ExitCode::FAILURE
        }
    }
}

async fn check_all(arguments: &Arguments, settings: Settings, findings: &mut Findings) {
    match &settings.contact {
        Some(contact) => findings.ok(format!("contact: {}", contact.as_str())),
        None => findings.wrong(
            "contact: VAPID_SUBJECT is not set, so nothing is sent and no browser can subscribe",
            "Set it to an address that is read, as in mailto:you@example.com: push services write to it about a sender.",
        ),
    }
    let policy = settings.endpoint_policy.clone();
    check_policy(&policy, findings);
    check_names(&policy, findings).await;
    let store = open_store(&settings, findings).await;
    let Some(store) = store else {
        return;
    };
    let configured = settings.vapid_private_key.as_ref();
    let configured: Vec<_> = configured
        .map(|key| KeyId::of(key.public_key()))
        .into_iter()
        .collect();
    let clock = SystemClock::new();
    findings.add(check_store(&store, &configured, &clock).await);
    let keys = check_keys(&settings, &*store, findings).await;
    if let Some(name) = &arguments.subscription {
        let found = find(name, &*store).await;
        match found {
            Ok(row) => {
                let now = clock.now();
                // Errors of the store were found before. Keys that cannot be read are not missing.
                let ids: Vec<_> = match store.keys().await {
                    Ok(stored) => stored.iter().map(|key| key.id).chain(configured).collect(),
                    Err(_) => vec![row.vapid_key],
                };
                let pauses = store.pauses(now).await.unwrap_or_default();
                findings.add(check_subscription(&row, &ids, &pauses, now));
                check_endpoint(&row, &policy, findings);
                check_host(&row, findings).await;
                if let (true, Some(keys)) = (arguments.send, keys) {
                    send(&settings, &keys, &row, findings).await;
                }
            }
            Err((why, hint)) => findings.wrong(format!("subscription: {why}"), hint),
        }
    }
}

/// Opens the store without creating one.
async fn open_store(settings: &Settings, findings: &mut Findings) -> Option<Arc<dyn WholeStore>> {
    if settings.key_encryption_keys.is_none() && settings.store != StoreUrl::Memory {
        findings.note(
            "keys: KEY_ENCRYPTION_KEY is not set, so VAPID private keys are stored in the clear: make one with \
             `openssl rand -base64 32`",
        );
    }
    let certificates = settings.extra_root_ca_pem.as_deref();
    let opened = stores::open("STORE_URL", settings.store.clone(), false, certificates);
    match opened.await {
        Ok(store) => {
            findings.ok(format!("store: {}", store.description()));
            Some(store)
        }
        Err(why) => {
            findings.wrong(
                format!("store: {why}"),
                "A server that starts for the first time creates the file or the tables. Otherwise: is it the right STORE_URL, does \
                 the database run, may this user read and write it?",
            );
            None
        }
    }
}

/// Builds what the server would build. Returns the keys if that succeeds.
async fn check_keys(
    settings: &Settings,
    store: &dyn WholeStore,
    findings: &mut Findings,
) -> Option<Vec<StoredVapidKey>> {
    // An error was found before.
    let keys = store.keys().await.ok()?;
    let makes_first = settings.create_store
        && (settings.expected_vapid_key.is_none() || settings.vapid_private_key.is_some());
    if keys.is_empty() && makes_first {
        return None;
    }
    match build(settings, &keys, settings.expected_vapid_key).await {
        Ok(push) => {
            findings.ok(format!(
                "keys: all can be read; browsers subscribe with {}",
                push.vapid_public_key()
            ));
            Some(keys)
        }
        Err(why) => {
            findings.wrong(
                format!("keys: {why}"),
                "Never make new keys for a store that has subscriptions: they belong to the old ones. Set the KEY_ENCRYPTION_KEY \
                 that it was used with, or SEAL_CLEAR_KEYS=true for one start if it was used without.",
            );
            None
        }
    }
}

/// Builds what the server would build, with these keys in a store of its own: a start encrypts them again if the
/// KEY_ENCRYPTION_KEY has changed, and the check changes nothing.
async fn build(
    settings: &Settings,
    keys: &[StoredVapidKey],
    expected: Option<KeyId>,
) -> Result<WebPush, String> {
    let store = MemoryStore::new();
    for key in keys {
        store.insert(key).await.map_err(with_causes)?;
    }
    let mut builder = match &settings.contact {
        Some(contact) => {
            WebPush::builder(contact.as_str()).endpoint_policy(settings.endpoint_policy.clone())
        }
        None => WebPush::builder_without_contact(),
    };
    builder = builder.store(store).create_store(false);
    if let Some(key) = expected {
        builder = builder.expect_vapid_key(key);
    }
    if let Some(keys) = &settings.key_encryption_keys {
        builder = builder.key_encryption_keys(keys.clone());
    }
    if let Some(pem) = &settings.extra_root_ca_pem {
        builder = builder.extra_root_ca_pem(pem.clone());
    }
    builder.build().await.map_err(with_causes)
}
