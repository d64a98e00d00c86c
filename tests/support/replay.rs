//! Requests of clients of the two replaced servers, and the responses: one table for each server.

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

/// One request and its answer.
pub(crate) struct Exchange {
    pub(crate) method: &'static str,
    /// Below the mount.
    pub(crate) path: &'static str,
    who: Who,
    pub(crate) content_type: Option<&'static str>,
    body: Option<Value>,
    status: u16,
    answer: Expected,
    arrives: Option<Value>,
}

enum Who {
    Anyone,
    Token,
    Password(&'static str),
}

enum Expected {
    /// An object with at least these members.
    Members(Value),
    /// The line of `/ping`, with this version.
    Ping(&'static str),
}

/// The secrets of the server.
pub(crate) struct Secrets {
    pub(crate) token: &'static str,
    pub(crate) password: &'static str,
}

/// The request as it is sent.
pub(crate) struct Asked<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Option<Value>,
}

pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) challenge: Option<String>,
    pub(crate) text: String,
}

/// A server, and a browser that is subscribed to it.
pub(crate) trait Server: Sync {
    fn ask(&self, asked: Asked<'_>) -> impl Future<Output = Answered> + Send;

    /// Returns the payload of the next push.
    fn next(&self) -> impl Future<Output = Value> + Send;
}

/// Sends every request of a table in order.
pub(crate) async fn replay(table: Vec<Exchange>, server: &impl Server, secrets: &Secrets) {
    let mut id = None;
    for exchange in &table {
        let body = exchange
            .body
            .as_ref()
            .map(|body| with_id(body, id.as_ref()));
        let what = format!("{} {} {body:?}", exchange.method, exchange.path);
        let asked = Asked {
            exchange,
            authorization: exchange.who.authorization(secrets),
            body,
        };
        let answered = server.ask(asked).await;
        assert_eq!(
            answered.status, exchange.status,
            "{what}: {}",
            answered.text
        );
        if answered.status == 401 {
            let challenge = answered.challenge.as_deref();
            assert_eq!(challenge, Some("Basic realm=\"Login Required\""), "{what}");
        }
        match &exchange.answer {
            Expected::Ping(version) => is_pong(&answered.text, version),
            Expected::Members(members) => {
                let answer = serde_json::from_str(&answered.text).unwrap();
                has(&answer, members, &what);
                if let Some(success) = answer["success"].as_bool() {
                    assert_eq!(success, answered.status < 300, "{what}: {answer}");
                }
                id = answer.get("id").cloned().or(id);
            }
        }
        if let Some(payload) = &exchange.arrives {
            has(&server.next().await, payload, &what);
        }
    }
}

/// Checks the whole line; its time is ISO 8601, or `None` before the first run.
fn is_pong(text: &str, version: &str) {
    let line = format!("pong ... version {version} ... with latest subscription run at ");
    let time = text.strip_prefix(&line).unwrap_or_else(|| panic!("{text}"));
    let shape = time.replace(|c: char| c.is_ascii_digit(), "0");
    let (seconds, rest) = shape.split_at_checked(19).unwrap_or((&shape, ""));
    let fraction = rest.strip_prefix('.').unwrap_or(rest);
    let is_time = seconds == "0000-00-00T00:00:00" && fraction.trim_start_matches('0') == "Z";
    assert!(time == "None" || is_time, "{text}");
}

fn has(whole: &Value, part: &Value, what: &str) {
    for (name, value) in part.as_object().unwrap() {
        assert_eq!(&whole[name], value, "{what}: {whole}");
    }
}

/// Returns the body with `ID` replaced by the server's id.
fn with_id(body: &Value, id: Option<&Value>) -> Value {
    let mut body = body.clone();
    if body["client_uuid"] == "ID" {
        body["client_uuid"] = id.unwrap().clone();
    }
    body
}

impl Who {
    fn authorization(&self, secrets: &Secrets) -> Option<String> {
        let basic = |password| {
            let pair = format!("admin:{password}");
            format!("Basic {}", Base64::encode_string(pair.as_bytes()))
        };
        match self {
            Self::Anyone => None,
            Self::Token => Some(format!("Bearer {}", secrets.token)),
            Self::Password("") => Some(basic(secrets.password)),
            Self::Password(wrong) => Some(basic(wrong)),
        }
    }
}

impl Exchange {
    fn new(method: &'static str, path: &'static str, body: Option<Value>) -> Self {
        Self {
            method,
            path,
            who: Who::Anyone,
            content_type: body.is_some().then_some("application/json"),
            body,
            status: 200,
            answer: Expected::Members(json!({})),
            arrives: None,
        }
    }

    fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    fn has(mut self, members: Value) -> Self {
        self.answer = Expected::Members(members);
        self
    }

    fn says(self, message: &str) -> Self {
        self.has(json!({"message": message}))
    }

    fn fails(mut self, status: u16, message: &str) -> Self {
        self.status = status;
        self.says(message)
    }

    fn arrives(mut self, payload: Value) -> Self {
        self.arrives = Some(payload);
        self
    }
}

fn get(path: &'static str) -> Exchange {
    Exchange::new("GET", path, None)
}

fn post(path: &'static str, body: Value) -> Exchange {
    Exchange::new("POST", path, Some(body))
}

fn without_body(path: &'static str, content_type: Option<&'static str>) -> Exchange {
    let mut exchange = Exchange::new("POST", path, None);
    exchange.content_type = content_type;
    exchange
}

/// Returns the object with some members replaced. Null removes one.
fn with(object: &Value, members: Value) -> Value {
    let mut object = object.clone();
    let own = object.as_object_mut().unwrap();
    for (name, value) in members.as_object().unwrap() {
        if value.is_null() {
            own.remove(name);
        } else {
            own.insert(name.clone(), value.clone());
        }
    }
    object
}

const JSON: Option<&str> = Some("application/json");
const MISSING: &str = "Missing subscription information";
const MISSING_KEYS: &str = "Missing subscription keys information";

/// Returns bodies without the whole of a subscription's endpoint or keys, and those without one key.
fn incomplete(subscription: &Value) -> (Vec<Value>, Vec<Value>) {
    let keys = |members| {
        with(
            subscription,
            json!({"keys": with(&subscription["keys"], members)}),
        )
    };
    let mut null = subscription.clone();
    null["keys"] = Value::Null;
    let whole = vec![
        json!({}),
        with(subscription, json!({"endpoint": null})),
        with(subscription, json!({"endpoint": ""})),
        with(subscription, json!({"keys": null})),
        json!({"endpoint": "no URL"}),
        null,
    ];
    let part = vec![
        keys(json!({"p256dh": null})),
        keys(json!({"auth": null})),
        with(subscription, json!({"keys": {}})),
        json!({"endpoint": "no URL", "keys": {}}),
    ];
    (whole, part)
}

fn refused_subscriptions(subscription: &Value) -> Vec<Exchange> {
    let (whole, part) = incomplete(subscription);
    let mut table = vec![
        without_body("/subscribe", None).fails(400, MISSING),
        without_body("/subscribe", JSON).fails(400, MISSING),
    ];
    table.extend(
        whole
            .into_iter()
            .map(|body| post("/subscribe", body).fails(400, MISSING)),
    );
    let part = part.into_iter();
    table.extend(part.map(|body| post("/subscribe", body).fails(400, MISSING_KEYS)));
    table
}

/// The Flask and Redis demo: a subscription, messages to all, and the id that removes it.
pub(crate) fn demo(subscription: &Value, key: &str) -> Vec<Exchange> {
    let hello = json!({"title": "Hello", "body": "World", "url": "/orders/7"});
    let required = "client_uuid is required";
    let missing = "Missing endpoint information";
    let unsubscribe = |body| post("/unsubscribe", body);
    let mut table = vec![get("/subscribe").has(json!({"public_key": key}))];
    table.extend(refused_subscriptions(subscription));
    table.extend([
        post("/subscribe", subscription.clone()).has(json!({"success": true, "created": true})),
        post("/notify", hello.clone()).fails(401, "Wrong password"),
        post("/notify", hello.clone())
            .by(Who::Token)
            .fails(202, "1 notification(s) queued")
            .arrives(hello.clone()),
        post("/notify", json!({"title": "Hello"}))
            .by(Who::Password(""))
            .fails(202, "1 notification(s) queued")
            .arrives(json!({"title": "Hello", "body": null, "url": null})),
        unsubscribe(json!({})).fails(400, missing),
        without_body("/unsubscribe", None).fails(400, missing),
        without_body("/unsubscribe", JSON).fails(400, missing),
        unsubscribe(json!({"client_uuid": ""})).fails(400, required),
        unsubscribe(json!({"client_uuid": null})).fails(400, required),
        unsubscribe(json!({"client_uuid": "ID"})).says("unsubscribed"),
        unsubscribe(json!({"client_uuid": "ID"})).says("unsubscribed"),
        post("/notify", hello)
            .by(Who::Token)
            .fails(202, "0 notification(s) queued"),
    ]);
    table
}

/// The Flask and SQLAlchemy server: daily notifications, tests, and a key that an administrator replaces.
pub(crate) fn server(subscription: &Value, key: &str, version: &'static str) -> Vec<Exchange> {
    let mut ping = get("/ping");
    ping.answer = Expected::Ping(version);
    let subscribe = |members| post("/subscribe", with(subscription, members));
    let refused = |members, message| subscribe(members).fails(400, message);
    let too_long = "Message is too long. Max 100 characters.";
    let no_time = "Missing notifyTime information";
    let deleted = "Subscription deleted successfully";
    let seven = json!({"utcHour": 7});
    let direct = "DIRECT_NOTIFICATION";
    let ends = |members| {
        let body = with(&json!({"endpoint": subscription["endpoint"]}), members);
        post("/unsubscribe", body)
    };

    let mut table = vec![ping, get("/vapid").has(json!({"vapidKey": key}))];
    table.extend(refused_subscriptions(subscription));
    table.extend([
        refused(json!({"notifyType": direct}), no_time),
        refused(json!({"message": "Good morning"}), no_time),
        refused(
            json!({"notifyTime": seven, "notifyType": "WEEKLY"}),
            "Invalid notifyType",
        ),
        refused(
            json!({"notifyTime": seven, "notifyType": 1}),
            "Invalid notifyType",
        ),
        refused(
            json!({"notifyTime": seven, "message": "é".repeat(101)}),
            too_long,
        ),
        post("/send-test", subscription.clone()).fails(404, "Subscription not found"),
        subscribe(json!({"notifyTime": {"utcHour": 22}}))
            .has(json!({"success": true, "created": true}))
            .arrives(json!({
                "title": "Subscription Successful",
                "message": "Thank you for subscribing!",
            })),
        subscribe(json!({"notifyTime": {"utcHour": 0, "minute": 59}, "notifyType": "DAILY_CHECK"}))
            .has(json!({"success": true, "created": false})),
        subscribe(json!({"notifyTime": seven, "notifyType": direct, "message": "é".repeat(100)}))
            .has(json!({"success": true, "created": false})),
        without_body("/send-test", None).fails(400, MISSING),
        without_body("/send-test", JSON).fails(400, MISSING),
    ]);
    let (whole, part) = incomplete(subscription);
    let missing = whole.into_iter().chain(part);
    table.extend(missing.map(|body| post("/send-test", body).fails(400, MISSING)));
    table.extend([
        post("/send-test", subscription.clone())
            .says("Test notification sent successfully")
            .arrives(json!({
                "title": "Test Notification",
                "message": "This is a test notification.",
            })),
        without_body("/regenerate-vapid", None).fails(401, "Wrong password"),
        without_body("/regenerate-vapid", None)
            .by(Who::Password("admin"))
            .fails(401, "Wrong password"),
        without_body("/regenerate-vapid", None)
            .by(Who::Password(""))
            .says("VAPID keys regenerated successfully"),
        post("/unsubscribe", json!({})).fails(400, "Missing endpoint information"),
        ends(json!({"notifyType": "WEEKLY"})).fails(400, "Invalid notifyType"),
        ends(json!({"notifyType": direct})).says(deleted),
        ends(json!({})).says(deleted),
        ends(json!({})).says(deleted),
        post("/send-test", subscription.clone()).fails(404, "Subscription not found"),
    ]);
    table
}
