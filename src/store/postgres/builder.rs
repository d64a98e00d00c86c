//! How a store connects, before it does.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::ClientConfig;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresStore;
use super::connection::Database;
use super::error::misconfigured;
use super::listen::Listening;
use super::schema::{self, Schema};
use super::url::Url;
use crate::store::{StoreError, StoreErrorKind};
use crate::tls;

/// What the operating system takes for "never", in a database's terms.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(2 * 60 * 60);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Between the questions that follow, and how many of them: the operating system would go on for eleven minutes.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
const KEEPALIVES: u32 = 3;

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
            listen: None,
        }
    }

    /// Keeps the tables in this schema instead of `web_push`: at most 48 of `a-z`, `0-9` and `_`, not a digit nor
    /// `pg_` first.
    ///
    /// A schema of its own and not a prefix of table names: it can be given to a role, dumped, moved and dropped as
    /// one. Several stores in one database have one each.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// The most connections, at least one; without effect on an application's own pool. Default: 10.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections.max(1);
        self
    }

    /// Trusts the certificates of a PEM file beside the Mozilla roots: those of a managed database's provider, say.
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(pem.into());
        self
    }

    /// How long a call waits for a connection, be it a new one or one that comes free. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the server may work on one statement before it gives up, and a transaction may be idle. Without
    /// an answer two seconds later the connection is thrown away. Default: 15 s.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Does not migrate: a database that is not at this version is refused. For processes whose role may not change
    /// tables, where [`migrate`](PostgresStore::migrate) is a step of the deployment.
    pub const fn without_migrations(mut self) -> Self {
        self.migrates = false;
        self
    }

    /// Listens for hints on a connection to this URL: where the store itself goes through a pool of the
    /// application's, which does not pass them on, or through PgBouncer, which cannot.
    pub fn listen(mut self, url: impl Into<String>) -> Self {
        self.listen = Some(url.into());
        self
    }

    /// Connects to a database by its URL (`postgres://user:password@host:port/database?sslmode=require`) with a pool
    /// of the store's own, and brings the tables up to date.
    ///
    /// See [`PostgresStore`] for what `sslmode` means and which parameters there are. A file of `sslrootcert` is read here,
    /// relative to the working directory.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::store::StoreErrorKind::Misconfigured) for an URL, a certificate or a schema's name that
    /// cannot be used, a role that may not log in or not create the schema, a schema that is another application's or
    /// was written by a newer version of this crate or before its first release, and a server that is too old.
    /// [`Unavailable`](crate::store::StoreErrorKind::Unavailable) for a server that does not answer, or whose
    /// certificate is not trusted.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has created all of the tables or none.
    pub async fn connect(mut self, url: &str) -> Result<PostgresStore, StoreError> {
        let mut url = Url::parse(url)?;
        self.schema = url.schema.take().unwrap_or(self.schema);
        self.pool_size = url.pool_size.unwrap_or(self.pool_size);
        let listening = self.listening(url)?;
        self.connect_timeout = listening.connect_timeout;
        let manager_config = ManagerConfig {
            // What is not idle never comes back to the pool, and a first statement finds out about the rest.
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
        self.open(pool, Some(listening)).await
    }

    /// Uses the application's own pool, and brings the tables up to date.
    ///
    /// The store takes a connection for each call and gives it back idle, with no setting changed. Its hints are
    /// heard only where [`listen`](Self::listen) says how.
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
        self.open(pool, listening).await
    }

    async fn open(
        self,
        pool: Pool,
        listening: Option<Listening>,
    ) -> Result<PostgresStore, StoreError> {
        let schema = Schema::parse(&self.schema)?;
        let database = Database::new(pool, schema, self.connect_timeout, self.statement_timeout);
        if self.migrates {
            schema::migrate(&database).await?;
        } else {
            schema::check(&database).await?;
        }
        Ok(PostgresStore::new(database, listening.map(Arc::new)))
    }

    /// How connections to a URL are made.
    fn listening(&self, url: Url) -> Result<Listening, StoreError> {
        let mut config = url.config;
        let own = config.get_connect_timeout().copied();
        let connect_timeout = own.unwrap_or(self.connect_timeout);
        config.connect_timeout(connect_timeout);
        if config.get_application_name().is_none() {
            config.application_name(env!("CARGO_PKG_NAME"));
        }
        // A network that is gone is noticed by who only listens, too.
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

/// Trusts the certificates of a file, as libpq does with `sslrootcert`: only these.
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
            // libpq's "for ever": no wait here is.
            ("postgres://h/d?connect_timeout=0", 5),
        ] {
            let listening = listening(url).unwrap();
            let expected = Duration::from_secs(expected);
            assert_eq!(listening.connect_timeout, expected, "{url}");
            assert_eq!(listening.config.get_connect_timeout(), Some(&expected));
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
        // Without TLS it is not looked at.
        listening(&format!("{}&sslmode=disable", url("missing"))).unwrap();
    }

    #[test]
    fn who_only_listens_notices_a_dead_network_within_a_minute_unless_the_url_says_otherwise() {
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
