//! Of PostgreSQL: the rows of a schema are put back for each case.

use proptest::test_runner::TestCaseError;
use tokio_postgres::Client;
use tower_web_push::store::PostgresStore;

use super::calls::{Reads, reads};
use super::{Damage, Done, OF_EVERY_CLAIM, Part, Value, check, examine, numbers, runtime};
use crate::postgres::world::{Schema, client};
use crate::support::stored;

/// Not content: the version of the tables, and the signs of life of the store that the cases use.
const LEFT_ALONE: &str = "('tower_web_push_version', 'worker')";

struct World {
    schema: Schema,
    store: PostgresStore,
    client: Client,
    tables: Vec<String>,
    before: Reads,
}

pub(super) fn run(cases: u32) {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let runtime = runtime();
    let world = runtime.block_on(World::new(schema));
    check(cases, |damages| runtime.block_on(world.case(&damages)));
    runtime.block_on(async {
        for damage in world.every_number().await {
            world.case(&[damage]).await.unwrap();
        }
    });
    runtime.block_on(world.end());
}

impl World {
    async fn new(schema: Schema) -> Self {
        let store = schema.store().await;
        stored::fill(&store).await;
        let client = client(&schema.url).await;
        let name = &schema.name;
        let tables = format!(
            "SELECT table_name::text FROM information_schema.tables \
             WHERE table_schema = '{name}' AND table_name NOT IN {LEFT_ALONE} ORDER BY 1"
        );
        let tables = words(&client, &tables).await;
        client
            .batch_execute(&format!("CREATE SCHEMA {name}_kept"))
            .await
            .unwrap();
        for table in &tables {
            let keep = format!("CREATE TABLE {name}_kept.{table} AS TABLE {name}.{table}");
            client.batch_execute(&keep).await.unwrap();
        }
        let before = reads(&store).await.unwrap();
        // No foreign key refuses the damage, and no trigger mends it.
        let replica = "SET session_replication_role = replica";
        client.batch_execute(replica).await.unwrap();
        Self {
            schema,
            store,
            client,
            tables,
            before,
        }
    }

    async fn every_number(&self) -> Vec<Damage> {
        let mut damages = Vec::new();
        for (place, table) in self.tables.iter().enumerate() {
            if OF_EVERY_CLAIM.contains(&table.as_str()) {
                let rows = format!("SELECT ctid::text FROM {}_kept.{table}", self.schema.name);
                let rows = words(&self.client, &rows).await.len();
                damages.extend(numbers(place, rows, self.columns(table).await.len()));
            }
        }
        damages
    }

    async fn columns(&self, table: &str) -> Vec<String> {
        let columns = format!(
            "SELECT column_name || ' ' || data_type FROM information_schema.columns \
             WHERE table_schema = '{}' AND table_name = '{table}' ORDER BY ordinal_position",
            self.schema.name
        );
        words(&self.client, &columns).await
    }

    async fn case(&self, damages: &[Damage]) -> Result<(), TestCaseError> {
        let name = &self.schema.name;
        let mut put_back = String::from("BEGIN; SET LOCAL session_replication_role = replica; ");
        for table in &self.tables {
            put_back += &format!(
                "DELETE FROM {name}.{table}; \
                 INSERT INTO {name}.{table} OVERRIDING SYSTEM VALUE SELECT * FROM {name}_kept.{table}; "
            );
        }
        self.client
            .batch_execute(&format!("{put_back} COMMIT"))
            .await
            .unwrap();
        let mut done = Vec::new();
        for damage in damages {
            done.extend(self.damage(damage).await);
        }
        examine(&self.store, &self.before, &done).await
    }

    /// Returns the part that is damaged; none if the database refuses the value.
    async fn damage(&self, ((table, row, column), value): &Damage) -> Option<Done> {
        let name = &self.schema.name;
        let table = &self.tables[usize::from(*table) % self.tables.len()];
        let columns = self.columns(table).await;
        let (column, kind) = columns[usize::from(*column) % columns.len()]
            .split_once(' ')
            .unwrap();
        let rows = words(
            &self.client,
            &format!("SELECT ctid::text FROM {name}.{table} ORDER BY ctid"),
        )
        .await;
        let row = rows.get(usize::from(*row) % rows.len().max(1))?;
        let copied = |number: u8| {
            let new = match kind {
                "bytea" => format!("decode(repeat('{number:02x}', octet_length({column})), 'hex')"),
                "text" => format!("'{number}'"),
                _ => format!("{number} + 1000"),
            };
            let column = |other: &String| {
                let (name, _) = other.split_once(' ').unwrap();
                if name == column {
                    new.clone()
                } else {
                    name.to_owned()
                }
            };
            let columns: Vec<_> = columns.iter().map(column).collect();
            let columns = columns.join(", ");
            format!(
                "INSERT INTO {name}.{table} OVERRIDING SYSTEM VALUE SELECT {columns} FROM {name}.{table} WHERE ctid = '{row}'"
            )
        };
        if let Value::Copy(number) = value {
            let sql = copied(*number);
            let changed = self.client.execute(&sql, &[]).await;
            return changed.is_ok().then(|| told(table, sql));
        }
        let sql = match new(column, kind, value) {
            Some(new) => format!("UPDATE {name}.{table} SET {column} = {new} WHERE ctid = '{row}'"),
            None => format!("DELETE FROM {name}.{table} WHERE ctid = '{row}'"),
        };
        let changed = self.client.execute(&sql, &[]).await;
        changed.is_ok().then(|| told(table, sql))
    }

    async fn end(self) {
        let drop = format!("DROP SCHEMA {}_kept CASCADE", self.schema.name);
        self.client.batch_execute(&drop).await.unwrap();
    }
}

async fn words(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The value as SQL, for a column of this type. `None` removes the row.
fn new(column: &str, kind: &str, value: &Value) -> Option<String> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''").replace('\0', ""));
    let octets = |octets: &[u8]| {
        let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("'\\x{digits}'::bytea")
    };
    Some(match (kind, value) {
        (_, Value::Null) => "NULL".to_owned(),
        ("boolean", _) => format!("NOT {column}"),
        ("ARRAY", Value::Number(number)) => format!("'{{{number}, NULL}}'"),
        ("ARRAY", _) => "'{}'".to_owned(),
        ("bytea", Value::Octets(new)) => octets(new),
        ("bytea", Value::Text(text)) => octets(text.as_bytes()),
        ("bytea", Value::Cut(len)) => format!("substring({column} FROM 1 FOR {})", len % 40),
        ("bytea", _) => octets(b"?"),
        ("text", Value::Text(text)) => quoted(text),
        ("text", Value::Octets(new)) => quoted(&String::from_utf8_lossy(new)),
        ("text", Value::Number(number)) => quoted(&number.to_string()),
        ("text", Value::Cut(len)) => format!("left({column}, {})", len % 40),
        ("text", Value::OtherKind) => quoted("\u{7f}"),
        (_, Value::Number(number)) => number.to_string(),
        (_, Value::Cut(_) | Value::OtherKind | Value::Copy(_)) => return None,
        _ => "-1".to_owned(),
    })
}

fn told(table: &str, told: String) -> Done {
    let part = part(table);
    Done {
        part,
        told,
        is_shared: part == Part::All || table == "subscription_count",
    }
}

fn part(table: &str) -> Part {
    match table {
        "meta" => Part::All,
        "vapid_key" => Part::Keys,
        "schedule" | "day_count" => Part::Schedules,
        _ if table.starts_with("subscription") => Part::Subscriptions,
        _ => Part::Ledger,
    }
}
