//! A standalone Web Push server on bare hyper: `cargo run --example hyper_server --all-features`.
//!
//! `--help` lists the settings. `axum_server` is the same on a framework.

mod support;

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::time::sleep;
use tower::ServiceBuilder;

use support::{PREFIXES, Server};

#[tokio::main]
async fn main() -> ExitCode {
    support::run(serve).await
}

async fn serve(server: Server) -> io::Result<()> {
    let api = PREFIXES
        .iter()
        .fold(server.push.layer(), |layer, prefix| layer.at(prefix));
    let service = ServiceBuilder::new()
        .layer(server.cors)
        .layer(api)
        .service(server.site);

    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(server.shutdown.begun());
    loop {
        let (stream, _) = tokio::select! {
            accepted = server.listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // A connection that was gone again, or too many open files: neither ends the server.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let _ = stream.set_nodelay(true);
        let mut http = Builder::new(TokioExecutor::new());
        // With a timer, a client that does not get to the end of its headers is cut off.
        http.http1().timer(TokioTimer::new());
        let connection = http
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(service.clone()),
            )
            .into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended badly");
            }
        });
    }
    connections.shutdown().await;
    Ok(())
}
