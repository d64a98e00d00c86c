//! Push in an application with users and a database: `cargo run --features postgres --example existing_app`.
//!
//! Its own login identifies the subscriber. A handler ships an order and enqueues the message in one transaction of the
//! application's own pool, so that neither happens without the other. The push API is mounted twice: for
//! the users, who must be signed in and are no administrators, and on a port of the internal network, for operators with a
//! token. Try it, with a PostgreSQL at `DATABASE_URL`:
//!
//! ```sh
//! curl -H 'Authorization: Bearer alice-session' http://127.0.0.1:3000/web-push/vapid
//! curl -H 'Authorization: Bearer alice-session' -X POST http://127.0.0.1:3000/orders/7/ship
//! curl -H 'Authorization: Bearer alice-session' http://127.0.0.1:3000/web-push/devices
//! curl -H 'Authorization: Bearer alice-session' -X DELETE http://127.0.0.1:3000/account
//! # Started with OPERATOR_TOKEN=h9Jm3pXq7vTz2LkB:
//! curl -H 'Authorization: Bearer h9Jm3pXq7vTz2LkB' http://127.0.0.1:3001/web-push/stats
//! ```

use std::env;
use std::error::Error;
use std::io;

use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, post};
use axum::{Extension, Router};
use deadpool_postgres::{Manager, Pool};
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
use tower_web_push::api::{AdminCredentials, ApiSettings};
use tower_web_push::store::PostgresStore;
use tower_web_push::{Audience, Broadcast, Notification, Principal, WebPush};

/// The application's own tables.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY, customer text NOT NULL, state text NOT NULL);
    INSERT INTO orders VALUES (7, 'alice', 'ordered') ON CONFLICT DO NOTHING;";

/// What the handlers share.
#[derive(Clone)]
struct Shop {
    pool: Pool,
    store: PostgresStore,
    push: WebPush,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = env::var("DATABASE_URL");
    let database = database
        .as_deref()
        .unwrap_or("postgres://postgres@127.0.0.1/postgres");
    let pool = Pool::builder(Manager::new(database.parse()?, NoTls)).build()?;
    pool.get().await?.batch_execute(TABLES).await?;
    // A schema of its own, `web_push`, in the application's database.
    let store = PostgresStore::with_pool(pool.clone()).await?;
    let push = WebPush::builder("mailto:ops@example.com");
    let push = push.store(store.clone()).build().await?;
    let shop = Shop { pool, store, push };

    let public = listener("BIND", "127.0.0.1:3000").await?;
    let internal = listener("INTERNAL_BIND", "127.0.0.1:3001").await?;
    println!("Operators on {}", internal.local_addr()?);
    println!("Listening on http://{}", public.local_addr()?);
    let operators = match env::var("OPERATOR_TOKEN") {
        Ok(token) => AdminCredentials::new().with_bearer_token(&token)?,
        Err(_) => AdminCredentials::new(), // no administrators
    };
    let push = shop.push.clone();
    let public = axum::serve(public, app(shop)).with_graceful_shutdown(interrupted());
    let internal =
        axum::serve(internal, internal_app(&push, operators)).with_graceful_shutdown(interrupted());
    // The worker counts from here on, so the first request already finds one.
    let worker = push.run(interrupted());
    // If one of them fails, the process ends. What the worker has claimed is claimed again when its leases end.
    tokio::try_join!(
        async { Ok::<_, Box<dyn Error>>(public.await?) },
        async { Ok(internal.await?) },
        async { Ok(worker.await?) }
    )?;
    Ok(())
}

async fn listener(variable: &str, default: &str) -> io::Result<TcpListener> {
    let address = env::var(variable).unwrap_or_else(|_| default.to_owned());
    TcpListener::bind(address).await
}

/// The application. The layer that identifies the user is around everything, including the push API.
fn app(shop: Shop) -> Router {
    Router::new()
        .route("/orders/{id}/ship", post(ship))
        .route("/account", delete(close_account))
        .nest_service(
            "/web-push",
            shop.push
                .service()
                .with(ApiSettings::new().require_principal(true)),
        )
        .with_state(shop)
        .layer(middleware::from_fn(sign_in))
}

/// The API for the internal network: the same store and queue with other rules.
fn internal_app(push: &WebPush, operators: AdminCredentials) -> Router {
    let settings = ApiSettings::new().authorizer(operators);
    Router::new().nest_service("/web-push", push.service().with(settings))
}

/// Stands for the application's own sessions. The push API reads the user from the extensions only: `/subscribe` ties
/// the subscription to this user, and ignores any user in the body.
async fn sign_in(mut request: Request, next: Next) -> Response {
    let session = request.headers().get(AUTHORIZATION);
    let user = match session.map(|value| value.as_bytes()) {
        Some(b"Bearer alice-session") => "alice",
        Some(b"Bearer bob-session") => "bob",
        _ => return (StatusCode::UNAUTHORIZED, "sign in first\n").into_response(),
    };
    request.extensions_mut().insert(Principal::from(user));
    next.run(request).await
}

/// A handler that sends: the order is shipped and the message enqueued by one COMMIT. A crash before it leaves neither, and
/// after it `run` delivers the message to every browser of the customer.
async fn ship(State(shop): State<Shop>, Path(order): Path<i64>) -> Result<String, StatusCode> {
    let mut client = shop.pool.get().await.map_err(unavailable)?;
    let transaction = client.transaction().await.map_err(unavailable)?;
    let update = "UPDATE orders SET state = 'shipped' WHERE id = $1 AND state = 'ordered' RETURNING customer";
    let shipped = transaction.query_opt(update, &[&order]).await;
    let Some(row) = shipped.map_err(unavailable)? else {
        return Err(StatusCode::NOT_FOUND);
    };
    let customer: String = row.get(0);
    let notification = Notification::new("Shipped")
        .body(format!("Order {order} is on its way"))
        .url(format!("https://shop.example/orders/{order}"))
        .tag(format!("order-{order}"));
    let broadcast = Broadcast::to(Audience::user(customer), notification);
    let enqueued = shop.store.enqueue_in(&transaction, &broadcast).await;
    enqueued.map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)?;
    // Without it the worker looks by itself, within a second.
    shop.store.announce().await;
    Ok(format!("order {order} is shipped\n"))
}

/// The transaction, if there is one, is dropped, which rolls it back.
fn unavailable(error: impl Error) -> StatusCode {
    eprintln!("the database: {error}");
    StatusCode::SERVICE_UNAVAILABLE
}

/// The right to erasure: one call erases subscriptions, daily notifications and pending messages.
async fn close_account(
    State(shop): State<Shop>,
    Extension(user): Extension<Principal>,
) -> Result<String, StatusCode> {
    let forgotten = shop.push.forget(&user).await.map_err(unavailable)?;
    Ok(format!(
        "closed; {} browser(s) forgotten\n",
        forgotten.subscriptions
    ))
}

async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}
