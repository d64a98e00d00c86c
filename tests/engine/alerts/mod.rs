//! The alert rules of `deploy/prometheus`: for each one the fault that it is about, caused and seen.

mod counting;
mod faults;
#[allow(dead_code, reason = "the example servers use the rest")]
#[path = "../../../examples/support/metrics.rs"]
mod metrics;
#[path = "../../../examples/support/process.rs"]
mod process;
mod transcript;

use std::collections::BTreeSet;
use std::future::pending;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use http::{Request, StatusCode};
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_web_push::WebPush;

use self::metrics::Metrics;
use self::transcript::Transcript;
use crate::delivery::world::{FCM, MINUTE, World};
use crate::support::alert_rules::{Rule, Scrape, matches, rules};

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");

/// The seconds between two scrapes.
const STEP: f64 = 15.0;

/// An alert, and the metrics of the test.
struct Alert {
    rule: Rule,
    metrics: Metrics,
    transcript: Transcript,
}

impl Alert {
    fn new(name: &str, metrics: &Metrics, transcript: &Transcript) -> Self {
        let mut rules = rules(RULES).into_iter();
        let rule = rules.find(|rule| rule.name == name);
        Self {
            rule: rule.unwrap_or_else(|| panic!("there is no alert {name}")),
            metrics: metrics.clone(),
            transcript: transcript.clone(),
        }
    }

    /// Scrapes before the fault, twice, with requests between. The alert's expression does not match.
    async fn quiet(&self, push: &WebPush) -> Scrape {
        let before = scrape(&self.metrics, push).await;
        for _ in 0..30 {
            let request = Request::get("/vapid").body(Body::empty()).unwrap();
            let answer = push.service().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
        }
        let now = scrape(&self.metrics, push).await;
        self.transcript.scraped("before", &self.metrics.print());
        let expression = &self.rule.expression;
        assert!(
            !matches(expression, &[(time() - STEP, &before), (time(), &now)]),
            "{now:#?}"
        );
        now
    }

    /// Scrapes after the fault, which lasts. The alert fires.
    async fn fires(&self, before: &Scrape, push: &WebPush) {
        let scrape = scrape(&self.metrics, push).await;
        self.transcript.scraped("during", &self.metrics.print());
        assert!(self.fires_in(before, &scrape), "{scrape:#?}");
    }

    /// Whether it fires if everything stays as after the fault, in both versions of Prometheus.
    fn fires_in(&self, before: &Scrape, after: &Scrape) -> bool {
        let fires = fires(&self.rule, &[before], after);
        let [before_3, after_3] = [before, after].map(Scrape::as_version_3);
        assert_eq!(fires, self::fires(&self.rule, &[&before_3], &after_3));
        fires
    }
}

/// Whether an alert fires in these scrapes and the last one, repeated until everything that waits is over.
fn fires(rule: &Rule, scrapes: &[&Scrape], last: &Scrape) -> bool {
    let mut at = time() - STEP * scrapes.len() as f64;
    let mut history = Vec::new();
    for scrape in scrapes {
        history.push((at, *scrape));
        at += STEP;
    }
    let until = at + rule.pending;
    while at <= until {
        history.push((at, last));
        at += STEP;
    }
    rule.fires(&history)
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
            let (transcript, _log) = Transcript::begin($alert);
            faults::$fault(Alert::new($alert, &metrics, &transcript)).await;
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
    a_message_to_a_strangers_server_waits "WebPushMessagesLateElsewhere"
    messages_are_accepted_late "WebPushDeliverySlow"
    messages_are_too_large "WebPushNotAccepted"
    messages_to_a_strangers_server_fail "WebPushNotAcceptedAnywhere"
    messages_expire_behind_a_limit "WebPushExpiring"
    the_sender_is_refused "WebPushSenderRefused"
    a_push_service_is_down "WebPushPushServiceUnreachable"
    a_push_service_limits_all "WebPushRateLimited"
    everything_is_gone "WebPushPruningSuspended"
    a_key_is_missing "WebPushKeyMissing"
    a_row_is_damaged "WebPushRowsUnreadable"
    a_page_cannot_be_read "WebPushBroadcastParked"
    an_entry_is_refused "WebPushOutboxRefused"
    daily_notifications_are_too_late "WebPushDailySkipped"
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
    let history = [(time() - STEP, &before), (time(), &now)];
    assert_eq!(
        now.sum("web_push_attempts_total{outcome=\"accepted\"}"),
        40.0
    );
    assert_eq!(
        now.sum("web_push_finished_total"),
        now.sum("web_push_finished_total{outcome=\"accepted\"}")
    );
    for rule in rules(RULES) {
        assert!(!matches(&rule.expression, &history), "{rule:?}: {now:#?}");
    }
    running.abort();
}

