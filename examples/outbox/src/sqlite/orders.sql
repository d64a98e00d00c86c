-- A table of the application.
CREATE TABLE IF NOT EXISTS orders (
    id integer PRIMARY KEY,
    customer text NOT NULL,
    is_paid integer NOT NULL,
    state text NOT NULL DEFAULT 'ordered',
    CONSTRAINT only_paid_orders_are_shipped CHECK (is_paid OR state <> 'shipped')
);
