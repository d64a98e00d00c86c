-- Version 8. `web_push` stands for the schema. Text sorts by its bytes, independent of the database's locale.

-- One row, written with the tables.
CREATE TABLE web_push.tower_web_push_version (version bigint NOT NULL);

CREATE SEQUENCE web_push.fence;

CREATE TABLE web_push.meta (
    name text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
) WITH (fillfactor = 50);

-- Each finished delivery changes its row. The changed columns are in no index and pages have free space (HOT updates).
CREATE TABLE web_push.subscription (
    key bytea PRIMARY KEY,
    id bytea NOT NULL UNIQUE,
    endpoint text COLLATE "C" NOT NULL,
    p256dh bytea NOT NULL,
    auth bytea NOT NULL,
    expires_at bigint,
    -- Any text, including NUL, which `text` refuses.
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
    retire_reason text,
    -- The last failure.
    failed_at bigint,
    failure_status integer,
    failure_reason text COLLATE "C"
) WITH (fillfactor = 85);
CREATE INDEX subscription_retired ON web_push.subscription (retired_at) WHERE retired_at IS NOT NULL;
CREATE INDEX subscription_stale_since ON web_push.subscription (stale_since) WHERE stale_since IS NOT NULL;
-- Apart from each other, so that none is in the way of the other kind: those that are retired or stale, and those that are not, with
-- the columns by which expired ones are counted.
CREATE INDEX subscription_expires ON web_push.subscription (expires_at)
    WHERE expires_at IS NOT NULL AND (retired_at IS NOT NULL OR stale_since IS NOT NULL);
CREATE INDEX subscription_expiring ON web_push.subscription (expires_at)
    INCLUDE (push_service, vapid_key) WHERE expires_at IS NOT NULL AND retired_at IS NULL AND stale_since IS NULL;
-- Rows that are in no audience, by key, for lists.
CREATE INDEX subscription_unreachable ON web_push.subscription (key)
    WHERE retired_at IS NOT NULL OR stale_since IS NOT NULL;
CREATE INDEX subscription_principal ON web_push.subscription (principal, key) WHERE principal IS NOT NULL;

-- The tags again, in the order in which a broadcast to a tag is expanded.
CREATE TABLE web_push.subscription_tag (
    tag text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (tag, key)
);

-- The number of subscriptions, in parts, so that concurrent writers do not wait for one row.
CREATE TABLE web_push.subscription_count (
    part integer PRIMARY KEY,
    number bigint NOT NULL,
    -- Rows without a principal and an accepted push that are neither retired nor stale.
    unproven bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO web_push.subscription_count SELECT part, 0, 0 FROM generate_series(0, 15) AS part;

-- The number of subscriptions by state (the kind) and group, which is a push service and a VAPID key, and the number of each
-- tag (kind 'tag') that are live, so that counting reads no rows. Expired ones are included. In parts by the key of the
-- subscription: concurrent writers rarely wait for one another, and a part ends at 0, when its row is deleted.
CREATE TABLE web_push.subscription_number (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (kind, name, part)
) WITH (fillfactor = 50);

CREATE TABLE web_push.vapid_key (
    id bytea PRIMARY KEY,
    public_key bytea NOT NULL,
    sealed text NOT NULL,
    created_at bigint NOT NULL,
    active boolean NOT NULL
);
CREATE UNIQUE INDEX vapid_key_active ON web_push.vapid_key (active) WHERE active;

-- The counts of an open broadcast change often: they are in no index and pages have free space (HOT updates).
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
    -- The most rows per second, if it has a pace; the time from which its next page may be written.
    pace bigint,
    expand_at bigint NOT NULL,
    cursor bytea,
    is_cancelled boolean NOT NULL DEFAULT false,
    -- Whether it is paused; whether it goes on and may have rows that were put aside.
    is_held boolean NOT NULL DEFAULT false,
    resuming boolean NOT NULL DEFAULT false,
    forget_when_over boolean NOT NULL,
    -- 0 for urgent messages, 1 for normal ones, 2 for others.
    band smallint NOT NULL,
    ended_at bigint,
    idempotency_key text COLLATE "C" UNIQUE,
    fingerprint bytea,
    -- The number of rows by outcome.
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
-- For lists: all, and those that are not over.
CREATE INDEX broadcast_created ON web_push.broadcast (created_at, id);
CREATE INDEX broadcast_open_created ON web_push.broadcast (created_at, id) WHERE ended_at IS NULL;
CREATE INDEX broadcast_urgent ON web_push.broadcast (expand_at, seq)
    WHERE expanding AND NOT is_held AND band = 0;
CREATE INDEX broadcast_expanding ON web_push.broadcast (expand_at, seq)
    WHERE expanding AND NOT is_held AND band > 0;
CREATE INDEX broadcast_started ON web_push.broadcast (expand_at, seq)
    WHERE expanding AND NOT is_held AND cursor IS NOT NULL;
CREATE INDEX broadcast_held ON web_push.broadcast (seq) WHERE is_held AND ended_at IS NULL;
CREATE INDEX broadcast_resuming ON web_push.broadcast (seq) WHERE resuming;
CREATE INDEX broadcast_cancelled ON web_push.broadcast (seq) WHERE is_cancelled AND ended_at IS NULL;

-- Samples of the failed deliveries of a broadcast, at most 32, as text: a line for each. Written under a lock on the broadcast,
-- and deleted with it.
CREATE TABLE web_push.failure_sample (
    broadcast bigint PRIMARY KEY,
    samples text NOT NULL
);

-- The message and audience of a broadcast: deleted when it is over.
CREATE TABLE web_push.content (
    broadcast bigint PRIMARY KEY,
    audience text NOT NULL,
    payload bytea,
    ttl bigint NOT NULL,
    urgency text NOT NULL,
    topic text,
    padding text NOT NULL,
    -- The span that it comes from.
    trace_parent text
);

-- Every claim changes `takes` and `turns`, which are in no index (HOT updates). `ready` may be set without need, and is not
-- missing: it is set in the transaction that makes rows ready, and cleared under a lock that this transaction excludes.
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
    -- The number of claims of its rows.
    takes bigint NOT NULL DEFAULT 0,
    -- The highest turn claimed in each band.
    turns bigint[] NOT NULL DEFAULT '{0,0,0}',
    -- Whether it may have ready rows.
    ready boolean NOT NULL DEFAULT false,
    -- Whether claims have seen that it is paused. They pass over it until the pause is over.
    held boolean NOT NULL DEFAULT false,
    accepted bigint NOT NULL DEFAULT 0,
    gone bigint NOT NULL DEFAULT 0,
    tallied_at bigint
) WITH (fillfactor = 50);
CREATE INDEX origin_ready ON web_push.origin (served, id) WHERE ready AND NOT held;
CREATE INDEX origin_held ON web_push.origin (paused_until) WHERE held;

