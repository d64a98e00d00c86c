//! The operator's console: unlock, compose, and another visit.

use serde_json::json;

use super::page::logged;
use super::world::{ADMIN, World};

/// Opens a view of the console, unlocked.
pub(crate) async fn open_console(w: &mut World, view: &str) {
    let url = format!("{}/console", w.server().url());
    w.browser.open(&url).await;
    w.browser
        .wait_for("document.getElementById('server').dataset.state === 'on'")
        .await;
    unlock(w).await;
    show(w, view).await;
}

/// Shows another view of the open console.
pub(crate) async fn show(w: &mut World, view: &str) {
    w.browser
        .evaluate(&format!("(() => {{ location.hash = '{view}'; }})()"))
        .await;
    w.browser
        .wait_for(&format!("!document.getElementById('view-{view}').hidden"))
        .await;
}

/// Unlocks the open console, unless it is.
pub(crate) async fn unlock(w: &mut World) {
    w.browser
        .evaluate(&format!(
            "(() => {{
                if (document.getElementById('locked').hidden) return;
                document.getElementById('operator-token').value = '{ADMIN}';
                document.getElementById('operator').requestSubmit();
            }})()"
        ))
        .await;
    w.browser
        .wait_for(
            "document.getElementById('locked').hidden && !document.getElementById('views').hidden",
        )
        .await;
}

pub(crate) async fn the_console_sends_to_this_browser(w: &mut World) {
    open_console(w, "overview").await;
    w.browser
        .wait_for("document.getElementById('figure-live').textContent === '1'")
        .await;
    show(w, "compose").await;
    w.browser
        .wait_for("document.getElementById('notify-unsubscribed').hidden")
        .await;
    w.browser
        .evaluate(
            "(() => {
                const form = document.getElementById('notify');
                form.elements.title.value = 'From the console';
                form.elements.body.value = 'to itself';
                form.requestSubmit();
            })()",
        )
        .await;
    let shown = logged(w, "From the console").await;
    assert!(shown.starts_with("From the console to itself"), "{shown}");
    w.browser
        .wait_for("document.getElementById('status').textContent === 'Sent to this browser.'")
        .await;
}

/// A custom payload, exactly as typed: the worker shows its members.
pub(crate) async fn the_console_sends_a_document_as_it_is_typed(w: &mut World) {
    w.browser
        .evaluate(
            "(() => {
                const form = document.getElementById('notify');
                document.querySelector('[name=kind][value=payload]').click();
                form.elements.payload.value = JSON.stringify({ title: 'By hand', message: 'as typed' }, null, 2);
                document.querySelector('[name=audience][value=self]').click();
                form.dispatchEvent(new Event('input', { bubbles: true }));
            })()",
        )
        .await;
    let preview = "document.getElementById('preview-title').textContent";
    assert_eq!(w.browser.evaluate(preview).await, "By hand");
    let hidden = "document.getElementById('notify-title').closest('[data-of]').hidden";
    assert_eq!(w.browser.evaluate(hidden).await, true);
    w.browser
        .evaluate("document.getElementById('notify').requestSubmit()")
        .await;
    let shown = logged(w, "By hand").await;
    assert!(shown.starts_with("By hand as typed"), "{shown}");
    w.browser
        .evaluate("document.querySelector('#notify [type=reset]').click()")
        .await;
    w.browser
        .wait_for("!document.getElementById('notify-title').closest('[data-of]').hidden")
        .await;
}

/// Each view appears with its figures, by the links that a keyboard uses, and says of when they are.
pub(crate) async fn every_view_of_the_console_shows_what_the_server_has(w: &mut World) {
    open_console(w, "overview").await;
    for (view, shows) in [
        (
            "health",
            "document.querySelectorAll('#health-checks .pill[data-state=on]').length >= 6",
        ),
        (
            "keys",
            "document.getElementById('keys-list').textContent.includes('New subscriptions are made with it.')",
        ),
        (
            "overview",
            "document.getElementById('services-chart').children.length === 1",
        ),
    ] {
        w.browser
            .evaluate(&format!("document.getElementById('nav-{view}').click()"))
            .await;
        // One that was shown before has its content already.
        w.browser
            .wait_for(&format!("!document.getElementById('view-{view}').hidden"))
            .await;
        w.browser.wait_for(shows).await;
        w.browser
            .wait_for(&format!(
                "document.getElementById('{view}-as-of').textContent.startsWith('As of ')"
            ))
            .await;
        let focus = "document.activeElement.id";
        assert_eq!(
            w.browser.evaluate(focus).await,
            format!("{view}-heading").as_str()
        );
        let visible = "[...document.querySelectorAll('.view')].filter((one) => !one.hidden).map(({ id }) => id)";
        assert_eq!(
            w.browser.evaluate(visible).await,
            json!([format!("view-{view}")])
        );
    }
}

/// The subscription is posted again, and keeps its id. The console stays unlocked in this tab.
pub(crate) async fn another_visit_restores_the_state(w: &mut World) {
    let id = "document.getElementById('credentials-id').textContent";
    let url = w.server().url();
    w.browser.open(&url).await;
    w.browser.wait_for(&format!("{id}.length === 36")).await;
    let before = w.browser.evaluate(id).await;
    let console = format!("{url}/console");
    w.browser.open(&console).await;
    w.browser
        .wait_for("document.getElementById('locked').hidden && document.getElementById('figure-live').textContent === '1'")
        .await;
    w.browser.open(&url).await;
    w.browser.wait_for(&format!("{id}.length === 36")).await;
    assert_eq!(w.browser.evaluate(id).await, before);
    let state = "document.getElementById('browser-state').textContent";
    assert_eq!(w.browser.evaluate(state).await, json!("On"));
}
