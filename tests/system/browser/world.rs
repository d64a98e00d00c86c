//! One browser, its push service, both example servers and a site.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use tower_web_push::deliver::{Accepted, Deliver, DeliveryError, EndpointPolicy, HttpClient};
use tower_web_push::message::Message;
use tower_web_push::push_request::Push;
use tower_web_push::subscription::Subscription;
use tower_web_push::vapid::{Contact, VapidKey};

use super::site;
use crate::support::browser::Browser;
use crate::support::http_client::{Answer, HttpClient as ApiClient};
use crate::support::proxy_recorder::ProxyRecorder;
use crate::support::push_service::PushService;
use crate::support::server_process::ServerProcess;

pub(crate) const ADMIN: &str = "h9Jm3pXq7vTz2LkB";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) browser: Browser,
    pub(crate) push: PushService,
    /// The server of most cases, then the other one.
    pub(crate) servers: [Server; 2],
    /// The site's address.
    pub(crate) site: String,
    /// For messages without a server.
    key: Arc<VapidKey>,
    deliver: Deliver<HttpClient>,
    outside: ProxyRecorder,
    _folder: TempDir,
}

pub(crate) struct Server {
    process: ServerProcess,
    api: ApiClient,
}

/// A subscription of the site, in a scope of its own, without a server.
pub(crate) struct Subscribed {
    name: &'static str,
    subscription: Subscription,
}

impl World {
    pub(crate) async fn new(
        browser: Browser,
        push: PushService,
        outside: ProxyRecorder,
        names: [&str; 2],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = site::start().await;
        let policy = EndpointPolicy::insecure_allow_local();
        let client = HttpClient::builder().policy(policy.clone()).build();
        let contact = Contact::parse("mailto:ops@example.com").unwrap();
        let [first, second] = names;
        let servers = [
            Server::start(first, &folder, &site).await,
            Server::start(second, &folder, &site).await,
        ];
        let mut world = Self {
            browser,
            push,
            servers,
            site,
            key: Arc::new(VapidKey::generate().unwrap()),
            deliver: Deliver::new(client.unwrap(), contact).with_policy(policy),
            outside,
            _folder: folder,
        };
        world.open_site().await;
        // Firefox's `subscribe()` hangs for ever before it. Chromium logs in while it has a subscription: with this
        // one it stays connected, and does not wait for a second try after a disconnect.
        if !world.is_firefox() {
            world.subscribe("home").await;
        }
        world
            .push
            .wait_for("the browser to log in", |state| {
                (state.logins > 0).then_some(())
            })
            .await;
        world
    }

    pub(crate) const fn is_firefox(&self) -> bool {
        matches!(self.browser, Browser::Firefox(_))
    }

    /// The server of most cases.
    pub(crate) const fn server(&self) -> &Server {
        &self.servers[0]
    }

    pub(crate) async fn open_site(&mut self) {
        let site = self.site.clone();
        self.browser.open(&site).await;
    }

    // ---- Without a server

    /// Subscribes the site's worker in a scope of its own.
    pub(crate) async fn subscribe(&mut self, name: &'static str) -> Subscribed {
        let mount = self.server().mount();
        let key = self.key.public_key().to_base64url();
        let call = format!("subscribed('{name}', '{mount}', '{key}')");
        let mut subscription = self.browser.evaluate(&call).await;
        let endpoint = subscription["endpoint"].as_str().unwrap();
        // Chromium has Google's.
        let token = endpoint.rsplit('/').next().unwrap();
        subscription["endpoint"] = json!(self.push.endpoint(token));
        let subscription = Subscription::from_value(&subscription).unwrap();
        Subscribed { name, subscription }
    }

    /// Removes it at the push service only, and waits until that has processed it.
    pub(crate) async fn unsubscribe(&mut self, there: &Subscribed) {
        let endpoint = there.subscription.endpoint().as_str().to_owned();
        let token = endpoint.rsplit('/').next().unwrap();
        let call = format!("unsubscribed('{}')", there.name);
        self.browser.evaluate(&call).await;
        let heard = self.push.wait_for("the browser to unsubscribe", |state| {
            state.channels[token].is_none().then_some(())
        });
        heard.await;
    }

