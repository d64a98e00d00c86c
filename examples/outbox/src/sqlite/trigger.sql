-- The customer is told of each new state of an order, whatever program wrote it, if the transaction commits.
DROP TRIGGER IF EXISTS tell_the_customer;
CREATE TRIGGER tell_the_customer AFTER UPDATE OF state ON orders WHEN OLD.state <> NEW.state
BEGIN
    INSERT INTO web_push_outbox (audience, message, opts) VALUES (
        json_object('user', NEW.customer),
        json_object('title', 'Order ' || NEW.id || ' is ' || NEW.state, 'tag', 'order-' || NEW.id),
        '{}');
END;
