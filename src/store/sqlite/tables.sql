-- Version 15.
--
-- Rows are looked up by key (subscriptions in the order in which broadcasts are expanded), so these tables are their own
-- indexes: `WITHOUT ROWID`.
-- Subscriptions too: measured with 1,000,000 of them, a table with rowids and an index takes a new one in half the CPU time
-- (89 instead of 194 microseconds), but costs each message 13 microseconds more, for the page and for the row: it is the dearer one
-- from the ninth message to a subscription on.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('unproven', 0), ('fence', 0);

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
    failing_since INTEGER,
    failed_at INTEGER,
    failure_status INTEGER,
    failure_reason TEXT,
    stale_since INTEGER,
    retired_at INTEGER,
    retire_reason TEXT,
    -- The same condition as `SubscriptionRecord::is_unproven` (S16).
    unproven INTEGER NOT NULL
        AS (principal IS NULL AND last_success_at IS NULL AND retired_at IS NULL AND stale_since IS NULL),
    -- What it is counted as, in `subscription_number`.
    state TEXT NOT NULL AS (CASE
        WHEN retired_at IS NOT NULL THEN 'retired' WHEN stale_since IS NOT NULL THEN 'stale' ELSE 'live' END),
    group_name TEXT NOT NULL AS (push_service || ':' || lower(hex(vapid_key)))
) STRICT, WITHOUT ROWID;
CREATE INDEX subscription_retired ON subscription (retired_at) WHERE retired_at IS NOT NULL;
CREATE INDEX subscription_stale_since ON subscription (stale_since) WHERE stale_since IS NOT NULL;
CREATE INDEX subscription_expires ON subscription (expires_at) WHERE expires_at IS NOT NULL;
-- Those that are neither retired nor stale, with the columns by which expired ones are counted.
CREATE INDEX subscription_expiring ON subscription (expires_at, retired_at, stale_since, push_service, vapid_key)
    WHERE expires_at IS NOT NULL AND retired_at IS NULL AND stale_since IS NULL;
-- Rows that are in no audience, by key, for lists.
CREATE INDEX subscription_unreachable ON subscription (key) WHERE retired_at IS NOT NULL OR stale_since IS NOT NULL;
CREATE INDEX subscription_principal ON subscription (principal) WHERE principal IS NOT NULL;

