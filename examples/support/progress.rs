//! A line in the log, now and then, while many messages are on their way.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::metrics::Metrics;

/// How often at most.
const PAUSE: Duration = Duration::from_secs(5);
/// Fewer than this in one pause are not worth a line.
const MANY: u64 = 100;

/// Goes on for ever: drop it to end it.
pub(crate) async fn show(metrics: Metrics) {
    let mut pauses = interval(PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = 0;
    loop {
        pauses.tick().await;
        let finished = metrics.total("web_push_finished_total");
        let now = finished - before;
        if now >= MANY {
            tracing::info!(finished, per_second = now / PAUSE.as_secs(), "sending");
        }
        before = finished;
    }
}
