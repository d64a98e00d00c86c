//! The common part of the two example servers: everything except routing.

mod accept;
mod causes;
mod certificate;
mod commands;
mod connections;
mod flags;
mod listeners;
mod metrics;
mod opening;
mod otlp;
mod page;
mod parsers;
mod principal_tokens;
mod process;
mod progress;
mod proxies;
mod proxy_addresses;
mod request_rules;
mod secret_setting;
mod service_manager;
mod settings;
mod shutdown;
mod site;
mod spans;
mod store;
#[cfg(unix)]
mod unix_socket;
mod users;

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method};
use tokio::time::sleep;
use tower_http::cors::CorsLayer;
use tower_web_push::api::{ApiSettings, WebPushLayer};
use tower_web_push::store::{SqliteStore, StoreErrorKind};
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::KeyId;
use tower_web_push::{Principal, WebPush};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use self::accept::Acceptor;
pub(crate) use self::site::Site;
pub(crate) use self::users::Users;

use self::causes::with_causes;
use self::certificate::Certificate;
use self::metrics::Metrics;
use self::opening::{NotReady, Refusals};
use self::settings::{Asked, Errand, Settings};
use self::shutdown::Shutdown;
use self::spans::Spans;
use self::store::StoreUrl;

/// The parts of a server: the API, the site and the connections.
pub(crate) struct Server {
    pub(crate) push: WebPush,
    /// The API, under [`PREFIXES`].
    pub(crate) api: WebPushLayer,
    pub(crate) site: Site,
    /// Reads the user from a token.
    pub(crate) users: Users,
    pub(crate) cors: CorsLayer,
    pub(crate) acceptor: Acceptor,
    shutdown: Shutdown,
    /// What ends the export of spans.
    spans: Option<Spans>,
}

/// What the program was started for.
enum Task {
    Serve(Acceptor),
    Once(Errand),
}

/// The prefixes of the API: one for the clients of each replaced server.
const PREFIXES: [&str; 2] = ["/api", "/web-push"];

type BoxError = Box<dyn Error + Send + Sync>;

/// Reads the settings, serves until SIGTERM, SIGHUP or ctrl-c, and drains. With a command it does that and ends.
///
/// The exit code is 0 after a drain or a command that did its work, 2 if the server cannot start with these settings, and 1 for later
/// errors.
pub(crate) async fn run<F>(serve: impl FnOnce(Server) -> F) -> ExitCode
where
    F: Future<Output = io::Result<()>>,
{
    let settings = match Settings::read(env::args_os()) {
        Ok(Asked::Serve(settings)) => *settings,
        Ok(Asked::Copy(arguments, flags)) => return commands::run_copy(arguments, &flags).await,
        Ok(Asked::Check(arguments, flags)) => return commands::run_check(arguments, *flags).await,
        Ok(Asked::Work {
            work,
            store,
            extra_root_ca,
        }) => return commands::run(work, store, extra_root_ca).await,
        Ok(Asked::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(2, &error),
    };
    let (mut server, store) = match start(settings).await {
        Ok(Some(started)) => started,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<Incomplete>() { 1 } else { 2 };
            return fail(code, error.as_ref());
        }
    };
    let spans = server.spans.take();
    let ended = drive(server, serve).await;
    if let Some(spans) = spans {
        spans.end().await;
    }
    // Also after a drain that took too long: the file must be complete.
    if let Some(store) = store
        && let Err(error) = store.close().await
    {
        tracing::warn!(
            error = with_causes(error),
            "the database file is incomplete without its -wal file"
        );
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, error.as_ref()),
    }
}

/// What was to be done once has begun and failed.
#[derive(Debug)]
struct Incomplete(BoxError);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not complete: run it again")
    }
}

