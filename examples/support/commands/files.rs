//! `backup`, `restore` and `export`: a store as a file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::TempDir;
use tower_web_push::copy::{
    Copy, CopyErrorKind, ExportReport, RestoreInto, Secrets, export, restore,
};
use tower_web_push::store::SqliteStore;

use super::super::causes::with_causes;
use super::super::store::StoreUrl;
use super::bar::Bar;
use super::stores;
use part::Part;

#[path = "../../../src/store/sqlite/part.rs"]
mod part;

/// A file to restore.
#[derive(Args)]
pub(crate) struct Restore {
    /// A backup or an export, of a store of any kind
    #[arg(value_name = "FILE")]
    from: PathBuf,

    /// Restores into a store that is not empty: what is newer there stays
    #[arg(long)]
    into_others: bool,
}

/// A file to write.
#[derive(Args)]
pub(crate) struct Export {
    /// The new file, which only its owner can read; `-` for standard output
    #[arg(value_name = "FILE")]
    to: PathBuf,

    /// Leaves out endpoints, keys and everything else with which messages can be sent. Such a file cannot be restored. It has
    /// the ids of the subscriptions, and an id is enough to unsubscribe
    #[arg(long)]
    without_secrets: bool,
}

/// Copies an SQLite file as it is, and exports another store.
pub(super) async fn backup(
    store: StoreUrl,
    to: &Path,
    certificates: Option<&[u8]>,
) -> Result<(), String> {
    if let StoreUrl::Sqlite(from) = store {
        if to.as_os_str() == "-" {
            return Err(
                "an SQLite file is not copied to standard output: name a file, or use `export -`"
                    .to_owned(),
            );
        }
        let copied = SqliteStore::backup(&from, to).await;
        copied.map_err(with_causes)?;
        println!("{} is a backup of {}", to.display(), from.display());
        return Ok(());
    }
    let arguments = Export {
        to: to.to_owned(),
        without_secrets: false,
    };
    write_export(&arguments, store, certificates).await?;
    // Standard output may be the file.
    eprintln!(
        "It has no pending messages: pg_dump, or a copy of Redis' RDB or AOF file, has them too."
    );
    Ok(())
}

pub(super) async fn write_export(
    arguments: &Export,
    store: StoreUrl,
    certificates: Option<&[u8]>,
) -> Result<(), String> {
    if store == StoreUrl::Memory {
        return Err("STORE_URL: memory: belongs to one process".to_owned());
    }
    let store = stores::open("STORE_URL", store, false, certificates).await?;
    let now = tower_web_push::clock::Timestamp::from(std::time::SystemTime::now());
    let total = stores::count(&*store, now).await.map_err(with_causes)?;
    let secrets = match arguments.without_secrets {
        true => Secrets::LeftOut,
        false => Secrets::Included,
    };
    let mut bar = Bar::new("exporting");
    let progress = |report: &ExportReport| bar.show(report.subscriptions, total);
    let to = &arguments.to;
    let report = if to.as_os_str() == "-" {
        let mut out = BufWriter::new(io::stdout());
        export(store, &mut out, secrets, progress).await
    } else {
        let about = |error: io::Error| format!("{}: {error}", to.display());
        let part = Part::create(to).map_err(about)?;
        let mut out = BufWriter::new(&part.file);
        let report = export(store, &mut out, secrets, progress).await;
        drop(out);
        if report.is_ok() {
            part.finish(to).map_err(about)?;
        }
        report
    };
    bar.end();
    let report = report.map_err(with_causes)?;
    eprintln!("written: {}", numbers(&report));
    Ok(())
}

