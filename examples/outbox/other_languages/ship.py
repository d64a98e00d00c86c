"""Ships an order and tells its customer, in one transaction: ship.py DATABASE_URL ORDER."""

import sys

import psycopg
from psycopg.types.json import Jsonb

url, order = sys.argv[1], int(sys.argv[2])
told = {"title": "Shipped", "body": f"Order {order} is on its way", "tag": f"order-{order}"}
opts = {"idempotencyKey": f"order-{order}-shipped"}

with psycopg.connect(url) as db:  # commits at its end, and rolls back if anything fails before
    customer = db.execute("SELECT customer FROM orders WHERE id = %s FOR UPDATE", [order]).fetchone()[0]
    db.execute("SELECT web_push.enqueue(%s, %s, %s)", [Jsonb({"user": customer}), Jsonb(told), Jsonb(opts)])
    db.execute("UPDATE orders SET state = 'shipped' WHERE id = %s", [order])
