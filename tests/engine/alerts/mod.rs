//! The alert rules of `deploy/prometheus`: for each one the fault that it is about, caused and seen.

mod counting;
mod faults;
#[allow(dead_code, reason = "the example servers use the rest")]
#[path = "../../../examples/support/metrics.rs"]
mod metrics;
#[path = "../../../examples/support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use tower_web_push::WebPush;

use self::metrics::Metrics;
use crate::delivery::world::MINUTE;
use crate::support::alert_rules::{Rule, Scrape, matches, rules};

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");

/// An alert, and the metrics of the test.
struct Alert {
    rule: Rule,
    metrics: Metrics,
}

impl Alert {
    fn new(name: &str, metrics: &Metrics) -> Self {
        let mut rules = rules(RULES).into_iter();
        let rule = rules.find(|rule| rule.name == name);
        Self {
            rule: rule.unwrap_or_else(|| panic!("there is no alert {name}")),
            metrics: metrics.clone(),
        }
    }

    /// Scrapes before the fault. The alert does not fire.
    async fn quiet(&self, push: &WebPush) -> Scrape {
        let scrape = scrape(&self.metrics, push).await;
        assert!(!self.matches(&scrape, &scrape), "{scrape:#?}");
        scrape
    }

    /// Scrapes after the fault. The alert fires.
    async fn fires(&self, before: &Scrape, push: &WebPush) {
        let scrape = scrape(&self.metrics, push).await;
        assert!(self.matches(before, &scrape), "{scrape:#?}");
    }

    fn matches(&self, before: &Scrape, now: &Scrape) -> bool {
        matches(&self.rule.expression, before, now, time())
    }
}

async fn scrape(metrics: &Metrics, push: &WebPush) -> Scrape {
    push.refresh_metrics().await;
    Scrape::parse(&metrics.print())
}

fn time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// One test for each alert, and the list of them. The recorder is that of the thread, which has no other test meanwhile.
macro_rules! alerts {
    ($($fault:ident $alert:literal)*) => {
        const CAUSED: &[&str] = &[$($alert),*];

        $(#[tokio::test(start_paused = true)]
        async fn $fault() {
            let metrics = Metrics::default();
            let _recorder = ::metrics::set_default_local_recorder(&metrics);
            faults::$fault(Alert::new($alert, &metrics)).await;
        })*
    };
}

alerts! {
    no_server_is_scraped "WebPushDown"
    the_store_fails "WebPushStoreDown"
    no_worker_runs "WebPushWorkerMissing"
    a_claim_hangs "WebPushNotClaiming"
    the_clocks_disagree "WebPushClockFault"
    broadcasts_cannot_be_listed "WebPushStepFailing"
    a_message_waits "WebPushMessagesLate"
    messages_are_accepted_late "WebPushDeliverySlow"
    messages_are_too_large "WebPushNotAccepted"
    the_sender_is_refused "WebPushSenderRefused"
    a_push_service_is_down "WebPushPushServiceUnreachable"
    a_push_service_limits_all "WebPushRateLimited"
    everything_is_gone "WebPushPruningSuspended"
    a_key_is_missing "WebPushKeyMissing"
    a_row_is_damaged "WebPushRowsUnreadable"
    a_page_cannot_be_read "WebPushBroadcastParked"
    calls_fail "WebPushStoreErrors"
    the_store_is_full "WebPushStoreFull"
    claims_are_slow "WebPushStoreSlow"
    claimed_rows_are_lost "WebPushLeasesLost"
    the_api_fails "WebPushApiErrors"
    credentials_are_guessed "WebPushLoginsRefused"
    files_are_left_open "WebPushOpenFiles"
}

#[test]
fn every_alert_is_caused() {
    let listed: BTreeSet<_> = rules(RULES).into_iter().map(|rule| rule.name).collect();
    let caused: BTreeSet<_> = CAUSED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(caused.len(), CAUSED.len());
    assert_eq!(listed, caused);
}

#[tokio::test(start_paused = true)]
async fn none_fires_while_all_is_well() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let (world, running) = faults::delivering().await;
    let before = scrape(&metrics, &world.push).await;
    let broadcast = world.enqueue().await;
    let status = world.push.wait_until_over(broadcast, MINUTE).await.unwrap();
    assert!(status.unwrap().is_over());
    let now = scrape(&metrics, &world.push).await;
    assert_eq!(
        now.sum("web_push_attempts_total{outcome=\"accepted\"}"),
        40.0
    );
    assert_eq!(
        now.sum("web_push_finished_total"),
        now.sum("web_push_finished_total{outcome=\"accepted\"}")
    );
    for rule in rules(RULES) {
        assert!(
            !matches(&rule.expression, &before, &now, time()),
            "{rule:?}: {now:#?}"
        );
    }
    running.abort();
}

#[test]
fn the_evaluator_tells_true_from_false() {
    let before = Scrape::parse(
        "# HELP a_total x\n# TYPE a_total counter\na_total{k=\"v\"} 1\na_total{k=\"w\"} 5\n",
    );
    let now = Scrape::parse(
        "# HELP a_total x\n# TYPE a_total counter\na_total{k=\"v\"} 4\na_total{k=\"w\"} 5\na_total{k=\"new\"} 9\n",
    );
    for (expression, expected) in [
        ("increase(a_total[5m]) > 2", true),
        ("increase(a_total[5m]) > 3", false),
        ("increase(a_total{k=\"new\"}[5m]) > 0", false),
        ("sum(increase(a_total{k=~\"v|w\"}[1h])) > 2", true),
        ("sum(increase(a_total{k!~\"v|w\"}[1h])) > 0", false),
        ("1 - sum(a_total{k=\"w\"}) / sum(a_total) > 0.7", true),
        ("1 - sum(a_total{k=\"w\"}) / sum(a_total) > 0.8", false),
        ("time() - a_total{k!=\"new\"} > 95", true),
        ("time() - a_total{k=\"new\"} > 95", false),
        ("absent(a_total)", false),
        ("absent(b_total)", true),
        ("b_total == 0", false),
        ("sum(b_total) / sum(a_total) > 0", false),
    ] {
        assert_eq!(
            matches(expression, &before, &now, 100.0),
            expected,
            "{expression}"
        );
    }
}
