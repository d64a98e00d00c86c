//! A NATS server for one test.

use std::env;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// A running server, stopped on drop.
pub(crate) struct Nats {
    port: u16,
    _process: Child,
}

impl Nats {
    /// Starts a server. Returns `None`, with a message, if it is not installed.
    pub(crate) async fn start(folder: &Path) -> Option<Self> {
        // Debian's folder, which a user's PATH may lack.
        let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        if !env::split_paths(&path).any(|folder| folder.join("nats-server").is_file()) {
            let required = env::var_os("WEB_PUSH_REQUIRE_PEERS").is_some();
            assert!(
                !required,
                "nats-server is missing, and WEB_PUSH_REQUIRE_PEERS is set"
            );
            eprintln!("SKIPPED: nats-server is missing");
            return None;
        }
        let port = free_port();
        let mut process = Command::new("nats-server")
            .env("PATH", path)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--jetstream",
                "--store_dir",
            ])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let listens = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_err()
            {
                assert!(
                    process.try_wait().unwrap().is_none(),
                    "nats-server ended at once"
                );
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), listens)
            .await
            .expect("nats-server does not listen");
        let _process = process;
        Some(Self { port, _process })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
