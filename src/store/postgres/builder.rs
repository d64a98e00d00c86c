//! The builder of a store: pool, schema, certificates and timeouts.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresStore;
use super::connection::Database;
use super::error::misconfigured;
use super::listen::Listening;
use super::pooler;
use super::schema::{self, Schema};
use super::url::Url;
use crate::store::{StoreError, StoreErrorKind};
use crate::tls;

/// The driver's default, which is too long for a connection that only listens.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(2 * 60 * 60);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The interval and number of further probes. The operating system's defaults add up to eleven minutes.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
const KEEPALIVES: u32 = 3;
const DEFAULT_PORT: u16 = 5432;

/// The settings of a [`PostgresStore`].
///
/// ```no_run
/// # async fn example() -> Result<(), tower_web_push::store::StoreError> {
/// use tower_web_push::store::PostgresStore;
///
/// let store = PostgresStore::builder()
///     .schema("shop_push")
///     .pool_size(20)
///     .connect("postgres://push@db.example.com/shop?sslmode=require")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it connects with `connect` or `with_pool`"]
pub struct PostgresBuilder {
    schema: String,
    pool_size: usize,
    extra_roots: Vec<Vec<u8>>,
    connect_timeout: Duration,
    statement_timeout: Duration,
    migrates: bool,
    existing_only: bool,
    listen: Option<String>,
}

impl PostgresBuilder {
    const POOL_SIZE: usize = 10;
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

    pub(super) fn new() -> Self {
        Self {
            schema: Schema::DEFAULT.to_owned(),
            pool_size: Self::POOL_SIZE,
            extra_roots: Vec::new(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            statement_timeout: Self::STATEMENT_TIMEOUT,
            migrates: true,
            existing_only: false,
            listen: None,
        }
    }

    /// Sets the schema of the tables. Default: `web_push`. A name has at most 48 characters of `a-z`, `0-9` and `_`, and
    /// starts with neither a digit nor `pg_`.
    ///
    /// A schema can be granted, dumped, moved and dropped as a whole, which a prefix of table names cannot. Each of
    /// several stores in one database has its own.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets the maximum number of connections, at least one. No effect on an application's own pool. Default: 10.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections.max(1);
        self
    }

