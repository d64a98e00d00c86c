//! Web Push driven by NATS JetStream.
//!
//! `produce` writes a broadcast as jobs of at most 500 recipients, any number of `work` processes deliver them, and
//! `dead-letters` lists failed jobs. The README describes the behaviour after a failure.

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

/// An error and its causes in one line. The crate's errors contain no secrets.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some libraries include the cause in the message.
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
