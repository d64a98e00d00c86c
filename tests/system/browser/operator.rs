//! The operator's part of the page: unlock, compose, follow the responses of push services.

use serde_json::json;

use super::page::logged;
use super::world::{ADMIN, World};

pub(crate) async fn unlock(w: &mut World) {
    w.browser
        .evaluate(&format!(
            "(() => {{
                document.getElementById('operator-token').value = '{ADMIN}';
                document.getElementById('operator').requestSubmit();
            }})()"
        ))
        .await;
    w.browser
        .wait_for("document.getElementById('operator').hidden")
        .await;
}

pub(crate) async fn the_page_sends_to_this_browser(w: &mut World) {
    unlock(w).await;
    let subscribed = w
        .browser
        .evaluate("document.getElementById('stats-live').textContent")
        .await;
    assert_eq!(subscribed, "1");
    w.browser
        .evaluate(
            "(() => {
                const form = document.getElementById('notify');
                form.elements.title.value = 'From the page';
                form.elements.body.value = 'to itself';
                form.requestSubmit();
            })()",
        )
        .await;
    let counts = w
        .browser
        .wait_for("document.querySelector('.broadcast[data-state=done] .chips')?.textContent")
        .await;
    assert_eq!(counts, "1 taken by the push service");
    let shown = logged(w, "From the page").await;
    assert!(shown.starts_with("From the page to itself"), "{shown}");
}

/// A custom payload, exactly as typed: the worker shows its members.
pub(crate) async fn the_page_sends_a_document_as_it_is_typed(w: &mut World) {
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

/// The subscription is posted again, and keeps its id.
pub(crate) async fn another_visit_restores_the_state(w: &mut World) {
    let id = "document.getElementById('credentials-id').textContent";
    let before = w.browser.evaluate(id).await;
    let url = w.server().url();
    w.browser.open(&url).await;
    w.browser
        .wait_for(&format!(
            "{id}.length === 36
                && document.getElementById('operator').hidden
                && document.querySelector('.broadcast') !== null"
        ))
        .await;
    assert_eq!(w.browser.evaluate(id).await, before);
    let state = "document.getElementById('browser-state').textContent";
    assert_eq!(w.browser.evaluate(state).await, json!("On"));
}
