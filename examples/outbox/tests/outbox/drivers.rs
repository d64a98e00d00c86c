//! Each driver commits and rolls back.

use tower_web_push_outbox::{Shop, is_refused};

use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_sent_and_what_is_rolled_back_is_not_on_postgres() {
    if let Some(world) = World::on_postgres().await {
        what_is_committed_is_sent_and_what_is_rolled_back_is_not(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_sent_and_what_is_rolled_back_is_not_on_sqlite() {
    let world = World::on_sqlite().await;
    what_is_committed_is_sent_and_what_is_rolled_back_is_not(&world).await;
}

async fn what_is_committed_is_sent_and_what_is_rolled_back_is_not(world: &World) {
    let shops = Shop::open_by_each_driver(&world.url()).await.unwrap();
    let orders = world.take_orders(2 * shops.len()).await;
    for (shop, orders) in shops.iter().zip(orders.chunks(2)) {
        shop.ship(&orders[0]).await.unwrap();
        let refused = shop.ship(&orders[1]).await.unwrap_err();
        assert!(is_refused(&refused), "{shop:?}: {refused}");
        // Whoever did not hear of the commit repeats it.
        shop.ship(&orders[0]).await.unwrap();
    }
    world
        .sends_exactly(&["order-1", "order-3", "order-5", "order-7"])
        .await;
}
