//! The limits on connections and lookups.

use std::env;
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tower_web_push::deliver::{EndpointPolicy, ResolveError, Resolver};
use tower_web_push::push_request::PushBody;

use super::world::{local, over, send};
use crate::support::push_server::{Alpn, BOTH, PLAIN, PushServer, STREAMS, answer, certificate};

/// Finds every name in a block of addresses of its own, except those below `silent.localhost`, for which it never returns.
#[derive(Debug)]
struct OwnBlocks {
    /// The lookups that do not return: those under way, and the most that were at once.
    silent: watch::Sender<(usize, usize)>,
}

/// A lookup that does not return, until it is dropped.
struct UnderWay<'a>(&'a watch::Sender<(usize, usize)>);

impl<'a> UnderWay<'a> {
    fn begin(silent: &'a watch::Sender<(usize, usize)>) -> Self {
        silent.send_modify(|(now, most)| {
            *now += 1;
            *most = usize::max(*now, *most);
        });
        Self(silent)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|(now, _)| *now -= 1);
    }
}

impl OwnBlocks {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            silent: watch::Sender::new((0, 0)),
        })
    }
}

#[async_trait]
impl Resolver for OwnBlocks {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if host.ends_with(".silent.localhost") {
            let _under_way = UnderWay::begin(&self.silent);
            pending::<()>().await;
        }
        let digits: String = host.chars().filter(char::is_ascii_digit).collect();
        let [high, low] = digits.parse().unwrap_or(0_u16).to_be_bytes();
        Ok(vec![Ipv4Addr::new(127, high, low, 1).into()])
    }
}

/// A server at every address of loopback. Requests to `/hang` are not answered.
async fn everywhere(alpn: Alpn, hanging: &watch::Sender<usize>) -> PushServer {
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let hanging = hanging.clone();
    PushServer::start_on(listener, &certificate(), alpn, STREAMS, move |request| {
        let hanging = hanging.clone();
        Box::pin(async move {
            if request.uri().path() == "/hang" {
                hanging.send_modify(|requests| *requests += 1);
                pending::<()>().await;
            }
            answer(201, &[], "")
        })
    })
}

async fn at_least(numbers: &watch::Sender<usize>, least: usize) {
    numbers
        .subscribe()
        .wait_for(|number| *number >= least)
        .await
        .unwrap();
}

#[tokio::test]
async fn fifteen_hundred_hosts_and_a_process_with_1024_files() {
    // The limit is a process's, so it has one of its own.
    let output = Command::new("/bin/sh")
        .args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("client::budgets::with_few_files")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Client and server are in this process, so each connection takes two of its files.
#[tokio::test]
#[ignore = "needs a process with few files: the test above starts it"]
async fn with_few_files() {
    assert_eq!(rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap().0, 1024);
    let hanging = watch::Sender::new(0);
    let plain = everywhere(PLAIN, &hanging).await;
    let port = plain.port();
    let client = local().resolver(OwnBlocks::new());
    let deliver = over(client, EndpointPolicy::insecure_allow_local());

    // Well-behaved hosts, which keep their connections.
    let sent = stream::iter(0..1500)
        .map(async |number| {
            let endpoint = format!("http://push.host{number}.localhost:{port}/p");
            send(&deliver, &endpoint).await
        })
        .buffer_unordered(64)
        .collect::<Vec<_>>()
        .await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(plain.connections(), 1500);
    // 128 of the client and as many of the server, and what the process had before.
    #[cfg(target_os = "linux")]
    assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() < 350);

    // Hosts that hold their requests: all connections for hosts that the policy does not name are in use.
    let mut held = JoinSet::new();
    for number in 0..300 {
        let deliver = deliver.clone();
        let endpoint = format!("http://push.host{number}.localhost:{port}/hang");
        held.spawn(async move { send(&deliver, &endpoint).await });
    }
    at_least(&hanging, 128).await;
    send(&deliver, &format!("http://localhost:{port}/p"))
        .await
        .unwrap();
    assert_eq!(*hanging.borrow(), 128);
}

#[tokio::test]
async fn three_thousand_names_below_a_silent_name_server_leave_others_their_lookups() {
    let hanging = watch::Sender::new(0);
    let server = everywhere(PLAIN, &hanging).await;
    let port = server.port();
    let names = OwnBlocks::new();
    // Of 64 connections 32 are for hosts that the policy does not name, 4 for each domain. The client alone: 3,000
    // encryptions take their time.
    let client = local()
        .max_connections(64)
        .resolver(Arc::clone(&names) as _)
        .build()
        .unwrap();
    let post = |host: &str| {
        let request = Request::post(format!("http://{host}:{port}/p"));
        let request = request.body(PushBody::default()).unwrap();
        client.clone().oneshot(request)
    };
    let mut waiting = JoinSet::new();
    for number in 0..3000 {
        waiting.spawn(post(&format!("h{number}.silent.localhost")));
    }
    let mut silent = names.silent.subscribe();
    silent.wait_for(|(now, _)| *now == 4).await.unwrap();
    for host in ["push.host1.localhost", "localhost"] {
        assert_eq!(post(host).await.unwrap().status(), StatusCode::CREATED);
    }
    let (_, most) = *names.silent.borrow();
    assert_eq!(most, 4);
}

/// A connection that was closed for another is opened again without a failure.
#[tokio::test]
async fn a_host_whose_connection_was_closed_for_another_is_reached_again() {
    let hanging = watch::Sender::new(0);
    let server = everywhere(BOTH, &hanging).await;
    let port = server.port();
    let client = local()
        .max_connections(4)
        .extra_root_ca_pem(server.ca_pem.as_str());
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    // Two connections for named hosts, of three origins in turn.
    let second = everywhere(PLAIN, &hanging).await;
    let third = everywhere(PLAIN, &hanging).await;
    let origins = [
        format!("https://localhost:{port}/p"),
        format!("http://localhost:{}/p", second.port()),
        format!("http://127.0.0.1:{}/p", third.port()),
    ];
    for endpoint in origins.iter().cycle().take(30) {
        let sent = tokio::time::timeout(Duration::from_secs(30), send(&deliver, endpoint)).await;
        sent.expect("it waits for ever").unwrap();
    }
    assert_eq!(server.connections(), 10);
}
