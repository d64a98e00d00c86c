//! The progress of a large broadcast: one line that is updated on a terminal, otherwise lines in the log.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tower_web_push::WebPush;
use tower_web_push::broadcast::{BroadcastId, BroadcastState, BroadcastStatus};

/// Broadcasts with fewer recipients are not shown.
const SHOWN_FROM: u64 = 100;
/// The broadcasts of which the largest is shown.
const LISTED: usize = 256;
/// The time between two polls for a broadcast to show.
const PAUSE: Duration = Duration::from_secs(1);
/// The time without a change after which another broadcast is shown.
const STILL_AFTER: Duration = Duration::from_secs(30);
/// The time between two lines in the log.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(crate) async fn show(push: WebPush) {
    let mut still = Still::default();
    loop {
        // The worker logs a store that fails.
        let underway = push.underway(LISTED).await.unwrap_or_default();
        if let Some(largest) = still.largest(&underway) {
            let shown = follow(&push, largest).await;
            still.stands(&shown);
        }
        sleep(PAUSE).await;
    }
}

/// Broadcasts that were shown and made no progress, and what was finished of each then.
#[derive(Default)]
pub(crate) struct Still(HashMap<BroadcastId, u64>);

impl Still {
    /// Notes that one stands still.
    pub(crate) fn stands(&mut self, status: &BroadcastStatus) {
        self.0.insert(status.id, status.counts.finished());
    }

    /// The largest of the broadcasts that make progress, or were not shown yet.
    pub(crate) fn largest<'a>(
        &mut self,
        underway: &'a [BroadcastStatus],
    ) -> Option<&'a BroadcastStatus> {
        self.0
            .retain(|id, _| underway.iter().any(|status| status.id == *id));
        let shown = underway.iter().filter(|status| {
            is_shown(status) && self.0.get(&status.id) != Some(&status.counts.finished())
        });
        shown.max_by_key(|status| status.counts.pending)
    }
}

fn is_shown(status: &BroadcastStatus) -> bool {
    !matches!(
        status.state,
        BroadcastState::Scheduled | BroadcastState::Paused
    ) && status.recipients >= SHOWN_FROM
}

/// Shows one broadcast until it is over, is paused, or makes no progress for a while. Returns it as it was then.
async fn follow(push: &WebPush, broadcast: &BroadcastStatus) -> BroadcastStatus {
    let is_terminal = io::stderr().is_terminal();
    let began = Instant::now();
    let before = broadcast.counts.finished();
    let mut shown: Option<Instant> = None;
    let mut last = broadcast.clone();
    let mut progress = push.progress(broadcast.id);
    while let Ok(Some(Ok(status))) = timeout(STILL_AFTER, progress.next()).await {
        last = status.clone();
        if !status.is_over() && !is_shown(&status) {
            break;
        }
        let line = line(&status, status.counts.finished() - before, began.elapsed());
        if is_terminal {
            // Overwrites the line, which is shorter than a terminal is wide.
            let _ = write!(io::stderr(), "\r\x1b[2K{line}");
        } else if status.is_over() || shown.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            tracing::info!(broadcast = %status.id, "{line}");
            shown = Some(Instant::now());
        }
    }
    if is_terminal {
        let _ = writeln!(io::stderr());
    }
    last
}

fn line(status: &BroadcastStatus, since: u64, elapsed: Duration) -> String {
    let counts = &status.counts;
    let done = counts.finished();
    let failed = done - counts.accepted;
    let percent = done.saturating_mul(100) / status.recipients.max(1);
    let per_second =
        since.saturating_mul(1000) / u64::try_from(elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
    format!(
        "sending {done}/{} ({percent} %), {} accepted, {failed} not, {per_second}/s",
        status.recipients, counts.accepted
    )
}
