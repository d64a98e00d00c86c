//! The settings of the example servers, checked before anything is started.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser as _;
use clap::error::ErrorKind;
use tower_web_push::api::AdminCredentials;
use tower_web_push::broadcast::Tag;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::SubscriptionLimits;
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::{Contact, KeyEncryptionKeys, VapidKey};
use tracing_subscriber::EnvFilter;

use super::causes::with_causes;
use super::flags::Flags;
use super::store::StoreUrl;

/// Settings that can be acted upon.
pub(crate) struct Settings {
    pub(crate) bind: SocketAddr,
    pub(crate) store: StoreUrl,
    /// `None`: nothing leaves this machine, see [`policy`](Self::policy).
    pub(crate) contact: Option<Contact>,
    pub(crate) vapid_private_key: Option<VapidKey>,
    pub(crate) admin: AdminCredentials,
    /// Nobody was named as admin, so this token was made for one start and has to be shown.
    pub(crate) fresh_token: Option<String>,
    pub(crate) key_encryption_keys: Option<KeyEncryptionKeys>,
    endpoint_policy: EndpointPolicy,
    pub(crate) allowed_origins: Vec<Origin>,
    pub(crate) public_tags: Vec<Tag>,
    pub(crate) confirmation: bool,
    pub(crate) limits: SubscriptionLimits,
    /// Of each peer, as [`public_pushes_per_minute`](Self::public_pushes_per_minute) is.
    pub(crate) public_requests_per_minute: u32,
    pub(crate) public_pushes_per_minute: u32,
    pub(crate) extra_root_ca_pem: Option<Vec<u8>>,
    /// The longest pause between two looks at due work.
    pub(crate) poll_interval: Duration,
    pub(crate) server_version: String,
    pub(crate) log: EnvFilter,
}

/// What the command line asks for.
pub(crate) enum Asked {
    Serve(Box<Settings>),
    /// Help or the version: print it, and be done.
    Print(String),
}

/// What is wrong with a setting, in one line that never shows a secret.
#[derive(Debug)]
pub(crate) struct SettingsError(String);

impl Settings {
    /// Reads the flags and the environment.
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Asked, SettingsError> {
        match Flags::try_parse_from(arguments) {
            Ok(flags) => Ok(Asked::Serve(Box::new(Self::check(flags)?))),
            Err(error) => match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    Ok(Asked::Print(error.to_string()))
                }
                // clap explains at length; its first line says what is wrong.
                _ => {
                    let text = error.to_string();
                    let line = text.lines().next().unwrap_or_default();
                    let line = line.strip_prefix("error: ").unwrap_or(line);
                    Err(SettingsError(format!("{line}; see --help")))
                }
            },
        }
    }

    fn check(flags: Flags) -> Result<Self, SettingsError> {
        let bind = setting("BIND", &flags.bind, address)?;
        let (admin, fresh_token) = admin(flags.admin_token, flags.admin_password, bind)?;
        Ok(Self {
            bind,
            store: setting("STORE_URL", &flags.store_url, StoreUrl::parse)?,
            contact: optional("VAPID_SUBJECT", flags.vapid_subject, |text| {
                Contact::parse(text).map_err(with_causes)
            })?,
            vapid_private_key: optional("VAPID_PRIVATE_KEY", flags.vapid_private_key, |text| {
                VapidKey::parse(text).map_err(with_causes)
            })?,
            admin,
            fresh_token,
            key_encryption_keys: optional(
                "KEY_ENCRYPTION_KEY",
                flags.key_encryption_key,
                |text| KeyEncryptionKeys::parse(text).map_err(with_causes),
            )?,
            endpoint_policy: setting("ENDPOINT_POLICY", &flags.endpoint_policy, |text| {
                text.parse::<EndpointPolicy>().map_err(with_causes)
            })?,
            allowed_origins: list("ALLOWED_ORIGINS", flags.allowed_origins, origin)?,
            public_tags: list("PUBLIC_TAGS", flags.public_tags, |text| {
                Tag::parse(text).map_err(with_causes)
            })?,
            confirmation: setting("CONFIRMATION", &flags.confirmation, |text| {
                text.parse()
                    .map_err(|_| "neither true nor false".to_owned())
            })?,
            limits: limits(&flags.max_subscriptions, &flags.max_unproven_subscriptions)?,
            public_requests_per_minute: setting(
                "PUBLIC_REQUESTS_PER_MINUTE",
                &flags.public_requests_per_minute,
                number,
            )?,
            public_pushes_per_minute: setting(
                "PUBLIC_PUSHES_PER_MINUTE",
                &flags.public_pushes_per_minute,
                number,
            )?,
            extra_root_ca_pem: optional("EXTRA_ROOT_CA", flags.extra_root_ca, certificates)?,
            poll_interval: setting(
                "SECONDS_BETWEEN_NOTIFICATIONS",
                &flags.seconds_between_notifications,
                seconds,
            )?,
            server_version: flags.push_server_version,
            log: setting("RUST_LOG", &flags.rust_log, |text| {
                EnvFilter::try_new(text).map_err(|error| error.to_string())
            })?,
        })
    }

    /// Where may be sent to. Push services want to know whom to write to when something goes wrong, so a
    /// server without a contact sends to this machine only.
    pub(crate) fn policy(&self) -> EndpointPolicy {
        match self.contact {
            Some(_) => self.endpoint_policy.clone(),
            None => EndpointPolicy::insecure_only_local(),
        }
    }
}

