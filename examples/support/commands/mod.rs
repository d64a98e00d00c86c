//! What an operator does with a store beside serving from it.

mod bar;
mod check;
mod copy;
mod files;
mod hidden;
mod stores;

pub(crate) use self::check::Arguments as CheckArguments;
pub(crate) use self::copy::Arguments as CopyArguments;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use self::hidden::Hidden;
use super::flags::Flags;
use super::shutdown::Shutdown;
use super::store::StoreUrl;

/// A command, with its own arguments.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Copies all subscriptions, daily notifications and VAPID keys from one store to another, of any kinds, while servers
    /// use them. Continues where it was interrupted. Run again, it copies what has changed since
    Copy(CopyArguments),

    /// Checks the settings, the store, the clock, the VAPID keys, the endpoint policy and the names of the push services, and
    /// says what is wrong and what to do. Exit code 1 if anything is
    Check(CheckArguments),

    /// Copies the store into a new file that only its owner can read, while servers use it: an SQLite file as it is, another
    /// store as `export` does
    Backup {
        /// The new file
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },

    /// Writes what a backup or an export has into the store of STORE_URL, which has to be empty
    Restore(files::Restore),

    /// Writes all subscriptions, daily notifications and VAPID keys as JSON, an object in each line
    Export(files::Export),

    /// Erases a user (a value of PRINCIPAL_HEADER) from the store: subscriptions, daily notifications and pending messages,
    /// and prints the numbers; servers may be using it
    EraseUser {
        /// The user
        #[arg(value_name = "USER", allow_hyphen_values = true)]
        user: String,
    },

    /// Gives up a VAPID key that is lost for good: the subscriptions that were made with it get no messages until their pages
    /// subscribe again, and no longer count as waiting for the key. Refused if the store has the key
    GiveUpKey {
        /// The key, as the log and GET /stats name it
        #[arg(value_name = "KEY_ID", allow_hyphen_values = true)]
        key: String,
    },
}

/// A command that needs a store, and no other setting.
pub(crate) enum Work {
    Backup(PathBuf),
    Restore(files::Restore),
    Export(files::Export),
}

impl Work {
    /// The files that it may begin.
    fn hidden(&self, store: &StoreUrl) -> Hidden {
        Hidden::of(match (self, store) {
            (Self::Backup(to), _) | (Self::Restore(_), StoreUrl::Sqlite(to)) => Some(to),
            _ => None,
        })
    }
}

/// The exit code after a signal, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs a command to its end, or until a signal. The command is dropped then, which removes the files that it has begun: they
/// have secrets under hidden names.
pub(crate) async fn run(work: Work, store: StoreUrl, extra_root_ca: Option<String>) -> ExitCode {
    let hidden = work.hidden(&store);
    let done = async {
        let certificates = stores::certificates(extra_root_ca.as_deref())?;
        let certificates = certificates.as_deref();
        match work {
            Work::Backup(to) => files::backup(store, &to, certificates).await,
            Work::Restore(arguments) => files::read(&arguments, store, certificates).await,
            Work::Export(arguments) => files::write_export(&arguments, store, certificates).await,
        }
    };
    let signal = match Shutdown::listen() {
        Ok(signal) => signal,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = tokio::select! {
        done = done => Some(done),
        () = signal.begun() => None,
    };
    let Some(done) = done else {
        // What was dropped was removed, but by the threads of SQLite.
        hidden.are_gone().await;
        eprintln!("interrupted");
        return ExitCode::from(INTERRUPTED);
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `copy`.
pub(crate) async fn run_copy(arguments: CopyArguments, flags: &Flags) -> ExitCode {
    copy::run(arguments, flags).await
}

/// Runs `check`.
pub(crate) async fn run_check(arguments: CheckArguments, flags: Flags) -> ExitCode {
    check::run(&arguments, flags).await
}
