//! The stored rows, octet by octet.

use tokio_postgres::SimpleQueryMessage;

use super::world::{Schema, client};
use crate::support::stored;

const TABLES: [&str; 14] = [
    "tower_web_push_version",
    "meta",
    "subscription",
    "subscription_tag",
    "vapid_key",
    "broadcast",
    "content",
    "origin",
    "delivery",
    "flow",
    "worker",
    "schedule",
    "subscription_count",
    "subscription_number",
];

#[tokio::test]
async fn what_is_stored_has_the_known_form() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    stored::fill(&schema.store().await).await;
    let client = client(&schema.url).await;
    let mut lines = Vec::new();
    for table in TABLES {
        // The part of the count depends on the server process.
        let rows = match table {
            "worker" => "SELECT id, dead FROM",
            "subscription_count" => "SELECT sum(number) AS number, sum(unproven) AS unproven FROM",
            _ => "SELECT * FROM",
        };
        let sql = format!(
            "SELECT json_strip_nulls(row_to_json(r))::text FROM ({rows} {}.{table}) AS r ORDER BY 1",
            schema.name
        );
        for row in client.simple_query(&sql).await.unwrap() {
            if let SimpleQueryMessage::Row(row) = row {
                lines.push(format!("{table} {}", row.get(0).unwrap()));
            }
        }
    }
    stored::is(&lines, include_str!("../stored/postgres.txt"));
}
