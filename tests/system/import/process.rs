//! The example as a process, and the rows that it writes.

use std::time::{Duration, SystemTime};

use http::Method;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::examples::world::{TOKEN, World};
use crate::support::http_client::HttpClient;
use crate::support::server_process::{command, finish};

pub(crate) const KEK: &str = "qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k";

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Returns all its output.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

pub(crate) fn imports(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = command("import", settings);
    command.args(arguments);
    command
}

pub(crate) async fn import(arguments: &[&str], settings: &[(&str, &str)]) -> Run {
    let output = finish(imports(arguments, settings)).await;
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Returns every row of every table of the SQLite store, in a fixed order.
pub(crate) fn dump(world: &World) -> Vec<String> {
    let conn = Connection::open(world.folder.path().join("push.db")).unwrap();
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let mut tables = conn.prepare(sql).unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut lines = Vec::new();
    for table in tables {
        let table = table.unwrap();
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                ValueRef::Null => "null".to_owned(),
                ValueRef::Text(text) => format!("{:?}", str::from_utf8(text)),
                value => format!("{value:?}"),
            });
            let values: Vec<_> = values.collect();
            lines.push(format!("{table}: {}", values.join(", ")));
        }
    }
    lines.sort();
    assert!(lines.len() > 2, "{lines:?}");
    lines
}

pub(crate) async fn stats(client: &HttpClient) -> Value {
    let call = client.call(Method::GET, "/web-push/stats").bearer(TOKEN);
    call.send().await.json()
}

pub(crate) async fn wait_for(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it does not come");
}

/// Returns the time this number of minutes ago in UTC, in the format of `strftime`.
pub(crate) fn minutes_ago(minutes: i64, format: &str) -> String {
    let moment = jiff::Timestamp::try_from(SystemTime::now()).unwrap();
    let moment = moment - jiff::SignedDuration::from_mins(minutes);
    moment.strftime(format).to_string()
}

pub(crate) fn millis_from_now(millis: i64) -> i64 {
    jiff::Timestamp::try_from(SystemTime::now())
        .unwrap()
        .as_millisecond()
        + millis
}
