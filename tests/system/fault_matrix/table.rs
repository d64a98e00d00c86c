//! The table of the guide page "When something breaks".

use std::fmt;
use std::time::Duration;

use super::faults::Fault;
use super::world::{Backend, HEALTHY};

const PAGE: &str = include_str!("../../../src/guide/when_something_breaks.md");

/// What a fault did to the healthy subscriptions.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Messages accepted by the server, each for every healthy subscription.
    pub(crate) messages: u64,
    /// Pushes that the push service accepted for them.
    pub(crate) delivered: u64,
    /// Of the messages, how many some subscription did not get.
    pub(crate) lost: u64,
    /// Pushes beyond one for each message.
    pub(crate) twice: u64,
    /// The members of `/ready` that were `false` meanwhile.
    pub(crate) not_ready: Vec<String>,
    /// From the end of the fault, or from the call of a fault that does not end, to the last push.
    pub(crate) took: Duration,
}

/// One fault on one back end.
pub(crate) struct Row {
    fault: &'static str,
    backend: Backend,
    ready: String,
    outcome: String,
    took: Duration,
}

impl Row {
    pub(crate) fn new(fault: &Fault, backend: Backend, seen: &Seen) -> Self {
        let all = seen.messages * HEALTHY as u64;
        let outcome = if (seen.lost, seen.twice) == (0, 0) {
            "all, once".to_owned()
        } else {
            let (delivered, lost, twice) = (seen.delivered, seen.lost, seen.twice);
            format!("{delivered} of {all}, {lost} lost, {twice} twice")
        };
        let ready = match seen.not_ready.as_slice() {
            [] => "200".to_owned(),
            members => format!("503, `{}`", members.join("`, `")),
        };
        Self {
            fault: fault.name,
            backend,
            ready,
            outcome,
            took: seen.took,
        }
    }

    /// Compares it with the table: the fault's line, the column of `/ready` and the column of the back end.
    pub(crate) fn compare_with_the_guide(&self) -> Result<(), String> {
        let cells = lines()
            .find(|cells| cells.first() == Some(&self.fault))
            .ok_or_else(|| format!("the guide has no line for: {self}"))?;
        let place = Backend::ALL.iter().position(|other| *other == self.backend);
        let outcome = place.and_then(|place| cells.get(2 + place).copied());
        let outcome = outcome.map(|cell| cell.split(';').next().unwrap_or_default().trim());
        if cells.get(1) == Some(&self.ready.as_str()) && outcome == Some(self.outcome.as_str()) {
            return Ok(());
        }
        Err(format!("the guide has {cells:?} for: {self}"))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (backend, fault) = (self.backend, self.fault);
        let (ready, outcome) = (&self.ready, &self.outcome);
        let took = self.took.as_secs_f64();
        write!(
            f,
            "{backend:?} | {fault} | {ready} | {outcome}; {took:.1} s"
        )
    }
}

/// The faults that the guide's table names, in its order.
pub(crate) fn faults_of_the_guide() -> Vec<String> {
    lines().map(|cells| cells[0].to_owned()).collect()
}

/// The table's lines below its head, as cells.
fn lines() -> impl Iterator<Item = Vec<&'static str>> {
    PAGE.lines()
        .skip_while(|line| !line.starts_with("| fault |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}