/// With a poll interval of its own, at whose end nothing is due.
#[tokio::test(start_paused = true)]
async fn none_fires_while_a_worker_that_polls_rarely_has_nothing_to_do() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let interval = 10 * MINUTE;
    let world = World::with(FCM, |builder| builder.poll_interval(interval)).await;
    let running = world.push.run(pending());
    let running = tokio::spawn(async move { running.await.unwrap() });
    sleep(Duration::from_secs(1)).await;
    let before = scrape(&metrics, &world.push).await;
    sleep(interval - Duration::from_secs(2)).await;
    let now = scrape(&metrics, &world.push).await;
    for rule in rules(RULES) {
        assert!(!fires(&rule, &[&before], &now), "{rule:?}: {now:#?}");
    }
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_process_without_a_worker_fires_the_alert_about_it_only() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    let before = scrape(&metrics, &world.push).await;
    world.subscribers(20).await;
    let now = scrape(&metrics, &world.push).await;
    for rule in rules(RULES) {
        assert_eq!(
            fires(&rule, &[&before], &now),
            rule.name == "WebPushWorkerMissing",
            "{rule:?}: {now:#?}"
        );
    }
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
        ("time() - a_total{k=\"new\"} < 92", true),
        ("time() - a_total{k=\"new\"} < 91", false),
        ("absent(a_total)", false),
        ("absent(b_total)", true),
        ("b_total == 0", false),
        ("sum(b_total) / sum(a_total) > 0", false),
        ("sum(a_total) > 1 and sum(a_total{k=\"v\"}) > 3", true),
        ("sum(a_total) > 1 and sum(a_total{k=\"v\"}) > 4", false),
        ("a_total > 3 and on(job) a_total{k=\"w\"} == 5", true),
        ("a_total{k=\"v\"} > 3 and a_total{k=\"w\"} == 5", false),
        ("max_over_time(a_total{k=\"v\"}[5m]) > 3", true),
        ("max_over_time(a_total{k=\"v\"}[5m]) > 4", false),
        ("sum(max by (job) (a_total{k=~\"v|w\"})) > 4", true),
        ("sum(max by (job) (a_total{k=~\"v|w\"})) > 5", false),
        ("sum(max by (job, k) (a_total{k=~\"v|w\"})) > 8", true),
        ("sum(max by (k) (b_total)) > 0", false),
        ("a_total{k=~\"v|v\\\\.0\"} > 3", true),
        ("a_total{k=~\"v\\\\.0|.\\\\.\"} > 3", false),
    ] {
        assert_eq!(
            matches(expression, &[(40.0, &before), (100.0, &now)]),
            expected,
            "{expression}"
        );
    }
}

#[test]
fn an_increase_that_leaves_the_range_before_the_alert_fires_is_missed() {
    let scrape = |value| {
        let text = format!("# HELP a_total x\n# TYPE a_total counter\na_total {value}\n");
        Scrape::parse(&text)
    };
    let (before, now) = (scrape(1), scrape(9));
    let rule = |expression: &str, pending| Rule {
        name: String::new(),
        severity: String::new(),
        expression: expression.to_owned(),
        pending,
    };
    let long = rule("increase(a_total[30m]) > 0", 600.0);
    assert!(fires(&long, &[&before], &now));
    let short = rule("increase(a_total[10m]) > 0", 600.0);
    assert!(!fires(&short, &[&before], &now));
    let repeated = rule("a_total > 1", 60.0);
    let flapping: Vec<_> = (0..20).flat_map(|_| [&before, &now]).collect();
    assert!(!fires(&repeated, &flapping, &before));
    let held = rule("max_over_time(a_total[1m]) > 1", 60.0);
    assert!(fires(&held, &flapping, &before));
}
