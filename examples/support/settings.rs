//! The settings of the example servers, checked before anything is started.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use tower_web_push::api::AdminCredentials;
use tower_web_push::broadcast::{Principal, Tag};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::SubscriptionLimits;
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::{Contact, KeyEncryptionKeys, KeyId, VapidKey};
use tracing_subscriber::EnvFilter;

use super::causes::with_causes;
use super::certificate::Certificate;
use super::commands::{CheckArguments, Command, CopyArguments, Work};
use super::flags::Flags;
use super::listeners::Bind;
use super::parsers::{
    certificates, key_id, list, log_filter, mode, not_empty, number, optional, origin, percent,
    principal_header, seconds, setting, truth, wait,
};
use super::principal_tokens::{Algorithm, PrincipalTokens, is_token};
use super::proxy_addresses::{Block, ProxyAddresses};
use super::request_rules::RequestRules;
use super::secret_setting::secret;
use super::service_manager;
use super::spans::Collector;
use super::store::StoreUrl;

/// The settings, parsed and checked.
pub(crate) struct Settings {
    pub(crate) bind: Bind,
    pub(crate) certificate: Option<Certificate>,
    /// How long the start waits for a database server.
    pub(crate) wait_for_store: Duration,
    pub(crate) store: StoreUrl,
    /// `None`: nothing is sent.
    pub(crate) contact: Option<Contact>,
    pub(crate) vapid_private_key: Option<VapidKey>,
    pub(crate) expected_vapid_key: Option<KeyId>,
    pub(crate) create_store: bool,
    pub(crate) admin: AdminCredentials,
    /// A token generated for this start, to be printed: no admin credentials were set.
    pub(crate) fresh_token: Option<String>,
    pub(crate) key_encryption_keys: Option<KeyEncryptionKeys>,
    pub(crate) endpoint_policy: EndpointPolicy,
    pub(crate) allowed_origins: Vec<Origin>,
    pub(crate) rules: RequestRules,
    pub(crate) principal_tokens: Option<PrincipalTokens>,
    pub(crate) require_principal: bool,
    pub(crate) public_tags: Vec<Tag>,
    pub(crate) confirmation: bool,
    /// Whether the operator's console is served.
    pub(crate) console: bool,
    pub(crate) limits: SubscriptionLimits,
    /// Of each peer, as [`public_pushes_per_minute`](Self::public_pushes_per_minute) is.
    pub(crate) public_requests_per_minute: u32,
    pub(crate) public_pushes_per_minute: u32,
    /// In percent.
    pub(crate) retire_at_most: u8,
    pub(crate) extra_root_ca_pem: Option<Vec<u8>>,
    /// The longest pause between two polls for due work.
    pub(crate) poll_interval: Duration,
    pub(crate) server_version: String,
    /// Encrypt stored keys that are in the clear; for one start.
    pub(crate) seal_clear_keys: bool,
    pub(crate) log: EnvFilter,
    /// Whether log lines are JSON.
    pub(crate) json_log: bool,
    /// Where spans go to.
    pub(crate) collector: Option<Collector>,
    /// What to do once instead of serving.
    pub(crate) errand: Option<Errand>,
}

/// What needs the settings of a server, and is done once.
pub(crate) enum Errand {
    /// Erase a user.
    Forget(Principal),
    /// Give up a VAPID key that is lost.
    GiveUpKey(KeyId),
}

/// The command.
pub(crate) enum Asked {
    Serve(Box<Settings>),
    /// Copy a store to another one and exit.
    Copy(CopyArguments, Box<Flags>),
    /// Check the settings and the store, and exit.
    Check(CheckArguments, Box<Flags>),
    /// Do something with the store and exit.
    Work {
        work: Work,
        store: StoreUrl,
        extra_root_ca: Option<String>,
    },
    /// Print the help or the version and exit.
    Print(String),
}

/// An error of a setting, in one line without secrets.
#[derive(Debug)]
pub(crate) struct SettingsError(pub(super) String);

