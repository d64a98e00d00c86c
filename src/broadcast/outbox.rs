//! The statement that writes a broadcast into an outbox, for any driver.

use std::fmt;

use serde_json::{Map, Value, json};

use super::json::SERIALIZED;
use super::{Broadcast, BroadcastId};
use crate::clock::{Clock as _, SystemClock};
use crate::moment::iso8601;

/// The database of an outbox, and the name of what is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxDialect<'a> {
    /// PostgreSQL: the function `enqueue` in the schema of the store.
    Postgres {
        /// The name of the schema, without quotes.
        schema: &'a str,
    },
    /// SQLite: the table `outbox` with the prefix of the store.
    Sqlite {
        /// The prefix.
        prefix: &'a str,
    },
}

impl OutboxDialect<'static> {
    /// PostgreSQL with the schema `web_push`, the default of `PostgresStore`.
    pub const POSTGRES: Self = Self::Postgres { schema: "web_push" };
    /// SQLite with the prefix `web_push_`.
    pub const SQLITE: Self = Self::Sqlite {
        prefix: "web_push_",
    };
}

impl OutboxDialect<'_> {
    fn sql(self) -> String {
        match self {
            // The parameters are declared as text, so that every driver can pass them; the result is text too.
            Self::Postgres { schema } => format!(
                "SELECT {}.enqueue($1::text::jsonb, $2::text::jsonb, $3::text::jsonb)::text",
                quoted(schema)
            ),
            Self::Sqlite { prefix } => format!(
                "INSERT INTO {} (audience, message, opts) VALUES (?, ?, ?)",
                quoted(&format!("{prefix}outbox"))
            ),
        }
    }
}

/// A name in SQL, whatever it contains.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A statement that writes a broadcast into an outbox: text and parameters, for any driver.
///
/// Run it in the transaction of the change that it announces. If the commit's answer is lost, the same statement may be run
/// again: the broadcast's id is in it, and it is sent once.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a broadcast is enqueued when the statement is run and its transaction commits"]
pub struct OutboxStatement {
    /// The broadcast's id. Its status is known as soon as a worker has read the entry.
    pub id: BroadcastId,
    /// The statement, with three parameters of type text: `$1` to `$3` for PostgreSQL, `?` for SQLite.
    pub sql: String,
    /// Their values: JSON.
    pub parameters: [String; 3],
}

impl fmt::Debug for OutboxStatement {
    /// Does not show the parameters, which hold the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxStatement")
            .field("id", &self.id)
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}

impl Broadcast {
    /// Returns the statement that writes it into the outbox of a store, in a transaction of the application's own: see
    /// [the guide](crate::guide::in_your_own_transaction). Each call draws another id.
    ///
    /// # Examples
    ///
    /// With any driver for PostgreSQL:
    ///
    /// ```
    /// use tower_web_push::broadcast::{Audience, Broadcast, OutboxDialect};
    /// use tower_web_push::Notification;
    ///
    /// let shipped = Broadcast::to(Audience::user("alice"), Notification::new("Shipped"));
    /// let statement = shipped.outbox_statement(OutboxDialect::POSTGRES);
    /// let [audience, message, opts] = &statement.parameters;
    /// assert_eq!(audience, r#"{"user":"alice"}"#);
    /// # let _ = (message, opts);
    /// ```
    pub fn outbox_statement(&self, dialect: OutboxDialect<'_>) -> OutboxStatement {
        let id = BroadcastId::at(SystemClock::new().now());
        let mut opts = Map::new();
        opts.insert("id".to_owned(), json!(id));
        if let Some(at) = self.send_at {
            opts.insert("sendAt".to_owned(), json!(iso8601(at)));
        }
        if let Some(pace) = self.pace {
            opts.insert("pace".to_owned(), json!({ "perSecond": pace }));
        }
        if let Some(key) = &self.idempotency_key {
            opts.insert("idempotencyKey".to_owned(), json!(key));
        }
        if let Some(parent) = self.trace_parent_or_current() {
            opts.insert("traceparent".to_owned(), json!(parent.to_string()));
        }
        OutboxStatement {
            id,
            sql: dialect.sql(),
            parameters: [
                json!(self.audience).to_string(),
                // As a whole: a payload may be anything, and PostgreSQL would write its JSON in another form.
                json!({ SERIALIZED: self.message }).to_string(),
                Value::Object(opts).to_string(),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::broadcast::{Audience, Tag, TraceParent};
    use crate::clock::Timestamp;
    use crate::message::{Message, Notification, Padding, Topic, Ttl, Urgency};

    #[test]
    fn a_broadcast_comes_out_of_its_statement_as_it_went_in() {
        let full = Message::new(vec![0, 255, b'"'])
            .with_ttl(Ttl::from_secs(60))
            .with_urgency(Urgency::High)
            .with_topic(Topic::of("orders"))
            .with_padding(Padding::Max);
        let news = Audience::Tag(Tag::parse("news").unwrap());
        for broadcast in [
            Broadcast::to(Audience::All, full)
                .at(Timestamp::from_millis(1_900_000_000_123))
                .pace(NonZeroU32::MIN)
                .idempotency_key("order-7")
                .trace_parent(TraceParent::new([7; 16], [8; 8], true).unwrap()),
            Broadcast::to(Audience::user("al\"ice"), Notification::new("Shipped")),
            Broadcast::to(news, Message::without_payload()),
        ] {
            let statement = broadcast.outbox_statement(OutboxDialect::SQLITE);
            let [audience, message, opts] = &statement.parameters;
            let (read, id) = Broadcast::from_outbox(audience, message, opts).unwrap();
            assert_eq!(id, Some(statement.id));
            assert_eq!(read.audience, broadcast.audience);
            assert_eq!(read.message, broadcast.message);
            assert_eq!(read.send_at, broadcast.send_at);
            assert_eq!(read.pace, broadcast.pace);
            assert_eq!(read.idempotency_key, broadcast.idempotency_key);
            assert_eq!(read.trace_parent, broadcast.trace_parent);
            // The same request by `enqueue_broadcast` is a repetition.
            assert_eq!(read.fingerprint(), broadcast.fingerprint());
        }
    }

    #[test]
    fn names_cannot_end_their_quotes() {
        let sql = OutboxDialect::Postgres { schema: "a\".b" }.sql();
        assert!(sql.starts_with("SELECT \"a\"\".b\".enqueue("), "{sql}");
        let sql = OutboxDialect::SQLITE.sql();
        assert!(
            sql.starts_with("INSERT INTO \"web_push_outbox\" ("),
            "{sql}"
        );
    }

    #[test]
    fn debug_output_shows_no_message() {
        let secret = Broadcast::to(Audience::user("alice"), Notification::new("s3cret"));
        let text = format!("{:?}", secret.outbox_statement(OutboxDialect::POSTGRES));
        assert!(
            !text.contains("alice") && !text.contains("serialized"),
            "{text}"
        );
    }
}
