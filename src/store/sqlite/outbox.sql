-- Broadcasts that the application writes in transactions of its own, into `audience`, `message` and `opts`: JSON. A plain
-- table, which every driver and every SQLite of the last years can write to.
-- A number is not given twice (AUTOINCREMENT): a worker settles an entry by the number that it has read. `id` is that of
-- its broadcast, unless `opts` names another one.
-- A refusal aborts the application's transaction: the worker refuses what is not certain here.

CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    audience TEXT NOT NULL,
    message TEXT NOT NULL,
    opts TEXT DEFAULT '{}',
    id BLOB NOT NULL DEFAULT (randomblob(16)),
    CONSTRAINT invalid_json
        CHECK (typeof(audience) = 'text' AND typeof(message) = 'text' AND typeof(opts) IN ('text', 'null')),
    CONSTRAINT body_too_large CHECK (length(audience) + length(message) + length(coalesce(opts, '')) <= 65536)
);

-- Those that a worker refused, as they were. They are in the way of none.
CREATE TABLE outbox_refused (
    seq INTEGER PRIMARY KEY,
    audience,
    message,
    opts,
    id,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    refused_at INTEGER NOT NULL
);
