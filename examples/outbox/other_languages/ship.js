// Ships an order and tells its customer, in one transaction: node ship.js DATABASE_URL ORDER.
'use strict';

const { Client } = require('pg');

async function ship(db, order) {
  const told = { title: 'Shipped', body: `Order ${order} is on its way`, tag: `order-${order}` };
  const opts = { idempotencyKey: `order-${order}-shipped` };
  await db.query('BEGIN'); // a connection that ends before its COMMIT rolls back
  const { rows } = await db.query('SELECT customer FROM orders WHERE id = $1 FOR UPDATE', [order]);
  await db.query('SELECT web_push.enqueue($1, $2, $3)', [{ user: rows[0].customer }, told, opts]);
  await db.query("UPDATE orders SET state = 'shipped' WHERE id = $1", [order]);
  await db.query('COMMIT');
}

const [url, order] = process.argv.slice(2);
const db = new Client(url);
db.connect()
  .then(() => ship(db, order))
  .finally(() => db.end());
