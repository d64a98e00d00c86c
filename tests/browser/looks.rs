//! What the page looks like, to people and to those who use it otherwise.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::support::browser::Look;
use super::world::World;

/// The rules of axe-core, in light and dark and on a phone, without any violation.
pub(crate) async fn the_page_is_accessible_and_has_its_picture_taken(w: &mut World) {
    let url = w.server().url();
    w.browser.open(&url).await;
    let axe = axe();
    if let Some(axe) = &axe {
        w.browser
            .evaluate(&format!("(() => {{ {axe}\n }})()"))
            .await;
    }
    for look in Look::ALL {
        w.browser.set_look(look).await;
        // Colours change by and by.
        w.browser
            .evaluate(
                "document.getAnimations().forEach((animation) => {
                    if (animation instanceof CSSTransition) animation.finish();
                })",
            )
            .await;
        if axe.is_some() {
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
        if let Some(folder) = env::var_os("WEB_PUSH_SCREENSHOTS")
            && !w.is_firefox()
        {
            let picture = w.browser.screenshot().await;
            fs::write(
                Path::new(&folder).join(look.name()).with_extension("png"),
                picture,
            )
            .unwrap();
        }
    }
}

/// Its text; `None` if it is not installed.
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
