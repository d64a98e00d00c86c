//! Sends with the crate `web-push-native`, which leaves the client to the application: hyper with rustls, over HTTP/2.

use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tower_web_push_peers::{Result, Run, Stored};
use web_push_native::jwt_simple::algorithms::ES256KeyPair;
use web_push_native::p256::PublicKey;
use web_push_native::{Auth, WebPushBuilder};

fn main() -> Result<()> {
    let run = Run::from_args()?;
    let key = ES256KeyPair::from_bytes(&Base64UrlUnpadded::decode_vec(&run.work.private_key)?)?;
    let request = |stored: &Stored| -> Result<Request<Vec<u8>>> {
        let p256dh = Base64UrlUnpadded::decode_vec(&stored.p256dh)?;
        let auth = Base64UrlUnpadded::decode_vec(&stored.auth)?;
        let builder = WebPushBuilder::new(
            stored.endpoint.parse()?,
            PublicKey::from_sec1_bytes(&p256dh)?,
            Auth::clone_from_slice(&auth),
        );
        let builder = builder.with_vapid(&key, &run.work.contact);
        Ok(builder.build(run.payload.as_slice())?)
    };
    if !run.sends() {
        return run.prepare_all(|stored| Ok(request(stored)?.body().len()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&run.ca_pem()?) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_all_versions()
        .build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run.send_all(async |stored| {
        let request = request(stored)?.map(|body| Full::new(Bytes::from(body)));
        let response = client.request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        match status {
            StatusCode::CREATED => Ok(()),
            _ => Err(format!("the push service answered {status}").into()),
        }
    }))
}
