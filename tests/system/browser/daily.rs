//! The page's form for daily times.

use serde_json::json;

use super::world::World;
use crate::support::browser::ZONE;

pub(crate) async fn a_daily_time_is_the_visitors_own(w: &mut World) {
    the_form_posts_the_visitors_time(w).await;
    a_server_without_zones_gets_utc(w).await;
    a_test_comes_in_a_minute(w).await;
    a_daily_time_is_stopped(w).await;
}

/// The form's request, and the page's status.
async fn the_form_posts_the_visitors_time(w: &mut World) {
    w.browser
        .evaluate(
            "(() => {
                window.posted = [];
                const real = window.fetch;
                window.fetch = async (to, init) => {
                    const body = init?.body ? JSON.parse(init.body) : {};
                    if (init?.body) window.posted.push(body);
                    const zone = body.notifyTime?.zone ?? 'UTC';
                    if (window.noZones && zone !== 'UTC') {
                        return new Response('{\"code\": \"zones_unsupported\"}', { status: 422 });
                    }
                    return real(to, init);
                };
                document.querySelector('input[value=sun]').checked = false;
                document.getElementById('daily-message').value = 'Good morning';
            })()",
        )
        .await;
    let shown = submit_daily(w, "06:30").await;
    let time = format!("06:30 {ZONE}, mon tue wed thu fri sat");
    assert!(shown.contains(&time), "{shown}");
    let posted = w.browser.evaluate("window.posted.at(-1)").await;
    let days = ["mon", "tue", "wed", "thu", "fri", "sat"];
    let wanted = json!({"hour": 6, "minute": 30, "zone": ZONE, "weekdays": days});
    assert_eq!(posted["notifyTime"], wanted);
    assert_eq!(posted["notifyType"], "DIRECT_NOTIFICATION");
    assert_eq!(posted["message"], "Good morning");
    let listed = listed(w).await;
    assert!(listed.starts_with(&time), "{listed}");
}

/// 04:00 there is 23:30 in UTC, the day before.
async fn a_server_without_zones_gets_utc(w: &mut World) {
    w.browser
        .evaluate("(() => { window.noZones = true; })()")
        .await;
    let shown = submit_daily(w, "04:00").await;
    assert!(
        shown.contains("23:30 UTC, sun mon tue wed thu fri"),
        "{shown}"
    );
    w
        .browser
        .evaluate(
            "(() => { for (const day of document.querySelectorAll('[name=weekdays]')) day.checked = true; })()",
        )
        .await;
    submit_daily(w, "06:00").await;
    let posted = w.browser.evaluate("window.posted.at(-1)").await;
    assert_eq!(
        posted["notifyTime"],
        json!({"utcHour": 1, "minute": 30}),
        "{posted}"
    );
    w.browser
        .evaluate("(() => { window.noZones = false; })()")
        .await;
}

/// Every day is not a list of days, and a type has one time.
async fn a_test_comes_in_a_minute(w: &mut World) {
    w.click("daily-test").await;
    let shown = w
        .browser
        .wait_for(&daily_status("The test is sent at"))
        .await;
    assert!(shown.as_str().unwrap().contains(ZONE), "{shown}");
    let posted = w.browser.evaluate("window.posted.at(-1)").await;
    assert_eq!(posted["notifyTime"]["zone"], ZONE);
    assert_eq!(posted["notifyTime"]["weekdays"], json!(null));
    listed(w).await;
    let entries = w
        .browser
        .evaluate("document.querySelectorAll('#daily-list li').length")
        .await;
    assert_eq!(entries, 1);
}

async fn a_daily_time_is_stopped(w: &mut World) {
    w.browser
        .evaluate("document.querySelector('#daily-list button').click()")
        .await;
    w.browser.wait_for(&daily_status("Stopped")).await;
    w.browser
        .wait_for("!document.getElementById('daily-none').hidden")
        .await;
}

/// Saves a time. Returns the page's status.
async fn submit_daily(w: &mut World, time: &str) -> String {
    w.browser
        .evaluate(&format!(
            "(() => {{
                document.getElementById('status').textContent = '';
                document.getElementById('daily-time').value = '{time}';
                document.getElementById('daily').requestSubmit();
            }})()"
        ))
        .await;
    let shown = w.browser.wait_for(&daily_status("Scheduled")).await;
    shown.as_str().unwrap().to_owned()
}

/// Returns the list's first entry, once there is one.
async fn listed(w: &mut World) -> String {
    let entry = w
        .browser
        .wait_for("document.querySelector('#daily-list li')?.textContent")
        .await;
    entry.as_str().unwrap().to_owned()
}

/// Returns the page's status, once it begins like this or is an error.
fn daily_status(beginning: &str) -> String {
    format!(
        "(() => {{
            const {{ textContent, dataset }} = document.getElementById('status');
            return textContent.startsWith('{beginning}') || dataset.kind === 'error' ? textContent : null;
        }})()"
    )
}
