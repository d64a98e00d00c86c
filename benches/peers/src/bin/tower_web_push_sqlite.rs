//! Sends with this crate as its applications do: one message to all subscriptions of a store in SQLite, written there before
//! it is sent and settled after. Its only mode is `send`.

use std::time::Duration;

use tokio::sync::oneshot;
use tower_web_push::broadcast::BroadcastState;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::{
    NewSubscription, SqliteStore, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription, UaPublicKey};
use tower_web_push::vapid::{KeyId, VapidKey};
use tower_web_push::{Audience, Message, WebPush};
use tower_web_push_peers::{Result, Run, Stored};

/// Longer only if the code is broken.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let run = Run::from_args()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(send(&run))
}

async fn send(run: &Run) -> Result<()> {
    let folder = run.new_folder()?;
    let store = SqliteStore::open(folder.join("push.db")).await?;
    let key = VapidKey::parse(run.work.private_key.as_bytes())?;
    let key_id = KeyId::of(key.public_key());
    let push = WebPush::builder(run.work.contact.as_str())
        .store(store.clone())
        .vapid_private_key(key)
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .extra_root_ca_pem(run.ca_pem()?)
        .in_flight_per_origin(tower_web_push_peers::IN_FLIGHT)
        .build()
        .await?;
    for stored in &run.work.subscriptions {
        let new = NewSubscription::new(subscription(stored)?, key_id);
        let now = SystemClock::new().now();
        store
            .upsert(&new, &SubscriptionLimits::default(), now)
            .await?;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let running = tokio::spawn(push.run(stopped));
    run.send_at_once(async || broadcast(&push, run).await)
        .await?;
    drop(stop);
    running.await??;
    store.close().await?;
    Ok(())
}

fn subscription(stored: &Stored) -> Result<Subscription> {
    let endpoint = Endpoint::parse(&stored.endpoint)?;
    let ua_public = UaPublicKey::parse(&stored.p256dh)?;
    let auth = AuthSecret::parse(&stored.auth)?;
    Ok(Subscription::new(endpoint, ua_public, auth))
}

/// Sends to all subscriptions, and waits until each message is accepted and settled.
async fn broadcast(push: &WebPush, run: &Run) -> Result<()> {
    let message = Message::new(run.payload.clone());
    let queued = push.enqueue(Audience::All, message).await?;
    let status = push.wait_until_over(queued.broadcast, LIMIT).await?;
    let status = status.ok_or("the broadcast is not in the store")?;
    let all = run.work.subscriptions.len() as u64;
    if status.state != BroadcastState::Done || status.counts.accepted != all {
        return Err(format!("not all were accepted: {status:?}").into());
    }
    Ok(())
}
