//! Push in a tonic application: `cargo run --manifest-path examples/grpc/Cargo.toml`.

use std::error::Error;

use tower_web_push::WebPush;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // In memory; `.store(SqliteStore::open("push.db").await?)` keeps subscriptions and messages.
    let push = WebPush::builder("mailto:ops@example.com").build().await?;
    let address = "127.0.0.1:50051".parse()?;
    println!("Listening on {address}");
    let served = tower_web_push_grpc::app(push.clone()).serve_with_shutdown(address, interrupted());
    // The worker counts from here on, so the first call already finds one.
    let worker = push.run(interrupted());
    // If one of them fails, the process ends. What the worker has claimed is claimed again when its leases end.
    tokio::try_join!(async { Ok::<_, Box<dyn Error>>(served.await?) }, async {
        Ok(worker.await?)
    })?;
    Ok(())
}

async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}
