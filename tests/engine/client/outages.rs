//! Connections to an origin that cannot be reached.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;
use tower_web_push::deliver::{HttpClient, ResolveError, ResolveErrorKind, Resolver};
use tower_web_push::push_request::PushBody;

use super::raw::{Server, settle};
use super::world::{fixed, local, url};
use crate::support::push_server::HTTP1;

/// A dial begins with a lookup. Each takes a moment and fails, unless the origin is up.
#[derive(Debug, Default)]
struct Lookups {
    is_up: AtomicBool,
    times: Mutex<Vec<(Instant, Option<Instant>)>>,
}

#[async_trait]
impl Resolver for Lookups {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if self.is_up.load(SeqCst) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        self.times.lock().unwrap().push((Instant::now(), None));
        sleep(Duration::from_millis(20)).await;
        let ended = Some(Instant::now());
        self.times.lock().unwrap().last_mut().unwrap().1 = ended;
        Err(ResolveErrorKind::Temporary.into())
    }
}

async fn post(client: &HttpClient, endpoint: &str) -> Option<StatusCode> {
    let request = Request::post(endpoint).body(PushBody::default()).unwrap();
    let response = client.clone().oneshot(request).await.ok()?;
    Some(response.status())
}

#[tokio::test(start_paused = true)]
async fn five_hundred_requests_to_an_origin_that_is_down_dial_one_at_a_time_and_more_and_more_rarely()
 {
    let lookups = Arc::new(Lookups::default());
    let client = HttpClient::builder().resolver(Arc::clone(&lookups) as _);
    let client = client.build().unwrap();
    dials_rarely(&client, "https://fcm.googleapis.com/p", &lookups, 0).await;
}

#[tokio::test]
async fn five_hundred_requests_to_an_http1_server_that_is_down_dial_one_at_a_time_too() {
    let lookups = Arc::new(Lookups::default());
    lookups.is_up.store(true, SeqCst);
    let (server, _) = fixed(HTTP1, 201, &[]).await;
    let client = local().extra_root_ca_pem(server.ca_pem.as_str());
    let client = client.resolver(Arc::clone(&lookups) as _).build().unwrap();
    let endpoint = url(&server, "/p");
    let answer = post(&client, &endpoint).await;
    assert_eq!(answer, Some(StatusCode::CREATED));
    drop(server);
    settle().await;
    lookups.is_up.store(false, SeqCst);
    tokio::time::pause();
    // Side by side they are one failure.
    let mut first = JoinSet::new();
    for _ in 0..20 {
        let (client, endpoint) = (client.clone(), endpoint.clone());
        first.spawn(async move { post(&client, &endpoint).await });
    }
    assert_eq!(first.join_all().await, [None; 20]);
    assert_eq!(lookups.times.lock().unwrap().drain(..19).count(), 19);
    dials_rarely(&client, &endpoint, &lookups, 1).await;
}

/// Sends many requests for a minute, after this number of dials.
async fn dials_rarely(client: &HttpClient, endpoint: &str, lookups: &Lookups, dials: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut requests = JoinSet::new();
    for _ in 0..500 {
        let (client, endpoint) = (client.clone(), endpoint.to_owned());
        requests.spawn(async move {
            let mut failed = dials;
            while Instant::now() < until {
                assert_eq!(post(&client, &endpoint).await, None);
                failed += 1;
            }
            failed
        });
    }
    let failed = requests.join_all().await;
    let times = lookups.times.lock().unwrap();
    // All that wait learn of the same dial.
    assert!(
        failed.iter().all(|failed| *failed == times.len()),
        "{failed:?}"
    );
    let pauses: Vec<_> = times
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].1.expect("one at a time"))
        .collect();
    let mut longest = Duration::from_millis(100);
    for pause in &pauses {
        assert!(
            *pause >= longest / 2 && *pause <= longest + Duration::from_millis(1),
            "{pauses:?}"
        );
        longest = (longest * 2).min(Duration::from_secs(2));
    }
    assert!(pauses.len() >= 30, "{pauses:?}");
}

/// A server that accepts connections and ends them is as good as none.
#[tokio::test]
async fn after_a_connection_that_ended_without_a_response_the_next_one_waits() {
    let mut server = Server::start().await;
    for opened in 1..=3 {
        let request = tokio::spawn(server.post(opened));
        let mut peer = server.accept(Some(100)).await;
        let _ = peer.request().await;
        peer.close().await;
        assert!(request.await.unwrap().is_err());
    }
    tokio::time::pause();
    let request = tokio::spawn(server.post("waits"));
    settle().await;
    assert_eq!(server.opened(), 3);
    tokio::time::advance(Duration::from_secs(2)).await;
    settle().await;
    tokio::time::resume();
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    assert!(request.await.unwrap().is_ok());
    // After a response it is as if nothing had happened.
    peer.close().await;
    settle().await;
    tokio::time::pause();
    let request = tokio::spawn(server.post("does not wait"));
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    assert!(request.await.unwrap().is_ok());
}
