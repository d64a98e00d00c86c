//! A program in another language that answers requests, one JSON object a line.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Killed on drop.
pub(crate) struct Peer {
    _process: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Python with http-ece and pywebpush. Returns `None`, with a message, if it is not installed.
    pub(crate) fn python() -> Option<Self> {
        let python = peers().join("venv/bin/python");
        if !python.exists() {
            return missing(&format!("{} does not exist", python.display()));
        }
        let mut command = Command::new(python);
        command.arg(script("peer.py"));
        Some(Self::start(command))
    }

    /// Node with http_ece, web-push and web-push-testing. Returns `None`, with a message, if it is not installed.
    pub(crate) fn node() -> Option<Self> {
        let packages = peers().join("node");
        if !packages.join("node_modules").exists() {
            return missing(&format!("{} has no node_modules", packages.display()));
        }
        let mut command = Command::new("node");
        command.arg(script("peer.js")).arg(packages);
        Some(Self::start(command))
    }

    fn start(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Tests on loopback use no proxy.
            .env("NO_PROXY", "*")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            questions: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()).lines(),
            _process: process,
        }
    }

    /// Sends a request and waits for the response, at most a minute.
    pub(crate) async fn ask(&mut self, op: &str, mut question: Value) -> Result<Value, String> {
        question["op"] = op.into();
        let line = format!("{question}\n");
        let answer = async {
            self.questions.write_all(line.as_bytes()).await.unwrap();
            let line = self.answers.next_line().await.unwrap();
            line.unwrap_or_else(|| panic!("the peer ended without an answer to {op}"))
        };
        let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
        let mut answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        match answer["error"].take() {
            Value::Null => Ok(answer["ok"].take()),
            error => Err(error.as_str().unwrap().to_owned()),
        }
    }

    /// Decrypts as a user agent with these keys.
    pub(crate) async fn decrypt(
        &mut self,
        private: &[u8],
        auth: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, String> {
        let question =
            json!({"private": base64(private), "auth": base64(auth), "body": base64(body)});
        self.ask("decrypt", question)
            .await
            .map(|data| octets(&data))
    }
}

/// The folder where `./test --install` puts the peers.
fn peers() -> PathBuf {
    std::env::var_os("WEB_PUSH_PEERS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/interop"),
        PathBuf::from,
    )
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/system/interop")
        .join(name)
}

fn missing(what: &str) -> Option<Peer> {
    assert!(
        std::env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none(),
        "{what}, and WEB_PUSH_REQUIRE_PEERS is set: ./test --install"
    );
    eprintln!("SKIPPED: {what}: ./test --install");
    None
}

pub(crate) fn base64(octets: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(octets)
}

pub(crate) fn octets(base64: &Value) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(base64.as_str().unwrap()).unwrap()
}
