//! The proxies of `deploy/proxies` in front of a server, as they are but for addresses, ports and certificates, and the health
//! check of the image.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::world::{TOKEN, World};
use crate::support::server_process::ServerProcess;
use crate::support::servers::{Port, missing};

const LIMIT: Duration = Duration::from_secs(60);
/// What a client says that is not true.
const INVENTED: [&str; 3] = [
    "x-forwarded-for: 6.6.6.6",
    "forwarded: for=6.6.6.6",
    "x-request-id: invented",
];

/// A proxy that listens for HTTPS on a port.
struct Proxy {
    port: Port,
    _process: Child,
}

impl Proxy {
    async fn start(mut command: Command, port: Port) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let _process = command.spawn().unwrap();
        let proxy = Self { port, _process };
        // It listens before it has a certificate. Proxies answer this one themselves: it takes no server's turn.
        let answers = async {
            while proxy.answer("127.0.0.2", "/metrics", &[]).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, answers).await.expect("it does not answer");
        proxy
    }

    async fn nginx(folder: &Path, upstreams: &[&str]) -> Self {
        let (port, plain) = (Port::free(), Port::free());
        certificate(folder).await;
        let servers = upstreams
            .iter()
            .map(|upstream| format!("server {upstream} max_fails=0;"));
        let servers: String = servers.collect();
        let (time, longer) = times(upstreams);
        let path = |name: &str| folder.join(name).display().to_string();
        let site = replaced(
            include_str!("../../../deploy/proxies/nginx.conf"),
            &[
                ("server 127.0.0.1:8080 max_fails=0;", &servers),
                (
                    "proxy_read_timeout 30s",
                    &format!("proxy_read_timeout {time}"),
                ),
                (
                    "proxy_read_timeout 60s",
                    &format!("proxy_read_timeout {longer}"),
                ),
                (
                    "listen 443 ssl",
                    &format!("listen 127.0.0.1:{} ssl", port.number()),
                ),
                (
                    "listen 80;",
                    &format!("listen 127.0.0.1:{};", plain.number()),
                ),
                ("/etc/ssl/push.example.com.pem", &path("certificate.pem")),
                ("/etc/ssl/private/push.example.com.key", &path("key.pem")),
            ],
        );
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {}/{what};", folder.display()))
            .collect();
        let config = format!(
            "daemon off; master_process off; pid {0}/nginx.pid; events {{}}
             http {{ access_log off; {temporary} {site} }}",
            folder.display()
        );
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"));
        command.arg("-e").arg(folder.join("error.log"));
        Self::start(command, port).await
    }

    async fn caddy(folder: &Path, upstreams: &[&str]) -> Self {
        let port = Port::free();
        let tries = if upstreams.len() > 1 { "35s" } else { "0s" };
        let (time, longer) = times(upstreams);
        let upstreams = upstreams.join(" ");
        let site = replaced(
            include_str!("../../../deploy/proxies/Caddyfile"),
            &[
                // A server that is left out is not waited for.
                ("lb_try_duration 35s", &format!("lb_try_duration {tries}")),
                (
                    "response_header_timeout 30s",
                    &format!("response_header_timeout {time}"),
                ),
                (
                    "response_header_timeout 60s",
                    &format!("response_header_timeout {longer}"),
                ),
                (
                    "push.example.com {",
                    &format!(
                        "https://push.example.com:{} {{\n\ttls internal",
                        port.number()
                    ),
                ),
                // All addresses of this machine are such.
                ("private_ranges", "127.0.0.1"),
                (
                    "dynamic a web-push 8080 {\n\t\trefresh 5s\n\t}",
                    &format!("to {upstreams}"),
                ),
            ],
        );
        // Without HTTP/3: `Port` holds the port of UDP.
        let global = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n";
        fs::write(folder.join("Caddyfile"), format!("{global}{site}")).unwrap();
        let mut command = Command::new("caddy");
        command.arg("run").arg("--adapter").arg("caddyfile");
        command.arg("--config").arg(folder.join("Caddyfile"));
        command
            .env("XDG_DATA_HOME", folder)
            .env("XDG_CONFIG_HOME", folder);
        Self::start(command, port).await
    }

    /// Asks it from another address of this machine. Returns the status and what follows it.
    async fn ask(&self, from: &str, path: &str, arguments: &[&str]) -> (u16, String) {
        let answer = self.answer(from, path, arguments).await;
        answer.unwrap_or_else(|output| panic!("{output:?}"))
    }

    /// The same, and what `curl` says if there is no answer.
    async fn answer(
        &self,
        from: &str,
        path: &str,
        arguments: &[&str],
    ) -> Result<(u16, String), Output> {
        let address = format!("push.example.com:{0}:127.0.0.1", self.port.number());
        let url = format!("https://push.example.com:{}{path}", self.port.number());
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--insecure",
            "--include",
            "--http1.1",
            "--resolve",
        ]);
        command.args([&address, "--interface", from, "--header", "expect:"]);
        command.args(INVENTED.iter().flat_map(|header| ["--header", header]));
        command.args(arguments).arg(&url);
        let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.map(|status| (status, answer)).ok_or(output)
    }
}

