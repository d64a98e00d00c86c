-- Records what happens to each row of the ledger, in the order in which it happens to the row.
CREATE TABLE public.history (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    broadcast bigint NOT NULL,
    key bytea NOT NULL,
    moment bigint NOT NULL,
    owner_is_dead boolean NOT NULL,
    before web_push.delivery,
    after web_push.delivery
);

CREATE FUNCTION public.record_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.history (broadcast, key, moment, owner_is_dead, before, after) VALUES (
        coalesce(NEW.broadcast, OLD.broadcast), coalesce(NEW.key, OLD.key),
        floor(extract(epoch FROM clock_timestamp()) * 1000),
        -- One that is not there any more was dead before.
        coalesce((SELECT dead FROM web_push.worker WHERE id = OLD.worker), OLD.worker IS NOT NULL),
        OLD, NEW);
    RETURN NULL;
END
$$;

CREATE TRIGGER record_history AFTER INSERT OR UPDATE OR DELETE ON web_push.delivery
    FOR EACH ROW EXECUTE FUNCTION public.record_history();

-- Records when workers enlist and give signs of life.
CREATE TABLE public.sign (worker integer NOT NULL, is_new boolean NOT NULL, moment bigint NOT NULL);

CREATE FUNCTION public.record_sign() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.sign (worker, is_new, moment)
    VALUES (NEW.id, TG_OP = 'INSERT', floor(extract(epoch FROM clock_timestamp()) * 1000));
    RETURN NULL;
END
$$;

CREATE TRIGGER record_sign AFTER INSERT OR UPDATE OF beat_at ON web_push.worker
    FOR EACH ROW EXECUTE FUNCTION public.record_sign();
