//! The console's lists: broadcasts and subscriptions.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::operator::{open_console, show};
use super::world::World;

/// What was sent from this tab has its title, what was undone is cancelled, and one for later can be cancelled.
pub(crate) async fn the_console_lists_broadcasts_and_cancels_one(w: &mut World) {
    let later = SystemTime::now() + Duration::from_secs(86_400);
    let later = later.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let send_at = w
        .browser
        .evaluate(&format!("new Date({}).toISOString()", later.as_millis()))
        .await;
    let content = json!({"title": "Tomorrow", "sendAt": send_at});
    w.server().notify(&content).await;
    open_console(w, "broadcasts").await;
    w.browser
        .wait_for(&format!(
            "{}?.textContent.includes('1 taken by the push service')",
            entry("To everyone")
        ))
        .await;
    let undone = format!("{}.dataset.state", entry("Undone"));
    assert_eq!(w.browser.evaluate(&undone).await, "cancelled");

    for (from, button, to, said) in [
        ("scheduled", "Pause", "paused", "Paused: "),
        ("paused", "Resume", "scheduled", "Resumed: "),
    ] {
        let of = |state: &str| format!("document.querySelector('.broadcast[data-state={state}]')");
        w.browser.wait_for(&format!("{} !== null", of(from))).await;
        w.browser
            .evaluate(&format!(
                "[...{}.querySelectorAll('button')].find(({{ textContent }}) => textContent === '{button}').click()",
                of(from)
            ))
            .await;
        w.browser
            .wait_for(&format!(
                "{} !== null && document.getElementById('status').textContent.startsWith('{said}')",
                of(to)
            ))
            .await;
    }

    w.browser
        .evaluate(
            "(() => {
                const states = document.getElementById('broadcasts-state');
                states.value = 'scheduled';
                states.dispatchEvent(new Event('change'));
            })()",
        )
        .await;
    w.browser
        .wait_for("document.getElementById('broadcasts-list').children.length === 1")
        .await;
    w.browser
        .evaluate(
            "[...document.querySelectorAll('#broadcasts-list button')].find(({ textContent }) => textContent === 'Cancel').click()",
        )
        .await;
    w.browser
        .wait_for("document.getElementById('confirm').open")
        .await;
    w.click("confirm-yes").await;
    w.browser
        .wait_for("document.getElementById('status').textContent.startsWith('Cancelled: ')")
        .await;
    w.browser
        .wait_for("!document.getElementById('broadcasts-empty').hidden")
        .await;
}

/// A subscription is found by its id and deleted. The browser's next visit makes another one.
pub(crate) async fn the_console_finds_and_deletes_a_subscription(w: &mut World) {
    show(w, "audience").await;
    let listed = "document.getElementById('audience-list')";
    w.browser
        .wait_for(&format!("{listed}.children.length === 1"))
        .await;
    let facts = w.browser.evaluate(&format!("{listed}.textContent")).await;
    let facts = facts.as_str().unwrap();
    for part in ["Live", "Push service", "VAPID key"] {
        assert!(facts.contains(part), "{facts}");
    }
    // The file that the console offers, without saving it.
    w.browser
        .evaluate(
            "(() => {
                const make = URL.createObjectURL;
                URL.createObjectURL = (file) => {
                    file.text().then((text) => { window.exported = text; });
                    return make.call(URL, file);
                };
                HTMLAnchorElement.prototype.click = function () { window.offered = this.download; };
            })()",
        )
        .await;
    w.click("audience-file").await;
    w.browser.wait_for("window.exported !== undefined").await;
    let exported = w.browser.evaluate("window.exported").await;
    let lines: Vec<_> = exported.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 2, "{exported}");
    assert!(lines[0].starts_with("id,"), "{exported}");
    assert!(lines[1].contains(",live,"), "{exported}");
    let offered = "window.offered";
    assert_eq!(w.browser.evaluate(offered).await, "subscriptions.csv");
    let endpoint = w
        .browser
        .evaluate(
            "navigator.serviceWorker.getRegistration('/web-push/')
                .then((registration) => registration.pushManager.getSubscription())
                .then(({ endpoint }) => endpoint)",
        )
        .await;
    find(w, "endpoint", "https://push.example.com/nobody").await;
    w.browser
        .wait_for("!document.getElementById('audience-empty').hidden")
        .await;
    // In Chromium the page's endpoint is not the one that the server has.
    if w.is_firefox() {
        find(w, "endpoint", endpoint.as_str().unwrap()).await;
    } else {
        find(w, "user", "").await;
    }
    w.browser
        .wait_for(&format!("{listed}.children.length === 1"))
        .await;
    w.browser
        .evaluate(&format!(
            "[...{listed}.querySelectorAll('button')].find(({{ textContent }}) => textContent === 'Delete').click()"
        ))
        .await;
    w.browser
        .wait_for("document.getElementById('confirm').open")
        .await;
    w.click("confirm-yes").await;
    w.browser
        .wait_for(&format!("{listed}.children.length === 0"))
        .await;
    assert_eq!(w.server().notify(&json!({"title": "Nobody"})).await, 0);

    let url = w.server().url();
    w.browser.open(&url).await;
    w.browser
        .wait_for("document.getElementById('credentials-id').textContent.length === 36")
        .await;
}

/// The entry of a broadcast.
fn entry(title: &str) -> String {
    format!(
        "[...document.querySelectorAll('.broadcast')].find((one) => one.querySelector('strong').textContent === '{title}')"
    )
}

async fn find(w: &mut World, by: &str, text: &str) {
    w.browser
        .evaluate(&format!(
            "(() => {{
                const form = document.getElementById('find');
                form.elements.by.value = '{by}';
                form.elements.text.value = '{text}';
                form.requestSubmit();
            }})()"
        ))
        .await;
}
