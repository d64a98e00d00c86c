//! A client and a server that trust each other.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_web_push::deliver::{
    Accepted, Deliver, DeliveryError, EndpointPolicy, HttpClient, HttpClientBuilder, ResolveError,
    ResolveErrorKind, Resolver,
};
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::Push;
use tower_web_push::subscription::{AuthSecret, Subscription};
use tower_web_push::vapid::{Contact, VapidKey};

use crate::support::push_server::{Alpn, PushServer, answer};

pub(crate) fn push(endpoint: &str) -> Push {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let subscription = Subscription::new(endpoint.parse().unwrap(), *secret.public(), auth);
    let key = Arc::new(VapidKey::generate().unwrap());
    Push::new(subscription, Message::new("hello"), key)
}

pub(crate) fn local() -> HttpClientBuilder {
    HttpClient::builder().policy(EndpointPolicy::insecure_allow_local())
}

pub(crate) fn over(client: HttpClientBuilder, policy: EndpointPolicy) -> Deliver<HttpClient> {
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let client = client.policy(policy.clone()).build().unwrap();
    Deliver::new(client, contact).with_policy(policy)
}

/// A `Deliver` that trusts the server.
pub(crate) fn to(server: &PushServer) -> Deliver<HttpClient> {
    let client = local().extra_root_ca_pem(server.ca_pem.as_str());
    over(client, EndpointPolicy::insecure_allow_local())
}

pub(crate) fn url(server: &PushServer, path: &str) -> String {
    format!("https://localhost:{}{path}", server.port())
}

pub(crate) async fn send(
    deliver: &Deliver<HttpClient>,
    endpoint: &str,
) -> Result<Accepted, DeliveryError> {
    deliver.clone().oneshot(push(endpoint)).await
}

/// A server with one response for every request, and the requests that it received.
pub(crate) async fn fixed(
    alpn: Alpn,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
) -> (PushServer, Arc<Mutex<Vec<Request<Bytes>>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = PushServer::start(alpn, move |request| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            log.lock().unwrap().push(Request::from_parts(head, body));
            answer(status, headers, "")
        })
    })
    .await;
    (server, seen)
}

/// Resolves one name to an address that the policy refuses. All other names do not exist.
#[derive(Debug)]
pub(crate) struct OneName(pub(crate) &'static str);

#[async_trait]
impl Resolver for OneName {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        tokio::task::yield_now().await;
        if host == self.0 {
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        } else {
            Err(ResolveErrorKind::NotFound.into())
        }
    }
}

/// Resolves to these addresses and counts the lookups.
#[derive(Debug)]
pub(crate) struct Rebinding {
    addrs: Vec<IpAddr>,
    pub(crate) asked: AtomicUsize,
}

impl Rebinding {
    pub(crate) fn to(addrs: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Resolver for Rebinding {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // As long as a real lookup, so that other requests come meanwhile.
        tokio::task::yield_now().await;
        Ok(self.addrs.clone())
    }
}
