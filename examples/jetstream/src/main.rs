//! Web Push driven by NATS JetStream.
//!
//! `produce` writes a broadcast as jobs of at most 500 recipients, any number of `work` processes deliver them, and
//! `dead-letters` shows what could not be worked on. The README says how it behaves when something breaks.

mod attempt;
mod dead_letters;
mod flags;
mod job;
mod left;
mod produce;
mod shutdown;
mod store;
mod streams;
mod work;

use std::error::Error as StdError;
use std::process::ExitCode;

use clap::Parser as _;

use flags::{Command, Flags};

pub(crate) type Error = Box<dyn StdError + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let result = match flags.command {
        Command::Produce(produce) => produce::produce(&flags.places, produce).await,
        Command::Work(work) => work::work(&flags.places, work).await,
        Command::DeadLetters(letters) => dead_letters::dead_letters(&flags.places, letters).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error and what caused it, in one line. None of the crate's errors has a secret in it.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some libraries name their cause themselves.
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
