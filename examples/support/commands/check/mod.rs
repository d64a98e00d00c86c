//! `check`: what is wrong with a server before it starts, or why a subscriber gets nothing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::{DeliveryError, EndpointPolicy, Outcome};
use tower_web_push::message::{Message, Ttl};
use tower_web_push::store::{
    MemoryStore, RetireReason, StoredVapidKey, SubscriptionRecord, SubscriptionRef,
    VapidKeyStore as _,
};
use tower_web_push::subscription::{Endpoint, SubscriptionId};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Notification, WebPush};

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

/// The longest wait for a name server or a push service.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest difference of clocks at which workers deliver.
const SKEW: Duration = Duration::from_secs(10);
/// The age of the oldest due message from which on it seems that no worker runs.
const LATE: Duration = Duration::from_secs(300);

/// Hosts of the browsers' push services, with endpoints as they make them.
const PUSH_SERVICES: [(&str, &str); 4] = [
    ("Chrome", "https://fcm.googleapis.com/fcm/send/x"),
    (
        "Firefox",
        "https://updates.push.services.mozilla.com/wpush/v2/x",
    ),
    ("Safari", "https://web.push.apple.com/x"),
    ("Edge", "https://wns2-by3p.notify.windows.com/w/?token=x"),
];

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
    check_clock(&*store, findings).await;
    check_writing(&*store, findings).await;
    check_queue(&*store, findings).await;
    let keys = check_keys(&settings, &*store, findings).await;
    if let Some(name) = &arguments.subscription {
        let found = find(name, &*store).await;
        match found {
            Ok(row) => {
                check_row(&row, &policy, findings);
                check_host(&row, findings).await;
                if let (true, Some(keys)) = (arguments.send, keys) {
                    send(&settings, &keys, &row, findings).await;
                }
            }
            Err(why) => findings.wrong(
                format!("subscription: {why}"),
                "Its browser has unsubscribed, was never here, or the row was purged 30 days after it had ended: the page has to \
                 subscribe again.",
            ),
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

async fn check_clock(store: &dyn WholeStore, findings: &mut Findings) {
    let before = SystemTime::now();
    match store.server_time().await {
        Ok(None) => findings.ok("clock: the store has none of its own"),
        Ok(Some(theirs)) => {
            let ours = Timestamp::from(before);
            let skew = ours.since(theirs).max(theirs.since(ours));
            let text = format!("clock: {} ms from the store's", skew.as_millis());
            match skew > SKEW + before.elapsed().unwrap_or_default() {
                true => findings.wrong(
                    text,
                    "Above 10 s nothing is delivered: run NTP on both machines.",
                ),
                false => findings.ok(text),
            }
        }
        Err(error) => findings.wrong(
            format!("clock: {}", with_causes(error)),
            "The store does not answer.",
        ),
    }
}

/// Writes a value that is there already.
async fn check_writing(store: &dyn WholeStore, findings: &mut Findings) {
    let key = match store.keys().await {
        Ok(keys) => keys.into_iter().next(),
        Err(error) => {
            findings.wrong(
                format!("store: {}", with_causes(error)),
                "It can be opened, but not be read.",
            );
            return;
        }
    };
    let Some(key) = key else {
        findings.note("store: it is empty; the first start makes a VAPID key in it");
        return;
    };
    match store.reseal(&key.id, &key.sealed, &key.sealed).await {
        Ok(_) => findings.ok("store: it can be written"),
        Err(error) => findings.wrong(
            format!("store: it cannot be written: {}", with_causes(error)),
            "Is the disk full, the file system or the database read-only, the user without rights?",
        ),
    }
}

async fn check_queue(store: &dyn WholeStore, findings: &mut Findings) {
    let now = Timestamp::from(SystemTime::now());
    match store.stats(now).await {
        Ok(stats) => {
            let late = stats.oldest_due.map(|due| now.since(due));
            match late.filter(|late| *late > LATE) {
                Some(late) => findings.wrong(
                    format!(
                        "queue: {} messages are pending, and the oldest has been due for {} minutes",
                        stats.depth,
                        late.as_secs() / 60
                    ),
                    "Does a server run on this store? If so, its push service is down, paused or slow: GET /stats names it.",
                ),
                None => findings.ok(format!("queue: {} messages are pending", stats.depth)),
            }
        }
        Err(error) => findings.wrong(
            format!("queue: {}", with_causes(error)),
            "The store cannot be read.",
        ),
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
        Some(contact) => WebPush::builder(contact.as_str()),
        None => WebPush::builder_without_contact(),
    };
    builder = builder
        .store(store)
        .create_store(false)
        .endpoint_policy(settings.endpoint_policy.clone());
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

fn check_policy(policy: &EndpointPolicy, findings: &mut Findings) {
    if policy.allows_local() {
        findings.note("policy: ENDPOINT_POLICY=local is for tests only");
        return;
    }
    let mut refused = Vec::new();
    for (browser, endpoint) in PUSH_SERVICES {
        let is_allowed = Endpoint::parse(endpoint).is_ok_and(|it| policy.check(&it).is_ok());
        if !is_allowed {
            refused.push(browser);
        }
    }
    match refused.len() {
        0 => findings.ok("policy: the push services of all browsers are allowed"),
        4 => findings.note(
            "policy: ENDPOINT_POLICY allows no browser's push service, only hosts of its list",
        ),
        _ => findings.note(format!(
            "policy: ENDPOINT_POLICY refuses the push service of {}",
            refused.join(", ")
        )),
    }
}

async fn check_names(policy: &EndpointPolicy, findings: &mut Findings) {
    if policy.allows_local() {
        return;
    }
    for (browser, endpoint) in PUSH_SERVICES {
        let Ok(endpoint) = Endpoint::parse(endpoint) else {
            continue;
        };
        if policy.check(&endpoint).is_err() {
            continue;
        }
        let host = host_and_port(&endpoint);
        match resolve(&host).await {
            Ok(_) => findings.ok(format!("names: {host} ({browser})")),
            Err(why) => findings.wrong(
                format!("names: {host} ({browser}): {why}"),
                "Does this machine reach a name server, and may it reach the Internet?",
            ),
        }
    }
}

fn host_and_port(endpoint: &Endpoint) -> String {
    let origin = endpoint.origin();
    let origin = origin.as_str();
    let (scheme, host) = origin.split_once("://").unwrap_or(("https", origin));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
    });
    match (has_port, scheme) {
        (true, _) => host.to_owned(),
        (false, "http") => format!("{host}:80"),
        (false, _) => format!("{host}:443"),
    }
}

async fn resolve(host: &str) -> Result<Vec<std::net::SocketAddr>, String> {
    match timeout(PATIENCE, lookup_host(host)).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            match found.is_empty() {
                true => Err("it has no address".to_owned()),
                false => Ok(found),
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 10 seconds".to_owned()),
    }
}

/// Finds a subscription by its id, or by the endpoint in a file.
async fn find(name: &str, store: &dyn WholeStore) -> Result<SubscriptionRecord, String> {
    let which = match name.parse::<SubscriptionId>() {
        Ok(id) => SubscriptionRef::Id(id),
        Err(_) => {
            let text = std::fs::read_to_string(name)
                .map_err(|error| format!("neither an id nor a file: {error}"))?;
            let endpoint = Endpoint::parse(text.trim());
            let endpoint = endpoint.map_err(|error| format!("{name}: {}", with_causes(error)))?;
            SubscriptionRef::from(&endpoint)
        }
    };
    let found = store.get(&[which]).await;
    let found = found.map_err(with_causes)?;
    let row = found.into_iter().next().flatten();
    row.ok_or_else(|| "the store does not have it".to_owned())
}

/// Says whether messages go to it, and why not.
fn check_row(row: &SubscriptionRecord, policy: &EndpointPolicy, findings: &mut Findings) {
    let now = Timestamp::from(SystemTime::now());
    let ago = |at: Timestamp| format!("{} hours ago", now.since(at).as_secs() / 3600);
    let name = format!("subscription {}", row.id);
    let service = tower_web_push::push_service::PushService::of(row.subscription.endpoint());
    findings.note(format!(
        "{name}: at {service}, last registered {}, {}",
        ago(row.last_seen_at),
        match row.last_success_at {
            Some(at) => format!("a message was last accepted {}", ago(at)),
            None => "no message was ever accepted".to_owned(),
        }
    ));
    if let Some(retired) = row.retired {
        let why = match retired.reason {
            RetireReason::Gone => "the push service said that it does not exist any more",
            RetireReason::HostNotFound => "the host of its endpoint does not exist",
            RetireReason::BadRequest => "the push service refused every request for weeks",
            _ => retired.reason.as_str(),
        };
        findings.wrong(
            format!("{name}: retired {}: {why}", ago(retired.at)),
            "It gets no messages. The page has to subscribe again, which the browser client does at the next visit.",
        );
    } else if let Some(since) = row.stale_since {
        findings.wrong(
            format!("{name}: stale since {}: it was made with a VAPID key that this store does not have", ago(since)),
            "It gets no messages. Import the old key, or wait for the page to subscribe again with the new one.",
        );
    } else if !row.is_live(now) {
        findings.wrong(
            format!("{name}: its expiration time is past"),
            "It gets no messages. The page has to subscribe again.",
        );
    } else {
        findings.ok(format!("{name}: it gets messages"));
    }
    if row.failure_streak > 0 {
        findings.note(format!(
            "{name}: the last {} attempts failed, the first of them {}",
            row.failure_streak,
            row.failing_since.map_or_else(String::new, ago)
        ));
    }
    if let Err(error) = policy.check(row.subscription.endpoint()) {
        findings.wrong(
            format!(
                "{name}: ENDPOINT_POLICY refuses its endpoint: {}",
                with_causes(error)
            ),
            "Messages to it end as `refused`. Add its host to ENDPOINT_POLICY if you trust it.",
        );
    }
}

/// Connects to the host of the endpoint, without a request.
async fn check_host(row: &SubscriptionRecord, findings: &mut Findings) {
    let host = host_and_port(row.subscription.endpoint());
    let addresses = match resolve(&host).await {
        Ok(addresses) => addresses,
        Err(why) => {
            findings.wrong(
                format!("{host}: {why}"),
                "Nothing can be sent there from this machine.",
            );
            return;
        }
    };
    match timeout(PATIENCE, TcpStream::connect(&*addresses)).await {
        Ok(Ok(_)) => findings.ok(format!("{host}: it can be reached")),
        Ok(Err(error)) => findings.wrong(
            format!("{host}: {error}"),
            "Is there a firewall that lets nothing out?",
        ),
        Err(_) => findings.wrong(
            format!("{host}: no connection within 10 seconds"),
            "Is there a firewall that lets nothing out?",
        ),
    }
}

/// Sends a message that is signed with the key with which the row was made.
async fn send(
    settings: &Settings,
    keys: &[StoredVapidKey],
    row: &SubscriptionRecord,
    findings: &mut Findings,
) {
    let Some(key) = keys.iter().find(|key| key.id == row.vapid_key) else {
        findings.wrong(
            "sent: nothing, since the store does not have the VAPID key of the subscription",
            "Import the old key, or wait for the page to subscribe again with the new one.",
        );
        return;
    };
    let mut key = key.clone();
    // `deliver` signs with the active one.
    key.active = true;
    let push = match build(settings, &[key], None).await {
        Ok(push) => push,
        Err(why) => {
            findings.wrong(format!("sent: nothing: {why}"), "See above.");
            return;
        }
    };
    let test = Notification::new("Test Notification").body("This is a test notification.");
    let message = Message::from(test).with_ttl(Ttl::from_secs(60));
    match push.deliver(&row.subscription, message).await {
        Ok(_) => findings.ok(
            "sent: the push service accepted a test notification; if the device shows none, the browser does not run, \
             notifications are switched off there, or its service worker shows nothing",
        ),
        Err(error) => {
            let hint = in_words(&error);
            let status = error.status().map(|status| format!(" ({status})"));
            findings.wrong(
                format!(
                    "sent: {}{}: {}",
                    error.outcome(),
                    status.unwrap_or_default(),
                    with_causes(error)
                ),
                hint,
            );
        }
    }
}

/// What an answer means, and what to do.
fn in_words(error: &DeliveryError) -> &'static str {
    match error.outcome() {
        Outcome::Gone => {
            "The subscription does not exist any more: its user has unsubscribed, or the browser has made a new one. The next \
             message retires it."
        }
        Outcome::KeyMismatch => {
            "It was made with another VAPID key than the one that the store has for it. If another key of this store fits, messages \
             reach it all the same; else the page has to subscribe again."
        }
        Outcome::SenderFault => {
            "The push service refuses this sender: check the contact (VAPID_SUBJECT) and the clock of this machine. No \
             subscription is at fault."
        }
        Outcome::TooLarge => "The message is larger than this push service accepts.",
        Outcome::BadRequest => {
            "The push service will never accept this request: is the endpoint one of a push service?"
        }
        Outcome::RateLimited => {
            "Too many requests: it has to be tried again later, as the server does by itself."
        }
        Outcome::Transient => {
            "The network or the push service failed: it has to be tried again later, as the server does by itself. If it stays, \
             check the firewall and the proxy."
        }
        Outcome::Refused => "ENDPOINT_POLICY does not allow this endpoint.",
        _ => "See the guide, what the push service said.",
    }
}
