//! Sends with the crate `web-push` and its client on hyper. OpenSSL finds the certificate by `SSL_CERT_FILE`.

use tower_web_push_peers::{Result, Run, Stored};
use web_push::{
    ContentEncoding, HyperWebPushClient, SubscriptionInfo, VapidSignatureBuilder,
    WebPushClient as _, WebPushMessage, WebPushMessageBuilder, request_builder,
};

fn main() -> Result<()> {
    let run = Run::from_args()?;
    let key = VapidSignatureBuilder::from_base64_no_sub(&run.work.private_key)?;
    let message = |stored: &Stored| -> Result<WebPushMessage> {
        let info = SubscriptionInfo::new(
            stored.endpoint.as_str(),
            stored.p256dh.as_str(),
            stored.auth.as_str(),
        );
        let mut signature = key.clone().add_sub_info(&info);
        signature.add_claim("sub", run.work.contact.as_str());
        let mut message = WebPushMessageBuilder::new(&info);
        message.set_payload(ContentEncoding::Aes128Gcm, &run.payload);
        message.set_vapid_signature(signature.build()?);
        Ok(message.build()?)
    };
    if !run.sends() {
        return run.prepare_all(|stored| {
            let request = request_builder::build_request::<Vec<u8>>(message(stored)?);
            Ok(request.body().len())
        });
    }
    let client = HyperWebPushClient::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run.send_all(async |stored| Ok(client.send(message(stored)?).await?)))
}
