//! The look of the pages, and their accessibility.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::page::logged;
use super::world::World;
use super::{operator, sending};
use crate::support::browser::Look;

/// The rules of axe-core in light, dark and on a phone: the visitor's page at a first visit, with everything open and with
/// every warning; each view of the console, also locked, during a confirmation and while something can be undone.
pub(crate) async fn the_pages_are_accessible(w: &mut World) {
    let Some(axe) = axe() else { return };
    let urls = [w.servers[1].url(), w.server().url()];
    for url in urls {
        w.browser.open(&url).await;
        w.browser.wait_for(SETTLED).await;
        open_all(w, &axe, &["no-contact"]).await;
        is_accessible(w).await;
    }
    let locked = format!("{}/console", w.servers[1].url());
    w.browser.open(&locked).await;
    open_all(w, &axe, &["no-contact"]).await;
    is_accessible(w).await;

    operator::open_console(w, "overview").await;
    open_all(w, &axe, &["notify-unsubscribed", "keys-backup"]).await;
    for view in VIEWS {
        operator::show(w, view).await;
        w.browser
            .wait_for(&format!(
                "document.getElementById('{view}-as-of').textContent !== ''"
            ))
            .await;
        is_accessible(w).await;
    }
    operator::show(w, "compose").await;
    sending::send(w, "A title for everyone", "all").await;
    sending::asked(w).await;
    is_accessible(w).await;
    w.click("confirm-no").await;
    w.browser
        .evaluate("(() => { document.getElementById('undo').hidden = false; })()")
        .await;
    is_accessible(w).await;
}

const VIEWS: [&str; 6] = [
    "overview",
    "broadcasts",
    "compose",
    "audience",
    "health",
    "keys",
];

/// Opens what is folded, shows these parts, and loads axe into the page.
async fn open_all(w: &mut World, axe: &str, parts: &[&str]) {
    w.browser
        .evaluate(&format!(
            "(() => {{
                document.querySelectorAll('details').forEach((details) => {{ details.open = true; }});
                for (const id of {parts:?}) document.getElementById(id).hidden = false;
            }})()"
        ))
        .await;
    w.browser
        .evaluate(&format!("(() => {{ {axe}\n }})()"))
        .await;
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

/// Screenshots by Chromium: `WEB_PUSH_SCREENSHOTS=FOLDER`. Some of them are in `docs/screenshots`, for the README.
pub(crate) async fn the_pages_get_screenshots(w: &mut World) {
    let Some(folder) = env::var_os("WEB_PUSH_SCREENSHOTS") else {
        return;
    };
    if w.is_firefox() {
        return;
    }
    let folder = Path::new(&folder);
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
    photograph(w, folder, "visitor").await;

    // Not the overview first, whose charts would stay for a minute.
    let keys = format!("{url}/console#keys");
    w.browser.open(&keys).await;
    operator::unlock(w).await;
    // A server with something to show.
    w.browser
        .evaluate(&format!("(() => {{ {} }})()", include_str!("figures.js")))
        .await;
    let [_, (title, body)] = messages;
    sending::write(w, title, body, "all").await;
    for view in VIEWS {
        operator::show(w, view).await;
        w.browser
            .wait_for(&format!("window.isShown('{view}')"))
            .await;
        photograph(w, folder, view).await;
    }
}

async fn photograph(w: &mut World, folder: &Path, name: &str) {
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
        let file = folder.join(format!("{name}-{}.png", look.name()));
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
