//! What the two example servers have in common: all but the way they serve HTTP.

mod causes;
mod flags;
mod metrics;
mod page;
mod progress;
mod settings;
mod shutdown;
mod site;
mod store;

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_http::cors::CorsLayer;
use tower_web_push::WebPush;
use tower_web_push::subscription::Origin;

pub(crate) use self::shutdown::Shutdown;
pub(crate) use self::site::Site;

use self::causes::with_causes;
use self::metrics::Metrics;
use self::settings::{Asked, Settings};
use self::store::StoreUrl;

/// What there is to serve. The API belongs under [`PREFIXES`], everything else is the site's.
pub(crate) struct Server {
    pub(crate) push: WebPush,
    pub(crate) site: Site,
    pub(crate) cors: CorsLayer,
    pub(crate) listener: TcpListener,
    pub(crate) shutdown: Shutdown,
}

/// Where the API is: both, so that clients of either kind find it.
pub(crate) const PREFIXES: [&str; 2] = ["/api", "/web-push"];

type BoxError = Box<dyn Error + Send + Sync>;

/// Reads the settings, serves until SIGTERM or ctrl-c, and drains.
///
/// The exit code is 0 after a drain, 2 when it cannot be started as it is set, and 1 for anything later.
pub(crate) async fn run<F>(serve: impl FnOnce(Server) -> F) -> ExitCode
where
    F: Future<Output = io::Result<()>>,
{
    let settings = match Settings::read(env::args_os()) {
        Ok(Asked::Serve(settings)) => *settings,
        Ok(Asked::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(2, &error),
    };
    let server = match start(settings).await {
        Ok(server) => server,
        Err(error) => return fail(2, error.as_ref()),
    };
    match drive(server, serve).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, error.as_ref()),
    }
}

fn fail(code: u8, error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("error: {}", with_causes(error));
    ExitCode::from(code)
}

async fn start(settings: Settings) -> Result<Server, BoxError> {
    let shutdown = Shutdown::listen()?;
    let policy = settings.policy();
    tracing_subscriber::fmt()
        .with_env_filter(settings.log)
        .with_writer(io::stderr)
        // A file or a log collector wants no colours.
        .with_ansi(io::stderr().is_terminal())
        .init();
    let metrics = Metrics::install()?;

    if settings.contact.is_none() {
        tracing::warn!(
            "VAPID_SUBJECT is not set: only push services on this machine are sent to, and browsers cannot \
             subscribe; set it to a contact, as in mailto:you@example.com"
        );
    } else if policy.allows_local() {
        tracing::warn!(
            "ENDPOINT_POLICY=local: whoever subscribes can make this server post to its own ports"
        );
    }
    if settings.key_encryption_keys.is_none() && settings.store != StoreUrl::Memory {
        tracing::warn!(
            "KEY_ENCRYPTION_KEY is not set: the VAPID private keys are stored in the clear; \
             `openssl rand -base64 32` makes one"
        );
    }

    let cors = cors(&settings.allowed_origins)?;
    let mut builder = match settings.contact {
        Some(contact) => WebPush::builder(contact.as_str()),
        None => WebPush::builder("mailto:nobody@localhost").insecure_local_contact(),
    };
    builder = settings
        .store
        .open(builder, None, settings.extra_root_ca_pem.as_deref())
        .await
        .map_err(|error| format!("STORE_URL: {}", with_causes(error)))?
        .endpoint_policy(policy)
        .poll_interval(settings.poll_interval)
        .authorizer(settings.admin)
        .allowed_origins(settings.allowed_origins)
        .public_tags(settings.public_tags)
        .confirmation(settings.confirmation)
        .subscription_limits(settings.limits)
        .public_requests_per_minute(settings.public_requests_per_minute)
        .public_pushes_per_minute(settings.public_pushes_per_minute)
        .server_version(settings.server_version);
    if let Some(key) = settings.vapid_private_key {
        builder = builder.vapid_private_key(key);
    }
    if let Some(keys) = settings.key_encryption_keys {
        builder = builder.key_encryption_keys(keys);
    }
    if let Some(pem) = settings.extra_root_ca_pem {
        builder = builder.extra_root_ca_pem(pem);
    }
    let push = builder.build().await?;

    let listener = TcpListener::bind(settings.bind)
        .await
        .map_err(|error| format!("BIND={}: {error}", settings.bind))?;
    let mut address = listener.local_addr()?;
    if let Some(token) = settings.fresh_token {
        println!("Admin token: {token}");
        println!("It is new at each start; set ADMIN_TOKEN to keep one.");
    }
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    println!("Open http://{address}/");

    Ok(Server {
        site: Site::new(push.service(), metrics),
        push,
        cors,
        listener,
        shutdown,
    })
}

/// Serves and delivers until the signal. Then no connection is taken any more, requests and deliveries
/// under way come to their end, and what is still due waits in the store.
async fn drive<F>(server: Server, serve: impl FnOnce(Server) -> F) -> Result<(), BoxError>
where
    F: Future<Output = io::Result<()>>,
{
    let shutdown = server.shutdown.clone();
    let progress = progress::show(server.push.clone());
    let worker = tokio::spawn(server.push.run(shutdown.clone().begun()));
    let both = async {
        tokio::try_join!(
            async { serve(server).await.map_err(BoxError::from) },
            async { worker.await?.map_err(BoxError::from) }
        )
    };
    let too_late = async {
        shutdown.begun().await;
        tracing::info!("draining");
        sleep(shutdown::GRACE).await;
    };
    tokio::select! {
        ended = both => ended.map(|_| ()),
        () = too_late => Err("requests or deliveries did not come to their end in time".into()),
        () = progress => Ok(()),
    }
}

/// Lets pages of other origins call the API. The browser enforces it; who may do what is the API's matter.
fn cors(origins: &[Origin]) -> Result<CorsLayer, BoxError> {
    let origins: Vec<_> = origins
        .iter()
        .map(|origin| HeaderValue::from_str(origin.as_str()))
        .collect::<Result<_, _>>()?;
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
        ]))
}
