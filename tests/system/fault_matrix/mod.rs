//! The fault matrix: each fault on each back end that can have it, and what it costs the healthy subscriptions.
//!
//! The guide page "When something breaks" shows the table, and has to agree with what these tests see. To print the
//! rows with the times measured on this machine:
//!
//! ```sh
//! ./test examples && cargo nextest run --all-features --no-capture -E 'test(/^fault_matrix::/)'
//! ```

mod faults;
mod table;
mod world;

use faults::FAULTS;
use table::Row;
use world::{Backend, World};

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    each_fault_hurts_only_itself(Backend::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    each_fault_hurts_only_itself(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    each_fault_hurts_only_itself(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    each_fault_hurts_only_itself(Backend::Redis).await;
}

/// Causes each fault in turn and compares what it did with the table of the guide.
async fn each_fault_hurts_only_itself(backend: Backend) {
    let mut wrong = Vec::new();
    for fault in FAULTS {
        if !fault.backends.contains(&backend) {
            continue;
        }
        let Some(mut world) = World::on(backend).await else {
            return;
        };
        let seen = world.suffer(fault).await;
        let row = Row::new(fault, backend, &seen);
        println!("{row}");
        if let Err(reason) = row.compare_with_the_guide() {
            wrong.push(reason);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_the_guide_has_a_row_for_each_fault_and_no_other() {
    let expected: Vec<_> = FAULTS.iter().map(|fault| fault.name.to_owned()).collect();
    assert_eq!(table::faults_of_the_guide(), expected);
}
