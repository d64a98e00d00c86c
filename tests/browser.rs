//! A real Firefox gets real notifications from an example server. Nothing leaves the machine.
//!
//! Firefox missing: skipped, aloud; with `WEB_PUSH_REQUIRE_PEERS=1` a failure. `WEB_PUSH_SCREENSHOTS=FOLDER`
//! leaves a picture of the page there.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support {
    pub(crate) mod autopush;
    pub(crate) mod firefox;
    #[allow(dead_code, reason = "other tests use the rest")]
    pub(crate) mod http_client;
    pub(crate) mod proxy_recorder;
    #[allow(dead_code, reason = "other tests use the rest")]
    pub(crate) mod server_process;
}

use std::env;
use std::fs;
use std::path::Path;

use http::Method;
use serde_json::json;

use support::autopush::Autopush;
use support::firefox::{self, Firefox, ZONE};
use support::http_client::HttpClient;
use support::proxy_recorder::ProxyRecorder;
use support::server_process::ServerProcess;

const ADMIN: &str = "h9Jm3pXq7vTz2LkB";

/// The page, its client, the worker, the server and the push service, one after the other: a browser's
/// start is most of the time.
#[tokio::test]
async fn a_real_browser_subscribes_is_notified_follows_new_keys_and_losses_and_leaves() {
    let Some(program) = firefox::find() else {
        assert!(
            env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none_or(|value| value != "1"),
            "Firefox is missing"
        );
        eprintln!("SKIPPED: no Firefox; install firefox-esr, or set FIREFOX");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let store_url = format!("sqlite://{}", folder.path().join("push.db").display());
    let server = ServerProcess::start(
        "axum_server",
        &[
            ("BIND", "127.0.0.1:0"),
            ("STORE_URL", &store_url),
            ("VAPID_SUBJECT", "mailto:ops@example.com"),
            ("ENDPOINT_POLICY", "local"),
            ("ADMIN_TOKEN", ADMIN),
            ("SECONDS_BETWEEN_NOTIFICATIONS", "1"),
        ],
    )
    .await;
    let client = HttpClient::new(&server.url);
    let autopush = Autopush::start().await;
    let outside = ProxyRecorder::start().await;
    let mut firefox = Firefox::start(program, &autopush.server_url(), outside.port()).await;

    firefox.open(&server.url).await;
    // Before that, `subscribe()` hangs for ever.
    autopush
        .wait_for("the browser's hello", |state| {
            (state.hellos > 0).then_some(())
        })
        .await;

    // Subscribe.
    click(&mut firefox, "enable").await;
    let id = wait_for_id(&mut firefox).await;
    let shown = firefox
        .wait_for("document.querySelector('#credentials pre').textContent")
        .await;
    assert!(
        shown.as_str().unwrap().contains("/wpush/v2/token0"),
        "{shown}"
    );

    // Be notified, by the whole way: ledger, encryption, VAPID, push service, browser, worker, page.
    let sent = client
        .call(Method::POST, "/web-push/notify")
        .bearer(ADMIN)
        .json(&json!({
            "title": "Shipped ✓",
            "body": "Order 7 is on its way",
            "url": "https://shop.example/orders/7",
            "tag": "order-7",
            "data": {"order": 7},
            "actions": [{"action": "track", "title": "Track", "navigate": "https://shop.example/track/7"}],
        }))
        .send()
        .await;
    assert_eq!(sent.status, 202, "{sent:?}");
    firefox.wait_for("document.querySelector('#log li')").await;
    let notifications = firefox.evaluate(NOTIFICATIONS).await;
    assert_eq!(
        notifications,
        json!([{
            "title": "Shipped ✓",
            "body": "Order 7 is on its way",
            "tag": "order-7",
            "data": {
                "from": "tower-web-push",
                "url": "https://shop.example/orders/7",
                "actions": {"track": "https://shop.example/track/7"},
                "data": {"order": 7},
            },
        }])
    );
    let logged = firefox
        .evaluate("document.querySelector('#log li').textContent")
        .await;
    assert!(
        logged.as_str().unwrap().contains("Order 7 is on its way"),
        "{logged}"
    );
    let codes = autopush
        .wait_for("an acknowledgement", |state| {
            let codes: Vec<i64> = state.acks.iter().map(|(_, code)| *code).collect();
            (!codes.is_empty()).then_some(codes)
        })
        .await;
    assert_eq!(codes, [100], "delivered, and decrypted by the browser");

    // The page's own button.
    click(&mut firefox, "test").await;
    firefox
        .wait_for("document.querySelectorAll('#log li').length === 2")
        .await;

    // A new VAPID key: the page changes over, and the server knows it for the same subscription.
    let rotated = client
        .call(Method::POST, "/web-push/regenerate-vapid")
        .bearer(ADMIN)
        .send()
        .await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    firefox
        .evaluate("import('/web-push/client.js').then((client) => client.subscribe()).then(({ id }) => { document.title = id; })")
        .await;
    assert_eq!(firefox.evaluate("document.title").await, json!(id));
    autopush
        .wait_for("the old subscription's end", |state| {
            (state.channels.len() == 2 && state.channels["token0"].is_none()).then_some(())
        })
        .await;
    let sent = client
        .call(Method::POST, "/web-push/notify")
        .bearer(ADMIN)
        .header("prefer", "wait=30")
        .json(&json!({"title": "Under the new key"}))
        .send()
        .await;
    assert_eq!(sent.status, 200, "{sent:?}");
    firefox
        .wait_for("document.querySelectorAll('#log li').length === 3")
        .await;

    // The push service loses the browser: the worker subscribes again and tells the server, unasked.
    autopush.forget_the_browser();
    autopush
        .wait_for("a new subscription", |state| {
            state.channels.get("token2")?.as_ref().map(|_| ())
        })
        .await;
    firefox.wait_for(&remembers("token2")).await;
    let sent = client
        .call(Method::POST, "/web-push/notify")
        .bearer(ADMIN)
        .json(&json!({"title": "After the loss", "audience": {"ids": [id]}}))
        .send()
        .await;
    assert_eq!(sent.json()["recipients"], 1, "{sent:?}");
    firefox
        .wait_for("document.querySelectorAll('#log li').length === 4")
        .await;

    the_page_sends_to_this_browser(&mut firefox).await;
    another_visit_finds_everything_again(&mut firefox, &server.url, &id).await;
    a_daily_time_is_the_visitors_own(&mut firefox).await;
    a_server_without_zones_is_told_in_utc(&mut firefox).await;
    a_test_comes_in_a_minute(&mut firefox).await;

    if let Some(folder) = env::var_os("WEB_PUSH_SCREENSHOTS") {
        let picture = firefox.screenshot().await;
        fs::write(Path::new(&folder).join("page.png"), picture).unwrap();
    }
    a_daily_time_is_stopped(&mut firefox).await;

    // Leave.
    click(&mut firefox, "disable").await;
    autopush
        .wait_for("the browser to unsubscribe", |state| {
            state.channels["token2"].is_none().then_some(())
        })
        .await;
    let sent = client
        .call(Method::POST, "/web-push/notify")
        .bearer(ADMIN)
        .json(&json!({"title": "Nobody is left"}))
        .send()
        .await;
    assert_eq!(sent.json()["recipients"], 0, "{sent:?}");

    autopush
        .wait_for("every push to be answered", |state| {
            for push in &state.pushes {
                assert_eq!(push.status, 201, "{}", push.why);
            }
            assert_eq!(state.nacks, [0; 0], "the worker failed");
            (state.pushes.len() == 5).then_some(())
        })
        .await;
    firefox.close().await;
    assert_eq!(
        outside.asked(),
        [""; 0],
        "nothing is asked of any other host"
    );
    assert!(server.terminate().await.success());
}

/// The operator's side of the page: unlock, compose, watch what the push service answers.
async fn the_page_sends_to_this_browser(firefox: &mut Firefox) {
    firefox
        .evaluate(&format!(
            "(() => {{
                document.getElementById('operator-token').value = '{ADMIN}';
                document.getElementById('operator').requestSubmit();
            }})()"
        ))
        .await;
    firefox
        .wait_for("document.getElementById('operator').hidden")
        .await;
    let subscribed = firefox
        .evaluate("document.getElementById('stats-live').textContent")
        .await;
    assert_eq!(subscribed, "1");
    firefox
        .evaluate(
            "(() => {
                const form = document.getElementById('notify');
                form.elements.title.value = 'From the page';
                form.elements.body.value = 'to itself';
                document.querySelector('[name=audience][value=self]').click();
                form.requestSubmit();
            })()",
        )
        .await;
    let counts = firefox
        .wait_for("document.querySelector('.broadcast[data-state=done] .chips')?.textContent")
        .await;
    assert_eq!(counts, "1 taken by the push service");
    let shown = firefox
        .wait_for(
            "document.querySelectorAll('#log li').length === 5 && document.querySelector('#log li').textContent",
        )
        .await;
    let shown = shown.as_str().unwrap();
    assert!(shown.starts_with("From the page to itself"), "{shown}");
}

