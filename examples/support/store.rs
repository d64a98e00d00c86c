//! Stores opened by URL.

use std::fmt;
use std::path::{Path, PathBuf};

use tower_web_push::WebPushBuilder;
use tower_web_push::store::{
    MemoryStore, PostgresStore, RedisStore, ScheduleStore, SqliteStore, StoreError, StoreErrorKind,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::vapid::VapidKey;

/// The URL of a store, parsed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    Memory,
    Sqlite(PathBuf),
    /// The whole URL.
    Postgres(String),
    /// The whole URL: Redis or Valkey.
    Redis(String),
}

impl StoreUrl {
    /// Parses a URL. The store parses the parameters of a database server's URL.
    ///
    /// Errors never contain the URL, since it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with(['"', '\'']) {
            return Err("the quotation marks are part of the value: leave them out".to_owned());
        }
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let scheme = scheme.to_ascii_lowercase();
        match (scheme.as_str(), rest) {
            // `memory` without a colon, too.
            ("memory", "" | "//") => Ok(Self::Memory),
            ("memory", _) => Err("nothing follows memory:".to_owned()),
            ("sqlite", rest) => sqlite_file(rest).map(Self::Sqlite),
            (_, "//") => Err("nothing follows the //".to_owned()),
            (_, rest) if !rest.starts_with("//") => Err(KNOWN.to_owned()),
            ("postgres" | "postgresql", _) => Ok(Self::Postgres(text.to_owned())),
            // The store refuses sentinels and Unix sockets, with an error that names them.
            (redis, _) if is_redis(redis) => Ok(Self::Redis(text.to_owned())),
            (of_python, _) => match of_python.split_once('+') {
                Some((base @ ("postgres" | "postgresql" | "sqlite"), _)) => Err(format!(
                    "{scheme}:// names a driver of another library: write {base}://"
                )),
                _ => Err(KNOWN.to_owned()),
            },
        }
    }

    /// Opens it as the store of a `WebPush`. `first_key` is adopted if the store has no key: then it becomes the active
    /// one.
    ///
    /// A database without a store gets one only if it `creates`. A file is made in any case.
    ///
    /// The extra root certificates are trusted for database servers too.
    ///
    /// Also returns an SQLite store, to be closed at the end.
    pub(crate) async fn open(
        &self,
        builder: WebPushBuilder,
        first_key: Option<VapidKey>,
        creates: bool,
        extra_root_ca_pem: Option<&[u8]>,
    ) -> Result<(WebPushBuilder, Option<SqliteStore>), StoreError> {
        let builder = match self {
            Self::Memory => with(builder, MemoryStore::new(), first_key).await,
            Self::Sqlite(path) => {
                let store = SqliteStore::open(path).await?;
                let builder = with(builder, store.clone(), first_key).await?;
                return Ok((builder, Some(store)));
            }
            Self::Postgres(url) => {
                let (url, schema) = without_parameter(url, "schema")?;
                let mut store = PostgresStore::builder();
                if let Some(schema) = schema {
                    store = store.schema(schema);
                }
                if !creates {
                    store = store.existing_only();
                }
                if let Some(pem) = extra_root_ca_pem {
                    store = store.extra_root_ca_pem(pem);
                }
                with(builder, store.connect(&url).await?, first_key).await
            }
            Self::Redis(url) => {
                let (url, prefix) = without_parameter(url, "prefix")?;
                let mut store = RedisStore::builder();
                if let Some(prefix) = prefix {
                    store = store.prefix(prefix);
                }
                if !creates {
                    store = store.existing_only();
                }
                if let Some(pem) = extra_root_ca_pem {
                    store = store.extra_root_ca_pem(pem);
                }
                with(builder, store.connect(&url).await?, first_key).await
            }
        };
        Ok((builder?, None))
    }
}

const KNOWN: &str =
    "none of sqlite://FILE, postgres://HOST/DATABASE, redis://HOST, rediss://HOST and memory:";

fn is_redis(scheme: &str) -> bool {
    ["redis", "valkey", "unix"]
        .iter()
        .any(|known| scheme.starts_with(known))
}

/// Parses what follows `sqlite:`: a percent-encoded file name, with the parameters of SQLite's own URIs.
///
/// A parameter that is not supported is an error. It never becomes part of the file name.
fn sqlite_file(rest: &str) -> Result<PathBuf, String> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    if rest.contains('#') {
        return Err("write # as %23 in the name of a file".to_owned());
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = percent_decoded(path).ok_or("write % as %25 in the name of a file")?;
    if path.trim_start_matches('/') == ":memory:" {
        return Err("write memory: for a store without a file".to_owned());
    }
    if path.is_empty() || path.starts_with("file:") {
        return Err("no file follows sqlite://".to_owned());
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            ("mode", "rwc") | ("cache", "private") | ("immutable" | "nolock", "0") => {}
            ("mode", "rw") if Path::new(&path).exists() => {}
            ("mode", "rw") => return Err(format!("mode=rw, and there is no file {path}")),
            ("mode", "memory") => {
                return Err("the parameter mode is memory: write memory: instead".to_owned());
            }
            ("mode", _) => return Err("the parameter mode is neither rw nor rwc".to_owned()),
            (name, _) => {
                return Err(format!(
                    "the parameter {} is not supported; write ? as %3F in the name of a file",
                    name.escape_default()
                ));
            }
        }
    }
    Ok(path.into())
}

/// Takes a parameter out of the URL of a database server: one that is the store's. The others are the driver's.
pub(crate) fn without_parameter(
    url: &str,
    name: &str,
) -> Result<(String, Option<String>), StoreError> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), None));
    };
    let is_it = |part: &&str| part.split_once('=').unwrap_or((part, "")).0 == name;
    let (taken, rest): (Vec<_>, Vec<_>) = query.split('&').partition(is_it);
    let value = match taken.as_slice() {
        [] => return Ok((url.to_owned(), None)),
        [one] => one
            .split_once('=')
            .and_then(|(_, value)| percent_decoded(value)),
        _ => None,
    };
    let value = value.ok_or_else(|| {
        let why = format!("the URL's parameter `{name}` is given twice, or is no text");
        StoreError::new(StoreErrorKind::Misconfigured, why)
    })?;
    let url = match rest.as_slice() {
        [] => base.to_owned(),
        rest => format!("{base}?{}", rest.join("&")),
    };
    Ok((url, Some(value)))
}

/// Decodes percent escapes. Returns `None` for an incomplete escape and for text that is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut octets = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (escape, rest) = piece.split_at_checked(2)?;
        let is_hex = escape.bytes().all(|digit| digit.is_ascii_hexdigit());
        let octet = u8::from_str_radix(escape, 16).ok().filter(|_| is_hex)?;
        octets.push(octet);
        octets.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(octets).ok()
}

async fn with<S>(
    builder: WebPushBuilder,
    store: S,
    first_key: Option<VapidKey>,
) -> Result<WebPushBuilder, StoreError>
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let builder = match first_key {
        Some(key) if store.keys().await?.is_empty() => builder.vapid_private_key(key),
        _ => builder,
    };
    Ok(builder.store(store))
}

impl fmt::Debug for StoreUrl {
    /// Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory:",
            Self::Sqlite(_) => "sqlite://…",
            Self::Postgres(_) => "postgres://…",
            Self::Redis(_) => "redis://…",
        })
    }
}