impl Settings {
    /// Reads the flags and the environment.
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Asked, SettingsError> {
        match Flags::try_parse_from(arguments) {
            Ok(mut flags) => match flags.command.take() {
                None => Ok(Asked::Serve(Box::new(Self::check(flags)?))),
                Some(Command::EraseUser { user }) => {
                    let mut settings = Self::check(flags)?;
                    settings.errand = Some(Errand::Forget(Principal::from(user)));
                    Ok(Asked::Serve(Box::new(settings)))
                }
                Some(Command::GiveUpKey { key }) => {
                    let key = setting("KEY_ID", &key, key_id)?;
                    let mut settings = Self::check(flags)?;
                    settings.errand = Some(Errand::GiveUpKey(key));
                    Ok(Asked::Serve(Box::new(settings)))
                }
                Some(Command::Copy(arguments)) => Ok(Asked::Copy(arguments, Box::new(flags))),
                Some(Command::Check(arguments)) => Ok(Asked::Check(arguments, Box::new(flags))),
                Some(Command::Backup { to }) => work(Work::Backup(to), flags),
                Some(Command::Restore(from)) => work(Work::Restore(from), flags),
                Some(Command::Export(to)) => work(Work::Export(to), flags),
            },
            Err(error) => match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    Ok(Asked::Print(error.to_string()))
                }
                // A word that is not a flag may be a part of a secret that was not quoted.
                ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
                    if !names_a_flag(&error) => Err(SettingsError(
                    "a word that is no flag and no command; quote values that hold blanks; see --help".to_owned(),
                )),
                // The first line of clap's message has the cause.
                _ => {
                    let text = error.to_string();
                    let line = text.lines().next().unwrap_or_default();
                    let line = line.strip_prefix("error: ").unwrap_or(line);
                    Err(SettingsError(format!("{line}; see --help")))
                }
            },
        }
    }

    pub(crate) fn check(flags: Flags) -> Result<Self, SettingsError> {
        let mode = setting("SOCKET_MODE", &flags.socket_mode, mode)?;
        let bind = match service_manager::sockets().map_err(SettingsError)? {
            Some(sockets) => Bind::Inherited(sockets),
            None => setting("BIND", &flags.bind, |text| Bind::parse(text, mode))?,
        };
        let certificate = certificate(flags.tls_certificate, flags.tls_private_key, &bind)?;
        let secret = |name, value, file| secret(name, value, file).map_err(SettingsError);
        let vapid_private_key = secret(
            "VAPID_PRIVATE_KEY",
            flags.vapid_private_key,
            flags.vapid_private_key_file,
        )?;
        let key_encryption_key = secret(
            "KEY_ENCRYPTION_KEY",
            flags.key_encryption_key,
            flags.key_encryption_key_file,
        )?;
        let principal_token_key = secret(
            "PRINCIPAL_TOKEN_KEY",
            flags.principal_token_key,
            flags.principal_token_key_file,
        )?;
        let algorithm = setting(
            "PRINCIPAL_TOKEN_ALGORITHM",
            &flags.principal_token_algorithm,
            Algorithm::parse,
        )?;
        let audience = setting(
            "PRINCIPAL_TOKEN_AUDIENCE",
            &flags.principal_token_audience,
            not_empty,
        )?;
        let principal_tokens = optional("PRINCIPAL_TOKEN_KEY", principal_token_key, |key| {
            PrincipalTokens::new(algorithm, key, &audience)
        })?;
        let (admin, fresh_token) = admin(
            secret("ADMIN_TOKEN", flags.admin_token, flags.admin_token_file)?,
            secret(
                "ADMIN_PASSWORD",
                flags.admin_password,
                flags.admin_password_file,
            )?,
            principal_tokens.is_some(),
            &bind,
        )?;
        let collector = collector(
            flags.otel_exporter_otlp_endpoint,
            secret(
                "OTEL_EXPORTER_OTLP_HEADERS",
                flags.otel_exporter_otlp_headers,
                flags.otel_exporter_otlp_headers_file,
            )?,
        )?;
        let endpoint_policy = setting("ENDPOINT_POLICY", &flags.endpoint_policy, |text| {
            text.parse::<EndpointPolicy>().map_err(with_causes)
        })?;
        if endpoint_policy.allows_local() && !bind.is_loopback() {
            return Err(SettingsError(format!(
                "ENDPOINT_POLICY=local needs a loopback BIND, as 127.0.0.1:8080 is: at BIND={bind} anyone could have \
                 this server post to its own ports"
            )));
        }
        let require_principal = setting("REQUIRE_PRINCIPAL", &flags.require_principal, truth)?;
        let rules = RequestRules {
            loopback_only: endpoint_policy.allows_local(),
            trusted_proxies: setting("TRUSTED_PROXIES", &flags.trusted_proxies, |text| {
                text.parse::<u8>()
                    .map(usize::from)
                    .map_err(|_| "not a number from 0 to 255".to_owned())
            })?,
            proxy_addresses: Arc::new(ProxyAddresses::new(list(
                "PROXY_ADDRESSES",
                flags.proxy_addresses,
                Block::parse,
            )?)),
            principal_header: optional(
                "PRINCIPAL_HEADER",
                flags.principal_header,
                principal_header,
            )?,
        };
        users(&rules, principal_tokens.is_some(), require_principal, &bind)?;
        Ok(Self {
            bind,
            certificate,
            wait_for_store: setting("WAIT_FOR_STORE", &flags.wait_for_store, wait)?,
            store: store(flags.store_url, flags.store_url_file)?,
            contact: optional("VAPID_SUBJECT", flags.vapid_subject, |text| {
                Contact::parse(text).map_err(with_causes)
            })?,
            vapid_private_key: optional("VAPID_PRIVATE_KEY", vapid_private_key, |text| {
                VapidKey::parse(text).map_err(with_causes)
            })?,
            expected_vapid_key: optional("EXPECT_VAPID_KEY", flags.expect_vapid_key, key_id)?,
            create_store: setting("CREATE_STORE", &flags.create_store, truth)?,
            admin,
            fresh_token,
            key_encryption_keys: optional("KEY_ENCRYPTION_KEY", key_encryption_key, |text| {
                KeyEncryptionKeys::parse(text).map_err(with_causes)
            })?,
            endpoint_policy,
            rules,
            principal_tokens,
            require_principal,
            allowed_origins: list("ALLOWED_ORIGINS", flags.allowed_origins, origin)?,
            public_tags: list("PUBLIC_TAGS", flags.public_tags, |text| {
                Tag::parse(text).map_err(with_causes)
            })?,
            confirmation: setting("CONFIRMATION", &flags.confirmation, truth)?,
            console: setting("CONSOLE", &flags.console, truth)?,
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
            retire_at_most: setting("RETIRE_AT_MOST", &flags.retire_at_most, percent)?,
            extra_root_ca_pem: optional("EXTRA_ROOT_CA", flags.extra_root_ca, certificates)?,
            poll_interval: setting(
                "SECONDS_BETWEEN_NOTIFICATIONS",
                &flags.seconds_between_notifications,
                seconds,
            )?,
            server_version: setting("PUSH_SERVER_VERSION", &flags.push_server_version, |text| {
                Ok(text.to_owned())
            })?,
            seal_clear_keys: setting("SEAL_CLEAR_KEYS", &flags.seal_clear_keys, truth)?,
            log: setting("RUST_LOG", &flags.rust_log, log_filter)?,
            json_log: setting("LOG_FORMAT", &flags.log_format, |text| match text {
                "text" => Ok(false),
                "json" => Ok(true),
                _ => Err("neither text nor json".to_owned()),
            })?,
            collector,
            errand: None,
        })
    }
}