/// The server is told again, and knows the browser by the id that it had.
async fn another_visit_finds_everything_again(firefox: &mut Firefox, url: &str, id: &str) {
    firefox.open(url).await;
    firefox
        .wait_for(
            "document.getElementById('credentials-id').textContent.length === 36
                && document.getElementById('operator').hidden
                && document.querySelector('.broadcast') !== null",
        )
        .await;
    let found = firefox
        .evaluate(
            "[document.getElementById('credentials-id').textContent,
              document.getElementById('browser-state').textContent]",
        )
        .await;
    assert_eq!(found, json!([id, "On"]));
}

/// What the form posts, and what the page says of it.
async fn a_daily_time_is_the_visitors_own(firefox: &mut Firefox) {
    firefox
        .evaluate(
            "(() => {
                window.posted = [];
                const real = window.fetch;
                window.fetch = async (to, init) => {
                    const body = init?.body ? JSON.parse(init.body) : {};
                    if (init?.body) window.posted.push(body);
                    const zone = body.notifyTime?.zone ?? 'UTC';
                    if (window.noZones && zone !== 'UTC') {
                        return new Response('{\"code\": \"zones_unsupported\"}', { status: 422 });
                    }
                    return real(to, init);
                };
                document.querySelector('input[value=sun]').checked = false;
            })()",
        )
        .await;
    let shown = submit_daily(firefox, "06:30").await;
    let time = format!("06:30 {ZONE}, mon tue wed thu fri sat");
    assert!(shown.contains(&time), "{shown}");
    let posted = firefox.evaluate("window.posted.at(-1)").await;
    let days = ["mon", "tue", "wed", "thu", "fri", "sat"];
    let wanted = json!({"hour": 6, "minute": 30, "zone": ZONE, "weekdays": days});
    assert_eq!(posted["notifyTime"], wanted);
    assert_eq!(posted["notifyType"], "DIRECT_NOTIFICATION");
    assert_eq!(posted["message"], "Good morning");
    let listed = listed(firefox).await;
    assert!(listed.starts_with(&time), "{listed}");
}