/// How long a proxy waits for an answer: as shipped, or not as long beside a silent server. The real one has to answer within it too.
fn times(upstreams: &[&str]) -> (&'static str, &'static str) {
    match upstreams {
        [_] => ("30s", "60s"),
        _ => ("3s", "4s"),
    }
}

/// Replaces each text, which has to be there.
fn replaced(file: &str, texts: &[(&str, &str)]) -> String {
    texts.iter().fold(file.to_owned(), |file, (old, new)| {
        assert!(file.contains(old), "{old} is not there: {file}");
        file.replace(old, new)
    })
}

async fn certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
    ]);
    command.args(["-subj", "/CN=push.example.com", "-keyout"]);
    command.arg(folder.join("key.pem")).arg("-out");
    let made = command.arg(folder.join("certificate.pem")).output().await;
    assert!(made.unwrap().status.success());
}

fn is_there(program: &str) -> bool {
    let is_there = ["/usr/sbin", "/usr/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).is_file());
    if !is_there {
        missing(&format!("{program} is not installed"));
    }
    is_there
}

/// What the guide promises of each of them.
async fn is_a_proxy(proxy: &Proxy, server: &ServerProcess) {
    let (status, answer) = proxy.ask("127.0.0.1", "/web-push/vapid", &[]).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("vapidKey"), "{answer}");
    // The id of the request is the proxy's.
    let answer = answer.to_lowercase();
    assert!(answer.contains("x-request-id: "), "{answer}");
    assert!(!answer.contains("invented"), "{answer}");

    // Whatever a client says of itself, the log names its address.
    let wrong = ["--header", "authorization: Bearer guessed"];
    let (status, answer) = proxy.ask("127.0.0.3", "/web-push/stats", &wrong).await;
    assert_eq!(status, 401, "{answer}");
    let told = async {
        while !server
            .printed()
            .contains("administrators' requests were refused")
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, told).await.expect("it is not in the log");
    let log = server.printed();
    assert!(log.contains("127.0.0.3"), "{log}");
    assert!(!log.contains("6.6.6.6"), "{log}");

    // The metrics are for the inside, also with the right token.
    let bearer = format!("authorization: Bearer {TOKEN}");
    let right = ["--header", bearer.as_str()];
    for (from, expected) in [("127.0.0.1", 200), ("127.0.0.2", 403)] {
        let (status, answer) = proxy.ask(from, "/metrics", &right).await;
        assert_eq!(status, expected, "{from}: {answer}");
        assert_eq!(answer.contains("web_push_build_info"), expected == 200);
    }
    let (status, answer) = proxy.ask("127.0.0.2", "/web-push/stats", &right).await;
    assert_eq!(status, 200, "{answer}");

    // A body of the server's limit passes, and a larger one ends at the proxy: the server's answers are JSON.
    for (octets, is_large) in [(64 * 1024, false), (64 * 1024 + 1, true)] {
        let body = "x".repeat(octets);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), body).unwrap();
        let data = format!("@{}", file.path().display());
        let json = [
            "--data-binary",
            &data,
            "--header",
            "content-type: application/json",
        ];
        let (status, answer) = proxy.ask("127.0.0.1", "/web-push/subscribe", &json).await;
        assert_eq!(status == 413, is_large, "{octets}: {answer}");
        let is_the_servers = answer.contains("application/problem+json");
        assert_eq!(is_the_servers, !is_large, "{octets}: {answer}");
    }
    // One that does not say how large it is, either. The proxy does not take the server for one that is down afterwards.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "x".repeat(64 * 1024 + 1)).unwrap();
    let data = format!("@{}", file.path().display());
    let chunked = [
        "--data-binary",
        &data,
        "--header",
        "transfer-encoding: chunked",
        "--header",
        "content-type: application/json",
    ];
    let (status, answer) = proxy
        .ask("127.0.0.1", "/web-push/subscribe", &chunked)
        .await;
    assert!([413, 502].contains(&status), "{answer}");
    let (status, answer) = proxy.ask("127.0.0.2", "/web-push/live", &[]).await;
    assert_eq!(status, 200, "it was left out: {answer}");
}

