//! The stored rows, octet by octet.

use tokio_postgres::SimpleQueryMessage;
use tower_web_push::store::{DeliveryLedger as _, OutboxRefusal, OutboxSettlement};

use super::world::{Schema, at, client};
use crate::support::stored;

const TABLES: [&str; 18] = [
    "tower_web_push_version",
    "meta",
    "subscription",
    "subscription_tag",
    "vapid_key",
    "broadcast",
    "failure_sample",
    "content",
    "origin",
    "delivery",
    "flow",
    "worker",
    "schedule",
    "subscription_count",
    "outbox",
    "outbox_refused",
    "subscription_number",
    "day_count",
];

#[tokio::test]
async fn what_is_stored_has_the_known_form() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    stored::fill(&store).await;
    schema
        .run(
            "SELECT web_push.enqueue('{\"user\":\"alice\"}', '{\"title\":\"Shipped\",\"ttl\":60}', \
             '{\"id\":\"67e55044-10b1-426f-9247-bb680e5fe0c8\",\"pace\":{\"perSecond\":5}}'), \
             web_push.enqueue('\"all\"', '{\"title\":\"Shipped\",\"topic\":\"a b\"}', \
             '{\"id\":\"a1a2a3a4-b1b2-4c1c-8d1d-d2d3d4d5d6d7\"}')",
        )
        .await;
    let refusal = OutboxRefusal::new("invalid_topic", "what is wrong");
    let refuse = [(2, OutboxSettlement::Refuse(refusal))];
    store.settle_outbox(&refuse, at(9)).await.unwrap();
    let client = client(&schema.url).await;
    let mut lines = Vec::new();
    for table in TABLES {
        // The part of the count depends on the server process.
        let rows = match table {
            "worker" => "SELECT id, dead FROM",
            // Without the times of the server's clock.
            "outbox" => "SELECT seq, id, audience, message, opts FROM",
            "outbox_refused" => {
                "SELECT seq, id, audience, message, opts, code, detail, refused_at FROM"
            }
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
