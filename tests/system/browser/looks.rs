//! The look of the page, and its accessibility.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::page::logged;
use super::sending;
use super::world::World;
use crate::support::browser::Look;

/// The rules of axe-core in light, dark and on a phone: the page at a first visit, with everything open, with every
/// warning, and during a confirmation.
pub(crate) async fn the_page_is_accessible(w: &mut World) {
    let Some(axe) = axe() else { return };
    let urls = [w.servers[1].url(), w.server().url()];
    for url in urls {
        w.browser.open(&url).await;
        w.browser.wait_for(SETTLED).await;
        w.browser
            .evaluate(
                "(() => {
                    document.querySelectorAll('details').forEach((details) => { details.open = true; });
                    for (const id of ['no-contact', 'notify-unsubscribed']) document.getElementById(id).hidden = false;
                })()",
            )
            .await;
        w.browser
            .evaluate(&format!("(() => {{ {axe}\n }})()"))
            .await;
        is_accessible(w).await;
    }
    // The operator's card, which was opened last.
    sending::send(w, "A title for everyone", "all").await;
    sending::asked(w).await;
    is_accessible(w).await;
    w.click("confirm-cancel").await;
}

/// Applies the rules of axe, which is loaded into the page.
async fn is_accessible(w: &mut World) {
    for look in Look::ALL {
        look_at(w, look).await;
        let violations = w
            .browser
            .evaluate(
                "axe.run().then(({ violations }) => violations.map(({ id, nodes }) =>
                    `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join('\\n')}`))",
            )
            .await;
        let violations = violations.as_array().unwrap();
        assert!(violations.is_empty(), "{}: {violations:#?}", look.name());
    }
}

/// Screenshots for the README, by Chromium: `WEB_PUSH_SCREENSHOTS=docs/screenshots`.
pub(crate) async fn the_page_gets_screenshots(w: &mut World) {
    let Some(folder) = env::var_os("WEB_PUSH_SCREENSHOTS") else {
        return;
    };
    if w.is_firefox() {
        return;
    }
    let url = w.server().url();
    w.browser.open(&url).await;
    w.browser.wait_for(SETTLED).await;
    let messages = [
        ("Good morning", "Two orders came in overnight."),
        (
            "Your order is on its way",
            "It arrives today between 2 and 4 pm.",
        ),
    ];
    for (title, body) in messages {
        let content = json!({"title": title, "body": body});
        w.server().notify(&content).await;
        logged(w, title).await;
    }
    let [_, (title, body)] = messages;
    sending::write(w, title, body, "all").await;
    // The same picture at each run: no port, no time, no zone of this machine.
    w.browser
        .evaluate(
            "(() => {
                const times = document.querySelectorAll('time');
                times.forEach((time, index) => { time.textContent = index === 0 ? '09:41' : '07:30'; });
                const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
                while (texts.nextNode()) {
                    const { data } = texts.currentNode;
                    const shown = data.replaceAll(location.host, 'push.example.com').replaceAll('http:', 'https:');
                    if (shown !== data) texts.currentNode.data = shown;
                }
            })()",
        )
        .await;
    for look in Look::ALL {
        look_at(w, look).await;
        let picture = w.browser.screenshot().await;
        let file = Path::new(&folder).join(look.name()).with_extension("png");
        fs::write(file, picture).unwrap();
    }
}

async fn look_at(w: &mut World, look: Look) {
    w.browser.set_look(look).await;
    // Without transitions and animations.
    w.browser
        .evaluate(
            "document.getAnimations().forEach((animation) => {
                if (animation.effect.getComputedTiming().endTime !== Infinity) animation.finish();
            })",
        )
        .await;
}

/// The page has the state of its server and of the browser.
const SETTLED: &str = "document.getElementById('server').dataset.state === 'on'
    && document.getElementById('browser-state').dataset.state !== 'unknown'
    && document.getElementById('status').textContent.startsWith('Notifications are')";

/// Returns the text of axe-core, or `None` if it is not installed.
fn axe() -> Option<String> {
    let peers = env::var_os("WEB_PUSH_PEERS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/interop"),
        PathBuf::from,
    );
    let axe = fs::read_to_string(peers.join("node/node_modules/axe-core/axe.min.js")).ok();
    if axe.is_none() {
        assert!(
            env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none_or(|value| value != "1"),
            "axe-core is missing: ./test --install"
        );
        eprintln!("SKIPPED: the page's accessibility: no axe-core: ./test --install");
    }
    axe
}
