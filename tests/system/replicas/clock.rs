//! A server whose clock is not the database's.

use std::fs;
use std::path::PathBuf;

use http::StatusCode;

use super::world::{World, until};
use crate::support::server_process::{command, finish};
use crate::support::servers::{Kind, missing};

/// Where Debian has it, whatever the architecture.
fn libfaketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let library = |folder: fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    folders.map(library).find(|path| path.is_file())
}

/// A clock of one server that runs away for a while expires and fires nothing, on a database and on SQLite.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_while_a_server_runs_expires_nothing() {
    let Some(library) = libfaketime() else {
        return missing("libfaketime is not installed");
    };
    for kind in [Some(Kind::Postgres), Some(Kind::Redis), None] {
        let folder = tempfile::tempdir().unwrap();
        let offset = folder.path().join("offset");
        fs::write(&offset, "+0s").unwrap();
        let sqlite = format!("sqlite://{}", folder.path().join("push.db").display());
        // The push service of a world is on a database; without one nothing is sent.
        let Some(world) = World::on(kind.unwrap_or(Kind::Redis)).await else {
            return;
        };
        let mut settings = world.settings();
        if kind.is_none() {
            settings.retain(|(name, _)| *name != "STORE_URL");
            settings.push(("STORE_URL", sqlite));
        }
        settings.extend([
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]);
        let server = world.start_with("axum_server", &settings).await;
        until("it is ready", async || {
            server.ready().await == StatusCode::OK
        })
        .await;
        let later = world.scheduled(&server).await;

        for jump in ["+3d", "-3d"] {
            fs::write(&offset, jump).unwrap();
            until("it is not ready", async || {
                let ready = server.get("/web-push/ready").await;
                ready.status == StatusCode::SERVICE_UNAVAILABLE && ready.json()["clock"] == false
            })
            .await;
            until("the worker says so", async || {
                let printed = server.process.printed();
                printed.matches("clocks disagree").count() > printed.matches("clocks agree").count()
            })
            .await;
            fs::write(&offset, "+0s").unwrap();
            until("it is ready again", async || {
                server.ready().await == StatusCode::OK
            })
            .await;
            let status = server.get(&later).await.json();
            assert_eq!(status["state"], "scheduled", "{kind:?} {jump}: {status}");
            assert_eq!(status["counts"]["expired"], 0, "{kind:?} {jump}: {status}");
        }
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
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
        // How long the database took to answer is taken off.
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
        // By the right clock it starts.
        let server = world.start("axum_server").await;
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}
