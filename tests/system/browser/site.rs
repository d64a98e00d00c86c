//! An application: its page, and its worker that imports the server's.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;

/// Starts the site. Returns its address. Every address that a click opens is a page too.
pub(crate) async fn start() -> String {
    let script = |text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, "text/javascript")], text).into_response() })
    };
    let page = || async { Html(include_str!("site.html")) };
    let site = Router::new()
        .route("/", get(page))
        .route("/orders/{order}", get(page))
        .route("/track/{order}", get(page))
        .route("/site.js", script(include_str!("site.js")))
        .route("/worker.js", script(include_str!("worker.js")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, site).await.unwrap() });
    format!("http://{address}")
}
