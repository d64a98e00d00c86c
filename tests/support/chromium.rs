//! A headless Chromium, driven over the DevTools pipe.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::browser::{Look, ZONE, found};
use super::desktop::Desktop;
use super::devtools::DevTools;
use super::gcm::Gcm;
use super::push_service::PushService;

const LIMIT: Duration = Duration::from_secs(60);

/// The part of Chromium's endpoints between host and token. The host depends on the build.
const GOOGLE: &str = "/fcm/send/";

/// Background requests of the browser to its vendor: some can only be redirected, not switched off.
const QUIET: [&str; 11] = [
    "--component-updater=url-source=http://127.0.0.1:1/",
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-features=AutofillServerCommunication,MediaRouter,NetworkTimeServiceQuerying,OptimizationHints",
    "--disable-sync",
    "--gaia-url=http://127.0.0.1:1/",
    "--metrics-recording-only",
    "--no-pings",
];

/// One browser with a profile and a desktop of its own, and one tab.
pub(crate) struct Chromium {
    process: Child,
    devtools: DevTools,
    /// The target id of the tab.
    target: Value,
    /// The session of the tab.
    tab: String,
    desktop: Desktop,
    // Removed after the process has exited.
    _profile: TempDir,
}

/// Returns Chromium: `CHROMIUM`, or the first of its usual names on the `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    found(
        "CHROMIUM",
        &["chromium", "chromium-browser", "google-chrome"],
    )
}

impl Chromium {
    /// Starts it with all requests to other machines sent to `proxy` instead.
    pub(crate) async fn start(
        program: PathBuf,
        service: &PushService,
        gcm: &Gcm,
        proxy_port: u16,
    ) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Every site may notify. It is set in the settings, since a permission given by DevTools cannot be revoked.
        let settings = json!({
            "profile": {"default_content_setting_values": {"notifications": 1}},
            "signin": {"allowed": false, "allowed_on_next_startup": false},
        });
        let folder = profile.path().join("Default");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("Preferences"), settings.to_string()).unwrap();
        let bus = profile.path().join("bus");
        let desktop = Desktop::start(&bus);
        // The pipe's ends have to be the descriptors 3 and 4, which std cannot set without unsafe code.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#])
            .arg(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--no-first-run",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--password-store=basic",
                "--remote-debugging-pipe",
            ])
            .args(QUIET)
            .args(gcm.switches())
            .arg(format!("--proxy-server=http://127.0.0.1:{proxy_port}"))
            .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            // Files that it leaves behind when it is killed are removed with the profile.
            .env("TMPDIR", profile.path())
            .env("TZ", ZONE)
            .env(
                "DBUS_SESSION_BUS_ADDRESS",
                format!("unix:path={}", bus.display()),
            )
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let devtools = DevTools::new(
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        tokio::spawn(watch(devtools.clone(), service.endpoint("")));

        // Workers too, from their first instruction on: their requests have to be rewritten.
        let attach = json!({"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true});
        devtools.call(None, "Target.setAutoAttach", attach).await;
        let (target, tab) = open_tab(&devtools).await;
        Self {
            process,
            devtools,
            target,
            tab,
            desktop,
            _profile: profile,
        }
    }

    /// Opens an address and waits until it has loaded.
    pub(crate) async fn open(&self, url: &str) {
        load(&self.devtools, &self.tab, url).await;
    }

    /// Returns the value of an expression, or of its promise, as JSON.
    pub(crate) async fn evaluate(&self, expression: &str) -> Option<String> {
        let value = self.evaluate_in_one_page(expression).await;
        value.unwrap_or_else(|| panic!("{expression}: the tab has loaded another page"))
    }

    /// As [`evaluate`](Self::evaluate), again in the next page if the tab loads one meanwhile.
    pub(crate) async fn evaluate_in_any_page(&self, expression: &str) -> Option<String> {
        loop {
            if let Some(value) = self.evaluate_in_one_page(expression).await {
                return value;
            }
        }
    }

    /// `None` if the tab loads another page meanwhile.
    async fn evaluate_in_one_page(&self, expression: &str) -> Option<Option<String>> {
        let params = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let tab = Some(&*self.tab);
        let evaluated = self.devtools.try_call(tab, "Runtime.evaluate", &params);
        let answer = match evaluated.await {
            Ok(answer) => answer,
            Err(error) if error["message"] == "Inspected target navigated or closed" => {
                return None;
            }
            Err(error) => panic!("{expression}: {error}"),
        };
        let exception = &answer["exceptionDetails"];
        assert!(exception.is_null(), "{expression}: {exception}");
        Some(answer["result"]["value"].as_str().map(str::to_owned))
    }

    /// Sets the display settings.
    pub(crate) async fn set_look(&self, look: Look) {
        let scheme = json!({"name": "prefers-color-scheme", "value": look.scheme()});
        self.in_tab("Emulation.setEmulatedMedia", json!({"features": [scheme]}))
            .await;
        let (width, height) = look.size();
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": look == Look::Phone,
        });
        self.in_tab("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Returns the visible part of the page as PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let answer = self
            .in_tab("Page.captureScreenshot", json!({"optimizeForSpeed": false}))
            .await;
        Base64::decode_vec(answer["data"].as_str().unwrap()).unwrap()
    }

    /// Returns the addresses of all tabs.
    pub(crate) async fn tabs(&self) -> Vec<String> {
        let targets = self
            .devtools
            .call(None, "Target.getTargets", json!({}))
            .await;
        let targets = targets["targetInfos"].as_array().unwrap();
        targets
            .iter()
            .filter(|target| target["type"] == "page")
            .map(|target| target["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Sets whether sites may notify, as the user does in the settings.
    pub(crate) async fn allow_notifications(&self, origin: &str, value: &str) {
        let (_, session) = open_tab(&self.devtools).await;
        let page = "chrome://settings/content/notifications";
        load(&self.devtools, &session, page).await;
        // A response means that the page is ready; before that, the browser would crash. The second one means that
        // the setting is applied.
        let set = format!(
            "import('chrome://resources/js/cr.js').then(async ({{ sendWithPromise }}) => {{
                const answer = () => sendWithPromise('getDefaultValueForContentType', 'notifications');
                await answer();
                chrome.send('setCategoryPermissionForPattern', ['{origin}', '', 'notifications', '{value}', false]);
                await answer();
            }})"
        );
        let params = json!({"expression": set, "awaitPromise": true});
        let answer = self
            .devtools
            .call(Some(&session), "Runtime.evaluate", params)
            .await;
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
    }

    /// Closes all tabs except the first, which comes to the front.
    pub(crate) async fn close_other_tabs(&self) {
        let targets = self
            .devtools
            .call(None, "Target.getTargets", json!({}))
            .await;
        let targets = targets["targetInfos"].as_array().unwrap();
        let pages = targets.iter().filter(|target| target["type"] == "page");
        for page in pages.filter(|page| page["targetId"] != self.target) {
            let target = json!({"targetId": page["targetId"]});
            self.devtools.call(None, "Target.closeTarget", target).await;
        }
        self.in_tab("Page.bringToFront", json!({})).await;
    }

    pub(crate) async fn click_notification(&self, title: &str, button: Option<&str>) -> String {
        self.desktop.click(title, button).await
    }

    /// Stops it cleanly, so that nothing writes to the profile any more.
    pub(crate) async fn close(mut self) {
        // It may exit before it has answered.
        self.devtools.tell(None, "Browser.close", json!({}));
        timeout(LIMIT, self.process.wait())
            .await
            .expect("Chromium does not end")
            .unwrap();
    }

    async fn in_tab(&self, method: &str, params: Value) -> Value {
        self.devtools.call(Some(&self.tab), method, params).await
    }
}