impl Error for Incomplete {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

fn fail(code: u8, error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("error: {}", with_causes(error));
    ExitCode::from(code)
}

/// The server, and the store if it is a file; `None` if there was an errand, which is done, or if the server was stopped while
/// it waited for its store.
async fn start(settings: Settings) -> Result<Option<(Server, Option<SqliteStore>)>, BoxError> {
    let shutdown = match settings.errand {
        // A signal ends it: it can be repeated.
        Some(_) => Shutdown::by_hand().1,
        None => Shutdown::listen()?,
    };
    let extra_root_ca = settings.extra_root_ca_pem.as_deref();
    let exported = settings.collector.map(|to| to.start(extra_root_ca));
    let (layer, spans) = exported.transpose()?.unzip();
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // No colours in files and log collectors.
        .with_ansi(io::stderr().is_terminal());
    let log = match settings.json_log {
        true => log.json().flatten_event(true).boxed(),
        false => log.boxed(),
    };
    // The filter is that of the log: what is exported does not depend on it.
    let log = log.with_filter(settings.log);
    tracing_subscriber::registry().with(layer).with(log).init();
    let metrics = Metrics::install()?;
    process::describe();
    let admin = Arc::new(settings.admin);
    // Before the client is built, whose own limit is a quarter of the open files.
    let limit = accept::connection_limit();
    tracing::info!(limit, "connections are limited");

    if settings.contact.is_none() {
        tracing::warn!(
            "VAPID_SUBJECT is not set: nothing is sent, and browsers cannot subscribe; set it to a contact, as in \
             mailto:you@example.com"
        );
    }
    if settings.endpoint_policy.allows_local() {
        tracing::warn!(
            "ENDPOINT_POLICY=local: every subscriber can make this server send requests to ports of this machine; for tests only"
        );
    }
    if settings.bind.has_unix() && settings.rules.trusted_proxies == 0 {
        tracing::warn!(
            "TRUSTED_PROXIES=0 with a Unix socket: all clients of the proxy in front share one address and its limits; set it to 1"
        );
    }
    if settings.key_encryption_keys.is_none() && settings.store != StoreUrl::Memory {
        tracing::warn!(
            "KEY_ENCRYPTION_KEY is not set: the VAPID private keys are stored in the clear; \
             generate one with `openssl rand -base64 32`"
        );
    }

    let cors = cors(&settings.allowed_origins)?;
    let create_store = settings.create_store && settings.errand.is_none();
    let why = match settings.create_store {
        true => "this command creates none",
        false => "CREATE_STORE=false",
    };
    // Opening the file would create it.
    if let StoreUrl::Sqlite(path) = &settings.store
        && !create_store
        && !path.exists()
    {
        let path = path.display();
        return Err(format!("STORE_URL: there is no file {path}, and {why}").into());
    }
    let new_builder = || match &settings.contact {
        Some(contact) => WebPush::builder(contact.as_str()),
        None => WebPush::builder_without_contact(),
    };
    let open = || {
        settings
            .store
            .open(new_builder(), None, create_store, extra_root_ca)
    };
    let mut task = match settings.errand {
        Some(errand) => Task::Once(errand),
        None => {
            let bind = settings.bind.to_string();
            let listeners = settings.bind.listen().await;
            let listeners = listeners.map_err(|error| format!("BIND={bind}: {error}"))?;
            let tls = settings
                .certificate
                .map(Certificate::acceptor)
                .transpose()?;
            let rules = settings.rules;
            Task::Serve(Acceptor::new(
                listeners,
                tls,
                limit,
                rules,
                shutdown.clone(),
            ))
        }
    };
    let opened = match &mut task {
        // Its caller waits, and can try again.
        Task::Once(_) => open().await.map(Some),
        Task::Serve(acceptor) => {
            // A file is there or not.
            let patience = match settings.store {
                StoreUrl::Postgres(_) | StoreUrl::Redis(_) => settings.wait_for_store,
                StoreUrl::Memory | StoreUrl::Sqlite(_) => Duration::ZERO,
            };
            let not_ready = NotReady {
                has_contact: settings.contact.is_some(),
                metrics: metrics.clone(),
                admin: Arc::clone(&admin),
                refusals: Refusals::default(),
            };
            not_ready
                .while_opening(acceptor, &shutdown, opening::patiently(patience, open))
                .await
        }
    };
    let opened = opened.map_err(|error| {
        let text = with_causes(error);
        // A wrong password is not helped by a store that may be created.
        let is_absent = !create_store && text.contains("there is no store");
        let why = match is_absent {
            true => format!(" ({why})"),
            false => String::new(),
        };
        format!("STORE_URL: {text}{why}")
    })?;
    let Some((builder, store)) = opened else {
        return Ok(None);
    };
    let mut builder = builder
        .create_store(create_store)
        .poll_interval(settings.poll_interval)
        .subscription_limits(settings.limits)
        .retire_at_most(settings.retire_at_most);
    if settings.contact.is_some() {
        builder = builder.endpoint_policy(settings.endpoint_policy);
    }
    let api = ApiSettings::new()
        .authorizer(admin)
        .allowed_origins(settings.allowed_origins)
        .public_tags(settings.public_tags)
        .require_principal(settings.require_principal)
        .confirmation(settings.confirmation)
        .public_requests_per_minute(settings.public_requests_per_minute)
        .public_pushes_per_minute(settings.public_pushes_per_minute)
        .server_version(settings.server_version);
    if let Some(key) = settings.expected_vapid_key {
        builder = builder.expect_vapid_key(key);
    }
    if let Some(key) = settings.vapid_private_key {
        builder = builder.vapid_private_key(key);
    }
    if let Some(keys) = settings.key_encryption_keys {
        builder = builder.key_encryption_keys(keys.seal_clear_keys(settings.seal_clear_keys));
    } else if settings.seal_clear_keys {
        return Err("SEAL_CLEAR_KEYS: KEY_ENCRYPTION_KEY must be set, too".into());
    }
    if let Some(pem) = settings.extra_root_ca_pem {
        builder = builder.extra_root_ca_pem(pem);
    }
    let push = builder.build().await?;
    let acceptor = match task {
        Task::Serve(acceptor) => acceptor,
        Task::Once(errand) => {
            match errand {
                Errand::Forget(user) => forget(push, &user).await.map_err(Incomplete)?,
                Errand::GiveUpKey(key) => give_up(push, key).await?,
            }
            if let Some(store) = store {
                store.close().await?;
            }
            return Ok(None);
        }
    };
    if let Some(token) = settings.fresh_token {
        println!("Admin token: {token}");
        println!("It is new at each start; set ADMIN_TOKEN to keep one.");
    }
    for line in acceptor.lines()? {
        println!("{line}");
        if let (Some(url), true) = (line.strip_prefix("Open "), settings.console) {
            println!("Operator's console: {url}console");
        }
    }
    service_manager::ready();

    let api = PREFIXES
        .iter()
        .fold(push.layer().with(api), |layer, prefix| layer.at(prefix));
    let server = Server {
        site: Site::new(push.clone(), api.service(), metrics, settings.console),
        api,
        push,
        users: Users(settings.principal_tokens.map(Arc::new)),
        cors,
        acceptor,
        shutdown,
        spans,
    };
    Ok(Some((server, store)))
}

/// Erases a user and prints the numbers.
async fn forget(push: WebPush, user: &Principal) -> Result<(), BoxError> {
    let erased = push.forget(user).await?;
    println!(
        "erased {}: {} subscriptions, {} daily notifications, {} pending messages, {} broadcasts",
        user.as_str(),
        erased.subscriptions,
        erased.schedules,
        erased.deliveries,
        erased.broadcasts
    );
    Ok(())
}

/// Gives up a VAPID key and prints the number.
async fn give_up(push: WebPush, key: KeyId) -> Result<(), BoxError> {
    let given_up = push.give_up_key(key).await.map_err(|error| {
        let is_refused = error.kind() == StoreErrorKind::Misconfigured;
        match is_refused {
            true => BoxError::from(error),
            false => Incomplete(error.into()).into(),
        }
    })?;
    println!(
        "given up {key}: {given_up} subscriptions are stale until their pages subscribe again"
    );
    Ok(())
}

/// Serves and delivers until the shutdown signal. Then accepts no more connections and waits for the requests and
/// deliveries in flight. Messages that are still due stay in the store.
async fn drive<F>(server: Server, serve: impl FnOnce(Server) -> F) -> Result<(), BoxError>
where
    F: Future<Output = io::Result<()>>,
{
    let shutdown = server.shutdown.clone();
    let progress = progress::show(server.push.clone());
    let worker = tokio::spawn(server.push.run(shutdown.clone().begun()));
    let running = worker.abort_handle();
    let both = async {
        tokio::try_join!(
            async { serve(server).await.map_err(BoxError::from) },
            async { worker.await?.map_err(BoxError::from) }
        )
    };
    let too_late = async {
        shutdown.begun().await;
        tracing::info!("draining");
        service_manager::stopping();
        sleep(shutdown::GRACE).await;
    };
    let ended = tokio::select! {
        // The service manager is told, even if nothing is left to drain.
        biased;
        () = too_late => Err("requests or deliveries did not finish in time".into()),
        ended = both => ended.map(|_| ()),
        () = progress => Ok(()),
    };
    // Otherwise the worker would continue with a closed store.
    running.abort();
    ended
}

/// Allows pages of other origins to call the API, with cookies too: a sign-in in front of this server may need them.
/// The API accepts requests with cookies from the same origins.
fn cors(origins: &[Origin]) -> Result<CorsLayer, BoxError> {
    let origins: Vec<_> = origins
        .iter()
        .map(|origin| HeaderValue::from_str(origin.as_str()))
        .collect::<Result<_, _>>()?;
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
            HeaderName::from_static("traceparent"),
        ]))
}
