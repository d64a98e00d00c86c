//! External servers for tests: those that `./test` has started for all, and some for single tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Long enough for a database that recovers on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The servers with scripts in `tests/servers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Redis,
    Valkey,
    Nats,
    /// A proxy, below `/push/`, to the server in its option.
    Nginx,
    /// A connection pooler of the PostgreSQL server on the port that its first option names, in the mode of its second.
    PgBouncer,
}

/// A server that a test may stop, kill and start again. Stopped on drop.
pub(crate) struct Server {
    kind: Kind,
    folder: TempDir,
    port: Port,
    options: Vec<String>,
    process: Option<Child>,
}

/// A port of this machine that no other test uses as long as this value lives, open or not.
pub(crate) struct Port {
    number: u16,
    _kept: UdpSocket,
}

impl Kind {
    fn script(self) -> PathBuf {
        // The packages in `examples` use it as well.
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut folders = folders.map(|folder| folder.join("tests/servers"));
        let folder = folders.find(|folder| folder.is_dir());
        folder.expect("the repository has it").join(match self {
            Self::Postgres => "postgres",
            Self::Redis | Self::Valkey => "redis",
            Self::Nats => "nats",
            Self::Nginx => "nginx",
            Self::PgBouncer => "pgbouncer",
        })
    }

    /// Returns the variable with the address of `./test`'s server; `None` for servers that tests do not share.
    const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("WEB_PUSH_TEST_POSTGRES"),
            Self::Redis => Some("WEB_PUSH_TEST_REDIS"),
            Self::Valkey => Some("WEB_PUSH_TEST_VALKEY"),
            Self::Nats => Some("WEB_PUSH_TEST_NATS"),
            Self::Nginx | Self::PgBouncer => None,
        }
    }

    fn url(self, port: u16) -> String {
        match self {
            Self::Postgres | Self::PgBouncer => {
                format!("postgres://postgres@127.0.0.1:{port}/postgres")
            }
            Self::Redis | Self::Valkey => format!("redis://127.0.0.1:{port}"),
            Self::Nats => format!("nats://127.0.0.1:{port}"),
            Self::Nginx => format!("http://127.0.0.1:{port}/push/"),
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Postgres => is_in_path("postgres") || Path::new("/usr/lib/postgresql").is_dir(),
            Self::Redis => is_in_path("redis-server"),
            Self::Valkey => is_in_path("valkey-server"),
            Self::Nats => is_in_path("nats-server"),
            Self::Nginx => is_in_path("nginx"),
            Self::PgBouncer => is_in_path("pgbouncer"),
        }
    }
}

/// Returns the URL of the server that all tests share, each with a namespace of its own. Returns `None`, with a
/// message, if there is none: `./test` starts them.
pub(crate) fn shared(kind: Kind) -> Option<String> {
    let variable = kind.variable().expect("tests share none");
    let url = env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        missing(&format!("{variable} is not set"));
    }
    url
}

