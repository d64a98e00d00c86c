//! Addresses to which the client does not connect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Request, Version};
use tower::ServiceExt as _;
use tower_web_push::deliver::{EndpointPolicy, HttpClient, Outcome, PolicyError, PolicyErrorKind};
use tower_web_push::push_request::PushBody;

use super::world::{OneName, Rebinding, fixed, local, over, send};
use crate::support::push_server::{BOTH, PLAIN};

#[tokio::test]
async fn plain_http_reaches_loopback_under_the_local_policy_only() {
    let (server, seen) = fixed(PLAIN, 201, &[]).await;
    let endpoint = format!("http://127.0.0.1:{}/p", server.port());
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    send(&deliver, &endpoint).await.unwrap();
    assert_eq!(seen.lock().unwrap()[0].version(), Version::HTTP_11);
    for policy in [EndpointPolicy::default(), EndpointPolicy::public_hosts()] {
        let error = send(&over(HttpClient::builder(), policy), &endpoint).await;
        assert_eq!(error.unwrap_err().outcome(), Outcome::Refused);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_public_name_with_a_private_address_is_refused_before_the_dial() {
    let (server, _) = fixed(BOTH, 201, &[]).await;
    let host = format!("push.example.com:{}", server.port());
    let policy = EndpointPolicy::hosts([format!("public:{}", server.port())]).unwrap();
    let named = EndpointPolicy::hosts([&host]).unwrap();
    for addrs in [
        &["127.0.0.1"][..],
        &["::ffff:127.0.0.1"],
        &["192.0.2.1", "127.0.0.1"],
        &["10.0.0.1"],
    ] {
        let resolver = Rebinding::to(addrs);
        let asked = Arc::clone(&resolver);
        let client = HttpClient::builder()
            .resolver(resolver)
            .extra_root_ca_pem(server.ca_pem.as_str());
        let deliver = over(client, policy.clone());
        let error = send(&deliver, &format!("https://{host}/p"))
            .await
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused, "{addrs:?}");
        assert_eq!(error.reason(), Some("endpoint_not_allowed"));
        assert_eq!(asked.asked.load(Ordering::SeqCst), 1);
        // Of a host that the policy names, the resolver of this process is at fault, and the message is sent later.
        let client = HttpClient::builder()
            .resolver(asked)
            .extra_root_ca_pem(server.ca_pem.as_str());
        let deliver = over(client, named.clone());
        let error = send(&deliver, &format!("https://{host}/p"))
            .await
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Transient, "{addrs:?}");
        assert_eq!(error.reason(), Some("local"));
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_reported_while_the_resolver_finds_others() {
    let client = HttpClient::builder().resolver(Arc::new(OneName("a.example.com")));
    let deliver = over(client, EndpointPolicy::public_hosts());
    let unknown = "https://x.example.com/p";
    let error = send(&deliver, unknown).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert!(
        !error.is_host_not_found(),
        "nothing is known of the resolver"
    );
    let found = send(&deliver, "https://a.example.com/p").await.unwrap_err();
    assert_eq!(found.outcome(), Outcome::Refused);
    let error = send(&deliver, unknown).await.unwrap_err();
    assert!(!error.is_host_not_found(), "a refused address is no find");
    let client = HttpClient::builder().resolver(Arc::new(OneName("a.example.com")));
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    // Nothing listens there.
    let found = send(&deliver, "https://a.example.com/p").await.unwrap_err();
    assert_eq!(found.outcome(), Outcome::Transient);
    // The second one waits for the first one's dial.
    let (first, second) = tokio::join!(send(&deliver, unknown), send(&deliver, unknown));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.outcome(), Outcome::Transient);
        assert!(error.is_host_not_found());
        assert_eq!(error.reason(), Some("host_not_found"));
    }
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_each_connection() {
    let (server, _) = fixed(BOTH, 201, &[]).await;
    let resolver = Rebinding::to(&["127.0.0.1"]);
    let asked = Arc::clone(&resolver);
    let client = local()
        .resolver(resolver)
        .extra_root_ca_pem(server.ca_pem.as_str());
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    let endpoint = format!("https://push.localhost:{}/p", server.port());
    for _ in 0..3 {
        send(&deliver, &endpoint).await.unwrap();
    }
    assert_eq!(asked.asked.load(Ordering::SeqCst), 1);
}

/// Endpoints that must not be reached, with any resolver.
const FORBIDDEN: &[&str] = &[
    "https://127.0.0.1/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0x7f.1/x",
    "https://0177.0.0.1/x",
    "https://0/x",
    "https://localhost/x",
    "https://localhost./x",
    "https://a.localhost/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://[fd00::1]/x",
    "https://169.254.169.254/latest/meta-data",
    "https://metadata.google.internal/x",
    "https://printer.local/x",
    "https://intranet/x",
    "https://permanently-removed.invalid/x",
    "https://android.googleapis.com/gcm/send/x",
    "http://fcm.googleapis.com/x",
    "https://fcm.googleapis.com:22/x",
];

#[tokio::test]
async fn forbidden_endpoints_are_refused_at_the_check_and_at_the_dial() {
    for policy in [EndpointPolicy::default(), EndpointPolicy::public_hosts()] {
        let resolver = Rebinding::to(&["127.0.0.1"]);
        let asked = Arc::clone(&resolver);
        let client = HttpClient::builder().resolver(resolver);
        let deliver = over(client.clone(), policy.clone());
        let client = client.policy(policy).build().unwrap();
        for endpoint in FORBIDDEN {
            let error = send(&deliver, endpoint).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Refused, "{endpoint}");
            // The same without `Deliver` around it.
            let request = Request::post(*endpoint).body(PushBody::default()).unwrap();
            let error = client.clone().oneshot(request).await.unwrap_err();
            let mut causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                    error.source()
                });
            assert!(causes.any(|cause| cause.is::<PolicyError>()), "{endpoint}");
        }
        assert_eq!(asked.asked.load(Ordering::SeqCst), 0, "there was no lookup");
    }
}

#[tokio::test]
async fn the_local_policy_reaches_nothing_but_loopback() {
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    for endpoint in [
        "http://169.254.169.254/x",
        "http://10.0.0.1/x",
        "http://0.0.0.0/x",
        "http://intranet/x",
    ] {
        let error = send(&deliver, endpoint).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused, "{endpoint}");
    }
    let refused = EndpointPolicy::insecure_allow_local().check_addr("10.0.0.1".parse().unwrap());
    assert_eq!(refused.unwrap_err().kind(), PolicyErrorKind::PrivateAddress);
}
