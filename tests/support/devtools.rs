//! Chromium's DevTools protocol over a pipe (<https://chromedevtools.github.io/devtools-protocol/>): JSON messages,
//! each ended by a zero octet.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

/// A method, its parameters, and its session.
type Order = (
    String,
    Value,
    Option<String>,
    Option<oneshot::Sender<Value>>,
);

/// Cheap to clone; clones share the pipe.
#[derive(Clone)]
pub(crate) struct DevTools {
    orders: mpsc::UnboundedSender<Order>,
    events: broadcast::Sender<Value>,
}

impl DevTools {
    pub(crate) fn new(
        writer: impl AsyncWrite + Unpin + Send + 'static,
        reader: impl AsyncRead + Unpin + Send + 'static,
    ) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(4096);
        tokio::spawn(talk(writer, reader, received, events.clone()));
        Self { orders, events }
    }

    /// Returns all events of Chromium from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Value> {
        self.events.subscribe()
    }

    /// Sends a request and waits for the response.
    pub(crate) async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let result = self.try_call(session, method, &params).await;
        result.unwrap_or_else(|error| panic!("{method}: {params}: {error}"))
    }

    /// Sends a request and waits for the response, which may be an error.
    pub(crate) async fn try_call(
        &self,
        session: Option<&str>,
        method: &str,
        params: &Value,
    ) -> Result<Value, Value> {
        let (sender, answer) = oneshot::channel();
        self.order(session, method, params.clone(), Some(sender));
        let answer = timeout(LIMIT, answer)
            .await
            .unwrap_or_else(|_| panic!("no answer in time to {method}: {params}"))
            .unwrap_or_else(|_| panic!("Chromium hung up: {method}: {params}"));
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(error.clone()),
        }
    }

    /// Sends a request and ignores the response: its target may be gone.
    pub(crate) fn tell(&self, session: Option<&str>, method: &str, params: Value) {
        self.order(session, method, params, None);
    }

    fn order(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
        sender: Option<oneshot::Sender<Value>>,
    ) {
        let order = (
            method.to_owned(),
            params,
            session.map(str::to_owned),
            sender,
        );
        let _ = self.orders.send(order);
    }
}

async fn talk(
    mut writer: impl AsyncWrite + Unpin + Send + 'static,
    reader: impl AsyncRead + Unpin + Send + 'static,
    mut orders: mpsc::UnboundedReceiver<Order>,
    events: broadcast::Sender<Value>,
) {
    let (heard, mut messages) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = BufReader::new(reader).split(0);
        while let Ok(Some(message)) = messages.next_segment().await {
            let _ = heard.send(serde_json::from_slice::<Value>(&message).unwrap());
        }
    });
    let mut commands = 0_u64;
    let mut waiting = HashMap::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((method, params, session, answer)) = order else { return };
                commands += 1;
                let mut command = json!({"id": commands, "method": method, "params": params});
                if let Some(session) = session {
                    command["sessionId"] = json!(session);
                }
                if let Some(answer) = answer {
                    waiting.insert(commands, answer);
                }
                if writer.write_all(format!("{command}\0").as_bytes()).await.is_err() {
                    return;
                }
            }
            message = messages.recv() => {
                let Some(message) = message else { return };
                match message["id"].as_u64() {
                    Some(id) => if let Some(waiting) = waiting.remove(&id) {
                        let _ = waiting.send(message);
                    },
                    None => drop(events.send(message)),
                }
            }
        }
    }
}
