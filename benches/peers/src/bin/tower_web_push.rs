//! Sends with this crate: `Deliver` over its own client.

use std::sync::Arc;

use tower::ServiceExt as _;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::{Deliver, EndpointPolicy, HttpClient};
use tower_web_push::message::Message;
use tower_web_push::p256;
use tower_web_push::push_request::Push;
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription, UaPublicKey};
use tower_web_push::vapid::{Contact, Signer, VapidKey};
use tower_web_push_peers::{Result, Run, Stored};

fn main() -> Result<()> {
    let run = Run::from_args()?;
    let key = Arc::new(VapidKey::parse(run.work.private_key.as_bytes())?);
    let contact = Contact::parse(&run.work.contact)?;
    let message = Message::new(run.payload.clone());
    let push = |stored: &Stored| -> Result<Push> {
        let endpoint = Endpoint::parse(&stored.endpoint)?;
        let ua_public = UaPublicKey::parse(&stored.p256dh)?;
        let auth = AuthSecret::parse(&stored.auth)?;
        let subscription = Subscription::new(endpoint, ua_public, auth);
        Ok(Push::new(subscription, message.clone(), Arc::clone(&key)))
    };
    if !run.sends() {
        let (signer, clock) = (Signer::new(), SystemClock::new());
        return run.prepare_all(|stored| {
            let request = push(stored)?.request(p256::fastest(), &signer, &contact, clock.now())?;
            Ok(request.body().as_bytes().len())
        });
    }
    // The push service is on this machine.
    let policy = EndpointPolicy::insecure_allow_local();
    let client = HttpClient::builder()
        .policy(policy.clone())
        .extra_root_ca_pem(run.ca_pem()?)
        .build()?;
    let deliver = Deliver::new(client, contact.clone()).with_policy(policy);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run.send_all(async |stored| {
        deliver.clone().oneshot(push(stored)?).await?;
        Ok(())
    }))
}