-- The queue. A row is ready, and has a turn among the rows of its origin and band; or it waits, leased or to be retried,
-- for the time `at`, and has no turn. `at` of a ready row is the time for which it waited. A ready row that is `leased` has a
-- lease that ended: its token is valid until another claim. A row that was put aside waits for a moment that never comes, by its
-- broadcast. There are no foreign keys, whose checks would cost as much as
-- the rows: rows are written under locks on their broadcast and their origin.
CREATE TABLE web_push.delivery (
    broadcast bigint NOT NULL,
    key bytea NOT NULL,
    origin bigint NOT NULL,
    at bigint NOT NULL,
    turn bigint,
    fence bigint NOT NULL DEFAULT 0,
    attempt bigint NOT NULL DEFAULT 0,
    band smallint NOT NULL,
    leased boolean NOT NULL DEFAULT false,
    -- The worker that has leased it. NULL otherwise.
    worker integer,
    PRIMARY KEY (broadcast, key)
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1
);
-- Without broadcast and key: the planner would use the index for these too, and scan all of it.
CREATE INDEX delivery_ready ON web_push.delivery (origin, band, turn) WHERE turn IS NOT NULL;
CREATE INDEX delivery_waiting ON web_push.delivery (leased, at) WHERE turn IS NULL;
CREATE INDEX delivery_worker ON web_push.delivery (worker) WHERE worker IS NOT NULL;

-- The workers that rows may name. Each that lives writes `beat_at` several times a second, which is in no index (HOT
-- updates). Numbers are not used again.
CREATE TABLE web_push.worker (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    beat_at bigint NOT NULL,
    -- Set by the worker that takes its rows. It does not beat any more, but enlists again.
    dead boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- The last turn given to rows of a broadcast at an origin. Deleted when the broadcast is over. A broadcast of one
-- recipient has none.
CREATE TABLE web_push.flow (
    broadcast bigint NOT NULL,
    origin bigint NOT NULL,
    turn bigint NOT NULL,
    PRIMARY KEY (broadcast, origin)
) WITH (fillfactor = 70);

CREATE TABLE web_push.schedule (
    -- Empty for the application's own schedules.
    owner bytea NOT NULL,
    name text COLLATE "C" NOT NULL,
    minute_of_day bigint NOT NULL,
    zone text NOT NULL,
    weekdays bigint NOT NULL,
    next_fire_at bigint NOT NULL,
    -- Any text, including NUL.
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

-- What applications enqueue in transactions of their own, by the function `enqueue`, until a worker has opened its broadcast.
-- No other index: nothing that an application's transaction waits for.
CREATE TABLE web_push.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    audience jsonb NOT NULL,
    message jsonb NOT NULL,
    opts jsonb NOT NULL,
    -- When its transaction began, for operators.
    at timestamptz NOT NULL DEFAULT now()
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1
);

-- Entries that cannot be sent, apart from those that wait. They keep their numbers.
CREATE TABLE web_push.outbox_refused (
    seq bigint PRIMARY KEY,
    id uuid NOT NULL,
    audience jsonb NOT NULL,
    message jsonb NOT NULL,
    opts jsonb NOT NULL,
    at timestamptz NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    refused_at bigint NOT NULL
);

-- The number of live subscriptions at the beginning of a day, which is its midnight in UTC.
CREATE TABLE web_push.day_count (
    day bigint PRIMARY KEY,
    live bigint NOT NULL
);
