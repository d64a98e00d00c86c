//! The schema: its name, its tables, and how they came to be what they are.

use std::borrow::Cow;

use super::connection::{Database, Tx, in_transaction};
use super::error::{Failed, misconfigured};
use super::rows::{first, integer};
use crate::store::StoreError;
#[cfg(test)]
use crate::store::StoreErrorKind;

/// One script per version of the schema: the first makes version 1, the next version 2 of it, and so on.
///
/// A script that was released is never edited.
const MIGRATIONS: &[&str] = &[include_str!("tables.sql")];

/// What the statements call the schema.
const PLACEHOLDER: &str = "web_push.";
/// The oldest server whose SQL this is.
const OLDEST_SERVER: i64 = 130_000;

const SERVER: &str = "SELECT current_setting('server_version_num')::bigint, \
     current_setting('server_encoding') = 'UTF8'";
/// Waits for another process that migrates; the number is one for each schema.
const LOCK: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('tower-web-push ' || $1::text, 0))::text";
/// Whether the schema is there, has our mark, and has anything in it.
const FIND: &str = "SELECT to_regnamespace(quote_ident($1::text)) IS NOT NULL, \
     EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1::text AND c.relname = 'tower_web_push_version'), \
     EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1::text)";
const VERSION: &str = "SELECT version FROM web_push.tower_web_push_version";

/// The name of a schema that is safe to be put into SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schema(String);

impl Schema {
    pub(super) const DEFAULT: &str = "web_push";
    /// A channel's name is longer, and PostgreSQL cuts names at 63.
    const MAX_LEN: usize = 48;

    /// Small ASCII letters, digits and `_`, no digit first: what needs no quotes, whatever reads it.
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

    /// Where changes are told.
    pub(super) fn channel(&self) -> String {
        format!("{}_changes", self.0)
    }

    /// A statement, or a script, with this schema's name in it.
    pub(super) fn in_sql(&self, sql: &'static str) -> Cow<'static, str> {
        if self.0 == Self::DEFAULT {
            return Cow::Borrowed(sql);
        }
        // Quoted, since it may be a word of SQL.
        Cow::Owned(sql.replace(PLACEHOLDER, &format!("\"{}\".", self.0)))
    }
}

/// What there is in the database.
enum Found {
    /// Nothing of this name, or an empty schema.
    Nothing {
        has_schema: bool,
    },
    Version(i64),
}

/// Brings the tables to the newest version, step by step in one transaction.
///
/// Repeatable, and safe where many processes start at once: the first does it, the others wait and find it done.
pub(super) async fn migrate(database: &Database) -> Result<(), StoreError> {
    // Without the lock, so that nobody waits for anything where there is nothing to do, or no right to do it.
    if let Found::Version(version) = look(database).await?
        && version == newest()
    {
        return Ok(());
    }
    in_transaction!(database, |tx| migrate_in(tx, &database.schema))
}

/// Refuses a database that [`migrate`] would change.
pub(super) async fn check(database: &Database) -> Result<(), StoreError> {
    match look(database).await? {
        Found::Version(version) if version == newest() => Ok(()),
        _ => Err(misconfigured(
            "the database is not migrated to this version",
        )),
    }
}

async fn look(database: &Database) -> Result<Found, StoreError> {
    in_transaction!(database, |tx| look_in(tx, &database.schema))
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

/// Refuses a schema that is another application's, or of a version that is not known here.
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
    if !is_ours && has_anything {
        return Err(misconfigured("the schema is another application's").into());
    }
    if !is_ours {
        return Ok(Found::Nothing { has_schema });
    }
    let version = first(&tx.query(VERSION, &[]).await?, |columns| {
        columns.get::<i64>()
    })?;
    let version = version.ok_or_else(|| misconfigured("the schema's version is missing"))?;
    if version > newest() {
        return Err(
            misconfigured("the database was written by a newer version of this crate").into(),
        );
    }
    Ok(Found::Version(version))
}

async fn migrate_in(tx: &mut Tx<'_>, schema: &Schema) -> Result<(), Failed> {
    tx.query(LOCK, &[&schema.name()]).await?;
    let done = match find(tx, schema).await? {
        Found::Version(version) => version,
        Found::Nothing { has_schema } => {
            // Not `IF NOT EXISTS`, which asks for the right to create one even where it is there.
            if !has_schema {
                let create = format!("CREATE SCHEMA \"{}\"", schema.name());
                tx.batch(&create).await?;
            }
            let mark = "CREATE TABLE web_push.tower_web_push_version (version bigint NOT NULL); \
                        INSERT INTO web_push.tower_web_push_version VALUES (0)";
            tx.batch(&schema.in_sql(mark)).await?;
            0
        }
    };
    let done = usize::try_from(done).map_err(|_| misconfigured("the schema's version"))?;
    for script in MIGRATIONS.iter().skip(done) {
        tx.batch(&schema.in_sql(script)).await?;
    }
    let newest = format!(
        "UPDATE web_push.tower_web_push_version SET version = {}",
        newest()
    );
    tx.batch(&newest.replace(PLACEHOLDER, &format!("\"{}\".", schema.name())))
        .await
}

fn newest() -> i64 {
    integer(MIGRATIONS.len())
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
        let default = Schema::parse(Schema::DEFAULT).unwrap();
        assert!(matches!(default.in_sql(sql), Cow::Borrowed(same) if same == sql));
    }
}
