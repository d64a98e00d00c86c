//! Push in an application with users: `cargo run --example existing_app`.
//!
//! Its own login identifies the subscriber, and a handler sends to that user in one line. The push API is mounted twice: for
//! the users, who must be signed in and are no administrators, and on a port of the internal network, for operators with a
//! token. Try it:
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
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::net::TcpListener;
use tower_web_push::api::{AdminCredentials, ApiSettings};
use tower_web_push::{Audience, Notification, Principal, WebPush};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // In memory; `.store(SqliteStore::open("push.db").await?)` keeps subscriptions and messages.
    let push = WebPush::builder("mailto:ops@example.com").build().await?;

    let public = listener("BIND", "127.0.0.1:3000").await?;
    let internal = listener("INTERNAL_BIND", "127.0.0.1:3001").await?;
    println!("Operators on {}", internal.local_addr()?);
    println!("Listening on http://{}", public.local_addr()?);
    let operators = match env::var("OPERATOR_TOKEN") {
        Ok(token) => AdminCredentials::new().with_bearer_token(&token)?,
        Err(_) => AdminCredentials::new(), // no administrators
    };
    let public = axum::serve(public, app(push.clone())).with_graceful_shutdown(interrupted());
    let internal =
        axum::serve(internal, internal_app(&push, operators)).with_graceful_shutdown(interrupted());
    // If one of them fails, the process ends. What the worker has claimed is claimed again when its leases end.
    tokio::try_join!(
        async { Ok::<_, Box<dyn Error>>(public.await?) },
        async { Ok(internal.await?) },
        async { Ok(push.run(interrupted()).await?) }
    )?;
    Ok(())
}

async fn listener(variable: &str, default: &str) -> io::Result<TcpListener> {
    let address = env::var(variable).unwrap_or_else(|_| default.to_owned());
    TcpListener::bind(address).await
}

/// The application. The layer that identifies the user is around everything, including the push API.
fn app(push: WebPush) -> Router {
    Router::new()
        .route("/orders/{id}/ship", post(ship))
        .route("/account", delete(close_account))
        .nest_service(
            "/web-push",
            push.service()
                .with(ApiSettings::new().require_principal(true)),
        )
        .with_state(push)
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

/// A handler that sends. Once `enqueue` returns, the message is as durable as the store. `run` delivers it to every
/// browser of the customer.
async fn ship(State(push): State<WebPush>, Path(order): Path<u32>) -> Result<String, StatusCode> {
    let customer = "alice";
    let shipped = Notification::new("Shipped")
        .body(format!("Order {order} is on its way"))
        .url(format!("https://shop.example/orders/{order}"))
        .tag(format!("order-{order}"));
    let queued = push
        .enqueue(Audience::user(customer), shipped)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(format!(
        "shipped; {} browser(s) get a message\n",
        queued.recipients
    ))
}

/// The right to erasure: one call erases subscriptions, daily notifications and pending messages.
async fn close_account(
    State(push): State<WebPush>,
    Extension(user): Extension<Principal>,
) -> Result<String, StatusCode> {
    let forgotten = push.forget(&user).await;
    let forgotten = forgotten.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(format!(
        "closed; {} browser(s) forgotten\n",
        forgotten.subscriptions
    ))
}

async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}
