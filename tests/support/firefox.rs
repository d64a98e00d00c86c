//! A headless Firefox, driven by WebDriver BiDi (<https://w3c.github.io/webdriver-bidi/>).

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::browser::{Look, ZONE, found};

/// Long enough: a busy machine needs ten seconds for the start alone.
const LIMIT: Duration = Duration::from_secs(60);

/// One browser with a profile of its own and one tab.
pub(crate) struct Firefox {
    process: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    commands: u64,
    tab: String,
    /// The browser's own window around the tab.
    window: String,
    // Removed after the process has exited.
    _profile: TempDir,
}

/// Returns Firefox: `FIREFOX`, or the first of its usual names on the `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    found("FIREFOX", &["firefox-esr", "firefox"])
}

impl Firefox {
    /// Starts it with all requests to other machines sent to `proxy` instead.
    pub(crate) async fn start(program: PathBuf, push_server: &str, proxy_port: u16) -> Self {
        let profile = tempfile::tempdir().unwrap();
        fs::write(
            profile.path().join("user.js"),
            preferences(push_server, proxy_port),
        )
        .unwrap();
        let mut process = Command::new(program)
            .args(["--headless", "--no-remote", "--remote-debugging-port=0"])
            // Needed for what only the browser itself can do: clicks on notifications, and display settings.
            .arg("--remote-allow-system-access")
            .arg("--profile")
            .arg(profile.path())
            .arg("about:blank")
            .env("HOME", profile.path())
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .env("TZ", ZONE)
            .env("MOZ_REMOTE_SETTINGS_DEVTOOLS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();

        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = timeout(LIMIT, async {
            loop {
                let line = lines.next_line().await.unwrap();
                let line = line.expect("Firefox ended before it listened");
                if let Some(address) = line.strip_prefix("WebDriver BiDi listening on ") {
                    return address.to_owned();
                }
            }
        })
        .await
        .expect("Firefox does not listen");
        // Keep reading, or Firefox blocks once the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let (socket, _) = connect_async(format!("{address}/session")).await.unwrap();
        let mut firefox = Self {
            process,
            socket,
            commands: 0,
            tab: String::new(),
            window: String::new(),
            _profile: profile,
        };
        firefox
            .command("session.new", json!({"capabilities": {}}))
            .await;
        let tree = firefox.command("browsingContext.getTree", json!({})).await;
        firefox.tab = tree["contexts"][0]["context"].as_str().unwrap().to_owned();
        let chrome = json!({"moz:scope": "chrome"});
        let tree = firefox.command("browsingContext.getTree", chrome).await;
        firefox.window = tree["contexts"][0]["context"].as_str().unwrap().to_owned();
        firefox.in_window(DESKTOP).await;
        firefox
    }

    /// Opens an address and waits until it has loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        let params = json!({"context": self.tab, "url": url, "wait": "complete"});
        self.command("browsingContext.navigate", params).await;
    }