/// On a loopback address without an admin, whoever reads the terminal is the admin.
fn admin(
    token: Option<String>,
    password: Option<String>,
    bind: SocketAddr,
) -> Result<(AdminCredentials, Option<String>), SettingsError> {
    let mut admin = AdminCredentials::new();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        admin = admin
            .with_bearer_token(&token)
            .map_err(|error| SettingsError(format!("ADMIN_TOKEN: {error}")))?;
    }
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        admin = admin
            .with_password(&password)
            .map_err(|error| SettingsError(format!("ADMIN_PASSWORD: {error}")))?;
    }
    if admin.is_configured() {
        return Ok((admin, None));
    }
    if !bind.ip().is_loopback() {
        return Err(SettingsError(format!(
            "ADMIN_TOKEN or ADMIN_PASSWORD must be set: other machines can reach BIND={bind}"
        )));
    }
    let token = fresh_token()?;
    let admin = admin
        .with_bearer_token(&token)
        .map_err(|error| SettingsError(error.to_string()))?;
    Ok((admin, Some(token)))
}

fn fresh_token() -> Result<String, SettingsError> {
    let mut octets = [0; 24];
    getrandom::fill(&mut octets)
        .map_err(|error| SettingsError(format!("no random admin token: {error}")))?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    // `localhost:8080` as well as `127.0.0.1:8080`.
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| format!("not an address and a port, as in 127.0.0.1:8080: {text}"))
}

fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text).map_err(|_| format!("not an origin as https://shop.example is: {text}"))
}

fn limits(total: &str, unproven: &str) -> Result<SubscriptionLimits, SettingsError> {
    let mut limits = SubscriptionLimits::default();
    limits.total = setting("MAX_SUBSCRIPTIONS", total, number)?;
    limits.unproven = setting("MAX_UNPROVEN_SUBSCRIPTIONS", unproven, number)?;
    Ok(limits)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("not a whole number from 0, or too large: {text}"))
}

/// The certificates themselves are read when the client is built.
fn certificates(path: &str) -> Result<Vec<u8>, String> {
    let pem = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(marker.len()).any(|part| part == marker) {
        Ok(pem)
    } else {
        Err(format!("{path}: no certificate in PEM"))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err("not a whole number of seconds above 0".to_owned()),
    }
}

fn setting<T>(
    name: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SettingsError> {
    parse(text.trim()).map_err(|why| SettingsError(format!("{name}: {why}")))
}

fn optional<T>(
    name: &str,
    text: Option<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, SettingsError> {
    text.filter(|text| !text.trim().is_empty())
        .map(|text| setting(name, &text, parse))
        .transpose()
}

fn list<T>(
    name: &str,
    text: Option<String>,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, SettingsError> {
    text.unwrap_or_default()
        .split(',')
        .filter(|entry| !entry.trim().is_empty())
        .map(|entry| setting(name, entry, &mut parse))
        .collect()
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for SettingsError {}