    pub(crate) async fn send(
        &self,
        to: &Subscribed,
        message: Message,
    ) -> Result<Accepted, DeliveryError> {
        let push = Push::new(to.subscription.clone(), message, Arc::clone(&self.key));
        self.deliver.clone().oneshot(push).await
    }

    /// Returns the messages received there, once there are `count`; `None` for one without a payload.
    pub(crate) async fn arrived(&mut self, to: &Subscribed, count: usize) -> Vec<Option<Vec<u8>>> {
        let name = to.name;
        let all = format!("arrived.filter((message) => message.name === '{name}')");
        let several = format!("({all}).length >= {count} && ({all}).map(({{ octets }}) => octets)");
        let arrived = self.browser.wait_for(&several).await;
        serde_json::from_value(arrived).unwrap()
    }

    // ---- In the page

    /// Clicks on an element of the page, once it is visible.
    pub(crate) async fn click(&mut self, id: &str) {
        let shown = format!("!document.getElementById('{id}').hidden");
        self.browser.wait_for(&shown).await;
        let click = format!("document.getElementById('{id}').click()");
        self.browser.evaluate(&click).await;
    }

    /// Waits until the browser has a tab with this address.
    pub(crate) async fn wait_for_tab(&mut self, url: &str) {
        let waiting = async {
            while !self.browser.tabs().await.iter().any(|tab| tab == url) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let came = timeout(LIMIT, waiting).await;
        assert!(came.is_ok(), "no tab shows {url}");
    }

    // ---- The end

    pub(crate) async fn close(self) {
        let is_firefox = self.is_firefox();
        self.browser.close().await;
        self.push.look(|state| {
            assert_eq!(state.nacks, [0; 0], "a worker failed");
            let codes = state.acks.iter().map(|(_, code)| *code);
            let failed: Vec<_> = codes.filter(|code| *code != 100).collect();
            // The one that was changed before.
            let wanted: &[i64] = if is_firefox { &[101] } else { &[] };
            assert_eq!(failed, wanted, "what Firefox could not deliver");
            for push in &state.pushes {
                assert!([201, 410].contains(&push.status), "{}", push.why);
            }
        });
        assert_eq!(
            self.outside.asked(),
            [""; 0],
            "nothing is asked of any other host"
        );
        for server in self.servers {
            assert!(server.process.terminate().await.success());
        }
    }
}

impl Server {
    async fn start(name: &str, folder: &TempDir, site: &str) -> Self {
        let file = folder.path().join(format!("{name}.db"));
        let store_url = format!("sqlite://{}", file.display());
        let settings = [
            ("BIND", "127.0.0.1:0"),
            ("STORE_URL", &store_url),
            ("VAPID_SUBJECT", "mailto:ops@example.com"),
            ("ENDPOINT_POLICY", "local"),
            ("ADMIN_TOKEN", ADMIN),
            ("ALLOWED_ORIGINS", site),
            ("SECONDS_BETWEEN_NOTIFICATIONS", "1"),
        ];
        let process = ServerProcess::start(name, &settings).await;
        let api = ApiClient::new(&process.url);
        Self { process, api }
    }

    /// Returns the address of its page.
    pub(crate) fn url(&self) -> String {
        self.process.url.clone()
    }

    pub(crate) fn mount(&self) -> String {
        format!("{}/web-push/", self.process.url)
    }

    /// With the administrator's token.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let call = self.api.call(Method::POST, &format!("/web-push/{path}"));
        call.bearer(ADMIN).json(body).send().await
    }

    /// Queues a notification. Returns the number of recipients.
    pub(crate) async fn notify(&self, content: &Value) -> u64 {
        let queued = self.post("notify", content).await;
        assert_eq!(queued.status, 202, "{queued:?}");
        queued.json()["recipients"].as_u64().unwrap()
    }
}
