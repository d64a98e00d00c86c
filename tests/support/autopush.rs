//! Mozilla's WebSocket protocol: the push service for a real Firefox.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{
    Request as Handshake, Response as HandshakeAnswer,
};

use super::push_service::{Channel, Delivery, PushService};

/// Accepts one browser.
#[derive(Clone)]
pub(crate) struct Autopush {
    service: PushService,
    port: u16,
}

impl Autopush {
    pub(crate) async fn start(service: PushService) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let autopush = Self { service, port };
        let browsers = autopush.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(browsers.clone().talk(stream));
            }
        });
        autopush
    }

    /// Returns the value of Firefox's `dom.push.serverURL`.
    pub(crate) fn server_url(&self) -> String {
        format!("ws://127.0.0.1:{}/", self.port)
    }

    async fn talk(self, stream: TcpStream) {
        // Firefox disconnects unless its subprotocol is echoed.
        #[expect(clippy::result_large_err, reason = "the callback's type is given")]
        let echo = |_: &Handshake, mut answer: HandshakeAnswer| {
            let protocol = "push-notification".parse().unwrap();
            answer
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(answer)
        };
        let Ok(mut socket) = accept_hdr_async(stream, echo).await else {
            return;
        };
        let mut messages: Option<mpsc::UnboundedReceiver<Delivery>> = None;
        loop {
            let said = tokio::select! {
                message = socket.next() => {
                    let Some(Ok(message)) = message else { return };
                    let Message::Text(text) = message else { continue };
                    serde_json::from_str::<Value>(&text).unwrap()
                }
                message = async { messages.as_mut().unwrap().recv().await }, if messages.is_some() => {
                    let Some(message) = message else { return };
                    let notification = Message::text(notification(&message).to_string());
                    let _ = socket.send(notification).await;
                    continue;
                }
            };
            if said["messageType"] == "hello" {
                messages = Some(self.service.log_in().await);
            }
            if let Some(answer) = self.answer(&said) {
                let _ = socket.send(Message::text(answer.to_string())).await;
            }
        }
    }

    fn answer(&self, said: &Value) -> Option<Value> {
        let channel_id = said["channelID"].as_str();
        match said["messageType"].as_str() {
            Some("hello") => {
                // Another name than the last makes the browser drop its subscriptions.
                let name = self.service.look(|state| state.forgotten);
                Some(json!({
                    "messageType": "hello", "uaid": format!("browser{name}"), "status": 200,
                    "use_webpush": true, "broadcasts": {},
                }))
            }
            Some("register") => {
                let id = channel_id.unwrap().to_owned();
                let key = said["key"].as_str().unwrap().trim_end_matches('=');
                let token = self.service.subscribed(Channel {
                    id: id.clone(),
                    key: Base64UrlUnpadded::decode_vec(key).unwrap(),
                });
                Some(json!({
                    "messageType": "register", "channelID": id, "status": 200,
                    "pushEndpoint": self.service.endpoint(&token),
                }))
            }
            Some("unregister") => {
                self.service.unsubscribed(channel_id.unwrap());
                Some(json!({"messageType": "unregister", "channelID": channel_id, "status": 200}))
            }
            Some("ack") => {
                self.service.change(|state| {
                    for update in said["updates"].as_array().unwrap() {
                        let version = update["version"].as_str().unwrap().to_owned();
                        state.acks.push((version, update["code"].as_i64().unwrap()));
                    }
                });
                None
            }
            Some("nack") => {
                let code = said["code"].as_i64().unwrap();
                self.service.change(|state| state.nacks.push(code));
                None
            }
            Some("broadcast_subscribe") => None,
            // A ping is an empty object, and so is its response.
            _ => Some(json!({})),
        }
    }
}

fn notification(delivery: &Delivery) -> Value {
    let mut notification = json!({
        "messageType": "notification",
        "channelID": delivery.channel.id,
        "version": delivery.version,
    });
    if !delivery.body.is_empty() {
        notification["data"] = json!(Base64UrlUnpadded::encode_string(&delivery.body));
        notification["headers"] = json!({"encoding": "aes128gcm"});
    }
    notification
}
