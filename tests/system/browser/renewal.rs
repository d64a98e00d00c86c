//! Subscriptions that end without the page: a new key on the server, or an end by the push service or the browser.

use serde_json::json;

use super::operator;
use super::page::{logged, newest};
use super::world::World;
use crate::support::browser::Browser;

pub(crate) async fn a_new_key_is_followed_at_the_next_visit(w: &mut World) {
    let old = newest(w);
    // By the console, which asks before and reminds of the backup after.
    operator::open_console(w, "keys").await;
    w.click("rotate").await;
    w.browser
        .wait_for("document.getElementById('confirm').open")
        .await;
    w.click("confirm-yes").await;
    w.browser
        .wait_for("document.getElementById('status').textContent.includes('Back up the store now')")
        .await;
    let reminder = "document.getElementById('keys-backup').hidden";
    assert_eq!(w.browser.evaluate(reminder).await, false);
    let url = w.server().url();
    w.browser.open(&url).await;
    it_is_replaced(w, &old, "Under the new key").await;
}

pub(crate) async fn a_lost_subscription_is_replaced_unasked(w: &mut World) {
    let old = newest(w);
    let url = w.server().url();
    match &w.browser {
        // The push service has lost it, and reports it when the browser is back.
        Browser::Firefox(_) => w.push.forget_the_browser(),
        // In Chromium only the user can cause it, through the permission.
        Browser::Chromium(chromium) => {
            chromium.allow_notifications(&url, "block").await;
            ended(w, &old).await;
            chromium.allow_notifications(&url, "allow").await;
        }
    }
    w.browser.close_other_tabs().await;
    it_is_replaced(w, &old, "After the loss").await;
}

/// Waits for a replacement that the server has under the same id: it has no more recipients than before.
async fn it_is_replaced(w: &mut World, old: &str, title: &str) {
    ended(w, old).await;
    let new = w.push.wait_for("a new subscription", |state| {
        let newest = format!("token{}", state.channels.len() - 1);
        state.channels[&newest].is_some().then_some(newest)
    });
    let remembered = remembers(&new.await);
    w.browser.wait_for(&remembered).await;
    assert_eq!(w.server().notify(&json!({"title": title})).await, 1);
    logged(w, title).await;
}

async fn ended(w: &World, token: &str) {
    let ended = w.push.wait_for("the old subscription's end", |state| {
        state.channels[token].is_none().then_some(())
    });
    ended.await;
}

/// Whether the worker has stored an endpoint, as it does once the server has accepted it.
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
                    resolve(all.result.some(({{ endpoint }}) => endpoint?.endsWith('/{token}')));
                }};
            }};
        }})"
    )
}
