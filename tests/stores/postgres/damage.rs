//! Damage of one broadcast's content does not hold up the others (L3, L5, L17).

use tower_web_push::store::DeliveryLedger as _;

use super::world::{Schema, at, broadcast, sending};
use crate::unreadable::{
    DAMAGED, Damaged, holds_up_no_others, put_schedules, the_healthy_schedule_is_due,
};

#[tokio::test]
async fn a_broadcast_that_cannot_be_read_holds_up_no_others() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let damaged = [sending(&store, 2).await.id, sending(&store, 2).await.id];
    let healthy = sending(&store, 3).await.id;
    let (unread, read) = (broadcast(), broadcast());
    for new in [&unread, &read] {
        store.open(new, at(0)).await.unwrap();
    }
    let name = &schema.name;
    let [one, other] = damaged.map(|id| id.to_string());
    let of = |id: &str| {
        format!(
            "broadcast = (SELECT seq FROM {name}.broadcast WHERE id = decode(replace('{id}', '-', ''), 'hex'))"
        )
    };
    let unread_id = unread.id.to_string();
    let sql = format!(
        "UPDATE {name}.content SET urgency = 'urgent' WHERE {}; DELETE FROM {name}.content WHERE {}; \
         UPDATE {name}.content SET audience = '?' WHERE {}",
        of(&one),
        of(&other),
        of(&unread_id),
    );
    schema.run(&sql).await;
    let damaged = Damaged {
        unread: unread.id,
        read: read.id,
        healthy,
        rows: 7,
    };
    holds_up_no_others(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_holds_up_no_others() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    put_schedules(&store, at(1)).await;
    let name = &schema.name;
    let damage = format!("UPDATE {name}.schedule SET audience = '?' WHERE name = '{DAMAGED}'");
    schema.run(&damage).await;
    the_healthy_schedule_is_due(&store, at(1)).await;
}
