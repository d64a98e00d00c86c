//! The progress of a long command: a bar on a terminal, otherwise a line each second.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// In characters.
const WIDTH: u64 = 30;

/// Progress, on standard error.
pub(crate) struct Bar {
    what: &'static str,
    is_terminal: bool,
    began: Instant,
    shown: Option<Instant>,
    /// What was done before this process began.
    before: Option<u64>,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            is_terminal: io::stderr().is_terminal(),
            began: Instant::now(),
            shown: None,
            before: None,
        }
    }

    /// Shows the numbers, unless they were shown just now.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let before = *self.before.get_or_insert(done);
        let pause = match self.is_terminal {
            true => Duration::from_millis(100),
            false => Duration::from_secs(1),
        };
        if self.shown.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let text = line(self.what, done, total, done - before, self.began.elapsed());
        let _ = match self.is_terminal {
            true => {
                let bar = bar(done, total);
                write!(io::stderr(), "\r\x1b[2K[{bar}] {text}")
            }
            false => writeln!(io::stderr(), "{text}"),
        };
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    let full = done.saturating_mul(WIDTH) / total.max(1);
    (0..WIDTH)
        .map(|place| if place < full { '#' } else { '-' })
        .collect()
}

fn line(what: &str, done: u64, total: u64, since: u64, elapsed: Duration) -> String {
    let percent = done.saturating_mul(100) / total.max(1);
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let per_second = since.saturating_mul(1000) / millis.max(1);
    let left = match per_second {
        0 => String::new(),
        _ => format!(", {} s left", total.saturating_sub(done) / per_second),
    };
    format!(
        "{what}: {done}/{total} ({}%), {per_second}/s{left}",
        percent.min(100)
    )
}
