//! A standalone Web Push server on axum: `cargo run --example axum_server --all-features`.
//!
//! `--help` lists the settings. `hyper_server` is the same without a framework.

mod support;

use std::io;
use std::process::ExitCode;

use axum::Router;

use support::Server;

#[tokio::main]
async fn main() -> ExitCode {
    support::run(serve).await
}

async fn serve(server: Server) -> io::Result<()> {
    // Not `nest_service`: axum 0.8 treats `/web-push//stats` as `/web-push/stats`, which a proxy's rules may not.
    let app = Router::new()
        .fallback_service(server.site)
        .layer(server.api)
        .layer(server.users)
        .layer(server.cors);
    // Not `axum::serve`, which has no limits for idle connections.
    server.acceptor.serve(app).await
}
