//! A real Firefox and a real Chromium subscribe, receive messages, and show them. Nothing leaves the machine.
//!
//! A missing browser is skipped with a message; with `WEB_PUSH_REQUIRE_PEERS=1` that is a failure.
//! `WEB_PUSH_SCREENSHOTS=FOLDER` writes pictures of the pages into the folder.

mod clicks;
mod daily;
mod lists;
mod looks;
mod offline;
mod operator;
mod page;
mod payloads;
mod renewal;
mod sending;
mod site;
mod sub_path;
mod world;

use std::env;

use crate::support::autopush::Autopush;
use crate::support::browser::Browser;
use crate::support::chromium::{self, Chromium};
use crate::support::firefox::{self, Firefox};
use crate::support::gcm::Gcm;
use crate::support::proxy_recorder::ProxyRecorder;
use crate::support::push_service::PushService;
use world::World;

/// Firefox, mostly with the axum server.
#[tokio::test]
async fn a_real_firefox_shows_messages_follows_changes_and_contacts_no_other_host() {
    let Some(program) = firefox::find() else {
        return skip("Firefox", "firefox-esr", "FIREFOX");
    };
    let (push, outside) = (PushService::start().await, ProxyRecorder::start().await);
    let autopush = Autopush::start(push.clone()).await;
    let firefox = Firefox::start(program, &autopush.server_url(), outside.port()).await;
    let browser = Browser::Firefox(Box::new(firefox));
    everything(World::new(browser, push, outside, ["axum_server", "hyper_server"]).await).await;
}

/// Chromium, mostly with the hyper server.
#[tokio::test]
async fn a_real_chromium_shows_messages_follows_changes_and_contacts_no_other_host() {
    let Some(program) = chromium::find() else {
        return skip("Chromium", "chromium", "CHROMIUM");
    };
    let (push, outside) = (PushService::start().await, ProxyRecorder::start().await);
    let gcm = Gcm::start(push.clone()).await;
    let chromium = Chromium::start(program, &push, &gcm, outside.port()).await;
    let browser = Browser::Chromium(Box::new(chromium));
    everything(World::new(browser, push, outside, ["hyper_server", "axum_server"]).await).await;
}

fn skip(what: &str, package: &str, variable: &str) {
    assert!(
        env::var_os("WEB_PUSH_REQUIRE_PEERS").is_none_or(|value| value != "1"),
        "{what} is missing"
    );
    eprintln!("SKIPPED: no {what}; install {package}, or set {variable}");
}

/// All cases, one after the other: starting a browser takes most of the time.
async fn everything(mut world: World) {
    let w = &mut world;
    page::it_subscribes_is_notified_and_leaves_on_either_server(w).await;
    sub_path::the_page_works_below_a_path_of_a_proxy(w).await;
    sending::the_console_sends_to_no_others_instead_of_this_browser(w).await;

    w.open_site().await;
    payloads::octets_arrive_as_they_were_sent(w).await;
    payloads::what_was_changed_on_the_way_is_no_message(w).await;
    payloads::a_burst_arrives_whole_and_once(w).await;
    payloads::eight_subscriptions_each_get_their_own(w).await;
    payloads::who_left_without_a_word_is_gone(w).await;

    page::it_subscribes(w).await;
    page::a_notification_shows_every_field(w).await;
    clicks::a_click_opens_what_the_notification_says(w).await;
    clicks::a_click_opens_nothing_twice(w).await;
    clicks::a_click_goes_by_the_address_that_a_page_shows(w).await;
    page::a_scheduled_notification_comes_at_its_time(w).await;
    operator::the_console_sends_to_this_browser(w).await;
    sending::the_console_asks_before_it_sends_to_many(w).await;
    sending::the_console_undoes_what_is_not_sent_yet(w).await;
    operator::the_console_sends_a_document_as_it_is_typed(w).await;
    lists::the_console_lists_broadcasts_and_cancels_one(w).await;
    lists::the_console_finds_and_deletes_a_subscription(w).await;
    operator::every_view_of_the_console_shows_what_the_server_has(w).await;
    operator::another_visit_restores_the_state(w).await;
    daily::a_daily_time_is_the_visitors_own(w).await;
    renewal::a_new_key_is_followed_at_the_next_visit(w).await;
    renewal::a_lost_subscription_is_replaced_unasked(w).await;
    looks::the_pages_are_accessible(w).await;
    looks::the_pages_get_screenshots(w).await;

    offline::what_waits_is_what_was_allowed_to(w).await;
    world.close().await;
}
