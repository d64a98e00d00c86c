//! What the server listens on: Unix sockets, sockets of a service manager, and TLS.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::{TOKEN, World};
use crate::support::http_client::HttpClient;
use crate::support::server_process::{ServerProcess, command, example, finish};

const LIMIT: Duration = Duration::from_secs(60);

fn get(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("host", "push.example");
    request.body(Full::default()).unwrap()
}

/// Sends a request over a connection of its own. Returns its status and body.
async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> (StatusCode, Bytes)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    (head.status, body.collect().await.unwrap().to_bytes())
}

async fn status(socket: &Path, path: &str) -> StatusCode {
    send(UnixStream::connect(socket).await.unwrap(), get(path))
        .await
        .0
}

/// The settings of a server on a Unix socket.
fn on(socket: &Path) -> [(&'static str, String); 3] {
    [
        ("BIND", format!("unix:{}", socket.display())),
        ("ENDPOINT_POLICY", "known".to_owned()),
        ("ADMIN_TOKEN", TOKEN.to_owned()),
    ]
}

async fn start(world: &World, name: &str, socket: &Path, more: &[(&str, &str)]) -> ServerProcess {
    let settings = on(socket);
    let mut all: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    all.extend_from_slice(more);
    world.start(name, &all).await.0
}

pub(crate) async fn a_unix_socket_is_for_a_proxy(name: &str) {
    let world = World::new().await;
    let socket = world.folder.path().join("http.sock");
    let more = [
        ("TRUSTED_PROXIES", "1"),
        ("PROXY_ADDRESSES", "192.0.2.7"),
        ("PRINCIPAL_HEADER", "Remote-User"),
        ("SOCKET_MODE", "600"),
    ];
    let server = start(&world, name, &socket, &more).await;
    assert_eq!(server.url, format!("unix:{}", socket.display()));
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(status(&socket, "/web-push/vapid").await, StatusCode::OK);
    // The proxy's headers count: signed-in users have devices.
    assert_eq!(
        status(&socket, "/web-push/devices").await,
        StatusCode::FORBIDDEN
    );
    let mut request = get("/web-push/devices");
    request
        .headers_mut()
        .insert("remote-user", "alice".parse().unwrap());
    let (devices, body) = send(UnixStream::connect(&socket).await.unwrap(), request).await;
    assert_eq!(devices, StatusCode::OK, "{body:?}");
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(!socket.exists(), "the file is left behind");
}

pub(crate) async fn a_stale_socket_file_is_replaced_and_no_other_file(name: &str) {
    let world = World::new().await;
    let socket = world.folder.path().join("http.sock");
    start(&world, name, &socket, &[]).await.kill().await;
    assert!(socket.exists(), "nothing is stale");
    let server = start(&world, name, &socket, &[]).await;
    let ready = status(&socket, "/web-push/live").await;
    assert_eq!(ready, StatusCode::OK);

    let refused = async |socket: &Path, why: &str| {
        let mut settings = vec![("STORE_URL", "memory:"), ("RUST_LOG", "off")];
        let on = on(socket);
        settings.extend(on.iter().map(|(name, value)| (*name, value.as_str())));
        let output = finish(command(name, &settings)).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(
            errors.starts_with("error: BIND=unix:") && errors.contains(why),
            "{errors}"
        );
    };
    refused(&socket, "another server listens there").await;
    assert_eq!(status(&socket, "/web-push/live").await, StatusCode::OK);
    let other = world.folder.path().join("notes.txt");
    fs::write(&other, "mine").unwrap();
    refused(&other, "not a socket").await;
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    refused(&world.folder.path().join("missing/http.sock"), "").await;

    // Another server's file is not removed.
    fs::remove_file(&socket).unwrap();
    let _other = UnixListener::bind(&socket).unwrap();
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(socket.exists(), "the file of another server is gone");
}

/// A command that has a file as its file 3, as a service manager starts it. `pid` is a shell's word for LISTEN_PID.
fn with_file(name: &str, settings: &[(&str, &str)], file: OwnedFd, pid: &str) -> Command {
    let mut shell = command("/bin/sh", settings);
    let script =
        format!("exec 3<&0 0</dev/null; export LISTEN_PID={pid} LISTEN_FDS=1; exec \"$0\"");
    shell
        .arg("-c")
        .arg(script)
        .arg(example(name))
        .stdin(Stdio::from(file));
    shell
}

pub(crate) async fn sockets_of_the_service_manager_go_first(name: &str) {
    let world = World::new().await;
    let store_url = world.store_url();
    let mut settings = World::settings(&store_url);
    // Not used, so not checked either.
    settings.retain(|(name, _)| *name != "BIND");
    settings.push(("BIND", "192.0.2.1:1"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let started = with_file(name, &settings, listener.into(), "$$");
    let server = ServerProcess::start_command(started).await;
    assert_eq!(server.url, format!("http://{address}"));
    let live = HttpClient::new(&server.url).get("/web-push/live").await;
    assert_eq!(live.status, StatusCode::OK);
    assert_eq!(server.terminate().await.code(), Some(0));

    // A Unix socket. Its file is the service manager's.
    let socket = world.folder.path().join("given.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    settings.retain(|(name, _)| *name != "ENDPOINT_POLICY");
    let server = ServerProcess::start_command(with_file(name, &settings, listener.into(), "$$"));
    let server = server.await;
    assert_eq!(status(&socket, "/web-push/live").await, StatusCode::OK);
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(socket.exists());

    // Reachable from other machines, it needs credentials as BIND does.
    settings.retain(|(name, _)| !name.starts_with("ADMIN_"));
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let output = finish(with_file(name, &settings, listener.into(), "$$")).await;
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("ADMIN_TOKEN or ADMIN_PASSWORD must be set"),
        "{errors}"
    );

    let file = File::open("/dev/null").unwrap();
    let output = finish(with_file(name, &settings, file.into(), "$$")).await;
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("error: LISTEN_FDS: "), "{errors}");
}

pub(crate) async fn sockets_of_another_process_are_left_alone(name: &str) {
    let world = World::new().await;
    let store_url = world.store_url();
    for pid in ["1", "nobody", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let started = with_file(name, &World::settings(&store_url), listener.into(), pid);
        let server = ServerProcess::start_command(started).await;
        assert_ne!(server.url, format!("http://{address}"), "LISTEN_PID={pid}");
        let live = HttpClient::new(&server.url).get("/web-push/live").await;
        assert_eq!(live.status, StatusCode::OK);
    }
}

pub(crate) async fn the_service_manager_is_told(name: &str) {
    let world = World::new().await;
    let path = world.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let notify = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let (server, client) = world.start(name, &notify).await;
    assert!(told().lines().any(|line| line == "READY=1"));
    assert_eq!(client.get("/web-push/live").await.status, StatusCode::OK);
    server.ask_to_end().await;
    assert!(told().lines().any(|line| line == "STOPPING=1"));
    assert_eq!(server.ended().await.code(), Some(0));
    // Nobody listens: that is no reason not to serve.
    drop(manager);
    fs::remove_file(&path).unwrap();
    let (server, _) = world.start(name, &notify).await;
    let printed = server.terminate_and_read().await;
    assert!(printed.contains("NOTIFY_SOCKET"), "{printed}");
}

type Pair = rcgen::CertifiedKey<rcgen::KeyPair>;

fn pair() -> Pair {
    rcgen::generate_simple_self_signed(["push.example".to_owned()]).unwrap()
}

/// A certificate and its key in two files.
struct Files {
    certificate: String,
    key: String,
}

impl Files {
    fn new(folder: &Path, pair: &Pair) -> Self {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let files = Self {
            certificate: path("certificate.pem"),
            key: path("key.pem"),
        };
        files.write(pair);
        files
    }

    fn write(&self, pair: &Pair) {
        fs::write(&self.certificate, pair.cert.pem()).unwrap();
        fs::write(&self.key, pair.signing_key.serialize_pem()).unwrap();
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [
            ("TLS_CERTIFICATE", &self.certificate),
            ("TLS_PRIVATE_KEY", &self.key),
            ("ENDPOINT_POLICY", "known"),
        ]
    }
}

/// Connects as a client that trusts this certificate alone.
async fn connect(
    server: &ServerProcess,
    trusted: &Pair,
    protocol: &str,
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let address = server.url.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let host = ServerName::try_from("push.example").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(host, stream)
        .await
}

/// The certificate that the server shows.
async fn shown(server: &ServerProcess, trusted: &Pair) -> Option<CertificateDer<'static>> {
    let stream = connect(server, trusted, "http/1.1").await.ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    Some(chain.first()?.clone())
}

pub(crate) async fn https_needs_no_proxy(name: &str) {
    let world = World::new().await;
    let own = pair();
    let files = Files::new(world.folder.path(), &own);
    let (server, _) = world.start(name, &files.settings()).await;
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );

    let stream = connect(&server, &own, "http/1.1").await.unwrap();
    let (status, body) = send(stream, get("/web-push/live")).await;
    assert_eq!(
        (status, body.as_ref()),
        (StatusCode::OK, b"live".as_slice())
    );
    let stream = TokioIo::new(connect(&server, &own, "h2").await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://push.example/web-push/live");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    assert_eq!(
        sender.send_request(request).await.unwrap().status(),
        StatusCode::OK
    );

    // A client that does not trust the certificate, one that speaks another protocol, and one that does not use TLS.
    assert!(connect(&server, &pair(), "http/1.1").await.is_err());
    assert!(connect(&server, &own, "smtp").await.is_err());
    let address = server.url.strip_prefix("https://").unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET /web-push/live HTTP/1.1\r\nhost: push.example\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, plain.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");

    // A drain does not wait for a handshake that does not go on.
    let _silent = TcpStream::connect(address).await.unwrap();
    let stream = connect(&server, &own, "http/1.1").await.unwrap();
    assert_eq!(send(stream, get("/web-push/live")).await.0, StatusCode::OK);
    assert_eq!(server.terminate().await.code(), Some(0));
}

