//! The schema: its name, its tables and their version.

use std::borrow::Cow;

use super::attempts::in_transaction;
use super::connection::{Database, Tx};
use super::error::{Failed, misconfigured};
use super::rows::first;
#[cfg(test)]
use crate::store::StoreErrorKind;
use crate::store::{StoreError, layout};

/// The version of the tables. Versions 1 to 7 were in use before the first release.
pub(super) const KNOWN: i64 = 8;
const TABLES: &str = include_str!("tables.sql");
/// The function `enqueue`.
const FUNCTION: &str = include_str!("enqueue.sql");

/// The schema's name in statements.
const PLACEHOLDER: &str = "web_push.";
/// The channel's name in them.
const CHANNEL: &str = "'web_push_changes'";
/// The oldest supported server.
const OLDEST_SERVER: i64 = 130_000;

const SERVER: &str = "SELECT current_setting('server_version_num')::bigint, \
     current_setting('server_encoding') = 'UTF8'";
/// The database's name, and the server's address and port. Connected by a Unix socket, a server has no address.
const PLACE: &str = "SELECT current_database()::text, \
     coalesce(host(inet_server_addr()), 'local') || ':' || current_setting('port')";
/// Waits for other processes that migrate. The lock's number depends on the schema.
const LOCK: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('tower-web-push ' || $1::text, 0))::text";
/// Whether the schema exists, is this crate's, and contains anything.
const FIND: &str = "SELECT to_regnamespace(quote_ident($1::text)) IS NOT NULL, \
     EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1::text AND c.relname = 'tower_web_push_version'), \
     EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1::text)";
const VERSION: &str = "SELECT version FROM web_push.tower_web_push_version";
const MARK: &str = "INSERT INTO web_push.tower_web_push_version VALUES ($1)";

/// A schema name that is safe in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schema(String);

impl Schema {
    pub(super) const DEFAULT: &str = "web_push";
    /// PostgreSQL truncates names at 63 octets, and the channel's name is longer.
    const MAX_LEN: usize = 48;

    /// Accepts lower-case ASCII letters, digits and `_`, not starting with a digit: a name that never needs quotes.
    pub(super) fn parse(name: &str) -> Result<Self, StoreError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts_well = name.starts_with(|first: char| !first.is_ascii_digit());
        let is_the_servers = name.starts_with("pg_") || name == "information_schema";
        if !starts_well
            || is_the_servers
            || name.len() > Self::MAX_LEN
            || !name.bytes().all(allowed)
        {
            return Err(misconfigured(
                "a schema's name is at most 48 of a-z, 0-9 and _, does not begin with a digit or pg_",
            ));
        }
        Ok(Self(name.to_owned()))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The channel of notifications.
    pub(super) fn channel(&self) -> String {
        format!("{}_changes", self.0)
    }

