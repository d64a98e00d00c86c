//! The example servers' page, from subscribing to unsubscribing.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::world::World;

/// The same on both servers, from the button to the notification and back.
pub(crate) async fn it_subscribes_is_notified_and_leaves_on_either_server(w: &mut World) {
    for index in [1, 0] {
        w.servers.swap(0, index);
        it_subscribes(w).await;
        let hello = json!({"title": "Shipped ✓", "body": "Order 7 is on its way"});
        assert_eq!(w.server().notify(&hello).await, 1);
        let logged = logged(w, "Shipped ✓").await;
        assert!(logged.contains("Order 7 is on its way"), "{logged}");

        // The page's own button.
        w.click("test").await;
        w.browser
            .wait_for("document.querySelectorAll('#log li').length === 2")
            .await;

        let token = newest(w);
        w.click("disable").await;
        w.push
            .wait_for("the browser to unsubscribe", |state| {
                state.channels[&token].is_none().then_some(())
            })
            .await;
        w.browser
            .wait_for("!document.getElementById('enable').hidden")
            .await;
        assert_eq!(w.server().notify(&json!({"title": "Nobody"})).await, 0);
        w.servers.swap(0, index);
    }
}

/// Opens the page and clicks its button.
pub(crate) async fn it_subscribes(w: &mut World) {
    let url = w.server().url();
    w.browser.open(&url).await;
    let count = w.push.look(|state| state.channels.len());
    w.click("enable").await;
    w.browser
        .wait_for(
            "!document.getElementById('test').hidden || document.getElementById('status').dataset.kind === 'error'",
        )
        .await;
    let status = "document.getElementById('status').dataset.kind === 'error' && document.getElementById('status').textContent";
    assert_eq!(w.browser.evaluate(status).await, json!(false));
    assert_eq!(w.push.look(|state| state.channels.len()), count + 1);
}

/// `getNotifications()` returns what was sent, as far as the browser supports it.
pub(crate) async fn a_notification_shows_every_field(w: &mut World) {
    let site = w.site.clone();
    let picture = |name: &str| format!("{site}/{name}.png");
    let content = json!({
        "title": "Every field",
        "body": "Second line\nthird line",
        "url": "https://shop.example/orders/7",
        "tag": "order-7",
        "lang": "pl",
        "dir": "rtl",
        "icon": picture("icon"),
        "image": picture("image"),
        "badge": picture("badge"),
        "requireInteraction": true,
        "renotify": true,
        "silent": false,
        "timestamp": 1_767_225_600_000_u64,
        "vibrate": [200, 100, 200],
        "data": {"order": 7},
        "actions": [
            {"action": "track", "title": "Track", "icon": picture("track"), "navigate": "https://shop.example/track/7"},
            {"action": "later", "title": "Later"},
        ],
    });
    w.server().notify(&content).await;
    logged(w, "Every field").await;
    let shown = w.browser.evaluate(SHOWN).await;
    let shown = shown.as_object().unwrap();
    let mut wanted = content.as_object().unwrap().clone();
    wanted.remove("url");
    wanted["data"] = json!({
        "from": "tower-web-push",
        "url": "https://shop.example/orders/7",
        "actions": {"track": "https://shop.example/track/7", "later": null},
        "data": {"order": 7},
    });
    // Firefox shows no icons on buttons.
    let icons = if w.is_firefox() {
        [json!(null), json!(null)]
    } else {
        [json!(picture("track")), json!("")]
    };
    let [track, later] = icons;
    wanted["actions"] = json!([
        {"action": "track", "title": "Track", "icon": track},
        {"action": "later", "title": "Later", "icon": later},
    ]);
    for name in [
        "title",
        "body",
        "tag",
        "data",
        "lang",
        "dir",
        "icon",
        "silent",
        "requireInteraction",
        "actions",
    ] {
        assert!(shown.contains_key(name), "the browser does not tell {name}");
    }
    for (name, value) in shown {
        assert_eq!(*value, wanted[name], "{name}");
    }
    assert!(w.is_firefox() || shown.len() == wanted.len(), "{shown:?}");
}

pub(crate) async fn a_scheduled_notification_comes_at_its_time(w: &mut World) {
    // Before the browser reads the same clock, in milliseconds.
    let earliest = SystemTime::now() + Duration::from_millis(2990);
    let send_at = w
        .browser
        .evaluate("new Date(Date.now() + 3000).toISOString()")
        .await;
    let content = json!({"title": "At its time", "sendAt": send_at});
    w.server().notify(&content).await;
    logged(w, "At its time").await;
    let came = w.push.look(|state| state.pushes.last().unwrap().at);
    assert!(came > earliest, "it came too early");
}

/// Returns the entry of the page's log, once there is one.
pub(crate) async fn logged(w: &mut World, title: &str) -> String {
    let title = json!(title);
    let entry = w
        .browser
        .wait_for(&format!(
            "[...document.querySelectorAll('#log li')].find((entry) => entry.textContent.includes({title}))?.textContent"
        ))
        .await;
    entry.as_str().unwrap().to_owned()
}

/// Returns the token of the newest subscription.
pub(crate) fn newest(w: &World) -> String {
    w.push
        .look(|state| format!("token{}", state.channels.len() - 1))
}

/// Every member that the browser has, except methods.
const SHOWN: &str = "navigator.serviceWorker.getRegistration('/web-push/')
    .then((registration) => registration.getNotifications({ tag: 'order-7' }))
    .then(([shown]) => Object.fromEntries(
        ['title', 'body', 'tag', 'lang', 'dir', 'icon', 'image', 'badge', 'requireInteraction', 'renotify',
            'silent', 'timestamp', 'vibrate', 'data', 'actions']
            .filter((name) => name in shown)
            .map((name) => [name, shown[name]])))
    .then((shown) => ({ ...shown, actions: shown.actions.map(({ action, title, icon = null }) => ({ action, title, icon })) }))";