/// 05:00 there is 23:15 in UTC, the day before.
async fn a_server_without_zones_is_told_in_utc(firefox: &mut Firefox) {
    firefox
        .evaluate("(() => { window.noZones = true; })()")
        .await;
    let shown = submit_daily(firefox, "05:00").await;
    assert!(
        shown.contains("23:15 UTC, sun mon tue wed thu fri"),
        "{shown}"
    );
    firefox
        .evaluate(
            "(() => { for (const day of document.querySelectorAll('[name=weekdays]')) day.checked = true; })()",
        )
        .await;
    submit_daily(firefox, "06:00").await;
    let posted = firefox.evaluate("window.posted.at(-1)").await;
    assert_eq!(
        posted["notifyTime"],
        json!({"utcHour": 0, "minute": 15}),
        "{posted}"
    );
    firefox
        .evaluate("(() => { window.noZones = false; })()")
        .await;
}

/// Every day is no list of days, and a type has one time.
async fn a_test_comes_in_a_minute(firefox: &mut Firefox) {
    click(firefox, "daily-test").await;
    let shown = firefox.wait_for(&daily_status("The test comes at")).await;
    assert!(shown.as_str().unwrap().contains(ZONE), "{shown}");
    let posted = firefox.evaluate("window.posted.at(-1)").await;
    assert_eq!(posted["notifyTime"]["zone"], ZONE);
    assert_eq!(posted["notifyTime"]["weekdays"], json!(null));
    listed(firefox).await;
    let entries = firefox
        .evaluate("document.querySelectorAll('#daily-list li').length")
        .await;
    assert_eq!(entries, 1);
}