    /// Returns the value of an expression in the page, or of its promise, as JSON.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Option<String> {
        let tab = self.tab.clone();
        self.evaluate_in(&tab, expression).await
    }

    /// Sets the display settings, except for the size.
    pub(crate) async fn set_look(&mut self, look: Look) {
        let dark = u8::from(look.scheme() == "light");
        self.in_window(&format!(
            "Services.prefs.setIntPref('layout.css.prefers-color-scheme.content-override', {dark})"
        ))
        .await;
        let wanted = look.scheme();
        self.evaluate(&format!(
            "new Promise((resolve) => {{
                const query = matchMedia('(prefers-color-scheme: {wanted})');
                if (query.matches) resolve(); else query.addEventListener('change', () => resolve());
            }})"
        ))
        .await;
    }

    /// Returns the visible part of the page as PNG.
    pub(crate) async fn screenshot(&mut self) -> Vec<u8> {
        let params = json!({"context": self.tab, "origin": "viewport"});
        let answer = self
            .command("browsingContext.captureScreenshot", params)
            .await;
        Base64::decode_vec(answer["data"].as_str().unwrap()).unwrap()
    }

    /// Returns the addresses of all tabs.
    pub(crate) async fn tabs(&mut self) -> Vec<String> {
        let tree = self.command("browsingContext.getTree", json!({})).await;
        let tabs = tree["contexts"].as_array().unwrap();
        tabs.iter()
            .map(|tab| tab["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Closes all tabs except the first, which comes to the front.
    pub(crate) async fn close_other_tabs(&mut self) {
        let tree = self.command("browsingContext.getTree", json!({})).await;
        for tab in tree["contexts"].as_array().unwrap() {
            if tab["context"] != self.tab {
                let tab = json!({"context": tab["context"]});
                self.command("browsingContext.close", tab).await;
            }
        }
        let tab = json!({"context": self.tab});
        self.command("browsingContext.activate", tab).await;
    }

    /// Clicks on the last notification with this title, or on one of its buttons, once it is shown. Returns its text.
    pub(crate) async fn click_notification(&mut self, title: &str, button: Option<&str>) -> String {
        let (title, button) = (json!(title), json!(button));
        let click = format!("window.desktop.click({title}, {button})");
        self.in_window(&click).await.unwrap()
    }

    /// Stops it cleanly, so that nothing writes to the profile any more.
    pub(crate) async fn close(mut self) {
        self.command("browser.close", json!({})).await;
        timeout(LIMIT, self.process.wait())
            .await
            .expect("Firefox does not end")
            .unwrap();
    }

    /// Evaluates in the browser's own window, with the browser's rights.
    async fn in_window(&mut self, expression: &str) -> Option<String> {
        let window = self.window.clone();
        self.evaluate_in(&window, expression).await
    }

    async fn evaluate_in(&mut self, context: &str, expression: &str) -> Option<String> {
        let params = json!({
            "expression": expression,
            "target": {"context": context},
            "awaitPromise": true,
            "userActivation": true,
        });
        let answer = self.command("script.evaluate", params).await;
        assert_eq!(answer["type"], "success", "{expression}: {answer}");
        answer["result"]["value"].as_str().map(str::to_owned)
    }

    async fn command(&mut self, method: &str, params: Value) -> Value {
        self.commands += 1;
        let id = self.commands;
        let command = json!({"id": id, "method": method, "params": params});
        self.socket
            .send(Message::text(command.to_string()))
            .await
            .unwrap();
        let answer = timeout(LIMIT, async {
            loop {
                let message = self.socket.next().await.expect("Firefox hung up").unwrap();
                let Message::Text(text) = message else {
                    continue;
                };
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["id"] == id {
                    return value;
                }
            }
        })
        .await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer in time to {method}: {params}"));
        assert_eq!(answer["type"], "success", "{method}: {answer}");
        answer["result"].clone()
    }
}

/// Replaces the service that shows notifications: a headless browser has no desktop. Everything else is the browser's
/// own, including a click's way to the worker.
const DESKTOP: &str = r"(() => {
    const shown = [];
    const service = {
        QueryInterface: ChromeUtils.generateQI(['nsIAlertsService', 'nsIAlertsDoNotDisturb']),
        showAlert(alert, listener) {
            shown.push({ alert, listener });
            listener?.observe(null, 'alertshow', alert.cookie);
        },
        closeAlert(name) {
            const at = shown.findLastIndex(({ alert }) => alert.name === name);
            if (at < 0) return;
            const [{ alert, listener }] = shown.splice(at, 1);
            listener?.observe(null, 'alertfinished', alert.cookie);
        },
        manualDoNotDisturb: false,
        suppressForScreenSharing: false,
        teardown() {},
        pbmTeardown() {},
        getHistory: () => [],
    };
    Components.manager.QueryInterface(Ci.nsIComponentRegistrar).registerFactory(
        Services.uuid.generateUUID(), 'desktop', '@mozilla.org/alerts-service;1',
        { QueryInterface: ChromeUtils.generateQI(['nsIFactory']), createInstance: (id) => service.QueryInterface(id) },
    );
    window.desktop = {
        async click(title, button) {
            let found;
            while (!(found = shown.findLast(({ alert }) => alert.title === title))) {
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
            const { alert, listener } = found;
            const action = button === null ? null : alert.actions.find((action) => action.title === button);
            if (action === undefined) throw new Error(`${title} has no button ${button}`);
            listener.observe(action, 'alertclickcallback', alert.cookie);
            return alert.text;
        },
    };
})()";

fn preferences(push_server: &str, proxy_port: u16) -> String {
    let preferences = [
        ("dom.push.serverURL", json!(push_server)),
        // Otherwise a `ws:` address is silently ignored.
        ("dom.push.testing.allowInsecureServerURL", json!(true)),
        // Written out, because automation turns it off.
        ("dom.push.connection.enabled", json!(true)),
        ("dom.push.retryBaseInterval", json!(200)),
        ("remote.prefs.recommended", json!(false)),
        ("permissions.default.desktop-notification", json!(1)),
        // The time after a click in which a worker may open a page: a second is too short on a busy machine.
        (
            "dom.webnotifications.disable_open_click_delay",
            json!(60_000),
        ),
        // There is no desktop to show notifications on.
        ("alerts.useSystemBackend", json!(false)),
        // Requests to other machines go to a recording listener.
        ("network.proxy.type", json!(1)),
        ("network.proxy.http", json!("127.0.0.1")),
        ("network.proxy.http_port", json!(proxy_port)),
        ("network.proxy.ssl", json!("127.0.0.1")),
        ("network.proxy.ssl_port", json!(proxy_port)),
        ("network.proxy.no_proxies_on", json!("localhost, 127.0.0.1")),
        // Background requests of the browser to its vendor.
        (
            "services.settings.server",
            json!("data:,#remote-settings-dummy/v1"),
        ),
        ("app.normandy.enabled", json!(false)),
        ("app.update.disabledForTesting", json!(true)),
        ("browser.aboutwelcome.enabled", json!(false)),
        ("browser.newtab.preload", json!(false)),
        (
            "browser.newtabpage.activity-stream.feeds.system.topstories",
            json!(false),
        ),
        (
            "browser.newtabpage.activity-stream.newtabWallpapers.enabled",
            json!(false),
        ),
        (
            "browser.newtabpage.activity-stream.newtabWallpapers.v2.enabled",
            json!(false),
        ),
        ("browser.newtabpage.enabled", json!(false)),
        ("browser.region.network.url", json!("")),
        ("browser.region.update.enabled", json!(false)),
        ("browser.safebrowsing.downloads.enabled", json!(false)),
        ("browser.safebrowsing.malware.enabled", json!(false)),
        ("browser.safebrowsing.phishing.enabled", json!(false)),
        ("browser.safebrowsing.update.enabled", json!(false)),
        (
            "browser.search.serpEventTelemetryCategorization.enabled",
            json!(false),
        ),
        ("browser.search.update", json!(false)),
        ("browser.shell.checkDefaultBrowser", json!(false)),
        ("browser.startup.homepage_override.mstone", json!("ignore")),
        ("browser.topsites.contile.enabled", json!(false)),
        ("browser.urlbar.quicksuggest.enabled", json!(false)),
        ("datareporting.healthreport.uploadEnabled", json!(false)),
        ("datareporting.policy.dataSubmissionEnabled", json!(false)),
        ("extensions.getAddons.cache.enabled", json!(false)),
        ("extensions.systemAddon.update.enabled", json!(false)),
        ("extensions.update.enabled", json!(false)),
        ("media.gmp-manager.updateEnabled", json!(false)),
        ("network.captive-portal-service.enabled", json!(false)),
        ("network.connectivity-service.enabled", json!(false)),
        ("startup.homepage_welcome_url", json!("")),
        ("telemetry.fog.test.localhost_port", json!(-1)),
        ("toolkit.telemetry.enabled", json!(false)),
        ("toolkit.telemetry.server", json!("")),
    ];
    preferences
        .iter()
        .map(|(name, value)| format!("user_pref({}, {value});\n", json!(name)))
        .collect()
}