    /// Puts this schema's name into a statement or script.
    pub(super) fn in_sql(&self, sql: &'static str) -> Cow<'static, str> {
        if self.0 == Self::DEFAULT {
            return Cow::Borrowed(sql);
        }
        // Quoted, since it may be a keyword.
        let sql = sql.replace(PLACEHOLDER, &format!("\"{}\".", self.0));
        Cow::Owned(sql.replace(CHANNEL, &format!("'{}'", self.channel())))
    }
}

/// The state of the schema in the database.
#[derive(PartialEq, Eq)]
enum Found {
    NoSchema,
    EmptySchema,
    Tables,
}

/// Creates the tables if they are missing, in one transaction.
///
/// Repeatable, and safe if many processes start at once: the first creates them, the others wait.
pub(super) async fn migrate(database: &Database) -> Result<(), StoreError> {
    // Without the lock, so that nothing waits if there is nothing to do or no right to do it.
    if look(database).await? == Found::Tables {
        return Ok(());
    }
    in_transaction!(database, |tx| migrate_in(tx, &database.schema))
}

/// Refuses a database that [`migrate`] would change.
pub(super) async fn check(database: &Database) -> Result<(), StoreError> {
    match look(database).await? {
        Found::Tables => Ok(()),
        _ => Err(misconfigured(
            "the database is not migrated: it has no tables",
        )),
    }
}

/// Refuses a schema in which there is no store.
pub(super) async fn exists(database: &Database) -> Result<(), StoreError> {
    match look(database).await? {
        Found::Tables => Ok(()),
        _ => Err(misconfigured("there is no store in this schema")),
    }
}

async fn look(database: &Database) -> Result<Found, StoreError> {
    in_transaction!(database, |tx| look_in(tx, &database.schema))
}

/// Where the tables are: the name of the database, and the address of its server.
pub(super) async fn place(database: &Database) -> Result<(String, String), StoreError> {
    let rows = database.query(PLACE, &[]).await?;
    let place = first(&rows, |columns| Ok((columns.get()?, columns.get()?)))?;
    Ok(place.unwrap_or_default())
}

async fn look_in(tx: &mut Tx<'_>, schema: &Schema) -> Result<Found, Failed> {
    let server = first(&tx.query(SERVER, &[]).await?, |columns| {
        Ok((columns.get::<i64>()?, columns.get::<bool>()?))
    })?;
    let (version, is_utf8) = server.unwrap_or_default();
    if version < OLDEST_SERVER {
        return Err(misconfigured("the server is older than PostgreSQL 13").into());
    }
    if !is_utf8 {
        return Err(misconfigured("the database's encoding is not UTF-8").into());
    }
    find(tx, schema).await
}

/// Refuses a schema of another application or an unknown version.
async fn find(tx: &mut Tx<'_>, schema: &Schema) -> Result<Found, Failed> {
    let rows = tx.query(FIND, &[&schema.name()]).await?;
    let found = first(&rows, |columns| {
        Ok((
            columns.get::<bool>()?,
            columns.get::<bool>()?,
            columns.get::<bool>()?,
        ))
    })?;
    let (has_schema, is_ours, has_anything) = found.unwrap_or_default();
    if !is_ours {
        return match (has_schema, has_anything) {
            (_, true) => Err(misconfigured("the schema is another application's").into()),
            (true, false) => Ok(Found::EmptySchema),
            (false, false) => Ok(Found::NoSchema),
        };
    }
    let rows = tx.query(VERSION, &[]).await?;
    let version = first(&rows, |columns| columns.get::<i64>())?;
    let version = version.ok_or_else(|| misconfigured("the schema's version is missing"))?;
    layout::check(version, KNOWN)?;
    Ok(Found::Tables)
}

async fn migrate_in(tx: &mut Tx<'_>, schema: &Schema) -> Result<(), Failed> {
    tx.query(LOCK, &[&schema.name()]).await?;
    let found = find(tx, schema).await?;
    if found == Found::Tables {
        return Ok(());
    }
    // Not `IF NOT EXISTS`, which needs the right to create schemas even if it exists.
    if found == Found::NoSchema {
        let create = format!("CREATE SCHEMA \"{}\"", schema.name());
        tx.batch(&create).await?;
    }
    tx.batch(&schema.in_sql(TABLES)).await?;
    tx.batch(&schema.in_sql(FUNCTION)).await?;
    tx.execute(MARK, &[&KNOWN]).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_anything_but_a_name_is_refused() {
        for name in ["web_push", "a", "_", "user", "tenant_7", &"x".repeat(48)] {
            assert_eq!(Schema::parse(name).unwrap().name(), name);
        }
        for name in [
            "",
            "7a",
            "Web",
            "a b",
            "a-b",
            "a.b",
            "a\"b",
            "a;--",
            "ü",
            "pg_x",
            "pg_catalog",
            "information_schema",
            &"x".repeat(49),
        ] {
            let error = Schema::parse(name).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{name}");
        }
    }

    #[test]
    fn statements_name_the_schema_everywhere() {
        let schema = Schema::parse("user").unwrap();
        let sql = "SELECT * FROM web_push.a JOIN web_push.b";
        assert_eq!(
            schema.in_sql(sql),
            "SELECT * FROM \"user\".a JOIN \"user\".b"
        );
        assert_eq!(schema.channel(), "user_changes");
        let function = schema.in_sql(FUNCTION);
        assert!(function.contains("FUNCTION \"user\".enqueue(audience"));
        assert!(function.contains("pg_notify('user_changes', '')"));
        assert!(!function.contains("web_push"), "{function}");
        let default = Schema::parse(Schema::DEFAULT).unwrap();
        assert!(matches!(default.in_sql(sql), Cow::Borrowed(same) if same == sql));
    }
}
