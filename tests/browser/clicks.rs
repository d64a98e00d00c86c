//! Real clicks: the browser hands notifications to a desktop, and that says they were clicked.

use serde_json::json;

use super::world::World;

pub(crate) async fn a_click_opens_what_the_notification_says(w: &mut World) {
    let (order, track) = (
        format!("{}/orders/8", w.site),
        format!("{}/track/8", w.site),
    );
    let content = json!({
        "title": "Click me",
        "url": order,
        "actions": [{"action": "track", "title": "Track", "navigate": track}],
    });
    w.server().notify(&content).await;
    w.browser
        .click_notification("Click me", Some("Track"))
        .await;
    w.wait_for_tab(&track).await;
    assert!(!w.browser.tabs().await.contains(&order));

    w.server().notify(&content).await;
    w.browser.click_notification("Click me", None).await;
    w.wait_for_tab(&order).await;
    w.browser.close_other_tabs().await;

    // A click takes the notification away.
    w.browser
        .wait_for(
            "navigator.serviceWorker.getRegistration('/web-push/')
                .then((registration) => registration.getNotifications())
                .then((shown) => shown.every(({ title }) => title !== 'Click me'))",
        )
        .await;
}
