//! Real clicks: the browser hands notifications to a desktop, and that says they were clicked.

use serde_json::json;

use super::page::logged;
use super::world::World;

pub(crate) async fn a_click_opens_what_the_notification_says(w: &mut World) {
    let order = format!("{}/orders/8", w.site);
    let track = format!("{}/track/8", w.site);
    // Each under a title of its own: the last one's may still be on the desktop.
    let content = |title| {
        json!({
            "title": title,
            "body": "I lead somewhere",
            "url": order,
            "actions": [{"action": "track", "title": "Track", "navigate": track}],
        })
    };
    w.server().notify(&content("Click the button")).await;
    // Shown for good: from here on the browser knows what a click on it means.
    logged(w, "Click the button").await;
    let text = w
        .browser
        .click_notification("Click the button", Some("Track"));
    assert!(text.await.ends_with("I lead somewhere"));
    w.wait_for_tab(&track).await;
    assert!(!w.browser.tabs().await.contains(&order));
    // The page is told.
    logged(w, "Button track").await;

    w.server().notify(&content("Click the text")).await;
    logged(w, "Click the text").await;
    w.browser.click_notification("Click the text", None).await;
    w.wait_for_tab(&order).await;
    logged(w, &order).await;

    // A click takes the notification away.
    w.browser
        .wait_for(
            "navigator.serviceWorker.getRegistration('/web-push/')
                .then((registration) => registration.getNotifications())
                .then((shown) => shown.every(({ title }) => !title.startsWith('Click the')))",
        )
        .await;
}

/// What is open already comes to the front.
pub(crate) async fn a_click_opens_nothing_twice(w: &mut World) {
    let tabs = w.browser.tabs().await.len();
    let page = format!("{}/", w.server().url());
    w.server()
        .notify(&json!({"title": "Come back", "url": page}))
        .await;
    logged(w, "Come back").await;
    w.browser.click_notification("Come back", None).await;
    // By then it has been opened, or brought to the front.
    logged(w, &page).await;
    w.browser
        .wait_for("document.visibilityState === 'visible'")
        .await;
    assert_eq!(w.browser.tabs().await.len(), tabs);
    w.browser.close_other_tabs().await;
}