pub(super) async fn read(
    arguments: &Restore,
    store: StoreUrl,
    certificates: Option<&[u8]>,
) -> Result<(), String> {
    let from = &arguments.from;
    let about = |error: io::Error| format!("{}: {error}", from.display());
    if store == StoreUrl::Memory {
        return Err("STORE_URL: memory: belongs to one process".to_owned());
    }
    let mut file = File::open(from).map_err(about)?;
    let mut magic = [0; 16];
    let is_sqlite = file.read_exact(&mut magic).is_ok() && magic == *b"SQLite format 3\0";
    if is_sqlite {
        return read_sqlite(arguments, store, certificates).await;
    }
    let file = File::open(from).map_err(about)?;
    let total = file.metadata().map_err(about)?.len();
    let store = stores::open("STORE_URL", store, true, certificates).await?;
    let mut bar = Bar::new("restoring");
    // About 700 octets for each subscription.
    let progress = |report: &ExportReport| bar.show(report.subscriptions, total / 700);
    let mut lines = BufReader::new(file);
    let into = match arguments.into_others {
        true => RestoreInto::Existing,
        false => RestoreInto::Empty,
    };
    let report = restore(store, &mut lines, into, progress).await;
    bar.end();
    let report = report.map_err(|error| match error.kind() {
        CopyErrorKind::NotEmpty => not_empty(),
        CopyErrorKind::File => format!("{}: {}", from.display(), with_causes(error)),
        _ => with_causes(error),
    })?;
    println!("restored: {}", numbers(&report));
    Ok(())
}

/// A backup of an SQLite file becomes the file, or is copied into another store.
async fn read_sqlite(
    arguments: &Restore,
    store: StoreUrl,
    certificates: Option<&[u8]>,
) -> Result<(), String> {
    let from = &arguments.from;
    if let StoreUrl::Sqlite(to) = &store
        && !to.exists()
    {
        let copied = SqliteStore::backup(from, to).await;
        copied.map_err(with_causes)?;
        println!("restored: {} is {} as it was", to.display(), from.display());
        return Ok(());
    }
    // The backup itself is not opened: that would change it.
    let folder = private_folder(from, &store).map_err(|error| error.to_string())?;
    let copy = folder.path().join("backup.db");
    let copied = SqliteStore::backup(from, &copy).await;
    copied.map_err(with_causes)?;
    let from = stores::open("FILE", StoreUrl::Sqlite(copy), false, None).await?;
    let to = stores::open("STORE_URL", store, true, certificates).await?;
    let now = tower_web_push::clock::Timestamp::from(std::time::SystemTime::now());
    let rows = stores::count(&*to, now).await.map_err(with_causes)?;
    let keys = to.keys().await.map_err(with_causes)?;
    if !arguments.into_others && (rows > 0 || !keys.is_empty()) {
        return Err(not_empty());
    }
    let copy = Copy::new(from, to, folder.path().join("journal"));
    let mut bar = Bar::new("restoring");
    let report = copy
        .pass(|report| bar.show(report.read, report.total))
        .await;
    bar.end();
    let report = report.map_err(with_causes)?;
    println!(
        "restored: {} subscriptions, {} VAPID keys, {} daily notifications",
        report.written, report.vapid_keys, report.schedules
    );
    if report.pending > 0 {
        println!(
            "{} pending messages of the backup are not restored into another store.",
            report.pending
        );
    }
    Ok(())
}

/// A folder that only its owner can enter, for a copy of a file with secrets: beside a file that is as secret. The folder for
/// temporary files may be missing, as in a container whose file system is read-only.
fn private_folder(from: &Path, to: &StoreUrl) -> io::Result<TempDir> {
    let target = match to {
        StoreUrl::Sqlite(to) => Some(to.as_path()),
        _ => None,
    };
    for beside in target.into_iter().chain([from]) {
        let beside = std::path::absolute(beside)?;
        if let Some(folder) = beside.parent()
            && let Ok(made) = private().prefix(".web-push-restore.").tempdir_in(folder)
        {
            return Ok(made);
        }
    }
    private().tempdir()
}

/// What makes folders that only their owner can enter.
fn private<'a, 'b>() -> tempfile::Builder<'a, 'b> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder
}

fn not_empty() -> String {
    "STORE_URL: the store is not empty; with --into-others the file is restored all the same, and what is newer stays"
        .to_owned()
}

fn numbers(report: &ExportReport) -> String {
    format!(
        "{} subscriptions, {} VAPID keys, {} daily notifications",
        report.subscriptions, report.vapid_keys, report.schedules
    )
}