    /// Trusts the certificates of a PEM file beside the Mozilla roots, such as those of a database provider.
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(pem.into());
        self
    }

    /// Sets the longest wait of a call for a new or pooled connection. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the server's timeout of a statement and of an idle transaction. Without an answer two seconds later the
    /// connection is closed. Default: 15 s.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Disables migration: a database at another version is refused. For roles that may not change tables, where
    /// [`migrate`](PostgresStore::migrate) is a step of the deployment.
    pub const fn without_migrations(mut self) -> Self {
        self.migrates = false;
        self
    }

    /// Refuses a schema without the store's tables, instead of creating them: where a wrong name of a schema or a database is
    /// more likely than a new store. Migrations are as always.
    pub const fn existing_only(mut self) -> Self {
        self.existing_only = true;
        self
    }

    /// Listens for hints on a connection to this URL, and writes signs of life on another one. Needed if the store uses the
    /// application's pool or PgBouncer, which do not pass notifications on. Its role needs the rights of the store's.
    pub fn listen(mut self, url: impl Into<String>) -> Self {
        self.listen = Some(url.into());
        self
    }

    /// Connects to a database by its URL (`postgres://user:password@host:port/database?sslmode=require`) with a pool
    /// of the store's own, and migrates the tables.
    ///
    /// [`PostgresStore`] documents `sslmode` and the other parameters. The file of `sslrootcert` is read here, relative to
    /// the working directory.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured) for an invalid URL, certificate or schema name, a
    /// role that may not log in or create the schema, a schema that belongs to another application or was written by a
    /// newer version of this crate or before its first release, a server that is too old, and, after
    /// [`existing_only`](Self::existing_only), a schema without the store's tables.
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) for a server that does not answer, or whose
    /// certificate is not trusted.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has created all of the tables or none.
    pub async fn connect(mut self, url: &str) -> Result<PostgresStore, StoreError> {
        let mut url = Url::parse(url)?;
        self.schema = url.schema.take().unwrap_or(self.schema);
        self.pool_size = url.pool_size.unwrap_or(self.pool_size);
        let hosts = hosts_of(&url.config);
        let listening = self.listening(url)?;
        self.connect_timeout = listening.connect_timeout;
        let manager_config = ManagerConfig {
            // Connections in use never return to the pool, and the first statement detects broken ones.
            recycling_method: RecyclingMethod::Fast,
        };
        let (config, tls) = (listening.config.clone(), listening.tls.clone());
        let manager = Manager::from_config(config, tls, manager_config);
        let pool = Pool::builder(manager)
            .max_size(self.pool_size)
            .timeouts(Timeouts {
                wait: Some(self.connect_timeout),
                create: Some(self.connect_timeout),
                recycle: Some(self.connect_timeout),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| misconfigured("a pool that cannot be built"))?;
        let listening = match &self.listen {
            Some(url) => self.listening(Url::parse(url)?)?,
            None => listening,
        };
        self.open(pool, Some(listening), Some(hosts)).await
    }

    /// Uses the application's own pool, and migrates the tables.
    ///
    /// The store takes a connection for each call and returns it idle, with no setting changed. Hints need
    /// [`listen`](Self::listen).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn with_pool(self, pool: Pool) -> Result<PostgresStore, StoreError> {
        let listening = match &self.listen {
            Some(url) => Some(self.listening(Url::parse(url)?)?),
            None => None,
        };
        self.open(pool, listening, None).await
    }

    async fn open(
        self,
        pool: Pool,
        listening: Option<Listening>,
        hosts: Option<String>,
    ) -> Result<PostgresStore, StoreError> {
        let schema = Schema::parse(&self.schema)?;
        let database = Database::new(pool, schema, self.connect_timeout, self.statement_timeout);
        pooler::check(&database).await?;
        if self.existing_only {
            schema::exists(&database).await?;
        }
        if self.migrates {
            schema::migrate(&database).await?;
        } else {
            schema::check(&database).await?;
        }
        let (database_name, server) = schema::place(&database).await?;
        // A pool does not say to which host it connects.
        let place = format!("{}/{database_name}", hosts.unwrap_or(server));
        Ok(PostgresStore::new(database, place, listening.map(Arc::new)))
    }

    /// Returns how to connect to a URL.
    fn listening(&self, url: Url) -> Result<Listening, StoreError> {
        let mut config = url.config;
        let own = config.get_connect_timeout().copied();
        let connect_timeout = own.unwrap_or(self.connect_timeout);
        config.connect_timeout(connect_timeout);
        if config.get_application_name().is_none() {
            config.application_name(env!("CARGO_PKG_NAME"));
        }
        // A connection that only listens notices a lost network by keepalives.
        if config.get_keepalives_idle() == DEFAULT_KEEPALIVE {
            config.keepalives_idle(KEEPALIVE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_AGAIN);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVES);
        }
        let tls = match &url.root_certificates {
            Some(file) => roots_of(file)?,
            None => tls::client_config(&self.extra_roots)?,
        };
        Ok(Listening {
            config,
            tls: MakeRustlsConnect::new(tls),
            connect_timeout,
        })
    }
}

/// The hosts of a URL with their ports, in one order, without user and password.
fn hosts_of(config: &Config) -> String {
    let names = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    });
    let mut hosts: Vec<_> = names.collect();
    if hosts.is_empty() {
        let addresses = config.get_hostaddrs().iter();
        hosts.extend(addresses.map(ToString::to_string));
    }
    // One for each host, or one for all, or none.
    let ports = config.get_ports();
    let port = |place| ports.get(place).or(ports.first()).copied();
    let with_port = |(place, host): (usize, &String)| {
        let port = port(place).unwrap_or(DEFAULT_PORT);
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    };
    let mut hosts: Vec<_> = hosts.iter().enumerate().map(with_port).collect();
    hosts.sort_unstable();
    hosts.join(",")
}

