-- psql "$DATABASE_URL" --set=ON_ERROR_STOP=1 --set=order=7 --file=ship.sql
--
-- One statement is one transaction. The customer is told only if the order changes.
WITH shipped AS (
    UPDATE orders SET state = 'shipped' WHERE id = :order AND state <> 'shipped' RETURNING id, customer
)
SELECT web_push.enqueue(
    jsonb_build_object('user', customer),
    jsonb_build_object(
        'title', 'Shipped',
        'body', format('Order %s is on its way', id),
        'tag', format('order-%s', id)),
    jsonb_build_object('idempotencyKey', format('order-%s-shipped', id)))
FROM shipped;
