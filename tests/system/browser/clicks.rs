//! Real clicks: the browser passes notifications to a desktop, which reports clicks.

use serde_json::json;

use super::page::logged;
use super::world::World;

pub(crate) async fn a_click_opens_what_the_notification_says(w: &mut World) {
    let order = format!("{}/orders/8", w.site);
    let track = format!("{}/track/8", w.site);
    // Each with a title of its own: the previous one may still be on the desktop.
    let content = |title| {
        json!({
            "title": title,
            "body": "I lead somewhere",
            "url": order,
            "actions": [{"action": "track", "title": "Track", "navigate": track}],
        })
    };
    w.server().notify(&content("Click the button")).await;
    // The browser reacts to clicks only once it is shown.
    logged(w, "Click the button").await;
    let text = w
        .browser
        .click_notification("Click the button", Some("Track"));
    assert!(text.await.ends_with("I lead somewhere"));
    w.wait_for_tab(&track).await;
    assert!(!w.browser.tabs().await.contains(&order));
    // The page receives the click.
    logged(w, "Button track").await;

    w.server().notify(&content("Click the text")).await;
    logged(w, "Click the text").await;
    w.browser.click_notification("Click the text", None).await;
    w.wait_for_tab(&order).await;
    logged(w, &order).await;

    // A click closes the notification.
    w.browser
        .wait_for(
            "navigator.serviceWorker.getRegistration('/web-push/')
                .then((registration) => registration.getNotifications())
                .then((shown) => shown.every(({ title }) => !title.startsWith('Click the')))",
        )
        .await;
}

/// Brings an open page to the front.
pub(crate) async fn a_click_opens_nothing_twice(w: &mut World) {
    let tabs = w.browser.tabs().await.len();
    let page = format!("{}/", w.server().url());
    w.server()
        .notify(&json!({"title": "Come back", "url": page}))
        .await;
    logged(w, "Come back").await;
    w.browser.click_notification("Come back", None).await;
    // By then a page was opened, or brought to the front.
    logged(w, &page).await;
    w.browser
        .wait_for("document.visibilityState === 'visible'")
        .await;
    assert_eq!(w.browser.tabs().await.len(), tabs);
    w.browser.close_other_tabs().await;
}

/// A page is brought to the front for what it shows now, which `history.pushState` may have set.
pub(crate) async fn a_click_goes_by_the_address_that_a_page_shows(w: &mut World) {
    let page = format!("{}/", w.server().url());
    let (first, second) = (format!("{page}?first"), format!("{page}?second"));
    w.browser.open(&first).await;
    w.browser
        .evaluate("history.pushState(null, '', '?second')")
        .await;
    let tabs = w.browser.tabs().await.len();
    let content = |title, url| json!({"title": title, "url": url});
    w.server().notify(&content("To the first", &first)).await;
    logged(w, "To the first").await;
    w.browser.click_notification("To the first", None).await;
    w.wait_for_tab(&first).await;
    w.browser.close_other_tabs().await;

    w.server().notify(&content("To the second", &second)).await;
    logged(w, "To the second").await;
    w.browser.click_notification("To the second", None).await;
    // By then a page was opened, or brought to the front.
    logged(w, &second).await;
    assert_eq!(w.browser.tabs().await.len(), tabs);
    w.browser.open(&page).await;
}
