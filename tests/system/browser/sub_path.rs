//! The page below a path of a proxy that removes the path, which the server does not know.

use std::fs;

use super::page::newest;
use super::world::World;
use crate::support::servers::{Kind, Server};

/// It loads, subscribes, receives a test and opens by a click, without a request that fails or leaves its path.
pub(crate) async fn the_page_works_below_a_path_of_a_proxy(w: &mut World) {
    let upstream = w.server().url().replace("http://", "");
    let Some(nginx) = Server::start(Kind::Nginx, &[&upstream]).await else {
        return;
    };
    let page = nginx.url();
    // nginx redirects visitors who leave out the slash.
    w.browser.open(page.trim_end_matches('/')).await;
    assert_eq!(w.browser.evaluate("location.href").await, page);
    w.browser
        .wait_for("document.getElementById('server').dataset.state === 'on'")
        .await;

    w.click("enable").await;
    w.click("test").await;
    w.browser
        .wait_for("document.querySelectorAll('#log li').length === 1")
        .await;
    w.browser
        .wait_for("document.getElementById('status').textContent.startsWith('Sent.')")
        .await;

    // A click does not lead to another site of the same host.
    let site = page.replace("/push/", "/");
    w.browser.open(&site).await;
    w.browser
        .click_notification("Test Notification", None)
        .await;
    w.wait_for_tab(&page).await;
    w.browser.close_other_tabs().await;

    w.browser.open(&page).await;
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

    // The console too, whose files are in a folder of their own.
    w.browser.open(&format!("{page}console")).await;
    w.browser
        .wait_for("document.getElementById('server').dataset.state === 'on'")
        .await;
    w.browser
        .wait_for(
            "document.getElementById('views').hidden && !document.getElementById('locked').hidden",
        )
        .await;

    let log = fs::read_to_string(nginx.folder().join("data/access.log")).unwrap();
    // The other site, which the test itself opened.
    let is_other = |line: &str| line.ends_with(" GET /") || line.ends_with(" GET /favicon.ico");
    // nginx logs 499 for a request that the browser has cancelled, for example when a tab is closed while it loads.
    let is_fine = |line: &str| line.starts_with(['2', '3']) || line.starts_with("499 ");
    for line in log.lines().filter(|line| !is_other(line)) {
        let is_ours = line.contains(" /push/") || line.ends_with(" /push");
        assert!(is_ours && is_fine(line), "{line}\n{log}");
    }
    for file in [
        "style.css",
        "console/console.css",
        "console/main.js",
        "web-push/client.js",
        "web-push/service-worker.js",
    ] {
        assert!(log.contains(&format!(" /push/{file}\n")), "{file}\n{log}");
    }
}
