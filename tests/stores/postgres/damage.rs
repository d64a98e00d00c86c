//! Damage of one broadcast's content does not hold up the others (L3, L5, L17).

use tower_web_push::broadcast::{BroadcastState, FinalOutcome};
use tower_web_push::store::{
    Cursor, DeliveryLedger as _, PageWrite, Settled, Settlement, SubscriptionLimits,
    SubscriptionRef, SubscriptionStore as _,
};

use super::world::{Schema, at, broadcast, claim_of, delivery, sending, subscription};
use crate::unreadable::{
    Damaged, NUMBERS, a_damaged_row_gives_its_id, a_damaged_row_is_left_out,
    a_key_that_rows_name_is_in_use, both_are_claimed_again, damage_of_one_origin_stays_there,
    damaged_counts_hold_up_no_others, holds_up_no_others, numbers_below_zero_count_as_zero,
    put_counted, put_origins, put_rows_at_two_origins, put_schedules, put_subscriptions,
    the_healthy_origin_is_claimed, the_healthy_schedule_is_due, the_row_left_expires,
};

#[tokio::test]
async fn a_broadcast_that_cannot_be_read_holds_up_no_others() {
    damaged_by("UPDATE web_push.content SET audience = '?' WHERE broadcast").await;
    damaged_by("DELETE FROM web_push.content WHERE broadcast").await;
    for pace in [0, -1, 4_294_967_296_i64] {
        damaged_by(&format!(
            "UPDATE web_push.broadcast SET pace = {pace} WHERE seq"
        ))
        .await;
    }
}

/// By a statement that lacks the number of the broadcast.
async fn damaged_by(damage: &str) {
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
            "(SELECT seq FROM {name}.broadcast WHERE id = decode(replace('{id}', '-', ''), 'hex'))"
        )
    };
    let unread_id = unread.id.to_string();
    let sql = format!(
        "UPDATE {name}.content SET urgency = 'urgent' WHERE broadcast = {}; \
         DELETE FROM {name}.content WHERE broadcast = {}; \
         {damage} = {}",
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
async fn a_probe_that_cannot_be_read_keeps_no_row_from_being_settled() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    sending(&store, 2).await;
    let claims = store.claim(&claim_of(9), at(1)).await.unwrap();
    let name = &schema.name;
    schema
        .run(&format!("UPDATE {name}.origin SET probe_fence = 0"))
        .await;
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let ends: Vec<_> = claims
        .rows
        .iter()
        .map(|row| (row.token, accepted))
        .collect();
    assert_eq!(
        store.settle(&ends, at(2)).await.unwrap(),
        [Settled::Done; 2]
    );
}

/// Its rows are leased like others, since no call can name them.
#[tokio::test]
async fn a_broadcast_whose_id_cannot_be_read_holds_up_no_claim() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let damaged = sending(&store, 2).await.id.to_string().replace('-', "");
    let healthy = sending(&store, 3).await.id;
    let name = &schema.name;
    let damage =
        format!("UPDATE {name}.broadcast SET id = 'short' WHERE id = decode('{damaged}', 'hex')");
    schema.run(&damage).await;
    let claims = store.claim(&claim_of(9), at(1)).await.unwrap();
    let of: Vec<_> = claims.rows.iter().map(|row| row.token.broadcast).collect();
    assert_eq!(of, [healthy; 3]);
    assert!(claims.rows.iter().all(|row| row.attempt == 1));
}

/// The others are leased too, with their attempt counted: they are returned, whether one statement takes all or several do.
#[tokio::test]
async fn a_row_whose_key_cannot_be_read_costs_the_others_no_attempt() {
    for (origins, limit) in [(1, 20), (2, 20), (2, 9)] {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        let store = schema.store().await;
        let new = broadcast();
        store.open(&new, at(0)).await.unwrap();
        let rows: Vec<_> = (0..10)
            .map(|number| delivery(number, number % origins))
            .collect();
        let (start, end) = (Cursor::Start, Cursor::End);
        let written = store.enqueue_page(new.id, &start, &rows, &end, at(0)).await;
        assert_eq!(written.unwrap(), PageWrite::Stored);
        let damaged = "SELECT ctid FROM web_push.delivery ORDER BY key LIMIT 1";
        let sql = format!("UPDATE web_push.delivery SET key = '\\x01' WHERE ctid IN ({damaged})");
        schema.run(&sql).await;
        let mut claimed = Vec::new();
        for _ in 0..3 {
            let claims = store.claim(&claim_of(limit), at(1)).await.unwrap();
            claimed.extend(claims.rows);
        }
        let attempts: Vec<_> = claimed.iter().map(|row| row.attempt).collect();
        assert_eq!(attempts, [1; 9], "{origins} origins, {limit} rows");
        let accepted = Settlement::Finished(FinalOutcome::Accepted);
        let ends: Vec<_> = claimed.iter().map(|row| (row.token, accepted)).collect();
        store.settle(&ends, at(2)).await.unwrap();
        assert_eq!(store.expire(10, new.deadline).await.unwrap(), 1);
        let counts = store.status(new.id, new.deadline).await.unwrap().unwrap();
        assert_eq!((counts.counts.accepted, counts.counts.expired), (9, 1));
    }
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_holds_up_no_others() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    put_schedules(&store, at(1)).await;
    let name = &schema.name;
    let damage = format!("UPDATE {name}.schedule SET audience = '?' WHERE name LIKE 'damaged%'");
    schema.run(&damage).await;
    the_healthy_schedule_is_due(&store, at(1)).await;
}