/// Trusts only the certificates of a file, as libpq does with `sslrootcert`.
fn roots_of(file: &Path) -> Result<ClientConfig, StoreError> {
    let about = |error: StoreError| {
        error.about(format_args!(
            "the URL's parameter `sslrootcert` ({})",
            file.display()
        ))
    };
    let pem = fs::read(file)
        .map_err(|error| about(StoreError::new(StoreErrorKind::Misconfigured, error)))?;
    tls::client_config_of(&pem).map_err(|error| about(error.into()))
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL to listen on holds a password.
        f.debug_struct("PostgresBuilder")
            .field("schema", &self.schema)
            .field("pool_size", &self.pool_size)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("migrates", &self.migrates)
            .field("existing_only", &self.existing_only)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(url: &str) -> Result<Listening, StoreError> {
        PostgresBuilder::new().listening(Url::parse(url)?)
    }

    #[test]
    fn the_urls_connect_timeout_wins() {
        for (url, expected) in [
            ("postgres://h/d", 5),
            ("postgres://h/d?connect_timeout=3", 3),
            // libpq's "forever" means the default here.
            ("postgres://h/d?connect_timeout=0", 5),
        ] {
            let listening = listening(url).unwrap();
            let expected = Duration::from_secs(expected);
            assert_eq!(listening.connect_timeout, expected, "{url}");
            assert_eq!(listening.config.get_connect_timeout(), Some(&expected));
        }
    }

    #[test]
    fn hosts_are_named_in_one_order_and_without_credentials() {
        for (url, expected) in [
            ("postgres://u:hunter2@h/d", "h:5432"),
            ("postgres://u:hunter2@h:1/d", "h:1"),
            ("postgres://u:hunter2@b:2,a:1/d", "a:1,b:2"),
            ("postgres://u:hunter2@a:1,b:2/d", "a:1,b:2"),
            ("postgres://u:hunter2@/d?host=b&host=a&port=7", "a:7,b:7"),
            ("postgres://u:hunter2@/d?hostaddr=10.0.0.1", "10.0.0.1:5432"),
            ("postgres://u:hunter2@h/d?hostaddr=10.0.0.1", "h:5432"),
            ("postgres://u:hunter2@[::1]:4/d", "[::1]:4"),
            (
                "postgres://u:hunter2@/d?host=/run/postgresql",
                "/run/postgresql:5432",
            ),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(hosts_of(&url.config), expected);
        }
    }

    #[test]
    fn a_file_of_root_certificates_is_read_and_named_when_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let root = file("root.pem", &root.self_signed(&key).unwrap().pem());
        let url = |file: &str| format!("postgres://u:hunter2@h/d?sslrootcert={file}");
        listening(&url(&root)).unwrap();
        let missing = format!("{root}.missing");
        for wrong in [
            missing,
            file("key.pem", &key.serialize_pem()),
            file("empty.pem", ""),
        ] {
            let error = listening(&url(&wrong)).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                why.contains("`sslrootcert`") && why.contains(&wrong),
                "{why}"
            );
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        // Without TLS the file is not read.
        listening(&format!("{}&sslmode=disable", url("missing"))).unwrap();
    }

    #[test]
    fn a_listening_connection_notices_a_dead_network_within_a_minute() {
        let keepalives = |url: &str| {
            let config = listening(url).unwrap().config;
            let seconds = [
                Some(config.get_keepalives_idle()),
                config.get_keepalives_interval(),
            ];
            let seconds = seconds.map(|time| time.map(|time| time.as_secs()));
            (seconds, config.get_keepalives_retries())
        };
        assert_eq!(
            keepalives("postgres://h/d"),
            ([Some(30), Some(10)], Some(3))
        );
        let own = "postgres://h/d?keepalives_idle=7&keepalives_interval=8&keepalives_retries=9";
        assert_eq!(keepalives(own), ([Some(7), Some(8)], Some(9)));
    }

    #[test]
    fn a_url_is_not_printed() {
        let builder = PostgresBuilder::new().listen("postgres://u:hunter2@h/d");
        assert!(!format!("{builder:?}").contains("hunter2"));
        let listening = listening("postgres://u:hunter2@h/d").unwrap();
        assert!(!format!("{listening:?} {:?}", listening.config).contains("hunter2"));
    }
}
