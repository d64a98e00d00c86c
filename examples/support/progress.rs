//! The progress of a large broadcast: one line that is updated on a terminal, otherwise lines in the log.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tower_web_push::WebPush;
use tower_web_push::broadcast::{BroadcastState, BroadcastStatus};

/// Broadcasts with fewer recipients are not shown.
const SHOWN_FROM: u64 = 100;
/// The broadcasts of which the largest is shown.
const LISTED: usize = 256;
/// The time between two polls for a broadcast to show.
const PAUSE: Duration = Duration::from_secs(1);
/// The time between two lines in the log.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(crate) async fn show(push: WebPush) {
    loop {
        // The worker logs a store that fails.
        let underway = push.underway(LISTED).await.unwrap_or_default();
        let shown = underway.into_iter().filter(is_shown);
        if let Some(largest) = shown.max_by_key(|status| status.counts.pending) {
            follow(&push, &largest).await;
        }
        sleep(PAUSE).await;
    }
}

fn is_shown(status: &BroadcastStatus) -> bool {
    status.state != BroadcastState::Scheduled && status.recipients >= SHOWN_FROM
}

/// Shows one broadcast until it is over.
async fn follow(push: &WebPush, broadcast: &BroadcastStatus) {
    let is_terminal = io::stderr().is_terminal();
    let began = Instant::now();
    let before = broadcast.counts.finished();
    let mut shown: Option<Instant> = None;
    let mut progress = push.progress(broadcast.id);
    while let Some(Ok(status)) = progress.next().await {
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
