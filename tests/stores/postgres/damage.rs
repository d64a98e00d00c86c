//! Damage of one broadcast's content does not hold up the others (L3, L5).

use std::collections::HashMap;

use tower_web_push::broadcast::Audience;
use tower_web_push::store::DeliveryLedger as _;

use super::world::{Schema, at, broadcast, claim_of, sending};

#[tokio::test]
async fn a_damaged_broadcast_is_named_and_the_others_are_expanded_and_claimed() {
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
    let expandable = store.expandable(10, at(1)).await.unwrap();
    let found: HashMap<_, _> = expandable
        .into_iter()
        .map(|one| (one.id, one.audience))
        .collect();
    let expected = [(unread.id, None), (read.id, Some(Audience::All))];
    assert_eq!(found, HashMap::from(expected));
    let claims = store.claim(&claim_of(10), at(1)).await.unwrap();
    assert_eq!(claims.rows.len(), 7);
    let messages: Vec<_> = claims.messages.keys().copied().collect();
    assert_eq!(messages, [healthy]);
}
