//! Other services of the same company: Python with psycopg, Node with pg.

use std::env;
use std::path::PathBuf;

use tokio::process::Command;

use crate::support::servers::missing;
use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn python_ships_an_order_and_tells_its_customer() {
    let python = peers().join("venv/bin/python");
    if !python.exists() {
        return missing(&format!("{} does not exist", python.display()));
    }
    ships_an_order_and_tells_its_customer(|| {
        let mut command = Command::new(&python);
        command.arg(script("ship.py"));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_ships_an_order_and_tells_its_customer() {
    let packages = peers().join("node/node_modules");
    if !packages.exists() {
        return missing(&format!("{} does not exist", packages.display()));
    }
    ships_an_order_and_tells_its_customer(|| {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &packages).arg(script("ship.js"));
        command
    })
    .await;
}

async fn ships_an_order_and_tells_its_customer(program: impl Fn() -> Command) {
    let Some(world) = World::on_postgres().await else {
        return;
    };
    world.take_orders(2).await;
    // The second one is not paid, and the first one is shipped twice.
    for (order, is_shipped) in [("1", true), ("2", false), ("1", true)] {
        let mut program = program();
        let output = program.arg(world.url()).arg(order).output().await.unwrap();
        assert_eq!(output.status.success(), is_shipped, "{output:?}");
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            printed.contains("only_paid_orders_are_shipped"),
            !is_shipped,
            "{printed}"
        );
    }
    world.sends_exactly(&["order-1"]).await;
}

fn script(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.join("other_languages").join(name)
}

/// The folder where `./test --install` puts the packages.
fn peers() -> PathBuf {
    env::var_os("WEB_PUSH_PEERS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/interop"),
        PathBuf::from,
    )
}
