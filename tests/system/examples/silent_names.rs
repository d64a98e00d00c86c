//! Signals to a server whose name server does not respond.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::world::{World, subscription};
use crate::support::http_client::HttpClient;
use crate::support::server_process::{ServerProcess, command, example};

/// An address on loopback that no other test has.
fn address(name: &str) -> &'static str {
    match name {
        "axum_server" => "127.77.13.53",
        _ => "127.77.14.53",
    }
}

/// A server whose only name server is silent: the system's resolver waits for 150 s.
async fn with_silent_names(name: &str, settings: &[(&str, &str)], world: &World) -> ServerProcess {
    let conf = world.folder.path().join("resolv.conf");
    let text = format!(
        "nameserver {}\noptions timeout:30 attempts:5\n",
        address(name)
    );
    fs::write(&conf, text).unwrap();
    let mut command = command("/bin/sh", settings);
    let script = "mount --bind \"$1\" /etc/resolv.conf && exec \"$0\"";
    command
        .args(["-c", "exec unshare --mount /bin/sh -c \"$0\" \"$1\" \"$2\""])
        .arg(script)
        .arg(example(name))
        .arg(conf);
    ServerProcess::start_command(command).await
}

/// A socket at the name server's address, or `None` if this process may not have one.
async fn name_server(name: &str) -> Option<UdpSocket> {
    let may_mount = Command::new("unshare").args(["--mount", "true"]).output();
    let may_mount = may_mount.await.is_ok_and(|output| output.status.success());
    UdpSocket::bind((address(name), 53))
        .await
        .ok()
        .filter(|_| may_mount)
}

pub(crate) async fn sigterm_does_not_wait_for_a_silent_name_server(name: &str) {
    let Some(name_server) = name_server(name).await else {
        eprintln!("skipped: it needs port 53 and a mount namespace");
        return;
    };
    let world = World::new().await;
    let store_url = world.store_url();
    let mut settings = World::settings(&store_url);
    settings.retain(|(name, _)| *name != "ENDPOINT_POLICY");
    settings.push(("ENDPOINT_POLICY", "public"));
    let server = with_silent_names(name, &settings, &world).await;
    let client = HttpClient::new(&server.url);
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let mut registrations = JoinSet::new();
    for number in 0..8 {
        let (client, mut body) = (client.clone(), body.clone());
        body["endpoint"] = format!("https://push.silent{number}.example/x").into();
        registrations.spawn(async move { client.post("/web-push/subscribe", &body).await });
    }
    let mut asked = vec![0; 512];
    let query = timeout(Duration::from_secs(60), name_server.recv(&mut asked));
    query.await.expect("no name is looked up").unwrap();
    // It has to end within 60 s.
    assert!(server.terminate().await.success());
}

pub(crate) async fn sighup_drains(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    client.get("/web-push/ping").await;
    server.signal("HUP").await;
    assert!(server.ended().await.success());
}

/// A shell and the kernel each send one when a terminal is closed.
pub(crate) async fn a_second_sighup_does_not_end_the_drain(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    client.get("/web-push/ping").await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /web-push/subscribe HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It says so once it reads the body: the connection is not an idle one.
    let mut reads = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut reads).await.unwrap();
    assert_eq!(&reads, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{").await.unwrap();
    server.signal("HUP").await;
    let draining = async {
        while !server.printed().contains("draining") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), draining).await.unwrap();
    server.signal("HUP").await;
    sleep(Duration::from_millis(300)).await;
    // The request is in flight still.
    stream.write_all(b"}").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert!(server.ended().await.success());
}

pub(crate) async fn nohup_keeps_the_server(name: &str) {
    let world = World::new().await;
    let store_url = world.store_url();
    let mut nohup = command("/bin/sh", &World::settings(&store_url));
    nohup
        .args(["-c", "trap '' HUP; exec \"$0\""])
        .arg(example(name));
    let server = ServerProcess::start_command(nohup).await;
    let client = HttpClient::new(&server.url);
    client.get("/web-push/ping").await;
    server.signal("HUP").await;
    sleep(Duration::from_millis(500)).await;
    client.get("/web-push/ping").await;
    assert!(!server.printed().contains("draining"));
    assert!(server.terminate().await.success());
}