CREATE TABLE subscription_tag (
    key BLOB NOT NULL REFERENCES subscription (key) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (key, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX subscription_by_tag ON subscription_tag (tag, key);

-- The number of subscriptions by state (the kind) and group, and the number of each tag (kind 'tag') that are live, so that
-- counting reads no rows. Expired ones are included. A number of 0 is absent. Kept by the triggers.
CREATE TABLE subscription_number (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER subscription_number_zero AFTER UPDATE OF number ON subscription_number WHEN new.number = 0 BEGIN
    DELETE FROM subscription_number WHERE kind = new.kind AND name = new.name;
END;
CREATE TRIGGER subscription_inserted AFTER INSERT ON subscription BEGIN
    INSERT INTO subscription_number VALUES (new.state, new.group_name, 1)
        ON CONFLICT DO UPDATE SET number = number + 1;
    UPDATE meta SET value = value + 1 WHERE name = 'unproven' AND new.unproven;
END;
-- The tags first: their trigger reads the row.
CREATE TRIGGER subscription_leaving BEFORE DELETE ON subscription BEGIN
    DELETE FROM subscription_tag WHERE key = old.key;
END;
CREATE TRIGGER subscription_deleted AFTER DELETE ON subscription BEGIN
    UPDATE subscription_number SET number = number - 1 WHERE kind = old.state AND name = old.group_name;
    UPDATE meta SET value = value - 1 WHERE name = 'unproven' AND old.unproven;
END;
CREATE TRIGGER subscription_changed
    AFTER UPDATE OF principal, last_success_at, retired_at, stale_since ON subscription
    WHEN new.unproven <> old.unproven
BEGIN
    UPDATE meta SET value = value + new.unproven - old.unproven WHERE name = 'unproven';
END;
CREATE TRIGGER subscription_moved AFTER UPDATE OF vapid_key, retired_at, stale_since ON subscription
    WHEN new.state <> old.state OR new.group_name <> old.group_name
BEGIN
    UPDATE subscription_number SET number = number - 1 WHERE kind = old.state AND name = old.group_name;
    INSERT INTO subscription_number VALUES (new.state, new.group_name, 1)
        ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER subscription_lost AFTER UPDATE OF retired_at, stale_since ON subscription
    WHEN old.state = 'live' AND new.state <> 'live'
BEGIN
    UPDATE subscription_number SET number = number - 1
        WHERE kind = 'tag' AND name IN (SELECT tag FROM subscription_tag WHERE key = new.key);
END;
CREATE TRIGGER subscription_revived AFTER UPDATE OF retired_at, stale_since ON subscription
    WHEN new.state = 'live' AND old.state <> 'live'
BEGIN
    INSERT INTO subscription_number SELECT 'tag', tag, 1 FROM subscription_tag WHERE key = new.key
        ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER subscription_tagged AFTER INSERT ON subscription_tag
    WHEN (SELECT state FROM subscription WHERE key = new.key) = 'live'
BEGIN
    INSERT INTO subscription_number VALUES ('tag', new.tag, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER subscription_untagged AFTER DELETE ON subscription_tag
    WHEN (SELECT state FROM subscription WHERE key = old.key) = 'live'
BEGIN
    UPDATE subscription_number SET number = number - 1 WHERE kind = 'tag' AND name = old.tag;
END;

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
    -- The band of its urgency: `rules::band`.
    band INTEGER NOT NULL,
    is_urgent INTEGER NOT NULL AS (band = 0),
    expected INTEGER NOT NULL,
    written INTEGER NOT NULL DEFAULT 0,
    expanding INTEGER NOT NULL DEFAULT 1,
    -- The most rows per second, if it has a pace; the time from which its next page may be written.
    pace INTEGER,
    expand_at INTEGER NOT NULL,
    cursor BLOB,
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    -- Whether it is paused; whether it goes on and may have rows that were put aside.
    is_held INTEGER NOT NULL DEFAULT 0,
    resuming INTEGER NOT NULL DEFAULT 0,
    ended_at INTEGER,
    idempotency_key TEXT,
    fingerprint BLOB,
    -- The number of rows by outcome.
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
-- Most broadcasts have no key, and no entry.
CREATE UNIQUE INDEX broadcast_idempotency ON broadcast (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX broadcast_open ON broadcast (deadline) WHERE ended_at IS NULL;
CREATE INDEX broadcast_ended ON broadcast (ended_at) WHERE ended_at IS NOT NULL;
-- For lists: all, and those that are not over.
CREATE INDEX broadcast_created ON broadcast (created_at, id);
CREATE INDEX broadcast_open_created ON broadcast (created_at, id) WHERE ended_at IS NULL;
CREATE INDEX broadcast_cancelled ON broadcast (seq) WHERE is_cancelled = 1 AND ended_at IS NULL;
CREATE INDEX broadcast_expanding ON broadcast (is_urgent, expand_at) WHERE expanding = 1 AND is_held = 0;
CREATE INDEX broadcast_started ON broadcast (is_urgent, expand_at)
    WHERE expanding = 1 AND is_held = 0 AND cursor IS NOT NULL;
CREATE INDEX broadcast_resuming ON broadcast (seq) WHERE resuming = 1;

-- Samples of the failed deliveries of a broadcast, at most 32, as text: a line for each.
CREATE TABLE failure_sample (
    broadcast INTEGER PRIMARY KEY REFERENCES broadcast (seq) ON DELETE CASCADE,
    samples TEXT NOT NULL
) STRICT;

-- The message and audience of a broadcast: deleted when it is over.
CREATE TABLE content (
    broadcast INTEGER PRIMARY KEY REFERENCES broadcast (seq) ON DELETE CASCADE,
    audience TEXT NOT NULL,
    payload BLOB,
    ttl INTEGER NOT NULL,
    urgency TEXT NOT NULL,
    topic TEXT,
    padding TEXT NOT NULL,
    -- Whether the broadcast is deleted with it.
    forget_when_over INTEGER NOT NULL,
    -- The span that it comes from.
    trace_parent TEXT
) STRICT;

CREATE TABLE origin (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,
    paused_until INTEGER,
    pause_reason TEXT,
    closures INTEGER NOT NULL DEFAULT 1,
    pause_contact TEXT,
    -- The claimed row that is the probe of a paused origin.
    probe_fence INTEGER,
    probe_key BLOB,
    -- The fence of the last claim of its rows.
    served INTEGER NOT NULL DEFAULT 0,
    -- Whether it has, or may have, ready rows.
    ready INTEGER NOT NULL DEFAULT 0,
    -- Its place among the origins that can be claimed from; null without ready rows and while it is paused.
    turn INTEGER,
    -- The end of its pause. Earlier than any time without one.
    resumes_at INTEGER NOT NULL AS (coalesce(paused_until, -9223372036854775807)),
    -- The number of claims of its rows, and the highest turn claimed in each band.
    takes INTEGER NOT NULL DEFAULT 0,
    high INTEGER NOT NULL DEFAULT 0,
    normal INTEGER NOT NULL DEFAULT 0,
    low INTEGER NOT NULL DEFAULT 0,
    accepted INTEGER NOT NULL DEFAULT 0,
    gone INTEGER NOT NULL DEFAULT 0,
    tallied_at INTEGER
) STRICT;
CREATE INDEX origin_paused ON origin (paused_until) WHERE paused_until IS NOT NULL;
-- Claims read the first origins in these indexes, so that their cost does not depend on the number of origins.
CREATE INDEX origin_waiting ON origin (resumes_at) WHERE turn IS NULL AND ready = 1;
CREATE INDEX origin_ready ON origin (turn) WHERE turn IS NOT NULL;
CREATE INDEX origin_probe ON origin (probe_fence, probe_key) WHERE probe_fence IS NOT NULL;

-- The queue. A row is ready and has a turn, or waits: until the end of its lease or the time of its retry, which is `at`. A
-- row that was put aside waits for a moment that never comes, by its broadcast.
-- Claims read the first ready rows of an origin and band, and the first rows that waited long enough, so that their cost
-- does not depend on the backlog.
CREATE TABLE delivery (
    broadcast INTEGER NOT NULL REFERENCES broadcast (seq),
    key BLOB NOT NULL,
    origin INTEGER NOT NULL REFERENCES origin (id),
    band INTEGER NOT NULL,
    turn INTEGER,
    at INTEGER NOT NULL,
    leased INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    -- The worker that has leased it.
    worker INTEGER,
    PRIMARY KEY (broadcast, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_ready ON delivery (origin, band, turn) WHERE turn IS NOT NULL;
CREATE INDEX delivery_waiting ON delivery (leased, at, turn) WHERE turn IS NULL;
-- Whether an origin has rows. Claims and settlements do not change it.
CREATE INDEX delivery_origin ON delivery (origin);

-- The last turn of a broadcast at an origin, if it has, or may get, more than one row there. Deleted when it is over.
CREATE TABLE flow (
    broadcast INTEGER NOT NULL REFERENCES broadcast (seq) ON DELETE CASCADE,
    origin INTEGER NOT NULL REFERENCES origin (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    PRIMARY KEY (broadcast, origin)
) STRICT, WITHOUT ROWID;
CREATE INDEX flow_origin ON flow (origin);

-- The workers that rows may name. Each that lives has locked the file with its number.
CREATE TABLE worker (id INTEGER PRIMARY KEY) STRICT;

CREATE TABLE schedule (
    -- A subscription's id. Empty for the application's own schedules, which have an audience and a message.
    owner BLOB NOT NULL,
    name TEXT NOT NULL,
    minute_of_day INTEGER NOT NULL,
    zone TEXT NOT NULL,
    weekdays INTEGER NOT NULL,
    next_fire_at INTEGER NOT NULL,
    message TEXT,
    audience TEXT,
    payload BLOB,
    ttl INTEGER,
    urgency TEXT,
    topic TEXT,
    padding TEXT,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_due ON schedule (next_fire_at);

-- The number of live subscriptions at the beginning of a day, which is its midnight in UTC.
CREATE TABLE day_count (
    day INTEGER PRIMARY KEY,
    live INTEGER NOT NULL
) STRICT;
