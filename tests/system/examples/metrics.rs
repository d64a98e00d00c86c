//! `/metrics`: complete, bounded, and there when the store is not.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::world::{TOKEN, World, next, notify, subscription};
use crate::support::alert_rules::{Scrape, names, rules};
use crate::support::http_client::HttpClient;

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/web-push.json");
/// Generous: a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn metrics(client: &HttpClient) -> String {
    let call = client.call(Method::GET, "/metrics").bearer(TOKEN);
    let answer = call.send().await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.text().to_owned()
}

pub(crate) async fn metrics_are_read_with_get_and_head_only(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    let call = |method| client.call(method, "/metrics").bearer(TOKEN).send();
    let head = call(Method::HEAD).await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.text(), "");
    for method in [Method::POST, Method::DELETE] {
        let refused = call(method).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.header("allow"), "GET, HEAD");
    }
    let strange = client.call(Method::HEAD, "/metrics").send().await;
    assert_eq!(strange.status, StatusCode::UNAUTHORIZED);
}

pub(crate) async fn every_name_of_the_rules_and_the_dashboard_is_exported(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    // One message is accepted, and one subscription is gone: then each metric has a sample.
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    assert_eq!(
        client.post("/web-push/subscribe", &body).await.status,
        StatusCode::OK
    );
    notify(&client, "/web-push/notify", &json!({"title": "Accepted"})).await;
    next(&browser).await;
    browser.unsubscribe();
    notify(&client, "/web-push/notify", &json!({"title": "Gone"})).await;
    let is_gone = async {
        loop {
            let text = metrics(&client).await;
            if sampled(&text).contains("web_push_retired_total") {
                return text;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    // Not before a minute, as its keys are new.
    let text = timeout(3 * LIMIT, is_gone)
        .await
        .expect("it is never retired");
    let exported = sampled(&text);
    let expressions: Vec<_> = rules(RULES)
        .into_iter()
        .map(|rule| rule.expression)
        .collect();
    let wanted = names(&expressions.join(" "));
    assert!(wanted.len() > 15, "{wanted:?}");
    assert!(
        wanted.is_subset(&exported),
        "{:?}",
        wanted.difference(&exported)
    );
    let wanted = names(&expressions_of(DASHBOARD).join(" "));
    assert!(wanted.len() > 30, "{wanted:?}");
    assert!(
        wanted.is_subset(&exported),
        "{:?}",
        wanted.difference(&exported)
    );
    // Nothing is measured that no panel shows, but for what the rules need.
    let shown: BTreeSet<_> = wanted
        .union(&names(&expressions.join(" ")))
        .cloned()
        .collect();
    let ours: BTreeSet<_> = exported
        .into_iter()
        .filter(|name| name.starts_with("web_push_"))
        .collect();
    assert!(ours.is_subset(&shown), "{:?}", ours.difference(&shown));
}

/// The metrics that have a sample.
fn sampled(text: &str) -> BTreeSet<String> {
    let histograms: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
        .collect();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    let metric = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let of = parts.iter().find_map(|part| name.strip_suffix(part));
        of.filter(|of| histograms.contains(of))
            .unwrap_or(name)
            .to_owned()
    };
    names.filter(|name| !name.is_empty()).map(metric).collect()
}

/// The expressions of all panels. Each panel has a title, a place of its own, and one of the two types.
fn expressions_of(dashboard: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "two panels in one place: {panel}");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()));
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let opened = expression.matches(['(', '{', '[']).count();
            assert_eq!(
                opened,
                expression.matches([')', '}', ']']).count(),
                "{expression}"
            );
            assert!(
                expression.contains("instance=~\"$instance\""),
                "{expression}"
            );
            expressions.push(expression.to_owned());
        }
    }
    expressions
}

pub(crate) async fn the_metrics_tell_what_happened_and_name_no_one(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let endpoint = body["endpoint"].as_str().unwrap().to_owned();
    assert_eq!(
        client.post("/web-push/subscribe", &body).await.status,
        StatusCode::OK
    );
    notify(&client, "/web-push/notify", &json!({"title": "Counted"})).await;
    next(&browser).await;
    let told = async {
        loop {
            let text = metrics(&client).await;
            let scrape = Scrape::parse(&text);
            if scrape.sum("web_push_finished_total{outcome=\"accepted\"}") == 1.0 {
                return (scrape, text);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (scrape, text) = timeout(LIMIT, told).await.expect("never");
    for (selector, expected) in [
        (
            "web_push_attempts_total{push_service=\"other\",outcome=\"accepted\"}",
            1.0,
        ),
        (
            "web_push_responses_total{push_service=\"other\",status=\"2xx\"}",
            1.0,
        ),
        (
            "web_push_attempt_duration_seconds_count{outcome=\"accepted\"}",
            1.0,
        ),
        ("web_push_delivery_duration_seconds_count", 1.0),
        (
            "web_push_delivery_duration_seconds_bucket{le=\"+Inf\"}",
            1.0,
        ),
        (
            "web_push_delivery_duration_seconds_bucket{le=\"3600\"}",
            1.0,
        ),
        (
            "web_push_api_requests_total{route=\"subscribe\",status=\"200\"}",
            1.0,
        ),
        (
            "web_push_api_request_duration_seconds_count{route=\"notify\"}",
            1.0,
        ),
        ("web_push_store_up", 1.0),
        ("web_push_worker_running", 1.0),
        ("web_push_clock_fault", 0.0),
        ("web_push_subscriptions{state=\"live\"}", 1.0),
        ("web_push_live_subscriptions{push_service=\"other\"}", 1.0),
        ("web_push_store_errors_total", 0.0),
        ("web_push_build_info", 1.0),
    ] {
        assert_eq!(scrape.sum(selector), expected, "{selector}: {text}");
    }
    for selector in [
        "web_push_store_call_duration_seconds_count{operation=\"claim\"}",
        "web_push_store_call_duration_seconds_count{operation=\"settle\"}",
        "web_push_last_claim_timestamp_seconds",
        "web_push_requests_limit{push_service=\"other\"}",
        "process_start_time_seconds",
    ] {
        assert!(scrape.sum(selector) > 0.0, "{selector}: {text}");
    }
    if cfg!(target_os = "linux") {
        let memory = scrape.sum("process_resident_memory_bytes");
        assert!((1e6..1e10).contains(&memory), "{memory}");
        let (open, most) = (
            scrape.sum("process_open_fds"),
            scrape.sum("process_max_fds"),
        );
        assert!(open > 3.0 && open < most, "{open} of {most}");
    }
    let (_, host) = endpoint.split_once("://").unwrap();
    let host = host.split('/').next().unwrap();
    assert!(!text.contains(host), "{host} is a label: {text}");
}

pub(crate) async fn the_metrics_answer_while_the_store_is_down(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let is = async |selector: &str, expected: f64| {
        let is_so = async {
            while Scrape::parse(&metrics(&client).await).sum(selector) != expected {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(LIMIT, is_so).await;
        waited.unwrap_or_else(|_| panic!("never: {selector} {expected}"));
    };
    is("web_push_store_up", 1.0).await;
    fs::remove_file(world.folder.path().join("push.db")).unwrap();
    is("web_push_store_up", 0.0).await;
    is("web_push_step_failing{step=\"record\"}", 1.0).await;
    server.kill().await;
}