#[tokio::test]
async fn damaged_counts_of_a_broadcast_hold_up_no_others() {
    for damage in [
        "accepted = -1",
        "written = -9223372036854775808",
        "pace = 0",
    ] {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        let store = schema.store().await;
        let damaged = sending(&store, 2).await;
        let healthy = sending(&store, 3).await.id;
        let id = damaged.id.to_string().replace('-', "");
        let sql =
            format!("UPDATE web_push.broadcast SET {damage} WHERE id = decode('{id}', 'hex')");
        schema.run(&sql).await;
        let both = (damaged.id, healthy);
        damaged_counts_hold_up_no_others(&store, both, (at(1), damaged.deadline)).await;
    }
}

/// The last row ends before the deadline, uncounted. At the deadline nothing of the broadcast is left, and its message least of
/// all; one whose counts can be read again by then is over.
#[tokio::test]
async fn a_broadcast_whose_last_row_ended_uncounted_ends_at_its_deadline() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    for is_mended in [false, true] {
        let new = sending(&store, 2).await;
        let claims = store.claim(&claim_of(9), at(1)).await.unwrap();
        let ends: Vec<_> = claims
            .rows
            .iter()
            .map(|row| (row.token, accepted))
            .collect();
        schema.run("UPDATE web_push.broadcast SET gone = -1").await;
        let settled = store.settle(&ends, at(1)).await.unwrap();
        assert_eq!(settled, [Settled::Done; 2]);
        if is_mended {
            schema.run("UPDATE web_push.broadcast SET gone = 0").await;
        }
        assert_eq!(store.expire(9, at(9998)).await.unwrap(), 0);
        let contents = "SELECT count(*) FROM web_push.content";
        assert_eq!(schema.number(contents).await, 1);
        assert_eq!(store.expire(9, new.deadline).await.unwrap(), 0);
        assert_eq!(schema.number(contents).await, 0);
        let end = store.status(new.id, new.deadline).await.unwrap();
        let end = end.map(|end| (end.state, end.counts.expired, end.counts.pending));
        assert_eq!(end, is_mended.then_some((BroadcastState::Done, 2, 0)));
        let pruned = store.prune(at(20_000)).await.unwrap().broadcasts;
        assert_eq!(pruned, u64::from(is_mended));
    }
}

#[tokio::test]
async fn an_origin_whose_name_cannot_be_read_holds_up_no_others() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let (new, damaged) = put_rows_at_two_origins(&store, at(1)).await;
    let sql = "UPDATE web_push.origin SET origin = '?' WHERE origin =";
    schema.run(&format!("{sql} '{}'", damaged.as_str())).await;
    the_healthy_origin_is_claimed(&store, at(1)).await;
    the_row_left_expires(&store, &new).await;
}

#[tokio::test]
async fn damage_of_one_origin_holds_up_no_others() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let damaged = put_origins(&store, at(1)).await;
    let sql = format!(
        "UPDATE web_push.origin SET pause_reason = '?', accepted = -1 WHERE origin = '{}'",
        damaged.as_str()
    );
    schema.run(&sql).await;
    damage_of_one_origin_stays_there(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn numbers_that_are_only_counted_on_stop_no_claim() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    for set in [
        "origin SET takes = NUMBER",
        "origin SET turns = '{0,0,NUMBER}'",
        "origin SET turns = '{0,NUMBER,0}'",
        "flow SET turn = NUMBER",
        "delivery SET attempt = NUMBER",
    ] {
        for number in NUMBERS {
            schema
                .run("TRUNCATE web_push.broadcast, web_push.origin CASCADE")
                .await;
            put_rows_at_two_origins(&store, at(1)).await;
            let set = set.replace("NUMBER", &number.to_string());
            let damage = async || schema.run(&format!("UPDATE web_push.{set}")).await;
            both_are_claimed_again(&store, damage, at(1)).await;
        }
    }
}

#[tokio::test]
async fn a_subscription_that_cannot_be_read_holds_up_no_others() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let some = [1, 2, 3].map(subscription);
    let damaged = put_subscriptions(&store, some, at(0)).await;
    let sql = "UPDATE web_push.subscription SET auth = '' \
               WHERE key = (SELECT key FROM web_push.subscription ORDER BY key LIMIT 1)";
    schema.run(sql).await;
    a_damaged_row_is_left_out(&store, damaged, at(1)).await;
}

#[tokio::test]
async fn a_subscription_that_cannot_be_read_gives_its_id() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let new = subscription(1);
    let limits = SubscriptionLimits::default();
    store.upsert(&new, &limits, at(0)).await.unwrap();
    schema
        .run("UPDATE web_push.subscription SET auth = ''")
        .await;
    a_damaged_row_gives_its_id(&store, (new.id, subscription(2)), at(1)).await;
    let there = store.get(&[SubscriptionRef::Key(new.key())]).await.unwrap();
    assert_eq!(there, [None]);
}

#[tokio::test]
async fn wrong_numbers_of_subscriptions_stop_nothing() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let key = put_counted(&store, [1, 2].map(subscription), at(0)).await;
    let sql = "UPDATE web_push.subscription_number SET number = -5; \
               UPDATE web_push.subscription_count SET number = -5, unproven = -5";
    schema.run(sql).await;
    numbers_below_zero_count_as_zero(&store, &subscription(3), at(1)).await;
    schema.run("DELETE FROM web_push.subscription_number").await;
    a_key_that_rows_name_is_in_use(&store, key, at(1)).await;
}
