-- A table of the application.
CREATE TABLE IF NOT EXISTS orders (
    id bigint PRIMARY KEY,
    customer text NOT NULL,
    is_paid boolean NOT NULL,
    state text NOT NULL DEFAULT 'ordered',
    CONSTRAINT only_paid_orders_are_shipped CHECK (is_paid OR state <> 'shipped')
);
