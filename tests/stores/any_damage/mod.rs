//! Any value in any place of a store: what a broken disk, another program, or somebody with access to the database leaves
//! there.
//!
//! Nothing panics and nothing hangs. What cannot be read is `Corrupt`, no error shows an endpoint, a
//! key or the text of a message, and what is damaged in one part of the store changes nothing in the others. Damage of
//! single rows is in the way of no other row.
//!
//! `PROPTEST_CASES=25600 cargo test --all-features --test stores any_damage` runs a hundred times as many cases.

mod calls;
mod others;
mod postgres;
mod redis;
mod sqlite;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::{Builder, Runtime};
use tower_web_push::store::{ScheduleStore, SubscriptionStore, VapidKeyStore};

use calls::Reads;

/// A store of everything.
pub(crate) trait Whole: SubscriptionStore + VapidKeyStore + ScheduleStore {}

impl<S: SubscriptionStore + VapidKeyStore + ScheduleStore> Whole for S {}

/// The parts of a store that are read by different calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Subscriptions,
    Keys,
    Schedules,
    Ledger,
    /// Numbers of several parts.
    All,
}

/// The new value of a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// None, or the place itself is removed.
    Null,
    Number(i64),
    Text(String),
    Octets(Vec<u8>),
    /// The first octets of the old one.
    Cut(u8),
    /// A value of another kind than the column or key is for.
    OtherKind,
    /// The row, or the place, once more, with this number, or as many octets of it, here: it belongs to nothing.
    Copy(u8),
}

/// A place is the number of a table or key, of a row and of a column.
pub(crate) type Damage = ((u16, u16, u16), Value);

fn values() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        Just(0),
        Just(-1),
        Just(i64::MIN),
        Just(i64::MAX),
        Just(4_294_967_296),
        Just(253_402_300_800_000),
        any::<i64>(),
        -10_i64..10,
    ];
    let words = [
        "",
        "?",
        "{}",
        "null",
        "[]",
        "{\"user\":\"alice\"}",
        "all",
        "high",
        "urgent",
        "https://",
        "https://push.example.net/1",
        "9999999999999999999999",
        "-1",
        "1:1",
        "a:b:c:d",
        "v0.",
        "v1.a.b.c",
        "Europe/Nowhere",
        "\u{0}",
        "\u{1F600}",
    ];
    prop_oneof![
        1 => Just(Value::Null),
        3 => numbers.prop_map(Value::Number),
        2 => prop::sample::select(words.to_vec()).prop_map(|word| Value::Text(word.to_owned())),
        1 => ".{0,40}".prop_map(Value::Text),
        1 => Just(Value::Text("x".repeat(70_000))),
        2 => prop::collection::vec(any::<u8>(), 0..70).prop_map(Value::Octets),
        2 => any::<u8>().prop_map(Value::Cut),
        1 => Just(Value::OtherKind),
        2 => any::<u8>().prop_map(Value::Copy),
    ]
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let place = (any::<u16>(), any::<u16>(), any::<u16>());
    prop::collection::vec((place, values()), 1..4)
}

/// The tables of which each claim reads the rows of all origins. Chance hits a number of them too seldom.
const OF_EVERY_CLAIM: [&str; 2] = ["delivery", "origin"];

/// Each column of a table, with numbers that no store writes there, each in another row: a case takes long.
fn numbers(table: usize, rows: usize, columns: usize) -> Vec<Damage> {
    let number = |number| u16::try_from(number).unwrap();
    let values = [-1, i64::MIN, i64::MAX];
    let of_column = |column| {
        let places = values.into_iter().zip(column..);
        places.map(move |(value, row)| {
            let place = (number(table), number(row % rows), number(column));
            (place, Value::Number(value))
        })
    };
    (0..columns).flat_map(of_column).collect()
}

/// Runs a case for each list of damages.
fn check(cases: u32, case: impl Fn(Vec<Damage>) -> Result<(), TestCaseError>) {
    let config = Config::default();
    let config = Config {
        cases: cases * config.cases / 256,
        failure_persistence: None,
        ..config
    };
    if let Err(error) = TestRunner::new(config).run(&damages(), case) {
        panic!("{error}");
    }
}

/// A runtime with a thread of its own, on which the connections of a store are served between the cases.
fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// What was done to a store, in a place that took the new value.
#[derive(Debug)]
pub(crate) struct Done {
    part: Part,
    #[allow(dead_code, reason = "it is shown when a case fails")]
    told: String,
    /// Whether many rows share it, such as the last token or an index: its damage may stop them all.
    is_shared: bool,
}

/// Compares what is read with what was read of the undamaged store, and then makes every other call.
async fn examine(store: &dyn Whole, before: &Reads, done: &[Done]) -> Result<(), TestCaseError> {
    let examined = async {
        let reads = calls::reads(store).await?;
        for (part, read) in &reads.parts {
            let is_damaged = done
                .iter()
                .any(|one| one.part == *part || one.part == Part::All);
            if !is_damaged {
                prop_assert_eq!(read, before.of(*part), "{:?}", part);
            }
        }
        if done.iter().all(|one| !one.is_shared) {
            others::go_on(store).await?;
        }
        calls::changes(store).await
    };
    examined.await.map_err(|error| match error {
        TestCaseError::Fail(why) => TestCaseError::fail(format!("{why}, after {done:#?}")),
        other => other,
    })
}

#[test]
fn of_sqlite() {
    sqlite::run(40);
}

#[test]
fn of_sqlite_in_an_applications_file() {
    sqlite::run_in_an_applications_file(30);
}

#[test]
fn of_postgres() {
    postgres::run(25);
}

#[test]
fn of_redis() {
    redis::run(40);
}