/// Returns the new tab's target id and its session.
async fn open_tab(devtools: &DevTools) -> (Value, String) {
    let mut events = devtools.events();
    let blank = json!({"url": "about:blank"});
    let target = devtools.call(None, "Target.createTarget", blank).await;
    let session = loop {
        let event = events.recv().await.expect("Chromium hung up");
        let params = &event["params"];
        if params["targetInfo"]["targetId"] == target["targetId"]
            && let Some(session) = params["sessionId"].as_str()
        {
            break session.to_owned();
        }
    };
    devtools
        .call(Some(&session), "Page.enable", json!({}))
        .await;
    let enabled = json!({"enabled": true});
    devtools
        .call(Some(&session), "Page.setLifecycleEventsEnabled", enabled)
        .await;
    (target["targetId"].clone(), session)
}

/// Opens an address in a tab and waits until it has loaded.
async fn load(devtools: &DevTools, session: &str, url: &str) {
    let mut events = devtools.events();
    let params = json!({"url": url});
    let loading = devtools.call(Some(session), "Page.navigate", params).await;
    let loaded = async {
        loop {
            let event = events.recv().await.expect("Chromium hung up");
            let params = &event["params"];
            if params["name"] == "load" && params["loaderId"] == loading["loaderId"] {
                return;
            }
        }
    };
    timeout(LIMIT, loaded)
        .await
        .unwrap_or_else(|_| panic!("{url} does not load: {loading}"));
}

/// Resumes pages and workers, and rewrites their requests to a server.
///
/// Chromium makes every subscription's endpoint one of Google's, and no setting changes that. The page and the worker
/// run unchanged, so the address is rewritten on the way to the server, which then sends to this machine. Nothing
/// else of a request is changed.
async fn watch(devtools: DevTools, local: String) {
    let mut events = devtools.events();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(count)) => panic!("{count} events were missed"),
            Err(RecvError::Closed) => return,
        };
        let (session, params) = (event["sessionId"].as_str(), &event["params"]);
        match event["method"].as_str() {
            Some("Target.attachedToTarget") => {
                let session = params["sessionId"].as_str();
                if params["targetInfo"]["type"] != "browser_ui" {
                    let patterns = json!({"patterns": [{"urlPattern": "http://127.0.0.1:*"}]});
                    devtools.tell(session, "Fetch.enable", patterns);
                }
                devtools.tell(session, "Runtime.runIfWaitingForDebugger", json!({}));
            }
            Some("Fetch.requestPaused") => {
                let mut go_on = json!({"requestId": params["requestId"]});
                if let Some(body) = params["request"]["postData"].as_str() {
                    let body = with_local_endpoints(body, &local);
                    go_on["postData"] = json!(Base64::encode_string(body.as_bytes()));
                }
                devtools.tell(session, "Fetch.continueRequest", go_on);
            }
            _ => {}
        }
    }
}

fn with_local_endpoints(body: &str, local: &str) -> String {
    let mut parts = body.split(GOOGLE);
    let mut rewritten = parts.next().unwrap().to_owned();
    for part in parts {
        rewritten.truncate(rewritten.rfind("https://").unwrap());
        rewritten.push_str(local);
        rewritten.push_str(part);
    }
    rewritten
}
