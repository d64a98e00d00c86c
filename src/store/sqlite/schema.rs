//! The tables, and how they came to be what they are.

use rusqlite::Connection;

use super::error::{failed_to_open, misconfigured};
use crate::store::StoreError;

/// Marks the file as this crate's: "wpsh".
const APPLICATION_ID: i64 = 0x7770_7368;

/// One script per version of the schema: the first makes version 1, the next version 2 of it, and so on.
///
/// A script that was released is never edited.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

/// Rows are found by key (subscriptions in the order that a broadcast walks them), so these tables are
/// their own indexes, `WITHOUT ROWID`.
///
/// Subscriptions are counted from the partial indexes alone, which therefore hold their own conditions too.
///
/// A delivery's `at` is when it can be claimed: due, or the end of its lease. One index by origin and `at`
/// serves every claim, however long the backlog is.
const VERSION_1: &str = "
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('subscriptions', 0), ('fence', 0);

CREATE TABLE subscription (
    key BLOB NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    endpoint TEXT NOT NULL,
    p256dh BLOB NOT NULL,
    auth BLOB NOT NULL,
    expires_at INTEGER,
    principal TEXT,
    vapid_key BLOB NOT NULL,
    push_service TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    keys_changed_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    last_success_at INTEGER,
    failure_streak INTEGER NOT NULL,
    stale INTEGER NOT NULL,
    retired_at INTEGER,
    retire_reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX subscription_live
    ON subscription (push_service, vapid_key, expires_at, stale, retired_at)
    WHERE retired_at IS NULL AND stale = 0;
CREATE INDEX subscription_stale ON subscription (push_service, vapid_key, stale, retired_at)
    WHERE retired_at IS NULL AND stale = 1;
CREATE INDEX subscription_retired ON subscription (retired_at) WHERE retired_at IS NOT NULL;
CREATE INDEX subscription_principal ON subscription (principal) WHERE principal IS NOT NULL;
CREATE TRIGGER subscription_inserted AFTER INSERT ON subscription BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'subscriptions';
END;
CREATE TRIGGER subscription_deleted AFTER DELETE ON subscription BEGIN
    UPDATE meta SET value = value - 1 WHERE name = 'subscriptions';
END;

CREATE TABLE subscription_tag (
    key BLOB NOT NULL REFERENCES subscription (key) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (key, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX subscription_by_tag ON subscription_tag (tag, key);

CREATE TABLE vapid_key (
    id BLOB NOT NULL PRIMARY KEY,
    public_key BLOB NOT NULL,
    sealed TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    active INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX vapid_key_active ON vapid_key (active) WHERE active = 1;

CREATE TABLE broadcast (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    send_at INTEGER,
    due_at INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    expected INTEGER NOT NULL,
    written INTEGER NOT NULL DEFAULT 0,
    expanding INTEGER NOT NULL DEFAULT 1,
    expanded_at INTEGER NOT NULL,
    cursor BLOB,
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    ended_at INTEGER,
    idempotency_key TEXT UNIQUE,
    fingerprint BLOB,
    accepted INTEGER NOT NULL DEFAULT 0,
    gone INTEGER NOT NULL DEFAULT 0,
    key_mismatch INTEGER NOT NULL DEFAULT 0,
    sender_fault INTEGER NOT NULL DEFAULT 0,
    too_large INTEGER NOT NULL DEFAULT 0,
    bad_request INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX broadcast_open ON broadcast (deadline) WHERE ended_at IS NULL;
CREATE INDEX broadcast_ended ON broadcast (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX broadcast_expanding ON broadcast (expanded_at) WHERE expanding = 1;
CREATE INDEX broadcast_started ON broadcast (expanded_at) WHERE expanding = 1 AND cursor IS NOT NULL;

CREATE TABLE content (
    broadcast INTEGER PRIMARY KEY REFERENCES broadcast (seq) ON DELETE CASCADE,
    audience TEXT NOT NULL,
    payload BLOB,
    ttl INTEGER NOT NULL,
    urgency TEXT NOT NULL,
    topic TEXT,
    padding TEXT NOT NULL
) STRICT;

CREATE TABLE origin (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,
    paused_until INTEGER,
    pause_reason TEXT,
    served INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX origin_paused ON origin (paused_until) WHERE paused_until IS NOT NULL;

CREATE TABLE delivery (
    broadcast INTEGER NOT NULL REFERENCES broadcast (seq),
    key BLOB NOT NULL,
    origin INTEGER NOT NULL REFERENCES origin (id),
    at INTEGER NOT NULL,
    leased INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (broadcast, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (origin, at);
CREATE INDEX delivery_leased ON delivery (at) WHERE leased = 1;

CREATE TABLE schedule (
    subscription BLOB NOT NULL,
    notify_type TEXT NOT NULL,
    minute_of_day INTEGER NOT NULL,
    message TEXT,
    next_fire_at INTEGER NOT NULL,
    PRIMARY KEY (subscription, notify_type)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_due ON schedule (next_fire_at);
";

/// What is known of an origin beside its pause: how often it was paused in a row, whom it refuses, and what it said
/// of its subscriptions of late.
const VERSION_2: &str = "
ALTER TABLE origin ADD COLUMN closures INTEGER NOT NULL DEFAULT 1;
ALTER TABLE origin ADD COLUMN pause_contact TEXT;
ALTER TABLE origin ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE origin ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
ALTER TABLE origin ADD COLUMN tallied_at INTEGER;
";

/// Schedules in time zones and on some days of the week, and the application's own: those have an empty owner, an
/// audience and a message like a broadcast's. And which claimed row is the probe of a paused origin.
const VERSION_3: &str = "
ALTER TABLE schedule RENAME COLUMN subscription TO owner;
ALTER TABLE schedule RENAME COLUMN notify_type TO name;
ALTER TABLE schedule ADD COLUMN zone TEXT NOT NULL DEFAULT 'UTC';
ALTER TABLE schedule ADD COLUMN weekdays INTEGER NOT NULL DEFAULT 127;
ALTER TABLE schedule ADD COLUMN audience TEXT;
ALTER TABLE schedule ADD COLUMN payload BLOB;
ALTER TABLE schedule ADD COLUMN ttl INTEGER;
ALTER TABLE schedule ADD COLUMN urgency TEXT;
ALTER TABLE schedule ADD COLUMN topic TEXT;
ALTER TABLE schedule ADD COLUMN padding TEXT;
ALTER TABLE origin ADD COLUMN probe_fence INTEGER;
ALTER TABLE origin ADD COLUMN probe_key BLOB;
CREATE INDEX origin_probe ON origin (probe_fence, probe_key) WHERE probe_fence IS NOT NULL;
";

/// Broadcasts that are forgotten as soon as they are over.
const VERSION_4: &str = "
ALTER TABLE content ADD COLUMN forget_when_over INTEGER NOT NULL DEFAULT 0;
";

/// How many subscriptions are unproven (S16), counted by triggers as their total is; and since when a row fails.
const VERSION_5: &str = "
ALTER TABLE subscription ADD COLUMN failing_since INTEGER;
INSERT INTO meta (name, value) SELECT 'unproven', count(*) FROM subscription
    WHERE principal IS NULL AND last_success_at IS NULL AND retired_at IS NULL AND stale = 0;
CREATE TRIGGER subscription_unproven_inserted AFTER INSERT ON subscription
    WHEN new.principal IS NULL AND new.last_success_at IS NULL AND new.retired_at IS NULL AND new.stale = 0
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'unproven';
END;
CREATE TRIGGER subscription_unproven_deleted AFTER DELETE ON subscription
    WHEN old.principal IS NULL AND old.last_success_at IS NULL AND old.retired_at IS NULL AND old.stale = 0
BEGIN
    UPDATE meta SET value = value - 1 WHERE name = 'unproven';
END;
CREATE TRIGGER subscription_proven
    AFTER UPDATE OF principal, last_success_at, retired_at, stale ON subscription
    WHEN old.principal IS NULL AND old.last_success_at IS NULL AND old.retired_at IS NULL AND old.stale = 0
    AND NOT (new.principal IS NULL AND new.last_success_at IS NULL AND new.retired_at IS NULL AND new.stale = 0)
BEGIN
    UPDATE meta SET value = value - 1 WHERE name = 'unproven';
END;
CREATE TRIGGER subscription_unproven_again
    AFTER UPDATE OF principal, last_success_at, retired_at, stale ON subscription
    WHEN new.principal IS NULL AND new.last_success_at IS NULL AND new.retired_at IS NULL AND new.stale = 0
    AND NOT (old.principal IS NULL AND old.last_success_at IS NULL AND old.retired_at IS NULL AND old.stale = 0)
BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'unproven';
END;
";

/// Refuses a file that is another application's, or of a version that is not known here.
///
/// Reads only, so that such a file stays as it is.
pub(super) fn check(conn: &Connection) -> Result<i64, StoreError> {
    let ours = number(conn, "PRAGMA application_id")? == APPLICATION_ID;
    let version = number(conn, "PRAGMA user_version")?;
    let tables = number(conn, "SELECT count(*) FROM sqlite_master")?;
    if !ours && (version != 0 || tables != 0) {
        return Err(misconfigured("the file is another application's database"));
    }
    if version > newest() {
        return Err(misconfigured(
            "the database was written by a newer version of this crate",
        ));
    }
    Ok(version)
}

/// Brings the tables to the newest version, step by step in one transaction.
///
/// Repeatable, and safe where two processes start at once: the second waits and finds it done.
pub(super) fn migrate(conn: &Connection) -> Result<(), StoreError> {
    let batch = |sql: &str| conn.execute_batch(sql).map_err(failed_to_open);
    batch("BEGIN IMMEDIATE")?;
    let migrated = check(conn).and_then(|version| {
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        for script in MIGRATIONS.iter().skip(done) {
            batch(script)?;
        }
        // Written also where it is there already: of a file that cannot be written SQLite begins a transaction all the
        // same, and only a change shows it.
        let newest = newest();
        batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {newest};"
        ))?;
        batch("COMMIT")
    });
    if migrated.is_err() && !conn.is_autocommit() {
        // The first error is the one to tell.
        let _ = batch("ROLLBACK");
    }
    migrated
}

fn newest() -> i64 {
    super::query::integer(MIGRATIONS.len())
}

fn number(conn: &Connection, sql: &str) -> Result<i64, StoreError> {
    conn.query_row(sql, [], |row| row.get(0))
        .map_err(failed_to_open)
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