impl Server {
    /// Starts one with the script's options, and waits until it listens. Returns `None`, with a message, if it is not
    /// installed.
    pub(crate) async fn start(kind: Kind, options: &[&str]) -> Option<Self> {
        if !kind.is_installed() {
            missing(&format!("{kind:?} is not installed"));
            return None;
        }
        let mut server = Self {
            kind,
            folder: TempDir::new().unwrap(),
            port: Port::free(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        };
        server.start_again().await;
        Some(server)
    }

    /// Returns its address.
    pub(crate) fn url(&self) -> String {
        self.kind.url(self.port())
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns a folder that lives as long as the server, for example for certificates.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it on its port and its data, and waits until it listens.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let mut command = Command::new(self.kind.script());
        command
            .arg(self.folder.path().join("data"))
            .arg(self.port().to_string())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if self.kind == Kind::Valkey {
            command.env("VALKEY", "1");
        }
        // The folder of the data belongs to the server's own user, who needs access to its parent.
        open_to_all(self.folder.path());
        let mut process = command.spawn().unwrap();
        let listens = async {
            while !self.takes_connections().await {
                if let Some(status) = process.try_wait().unwrap() {
                    panic!("{:?} ended at once: {status}", self.kind);
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(LIMIT, listens).await.expect("it does not listen");
        self.process = Some(process);
    }

    async fn takes_connections(&self) -> bool {
        if self.kind == Kind::Postgres {
            // It listens before it has recovered.
            let mut asking = Command::new(self.kind.script());
            asking.arg("--ready").arg(self.port().to_string());
            return asking.status().await.unwrap().success();
        }
        let address = (Ipv4Addr::LOCALHOST, self.port());
        TcpStream::connect(address).await.is_ok()
    }

    /// Kills it, as a power cut does.
    pub(crate) async fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        // A process whose parent is killed would clean up.
        let killed = signal_all(&process, "-KILL").await;
        process.wait().await.unwrap();
        // As long as one of them lives it holds memory that the next PostgreSQL cannot share.
        let are_gone = async {
            while any_runs(&killed).await {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(LIMIT, are_gone).await.expect("one outlives a kill");
    }

    /// Stops it, as its service manager does, and breaks connections.
    pub(crate) async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        signal(&process, "-INT").await;
        timeout(LIMIT, process.wait())
            .await
            .expect("it does not end")
            .unwrap();
    }

    /// Stops its responses while its connections stay open, until [`thaw`](Self::thaw).
    pub(crate) async fn freeze(&self) {
        signal_all(self.process.as_ref().expect("it runs"), "-STOP").await;
    }

    pub(crate) async fn thaw(&self) {
        signal_all(self.process.as_ref().expect("it runs"), "-CONT").await;
    }
}

async fn signal(process: &Child, name: &str) {
    let id = process.id().expect("it runs").to_string();
    // std cannot send it, and the crate forbids unsafe code.
    let sent = Command::new("kill").args([name, &id]).status().await;
    assert!(sent.unwrap().success());
}

/// Sends a signal to it and the processes that it has started, and returns them: PostgreSQL has one for each
/// connection.
async fn signal_all(process: &Child, name: &str) -> Vec<String> {
    let id = process.id().expect("it runs").to_string();
    // While it stands still it starts no other one.
    signal(process, "-STOP").await;
    let listed = ps(&["-o", "pid=", "--ppid", &id]).await;
    let started: Vec<_> = listed.split_whitespace().map(str::to_owned).collect();
    // One of them may have exited since.
    let mut kill = Command::new("kill");
    kill.args([name, &id]).args(&started);
    kill.stderr(Stdio::null()).status().await.unwrap();
    started
}

/// Whether one of them is more than a zombie.
async fn any_runs(processes: &[String]) -> bool {
    if processes.is_empty() {
        return false;
    }
    let states = ps(&["-o", "state=", "-p", &processes.join(",")]).await;
    states.split_whitespace().any(|state| state != "Z")
}

async fn ps(arguments: &[&str]) -> String {
    let output = Command::new("ps").args(arguments).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn open_to_all(folder: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Port {
    /// Returns a free port below 30,000: the system gives those above to outgoing connections, also before the server
    /// listens and while it is stopped. Tests reserve a port with a UDP socket.
    ///
    /// The nodes of a cluster also listen 10,000 above.
    pub(crate) fn free() -> Self {
        let random = RandomState::new();
        let ports = (0_u64..).map(|number| 10_000 + (random.hash_one(number) % 10_000) as u16);
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let free = ports.take(1_000).find_map(|number| {
            let _kept = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            (is_free(number) && is_free(number + 10_000)).then_some(Self { number, _kept })
        });
        free.expect("no port is free")
    }

    pub(crate) const fn number(&self) -> u16 {
        self.number
    }
}

fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    // Debian's folder of servers, which a user's PATH may lack.
    folders.push("/usr/sbin".into());
    folders.iter().any(|folder| folder.join(program).is_file())
}

pub(crate) fn missing(what: &str) {
    assert!(
        env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none(),
        "{what}, and WEB_PUSH_REQUIRE_PEERS is set: ./test --install"
    );
    eprintln!("SKIPPED: {what}");
}
