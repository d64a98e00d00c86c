//! A standalone Web Push server on axum: `cargo run --example axum_server --all-features`.
//!
//! `--help` lists the settings. `hyper_server` is the same without a framework.

mod support;

use std::io;
use std::process::ExitCode;

use axum::Router;

use support::{PREFIXES, Server};

#[tokio::main]
async fn main() -> ExitCode {
    support::run(serve).await
}

async fn serve(server: Server) -> io::Result<()> {
    let mut app = Router::new();
    for prefix in PREFIXES {
        app = app.nest_service(prefix, server.push.service());
    }
    let app = app.fallback_service(server.site).layer(server.cors);
    // Not `axum::serve`, which has no limits for connections that send nothing.
    server.acceptor.serve(app).await
}
