//! A server whose clock differs from the database's.

use std::path::PathBuf;

use super::world::World;
use crate::support::server_process::{command, finish};
use crate::support::servers::{Kind, missing};

/// Returns Debian's path of the library, for any architecture.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let library = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    folders.map(library).find(|path| path.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_30_seconds_off_is_refused_at_its_start() {
    let Some(library) = libfaketime() else {
        return missing("libfaketime is not installed");
    };
    for kind in [Kind::Postgres, Kind::Redis] {
        let Some(world) = World::on(kind).await else {
            return;
        };
        // The duration of the database's response is subtracted.
        for (shift, words) in [("+30", "s ahead of"), ("-30", "s behind")] {
            let mut settings = world.settings();
            settings.push(("LD_PRELOAD", library.display().to_string()));
            settings.push(("FAKETIME", shift.to_owned()));
            settings.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
            let settings: Vec<_> = settings
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let output = finish(command("axum_server", &settings)).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{kind:?}, {shift}: {said}");
            let is_said = |secs: u32| said.contains(&format!("{secs} {words}"));
            assert!((20..=30).any(is_said), "{kind:?}, {shift}: {said}");
        }
        // With the right clock it starts.
        let server = world.start("axum_server").await;
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}
