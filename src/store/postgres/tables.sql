-- Version 2. `web_push` stands for the schema. Text sorts by its bytes, whatever the database's locale is.

-- One row, written with the tables.
CREATE TABLE web_push.tower_web_push_version (version bigint NOT NULL);

CREATE SEQUENCE web_push.fence;

CREATE TABLE web_push.meta (
    name text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
) WITH (fillfactor = 50);

-- Every delivery that ends changes its row: what changes then is in no index, and a page has room for it.
CREATE TABLE web_push.subscription (
    key bytea PRIMARY KEY,
    id bytea NOT NULL UNIQUE,
    endpoint text COLLATE "C" NOT NULL,
    p256dh bytea NOT NULL,
    auth bytea NOT NULL,
    expires_at bigint,
    -- Any text, with NUL too, which `text` does not take.
    principal bytea,
    tags text[] NOT NULL,
    vapid_key bytea NOT NULL,
    push_service text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    keys_changed_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    last_success_at bigint,
    failure_streak bigint NOT NULL,
    failing_since bigint,
    stale_since bigint,
    retired_at bigint,
    retire_reason text
) WITH (fillfactor = 85);
CREATE INDEX subscription_live ON web_push.subscription (push_service, vapid_key, expires_at)
    WHERE retired_at IS NULL AND stale_since IS NULL;
CREATE INDEX subscription_stale ON web_push.subscription (push_service, vapid_key)
    WHERE retired_at IS NULL AND stale_since IS NOT NULL;
CREATE INDEX subscription_retired ON web_push.subscription (retired_at) WHERE retired_at IS NOT NULL;
CREATE INDEX subscription_stale_since ON web_push.subscription (stale_since) WHERE stale_since IS NOT NULL;
CREATE INDEX subscription_expires ON web_push.subscription (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX subscription_principal ON web_push.subscription (principal, key) WHERE principal IS NOT NULL;

-- The tags once more, in the order in which a broadcast to one of them walks.
CREATE TABLE web_push.subscription_tag (
    tag text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (tag, key)
);

-- How many subscriptions there are, in parts: writers that come together do not wait for one row.
CREATE TABLE web_push.subscription_count (
    part integer PRIMARY KEY,
    number bigint NOT NULL,
    -- Those of no principal that no push was accepted for, and that are neither retired nor stale.
    unproven bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO web_push.subscription_count SELECT part, 0, 0 FROM generate_series(0, 15) AS part;

CREATE TABLE web_push.vapid_key (
    id bytea PRIMARY KEY,
    public_key bytea NOT NULL,
    sealed text NOT NULL,
    created_at bigint NOT NULL,
    active boolean NOT NULL
);
CREATE UNIQUE INDEX vapid_key_active ON web_push.vapid_key (active) WHERE active;

-- The counts of a broadcast under way change all the time: they are in no index, and a page has room.
CREATE TABLE web_push.broadcast (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id bytea NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    send_at bigint,
    due_at bigint NOT NULL,
    deadline bigint NOT NULL,
    expected bigint NOT NULL,
    written bigint NOT NULL DEFAULT 0,
    expanding boolean NOT NULL DEFAULT true,
    expanded_at bigint NOT NULL,
    cursor bytea,
    is_cancelled boolean NOT NULL DEFAULT false,
    forget_when_over boolean NOT NULL,
    ended_at bigint,
    idempotency_key text COLLATE "C" UNIQUE,
    fingerprint bytea,
    -- Of each outcome, by its name.
    accepted bigint NOT NULL DEFAULT 0,
    gone bigint NOT NULL DEFAULT 0,
    key_mismatch bigint NOT NULL DEFAULT 0,
    sender_fault bigint NOT NULL DEFAULT 0,
    too_large bigint NOT NULL DEFAULT 0,
    bad_request bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX broadcast_open ON web_push.broadcast (deadline, seq) WHERE ended_at IS NULL;
CREATE INDEX broadcast_ended ON web_push.broadcast (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX broadcast_expanding ON web_push.broadcast (expanded_at, seq) WHERE expanding;
CREATE INDEX broadcast_started ON web_push.broadcast (expanded_at, seq) WHERE expanding AND cursor IS NOT NULL;
CREATE INDEX broadcast_cancelled ON web_push.broadcast (seq) WHERE is_cancelled AND ended_at IS NULL;

-- What a broadcast says and whom it is for: deleted when it is over.
CREATE TABLE web_push.content (
    broadcast bigint PRIMARY KEY,
    audience text NOT NULL,
    payload bytea,
    ttl bigint NOT NULL,
    urgency text NOT NULL,
    topic text,
    padding text NOT NULL
);

CREATE TABLE web_push.origin (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin text COLLATE "C" NOT NULL UNIQUE,
    paused_until bigint,
    pause_reason text,
    closures bigint NOT NULL DEFAULT 1,
    pause_contact text,
    probe_fence bigint,
    probe_key bytea,
    served bigint NOT NULL DEFAULT 0,
    accepted bigint NOT NULL DEFAULT 0,
    gone bigint NOT NULL DEFAULT 0,
    tallied_at bigint
) WITH (fillfactor = 50);

-- The queue. `at` is when a row can be claimed: due, or the end of its lease. One index by origin and `at` serves
-- every claim, however long the backlog is. Without foreign keys, whose checks would cost as much as the rows:
-- rows are written under a lock on their broadcast and their origin.
CREATE TABLE web_push.delivery (
    broadcast bigint NOT NULL,
    key bytea NOT NULL,
    origin bigint NOT NULL,
    at bigint NOT NULL,
    leased boolean NOT NULL DEFAULT false,
    fence bigint NOT NULL DEFAULT 0,
    attempt bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (broadcast, key)
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1
);
-- Without broadcast and key, which the planner would look for here as well, from one end to the other.
CREATE INDEX delivery_due ON web_push.delivery (origin, at);
CREATE INDEX delivery_leased ON web_push.delivery (at) WHERE leased;

CREATE TABLE web_push.schedule (
    -- Empty for the application's own.
    owner bytea NOT NULL,
    name text COLLATE "C" NOT NULL,
    minute_of_day bigint NOT NULL,
    zone text NOT NULL,
    weekdays bigint NOT NULL,
    next_fire_at bigint NOT NULL,
    -- Any text, with NUL too.
    message bytea,
    audience text,
    payload bytea,
    ttl bigint,
    urgency text,
    topic text,
    padding text,
    PRIMARY KEY (owner, name)
) WITH (fillfactor = 85);
CREATE INDEX schedule_due ON web_push.schedule (next_fire_at, owner, name);
