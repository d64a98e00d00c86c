-- The function by which applications enqueue a broadcast in a transaction of their own. Its name, its arguments and its
-- result stay: options become keys of `opts`. `CREATE OR REPLACE` keeps the rights that were granted.
--
-- It runs with the rights of its owner, so that a caller needs no right on a table. Names are looked up in `pg_catalog`
-- only. It refuses what is certainly wrong, since an error aborts the caller's transaction; the rest is refused by the
-- worker, which keeps the entry. No EXCEPTION block: each would be a subtransaction. No NOTIFY unless asked for: PostgreSQL
-- lets transactions that notify commit one after the other.
CREATE OR REPLACE FUNCTION web_push.enqueue(audience jsonb, message jsonb, opts jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $enqueue$
DECLARE
    code text;
    detail text;
    given text;
    broadcast uuid;
BEGIN
    opts := coalesce(opts, '{}');
    given := opts ->> 'id';
    IF audience IS NULL OR NOT (audience = '"all"' OR coalesce(jsonb_typeof(audience -> 'user') = 'string'
            OR jsonb_typeof(audience -> 'tag') = 'string' OR jsonb_typeof(audience -> 'ids') = 'array', false)) THEN
        code := 'invalid_audience';
        detail := 'audience is none of "all", {"user": name}, {"tag": tag} and {"ids": ids}.';
    ELSIF message IS NULL OR jsonb_typeof(message) <> 'object' THEN
        code := 'invalid_json';
        detail := 'message is not a JSON object.';
    ELSIF jsonb_typeof(opts) <> 'object' THEN
        code := 'invalid_json';
        detail := 'opts is not a JSON object.';
    ELSIF octet_length(audience::text) + octet_length(message::text) + octet_length(opts::text) > 65536 THEN
        code := 'body_too_large';
        detail := 'audience, message and opts are larger than 64 KiB together.';
    ELSIF NOT (message ?| ARRAY['title', 'payload', 'serialized']) THEN
        code := 'missing_content';
        detail := 'The message has neither title nor payload.';
    ELSIF (message ? 'title')::int + (message ? 'payload')::int + (message ? 'serialized')::int > 1 THEN
        code := 'ambiguous_content';
        detail := 'The message has both title and payload.';
    ELSIF octet_length((message -> 'payload')::text) > 3993
            -- 3993 octets in base64.
            OR octet_length(message -> 'serialized' ->> 'payload') > 5324 THEN
        code := 'payload_too_large';
        detail := 'The message is larger than 3993 octets.';
    ELSIF EXISTS (SELECT FROM jsonb_object_keys(opts) AS key
            WHERE key <> ALL (ARRAY['sendAt', 'pace', 'idempotencyKey', 'id', 'notify', 'traceparent'])) THEN
        code := 'invalid_member';
        detail := 'opts has a key other than sendAt, pace, idempotencyKey, id, notify and traceparent.';
    ELSIF jsonb_typeof(opts -> 'sendAt') NOT IN ('string', 'null') THEN
        code := 'invalid_send_at';
        detail := 'sendAt is not an RFC 3339 date and time with an offset.';
    ELSIF jsonb_typeof(opts -> 'pace') <> 'null'
            AND jsonb_typeof(opts -> 'pace' -> 'perSecond') IS DISTINCT FROM 'number' THEN
        code := 'invalid_pace';
        detail := 'pace is not {"perSecond": a whole number from 1}.';
    ELSIF jsonb_typeof(opts -> 'idempotencyKey') NOT IN ('string', 'null')
            OR (opts ->> 'idempotencyKey') COLLATE "C" !~ '^[!-~]{1,255}$' THEN
        code := 'invalid_idempotency_key';
        detail := 'idempotencyKey is not 1 to 255 visible ASCII characters.';
    ELSIF jsonb_typeof(opts -> 'id') NOT IN ('string', 'null')
            OR given COLLATE "C" !~ '^[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$' THEN
        code := 'invalid_id';
        detail := 'id is not a UUID.';
    ELSIF jsonb_typeof(opts -> 'notify') NOT IN ('boolean', 'null') THEN
        code := 'invalid_member';
        detail := 'notify is not true or false.';
    END IF;
    IF code IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WP400', MESSAGE = code, DETAIL = detail;
    END IF;
    broadcast := coalesce(given::uuid, gen_random_uuid());
    INSERT INTO web_push.outbox (id, audience, message, opts) VALUES (broadcast, audience, message, opts - 'id');
    IF opts -> 'notify' = 'true' THEN
        PERFORM pg_notify('web_push_changes', '');
    END IF;
    RETURN broadcast;
END
$enqueue$;
REVOKE ALL ON FUNCTION web_push.enqueue(jsonb, jsonb, jsonb) FROM PUBLIC;