/// Whether the unknown argument looks like a flag.
fn names_a_flag(error: &clap::Error) -> bool {
    let unknown = error.get(ContextKind::InvalidArg);
    matches!(unknown, Some(ContextValue::String(word)) if word.starts_with("--"))
}

fn store(url: Option<String>, file: Option<String>) -> Result<StoreUrl, SettingsError> {
    let url = secret("STORE_URL", url, file).map_err(SettingsError)?;
    let url = url.as_deref().unwrap_or("sqlite://web-push.db");
    setting("STORE_URL", url, StoreUrl::parse)
}

fn collector(
    endpoint: Option<String>,
    headers: Option<String>,
) -> Result<Option<Collector>, SettingsError> {
    let collector = optional("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, Collector::parse)?;
    match (collector, headers) {
        (Some(collector), Some(headers)) => {
            let name = "OTEL_EXPORTER_OTLP_HEADERS";
            setting(name, &headers, |text| collector.with_headers(text)).map(Some)
        }
        (collector, _) => Ok(collector),
    }
}

/// Needs the store only: other settings may be missing or wrong.
fn work(work: Work, flags: Flags) -> Result<Asked, SettingsError> {
    Ok(Asked::Work {
        work,
        store: store(flags.store_url, flags.store_url_file)?,
        extra_root_ca: flags.extra_root_ca,
    })
}

/// On a loopback address without admin credentials, a token is generated and printed.
fn admin(
    token: Option<String>,
    password: Option<String>,
    has_tokens: bool,
    bind: &Bind,
) -> Result<(AdminCredentials, Option<String>), SettingsError> {
    let mut admin = AdminCredentials::new();
    if let Some(token) = token {
        if has_tokens && is_token(&token) {
            return Err(SettingsError(
                "ADMIN_TOKEN: it has the form of a user token: use one without dots".to_owned(),
            ));
        }
        admin = admin
            .with_bearer_token(&token)
            .map_err(|error| SettingsError(format!("ADMIN_TOKEN: {error}")))?;
    }
    if let Some(password) = password {
        admin = admin
            .with_password(&password)
            .map_err(|error| SettingsError(format!("ADMIN_PASSWORD: {error}")))?;
    }
    if admin.is_configured() {
        return Ok((admin, None));
    }
    if !bind.is_loopback() {
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

/// Checks what names the users.
fn users(
    rules: &RequestRules,
    has_tokens: bool,
    require_principal: bool,
    bind: &Bind,
) -> Result<(), SettingsError> {
    let has_header = rules.principal_header.is_some();
    let wrong = if has_header && rules.trusted_proxies == 0 {
        "PRINCIPAL_HEADER needs TRUSTED_PROXIES of at least 1: without a proxy in front, clients write the header themselves"
    } else if has_header && bind.is_exposed() && rules.proxy_addresses.is_empty() {
        "PRINCIPAL_HEADER needs PROXY_ADDRESSES: other machines can connect without the proxy, and would write the header \
         themselves"
    } else if has_header && has_tokens {
        "PRINCIPAL_HEADER and PRINCIPAL_TOKEN_KEY are both set: set one of them, since they may name two users"
    } else if require_principal && !has_header && !has_tokens {
        "REQUIRE_PRINCIPAL=true needs PRINCIPAL_HEADER or PRINCIPAL_TOKEN_KEY: without them no request has a user, and none \
         could subscribe"
    } else if !rules.proxy_addresses.is_empty() && rules.trusted_proxies == 0 {
        "PROXY_ADDRESSES needs TRUSTED_PROXIES of at least 1"
    } else {
        return Ok(());
    };
    Err(SettingsError(wrong.to_owned()))
}

/// Reads the certificate, if there is one.
fn certificate(
    certificate: Option<String>,
    key: Option<String>,
    bind: &Bind,
) -> Result<Option<Certificate>, SettingsError> {
    let path = |text: &str| Ok(text.to_owned());
    let certificate = optional("TLS_CERTIFICATE", certificate, path)?;
    let wrong = match (certificate, optional("TLS_PRIVATE_KEY", key, path)?) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) if bind.has_unix() => {
            "TLS_CERTIFICATE needs a BIND to a port: a Unix socket has no TLS"
        }
        (Some(certificate), Some(key)) => {
            return Certificate::read(&certificate, &key)
                .map(Some)
                .map_err(SettingsError);
        }
        _ => "TLS_CERTIFICATE and TLS_PRIVATE_KEY: set both, or none of them",
    };
    Err(SettingsError(wrong.to_owned()))
}

fn fresh_token() -> Result<String, SettingsError> {
    let mut octets = [0; 24];
    getrandom::fill(&mut octets)
        .map_err(|error| SettingsError(format!("no random admin token: {error}")))?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

fn limits(total: &str, unproven: &str) -> Result<SubscriptionLimits, SettingsError> {
    Ok(SubscriptionLimits {
        total: setting("MAX_SUBSCRIPTIONS", total, number)?,
        unproven: setting("MAX_UNPROVEN_SUBSCRIPTIONS", unproven, number)?,
        ..SubscriptionLimits::default()
    })
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for SettingsError {}
