//! The page's messages and their recipients: this browser, or many after a confirmation.

use super::operator::unlock;
use super::page::{logged, newest};
use super::world::World;

/// If this browser is chosen and not subscribed, the page offers to subscribe it and sends nothing.
pub(crate) async fn the_page_sends_to_no_others_instead_of_this_browser(w: &mut World) {
    let url = w.server().url();
    w.browser.open(&url).await;
    unlock(w).await;
    let chosen = "document.querySelector('[name=audience]:checked').value";
    assert_eq!(w.browser.evaluate(chosen).await, "self");
    w.browser
        .wait_for("!document.getElementById('notify-unsubscribed').hidden")
        .await;

    w.click("send").await;
    refused(w, "Enter a title.").await;
    write(w, "To this browser", "and no other", "self").await;
    w.click("send").await;
    refused(w, "This browser is not subscribed.").await;
    let focus = "document.activeElement.id";
    assert_eq!(w.browser.evaluate(focus).await, "notify-enable");

    w.click("notify-enable").await;
    w.browser
        .wait_for("document.getElementById('notify-unsubscribed').hidden")
        .await;
    w.click("send").await;
    logged(w, "To this browser").await;

    let token = newest(w);
    w.click("disable").await;
    w.push
        .wait_for("the browser to unsubscribe", |state| {
            state.channels[&token].is_none().then_some(())
        })
        .await;
    w.browser
        .wait_for("!document.getElementById('notify-unsubscribed').hidden")
        .await;
    w.click("operator-lock").await;
}

/// The page shows the number of recipients and the title. It sends only after a confirmation.
pub(crate) async fn the_page_asks_before_it_sends_to_many(w: &mut World) {
    let sent = w.push.look(|state| state.pushes.len());
    send(w, "To everyone", "all").await;
    let question = asked(w).await;
    for part in ["everyone", "about 1 browser", "To everyone"] {
        assert!(question.contains(part), "{question}");
    }
    let focus = "document.activeElement.id";
    assert_eq!(w.browser.evaluate(focus).await, "confirm-cancel");
    w.click("confirm-cancel").await;
    w.browser
        .wait_for("document.getElementById('status').textContent === 'Not sent.'")
        .await;
    assert_eq!(w.browser.evaluate(focus).await, "send");
    assert_eq!(w.push.look(|state| state.pushes.len()), sent);

    // Later broadcasts too.
    write(w, "To a tag, later", "", "tag").await;
    w.browser
        .evaluate(
            "(() => {
                const { audienceTag, sendAt } = document.getElementById('notify').elements;
                audienceTag.value = 'news';
                sendAt.value = `${new Date().getFullYear() + 1}-01-01T08:00`;
                document.getElementById('send').click();
            })()",
        )
        .await;
    let question = asked(w).await;
    for part in ["“news”", "at most 1 browser", "of that time"] {
        assert!(question.contains(part), "{question}");
    }
    w.click("confirm-cancel").await;
    w.browser
        .evaluate("document.querySelector('#notify [type=reset]').click()")
        .await;
    let chosen = "document.querySelector('[name=audience]:checked').value === 'self'";
    w.browser.wait_for(chosen).await;

    send(w, "To everyone", "all").await;
    asked(w).await;
    w.click("confirm-send").await;
    logged(w, "To everyone").await;
    assert_eq!(w.push.look(|state| state.pushes.len()), sent + 1);
    w.browser
        .evaluate("document.querySelector('#notify [type=reset]').click()")
        .await;
    w.browser.wait_for(chosen).await;
}

/// Fills in the form.
pub(crate) async fn write(w: &mut World, title: &str, body: &str, audience: &str) {
    w.browser
        .evaluate(&format!(
            "(() => {{
                const form = document.getElementById('notify');
                form.elements.title.value = '{title}';
                form.elements.body.value = '{body}';
                document.querySelector('[name=audience][value={audience}]').checked = true;
                form.dispatchEvent(new Event('input', {{ bubbles: true }}));
            }})()"
        ))
        .await;
}

/// Fills in the form and clicks its button.
pub(crate) async fn send(w: &mut World, title: &str, audience: &str) {
    write(w, title, "", audience).await;
    // While the button's last action runs, the page ignores other clicks.
    w.browser
        .wait_for("document.getElementById('send').getAttribute('aria-disabled') !== 'true'")
        .await;
    w.browser
        .evaluate(
            "(() => {
                document.getElementById('send').focus();
                document.getElementById('send').click();
            })()",
        )
        .await;
}

/// Returns the page's question, once it is shown.
pub(crate) async fn asked(w: &mut World) -> String {
    let question = w
        .browser
        .wait_for("document.getElementById('confirm').open && document.getElementById('confirm').textContent")
        .await;
    question.as_str().unwrap().to_owned()
}

/// Waits until the page shows why it sent nothing.
async fn refused(w: &mut World, why: &str) {
    w.browser
        .wait_for(&format!(
            "document.getElementById('status').dataset.kind === 'error'
                && document.getElementById('status').textContent.startsWith('{why}')"
        ))
        .await;
    let broadcasts = "document.querySelectorAll('.broadcast').length";
    assert_eq!(w.browser.evaluate(broadcasts).await, 0);
}
