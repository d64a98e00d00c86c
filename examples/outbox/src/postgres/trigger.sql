-- The customer is told of each new state of an order, whatever program wrote it, if the transaction commits.
CREATE OR REPLACE FUNCTION tell_the_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM web_push.enqueue(
        jsonb_build_object('user', NEW.customer),
        jsonb_build_object('title', format('Order %s is %s', NEW.id, NEW.state), 'tag', format('order-%s', NEW.id)));
    RETURN NULL;
END
$$;

DROP TRIGGER IF EXISTS tell_the_customer ON orders;
CREATE TRIGGER tell_the_customer AFTER UPDATE OF state ON orders
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION tell_the_customer();
