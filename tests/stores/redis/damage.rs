//! Damage of one broadcast's content does not hold up the others (L3, L5, L17).

use tower_web_push::broadcast::Audience;
use tower_web_push::message::Message;
use tower_web_push::store::{DeliveryLedger as _, NewBroadcast, redis_rs};

use super::world::{at, connection, fresh_prefix, sending, store};
use crate::support::servers::{self, Kind};
use crate::unreadable::{
    DAMAGED, Damaged, holds_up_no_others, put_schedules, the_healthy_schedule_is_due,
};

#[tokio::test]
async fn a_broadcast_that_cannot_be_read_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    let damaged = sending(&store, 2, 1).await;
    let healthy = sending(&store, 3, 1).await;
    let open = || NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    let (unread, read) = (open(), open());
    for new in [&unread, &read] {
        store.open(new, at(0)).await.unwrap();
    }
    let mut connection = connection(&url).await;
    for (id, field) in [(damaged, "urgency"), (unread.id, "audience")] {
        let mut key = format!("{{{prefix}}}:c:").into_bytes();
        key.extend_from_slice(id.as_bytes());
        let mut set = redis_rs::cmd("HSET");
        set.arg(key).arg(field).arg("?");
        let added: i64 = set.query_async(&mut connection).await.unwrap();
        assert_eq!(added, 0, "the field exists");
    }
    let damaged = Damaged {
        unread: unread.id,
        read: read.id,
        healthy,
        rows: 5,
    };
    holds_up_no_others(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_holds_up_no_others() {
    let Some(url) = servers::shared(Kind::Redis) else {
        return;
    };
    let prefix = fresh_prefix();
    let store = store(&url, &prefix).await;
    put_schedules(&store, at(1)).await;
    let mut connection = connection(&url).await;
    let mut damage = redis_rs::cmd("HSET");
    damage
        .arg(format!("{{{prefix}}}:d:a"))
        .arg(DAMAGED)
        .arg("?");
    let added: i64 = damage.query_async(&mut connection).await.unwrap();
    assert_eq!(added, 0, "the field exists");
    the_healthy_schedule_is_due(&store, at(1)).await;
}