pub(crate) async fn a_renewed_certificate_needs_no_restart(name: &str) {
    let world = World::new().await;
    let (first, second) = (pair(), pair());
    let files = Files::new(world.folder.path(), &first);
    let (server, _) = world.start(name, &files.settings()).await;
    assert_eq!(
        shown(&server, &first).await.as_ref(),
        Some(first.cert.der())
    );

    // In the middle of a renewal the two do not fit: the last valid pair is used.
    fs::write(&files.certificate, second.cert.pem()).unwrap();
    let told = async {
        while !server
            .printed()
            .contains("the certificate was not replaced")
        {
            assert_eq!(
                shown(&server, &first).await.as_ref(),
                Some(first.cert.der())
            );
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, told)
        .await
        .expect("the log does not name it");
    assert_eq!(
        shown(&server, &first).await.as_ref(),
        Some(first.cert.der())
    );

    files.write(&second);
    let renewed = async {
        while shown(&server, &second).await.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, renewed).await.expect("it is not read again");

    // Files that are gone, as while a volume is mounted again, change nothing either.
    fs::remove_file(&files.key).unwrap();
    let told = async {
        while !server.printed().contains("TLS_PRIVATE_KEY=") {
            assert!(shown(&server, &second).await.is_some());
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, told)
        .await
        .expect("the log does not name it");
    let printed = server.printed();
    assert!(!printed.contains("BEGIN"), "{printed}");
}

/// Files on a network that has gone are like that.
pub(crate) async fn a_key_file_that_cannot_be_read_to_its_end_delays_nobody(name: &str) {
    let world = World::new().await;
    let own = pair();
    let files = Files::new(world.folder.path(), &own);
    let (server, _) = world.start(name, &files.settings()).await;
    let stream = connect(&server, &own, "http/1.1").await.unwrap();
    let (mut kept, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    fs::remove_file(&files.key).unwrap();
    let made = Command::new("mkfifo").arg(&files.key).status();
    assert!(made.await.unwrap().success());
    sleep(Duration::from_millis(1500)).await;
    let handshakes = (0..16).map(|_| shown(&server, &own));
    let shown = timeout(Duration::from_secs(60), join_all(handshakes));
    let live = async {
        sleep(Duration::from_millis(500)).await;
        let answer = kept.send_request(get("/web-push/live"));
        timeout(Duration::from_secs(60), answer).await
    };
    let (shown, live) = tokio::join!(shown, live);
    let live = live.expect("the server does not answer").unwrap();
    assert_eq!(live.status(), StatusCode::OK);
    let shown = shown.expect("handshakes do not end");
    assert!(
        shown.iter().all(|one| one.as_ref() == Some(own.cert.der())),
        "{shown:?}"
    );
    drop(kept);
    assert_eq!(server.terminate().await.code(), Some(0));
}
