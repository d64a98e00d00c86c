//! Without a driver: psql, and triggers.

use tokio::process::Command;
use tower_web_push_outbox::{postgres, sqlite};

use crate::support::servers::missing;
use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn psql_ships_an_order_and_tells_its_customer() {
    let Some(world) = World::on_postgres().await else {
        return;
    };
    world.take_orders(3).await;
    let psql = async |order: &str, more: &[&str]| {
        let mut psql = Command::new("psql");
        psql.args([
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            &format!("--set=order={order}"),
        ]);
        psql.arg(format!("--dbname={}", world.url())).args(more);
        psql.output().await
    };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/postgres/ship.sql");
    let rolled_back = [
        "--command=BEGIN",
        &format!("--file={file}"),
        "--command=ROLLBACK",
    ];
    let Ok(first) = psql("3", &rolled_back).await else {
        return missing("psql is not installed");
    };
    assert!(first.status.success(), "{first:?}");
    for (order, is_shipped) in [("1", true), ("2", false), ("1", true)] {
        let output = psql(order, &[&format!("--file={file}")]).await.unwrap();
        assert_eq!(output.status.success(), is_shipped, "{output:?}");
    }
    world.sends_exactly(&["order-1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_tells_of_each_state_on_postgres() {
    if let Some(world) = World::on_postgres().await {
        world.database.execute(postgres::TRIGGER).await;
        a_trigger_tells_of_each_state(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_tells_of_each_state_on_sqlite() {
    let world = World::on_sqlite().await;
    world.database.execute(sqlite::TRIGGER).await;
    a_trigger_tells_of_each_state(&world).await;
}

async fn a_trigger_tells_of_each_state(world: &World) {
    world.take_orders(5).await;
    let statements = [
        "UPDATE orders SET state = 'packed' WHERE id IN (1, 2)",
        "BEGIN; UPDATE orders SET state = 'packed' WHERE id = 3; ROLLBACK",
        // Nothing changes.
        "UPDATE orders SET state = 'ordered' WHERE id = 4",
        "BEGIN; SAVEPOINT try; UPDATE orders SET state = 'lost' WHERE id = 1; ROLLBACK TO try; \
         UPDATE orders SET state = 'returned' WHERE id = 5; COMMIT",
    ];
    for statements in statements {
        world.database.execute(statements).await;
    }
    world
        .sends_exactly(&["order-1", "order-2", "order-5"])
        .await;
}