async fn a_daily_time_is_stopped(firefox: &mut Firefox) {
    firefox
        .evaluate("document.querySelector('#daily-list button').click()")
        .await;
    firefox.wait_for(&daily_status("Stopped")).await;
    firefox
        .wait_for("!document.getElementById('daily-none').hidden")
        .await;
}

/// What the page says once it has saved a time.
async fn submit_daily(firefox: &mut Firefox, time: &str) -> String {
    firefox
        .evaluate(&format!(
            "(() => {{
                document.getElementById('status').textContent = '';
                document.getElementById('daily-time').value = '{time}';
                document.getElementById('daily').requestSubmit();
            }})()"
        ))
        .await;
    let shown = firefox.wait_for(&daily_status("Scheduled")).await;
    shown.as_str().unwrap().to_owned()
}

/// The list's first entry, once there is one.
async fn listed(firefox: &mut Firefox) -> String {
    let entry = firefox
        .wait_for("document.querySelector('#daily-list li')?.textContent")
        .await;
    entry.as_str().unwrap().to_owned()
}

/// What the page says, once it begins so, or says what went wrong.
fn daily_status(beginning: &str) -> String {
    format!(
        "(() => {{
            const {{ textContent, dataset }} = document.getElementById('status');
            return textContent.startsWith('{beginning}') || dataset.kind === 'error' ? textContent : null;
        }})()"
    )
}

async fn click(firefox: &mut Firefox, id: &str) {
    firefox
        .wait_for(&format!("!document.getElementById('{id}').hidden"))
        .await;
    firefox
        .evaluate(&format!("document.getElementById('{id}').click()"))
        .await;
}

/// The id that the page reports, or its error as a failure.
async fn wait_for_id(firefox: &mut Firefox) -> String {
    let status = firefox
        .wait_for(
            "(() => {
                const { textContent, dataset } = document.getElementById('status');
                return textContent.includes('are on') || dataset.kind === 'error' ? textContent : null;
            })()",
        )
        .await;
    let status = status.as_str().unwrap();
    let id = status.trim_end_matches('.').rsplit(' ').next().unwrap();
    assert_eq!(id.len(), 36, "{status}");
    id.to_owned()
}

/// Whether the worker remembers an endpoint: it does once the server has taken it.
fn remembers(token: &str) -> String {
    format!(
        "new Promise((resolve, reject) => {{
            const opening = indexedDB.open('tower-web-push');
            opening.onerror = () => reject(opening.error);
            opening.onsuccess = () => {{
                const database = opening.result;
                const all = database.transaction('subscriptions').objectStore('subscriptions').getAll();
                all.onsuccess = () => {{
                    database.close();
                    resolve(all.result.some(({{ endpoint }}) => endpoint.endsWith('/{token}')));
                }};
            }};
        }})"
    )
}

const NOTIFICATIONS: &str = "navigator.serviceWorker.getRegistration('/web-push/')
    .then((registration) => registration.getNotifications())
    .then((shown) => shown.map(({ title, body, tag, data }) => ({ title, body, tag, data })))";
