//! `copy`: from one store to another, while servers use both.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use tower_web_push::copy::{Copy, CopyError, CopyErrorKind, CopyReport};

use super::super::causes::with_causes;
use super::super::flags::Flags;
use super::super::secret_setting::secret;
use super::super::store::StoreUrl;
use super::bar::Bar;
use super::stores;

/// Two stores, and where the copy keeps its place.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The source, in the form of STORE_URL
    #[arg(long, value_name = "STORE_URL")]
    from: Option<String>,

    /// A file that holds the source, which may have a password in it
    #[arg(long, value_name = "FILE")]
    from_file: Option<String>,

    /// The target, in the form of STORE_URL
    #[arg(long, value_name = "STORE_URL")]
    to: Option<String>,

    /// A file that holds the target
    #[arg(long, value_name = "FILE")]
    to_file: Option<String>,

    /// Where the copy records what it has done, to continue and to find later what has changed. It has hashes and times, no
    /// secrets. Each pair of stores needs a file of its own
    #[arg(long, value_name = "FILE", default_value = "web-push-copy.journal")]
    journal: PathBuf,
}

const AFTER_HELP: &str = "\
The first run makes two passes: one for everything, and one for what has changed meanwhile. Each later run makes one, and
another one if it continues an interrupted run. To move servers: copy; stop the servers, or the workers and subscriptions go on for some seconds; copy again; start them on the target
with the same KEY_ENCRYPTION_KEY; copy once more if servers used the source until then. A row that is newer in the target stays.

Messages that are pending in the source are not copied: keep a server running on it until it has sent them.

Exit codes: 0 everything is copied; 1 it was interrupted, run it again; 2 it could not begin, or goes on only after what it says \
was done.";

pub(super) async fn run(arguments: Arguments, flags: &Flags) -> ExitCode {
    let copy = match begin(arguments, flags).await {
        Ok(copy) => copy,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    let has_begun = AtomicBool::new(false);
    match passes(&copy, &has_begun).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let kind = error.kind();
            eprintln!("error: {}", with_causes(error));
            match kind {
                CopyErrorKind::Source | CopyErrorKind::Target => {
                    eprintln!("What was copied by then stays. Run it again to continue.");
                    ExitCode::FAILURE
                }
                // Its disk is full, for example. One that is that of another copy is refused at the beginning.
                CopyErrorKind::Journal if has_begun.load(Ordering::Relaxed) => {
                    eprintln!("What was copied by then stays. Run it again to continue.");
                    ExitCode::FAILURE
                }
                _ => ExitCode::from(2),
            }
        }
    }
}

async fn begin(arguments: Arguments, flags: &Flags) -> Result<Copy, String> {
    let parse = |name: &str, url, file| {
        let text = secret(name, url, file).map_err(|why| why.replace("_FILE", "-file"))?;
        let text = text.ok_or_else(|| format!("{name} or {name}-file is needed"))?;
        StoreUrl::parse(&text).map_err(|why| format!("{name}: {why}"))
    };
    let from = parse("--from", arguments.from, arguments.from_file)?;
    let to = parse("--to", arguments.to, arguments.to_file)?;
    if from == to {
        return Err("--from and --to are the same store".to_owned());
    }
    for (name, url) in [("--from", &from), ("--to", &to)] {
        if *url == StoreUrl::Memory {
            return Err(format!("{name}: memory: belongs to one process"));
        }
    }
    let certificates = stores::certificates(flags.extra_root_ca.as_deref())?;
    let from = stores::open("--from", from, false, certificates.as_deref()).await?;
    let keys = from.keys().await;
    if keys
        .map_err(|error| format!("--from: {}", with_causes(error)))?
        .is_empty()
    {
        return Err("--from: the store has no VAPID key: is it the right one?".to_owned());
    }
    let to = stores::open("--to", to, true, certificates.as_deref()).await?;
    Ok(Copy::new(from, to, arguments.journal))
}

async fn passes(copy: &Copy, has_begun: &AtomicBool) -> Result<(), CopyError> {
    let first = pass(copy, "copying", has_begun).await?;
    // One that was continued has not read again what it had read before the interruption.
    if !first.is_first && !first.is_continued {
        tell_the_rest(&first);
        return Ok(());
    }
    let second = pass(copy, "what has changed meanwhile", has_begun).await?;
    tell_the_rest(&second);
    Ok(())
}

/// Makes a pass. Notes that one has begun: that the journal could be opened.
async fn pass(
    copy: &Copy,
    what: &'static str,
    has_begun: &AtomicBool,
) -> Result<CopyReport, CopyError> {
    let mut bar = Bar::new(what);
    let report = copy
        .pass(|report| {
            has_begun.store(true, Ordering::Relaxed);
            bar.show(report.read, report.total);
        })
        .await;
    bar.end();
    let report = report?;
    println!(
        "{what}: {} subscriptions read, {} written, {} deleted; {} daily notifications and {} VAPID keys changed",
        report.read, report.written, report.deleted, report.schedules, report.vapid_keys
    );
    if report.left_out > 0 {
        println!(
            "{} subscriptions were not written: their users have left the target since the last pass",
            report.left_out
        );
    }
    Ok(report)
}

fn tell_the_rest(report: &CopyReport) {
    if let Some(key) = &report.own_active_key {
        println!(
            "The target has an active VAPID key of its own, {key}: pages subscribe with it there. The source's keys send to the \
             others."
        );
    }
    match report.pending {
        0 => println!("Nothing is pending in the source."),
        pending => println!(
            "{pending} messages are pending in the source, which are not copied: keep a server running on it until it has sent \
             them."
        ),
    }
}
