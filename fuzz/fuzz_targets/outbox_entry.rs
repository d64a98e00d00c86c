//! Entries of an outbox: a line with the audience, a line with the message, and the options.
//!
//! Invariants: nothing panics; a refusal has a known code, and repeats nothing of the entry; what is accepted fits into a push
//! message, and comes out of the statement that writes it as it went in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_web_push::broadcast::{Broadcast, OutboxDialect};
use tower_web_push::fuzzing::read_outbox_entry;

const CODES: [&str; 14] = [
    "invalid_json",
    "invalid_member",
    "body_too_large",
    "missing_content",
    "ambiguous_content",
    "payload_too_large",
    "invalid_ttl",
    "invalid_urgency",
    "invalid_topic",
    "invalid_send_at",
    "invalid_pace",
    "invalid_audience",
    "invalid_idempotency_key",
    "invalid_id",
];
/// The longest of an entry's three texts together.
const LONGEST: usize = 65_536;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let (Some(audience), Some(message), Some(opts)) = (parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    match read_outbox_entry(audience, message, opts) {
        Ok((broadcast, _)) => comes_out_as_it_went_in(&broadcast),
        Err(refusal) => {
            assert!(CODES.contains(&refusal.code.as_str()), "{}", refusal.code);
            // The details name members, and are short.
            assert!(
                refusal.detail.is_ascii() && refusal.detail.len() < 200,
                "{}",
                refusal.detail
            );
        }
    }
});

fn comes_out_as_it_went_in(broadcast: &Broadcast) {
    let statement = broadcast.outbox_statement(OutboxDialect::SQLITE);
    let [audience, message, opts] = &statement.parameters;
    if audience.len() + message.len() + opts.len() > LONGEST {
        // In base64 a message is longer.
        return;
    }
    let (again, id) = read_outbox_entry(audience, message, opts).expect("what was written");
    assert_eq!(id, Some(statement.id));
    let repeated = again.outbox_statement(OutboxDialect::SQLITE);
    assert_eq!(repeated.parameters[..2], statement.parameters[..2]);
    assert_eq!(without_id(&repeated.parameters[2]), without_id(opts));
}

fn without_id(opts: &str) -> Value {
    let mut opts: Value = serde_json::from_str(opts).expect("JSON");
    opts.as_object_mut().expect("an object").remove("id");
    opts
}
