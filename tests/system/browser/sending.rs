//! The console's messages and their recipients: this browser, or many after a confirmation, with seconds to undo.

use super::operator::open_console;
use super::page::{logged, newest};
use super::world::World;

/// If this browser is chosen and not subscribed, the console offers to subscribe it and sends nothing.
pub(crate) async fn the_console_sends_to_no_others_instead_of_this_browser(w: &mut World) {
    open_console(w, "compose").await;
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
    let url = w.server().url();
    w.browser.open(&url).await;
    w.browser
        .wait_for("document.getElementById('credentials-id').textContent.length === 36")
        .await;
    w.click("disable").await;
    w.push
        .wait_for("the browser to unsubscribe", |state| {
            state.channels[&token].is_none().then_some(())
        })
        .await;
    w.browser
        .wait_for("!document.getElementById('enable').hidden")
        .await;
    open_console(w, "compose").await;
    w.browser
        .wait_for("!document.getElementById('notify-unsubscribed').hidden")
        .await;
    w.click("lock").await;
    // Before and after the page is loaded again.
    w.browser
        .wait_for(
            "document.activeElement?.id === 'operator-token' && document.getElementById('views').hidden",
        )
        .await;
}

/// The console shows the number of recipients and the title. It sends only after a confirmation.
pub(crate) async fn the_console_asks_before_it_sends_to_many(w: &mut World) {
    let sent = w.push.look(|state| state.pushes.len());
    send(w, "To everyone", "all").await;
    let question = asked(w).await;
    for part in ["everyone: 1 browser?", "To everyone", "Send to 1 browser"] {
        assert!(question.contains(part), "{question}");
    }
    let focus = "document.activeElement.id";
    assert_eq!(w.browser.evaluate(focus).await, "confirm-no");
    w.click("confirm-no").await;
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
    for part in ["“news”", "0 browsers", "of that time"] {
        assert!(question.contains(part), "{question}");
    }
    w.click("confirm-no").await;
    reset(w).await;
}

/// What was confirmed can be undone for five seconds, and is sent after them.
pub(crate) async fn the_console_undoes_what_is_not_sent_yet(w: &mut World) {
    let sent = w.push.look(|state| state.pushes.len());
    send(w, "Undone", "all").await;
    asked(w).await;
    w.click("confirm-yes").await;
    w.browser
        .wait_for("document.activeElement.id === 'undo-button'")
        .await;
    w.click("undo-button").await;
    w.browser
        .wait_for("document.getElementById('status').textContent === 'Undone: nothing was sent.'")
        .await;
    let hidden = "document.getElementById('undo').hidden";
    assert_eq!(w.browser.evaluate(hidden).await, true);

    send(w, "To everyone", "all").await;
    asked(w).await;
    w.click("confirm-yes").await;
    logged(w, "To everyone").await;
    assert_eq!(w.push.look(|state| state.pushes.len()), sent + 1);
    w.browser.wait_for(hidden).await;
    reset(w).await;
}

/// Empties the form.
async fn reset(w: &mut World) {
    w.browser
        .evaluate("document.querySelector('#notify [type=reset]').click()")
        .await;
    w.browser
        .wait_for("document.querySelector('[name=audience]:checked').value === 'self'")
        .await;
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

/// Returns the console's question, once it is shown.
pub(crate) async fn asked(w: &mut World) -> String {
    let question = w
        .browser
        .wait_for("document.getElementById('confirm').open && document.getElementById('confirm').textContent")
        .await;
    question.as_str().unwrap().to_owned()
}

/// Waits until the console shows why it sent nothing.
async fn refused(w: &mut World, why: &str) {
    w.browser
        .wait_for(&format!(
            "document.getElementById('status').dataset.kind === 'error'
                && document.getElementById('status').textContent.startsWith('{why}')"
        ))
        .await;
}