/// A server behind one proxy, for a name that is not of this machine.
const SETTINGS: [(&str, &str); 2] = [("TRUSTED_PROXIES", "1"), ("ENDPOINT_POLICY", "known")];

#[tokio::test]
async fn nginx_does_what_the_guide_says() {
    if !["nginx", "curl", "openssl"].into_iter().all(is_there) {
        return;
    }
    let world = World::new().await;
    let (server, _) = world.start("axum_server", &SETTINGS).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = server.url.trim_start_matches("http://");
    let proxy = Proxy::nginx(folder.path(), &[upstream]).await;
    is_a_proxy(&proxy, &server).await;
}

#[tokio::test]
async fn caddy_does_what_the_guide_says() {
    if !["caddy", "curl"].into_iter().all(is_there) {
        return;
    }
    let world = World::new().await;
    let (server, _) = world.start("axum_server", &SETTINGS).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = server.url.trim_start_matches("http://");
    let proxy = Proxy::caddy(folder.path(), &[upstream]).await;
    is_a_proxy(&proxy, &server).await;
}

/// A server that accepts connections and never answers.
struct Silent {
    address: String,
    accepting: tokio::task::JoinHandle<()>,
}

impl Silent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                held.push(connection);
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Half of the requests meet the silent server at first.
async fn answers_beside_a_silent_server(proxy: &Proxy) {
    for path in ["/web-push/vapid", "/web-push/live"].repeat(3) {
        let (status, answer) = proxy.ask("127.0.0.1", path, &[]).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let json = [
        "--data-binary",
        "{}",
        "--header",
        "content-type: application/json",
    ];
    let mut statuses = Vec::new();
    for path in ["/web-push/subscribe", "/web-push/notify"].repeat(3) {
        let (status, answer) = proxy.ask("127.0.0.1", path, &json).await;
        let expected = [400, 401, 422, 502, 504];
        assert!(expected.contains(&status), "{path}: {answer}");
        statuses.push(status);
    }
    // What changes something is not repeated at the other server. The silent one is not left out, as a stranger could cause that
    // for all of them: each second request is its own.
    let silent = statuses.iter().filter(|status| **status > 500).count();
    assert_eq!(silent, 3, "{statuses:?}");
}

#[tokio::test]
async fn nginx_answers_beside_a_server_that_is_silent() {
    if !["nginx", "curl", "openssl"].into_iter().all(is_there) {
        return;
    }
    let world = World::new().await;
    let (server, _) = world.start("axum_server", &SETTINGS).await;
    let (silent, folder) = (Silent::start().await, tempfile::tempdir().unwrap());
    let upstream = server.url.trim_start_matches("http://");
    let proxy = Proxy::nginx(folder.path(), &[&silent.address, upstream]).await;
    answers_beside_a_silent_server(&proxy).await;
}

#[tokio::test]
async fn caddy_answers_beside_a_server_that_is_silent() {
    if !["caddy", "curl"].into_iter().all(is_there) {
        return;
    }
    let world = World::new().await;
    let (server, _) = world.start("axum_server", &SETTINGS).await;
    let (silent, folder) = (Silent::start().await, tempfile::tempdir().unwrap());
    let upstream = server.url.trim_start_matches("http://");
    let proxy = Proxy::caddy(folder.path(), &[&silent.address, upstream]).await;
    answers_beside_a_silent_server(&proxy).await;
}

/// The health check of `deploy/docker/Dockerfile`, as it is but for the address.
#[tokio::test]
async fn the_health_check_of_the_image_tells_a_server_from_none() {
    if !is_there("curl") {
        return;
    }
    let image = include_str!("../../../deploy/docker/Dockerfile");
    let (_, check) = image.split_once("HEALTHCHECK ").unwrap();
    let (_, check) = check.split_once("CMD ").unwrap();
    let command: Vec<String> = serde_json::from_str(check.lines().next().unwrap()).unwrap();
    let world = World::new().await;
    let (server, _) = world.start("axum_server", &SETTINGS).await;
    let check = async |url: &str| {
        let words = command
            .iter()
            .map(|word| word.replace("http://127.0.0.1:8080", url));
        let words: Vec<_> = words.collect();
        let asked = Command::new(&words[0]).args(&words[1..]).status();
        timeout(LIMIT, asked).await.unwrap().unwrap().success()
    };
    let url = server.url.clone();
    assert!(check(&url).await);
    server.kill().await;
    assert!(!check(&url).await);
}
