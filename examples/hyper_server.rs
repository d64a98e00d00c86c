//! A standalone Web Push server on bare hyper: `cargo run --example hyper_server --all-features`.
//!
//! `--help` lists the settings. `axum_server` is the same on a framework.

mod support;

use std::io;
use std::process::ExitCode;

use tower::ServiceBuilder;

use support::Server;

#[tokio::main]
async fn main() -> ExitCode {
    support::run(serve).await
}

async fn serve(server: Server) -> io::Result<()> {
    let service = ServiceBuilder::new()
        .layer(server.cors)
        .layer(server.users)
        .layer(server.api)
        .service(server.site);
    server.acceptor.serve(service).await
}
