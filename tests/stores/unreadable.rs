//! The content of one broadcast cannot be read: it holds up no others.

use std::collections::HashMap;
use std::time::Duration;

use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome, Principal, Tag};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, Plan, Schedule, ScheduleLabel, ScheduleName};
use tower_web_push::store::{
    ClaimRequest, CountFilter, Cursor, DeliveryLedger, Liveness, NewBroadcast, NewDelivery,
    NewSubscription, PageWrite, Pause, PauseReason, PortableStore, ScheduleStore, Settled,
    Settlement, StoreErrorKind, SubscriptionLimits, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Tally,
};
use tower_web_push::subscription::{EndpointKey, Origin, SubscriptionId};
use tower_web_push::vapid::KeyId;

/// Broadcasts of a store of which some are damaged.
pub(crate) struct Damaged {
    /// Its audience is unreadable.
    pub(crate) unread: BroadcastId,
    /// It can be expanded.
    pub(crate) read: BroadcastId,
    /// The only one with rows whose message can be read.
    pub(crate) healthy: BroadcastId,
    /// All rows, those of unreadable messages too.
    pub(crate) rows: usize,
}

/// The others are expanded (L3) and claimed (L5), and users are erased (L17).
pub(crate) async fn holds_up_no_others(
    store: &dyn DeliveryLedger,
    damaged: &Damaged,
    now: Timestamp,
) {
    let expandable = store.expandable(10, now).await.unwrap();
    let found: HashMap<_, _> = expandable
        .into_iter()
        .map(|one| (one.id, one.audience))
        .collect();
    let expected = [(damaged.unread, None), (damaged.read, Some(Audience::All))];
    assert_eq!(found, HashMap::from(expected));
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    let claims = store.claim(&request, now).await.unwrap();
    assert_eq!(claims.rows.len(), damaged.rows);
    let messages: Vec<_> = claims.messages.keys().copied().collect();
    assert_eq!(messages, [damaged.healthy]);

    let deadline = now + Duration::from_secs(60);
    let alice = Audience::user("alice");
    let theirs = NewBroadcast::new(alice, Message::new("x"), deadline);
    store.open(&theirs, now).await.unwrap();
    let erased = store.erase(&"alice".into(), &[], now).await.unwrap();
    assert_eq!(erased.broadcasts, 1);
}

/// Damaged counts of one broadcast do not hold up another: its rows are claimed without a message (L5), postponed and
/// finished (L7), and at the deadline the last one ends and the broadcast is removed (L12). It is in no list (L16).
///
/// The damaged broadcast has two rows, the healthy one three, and nothing else is stored.
pub(crate) async fn damaged_counts_hold_up_no_others(
    store: &dyn DeliveryLedger,
    (damaged, healthy): (BroadcastId, BroadcastId),
    (now, deadline): (Timestamp, Timestamp),
) {
    let later = now + Duration::from_secs(10);
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    let claims = store.claim(&request, now).await.unwrap();
    let of = |id| {
        claims
            .rows
            .iter()
            .filter(move |row| row.token.broadcast == id)
    };
    assert_eq!((of(damaged).count(), of(healthy).count()), (2, 3));
    assert_eq!(claims.messages.keys().collect::<Vec<_>>(), [&healthy]);
    let underway = store.underway(10, now).await.unwrap();
    let underway: Vec<_> = underway.iter().map(|status| status.id).collect();
    assert_eq!(underway, [healthy]);

    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let settlement = |id| match id == damaged {
        true => Settlement::Deferred(later),
        false => accepted,
    };
    let ends: Vec<_> = claims
        .rows
        .iter()
        .map(|row| (row.token, settlement(row.token.broadcast)))
        .collect();
    let settled = store.settle(&ends, now).await.unwrap();
    assert_eq!(settled, [Settled::Done; 5]);
    let status = store.status(healthy, now).await.unwrap().unwrap();
    assert_eq!(status.counts.accepted, 3);

    let claims = store.claim(&request, later).await.unwrap();
    assert_eq!(claims.rows.len(), 2);
    let gone = Settlement::Finished(FinalOutcome::Gone);
    let ends = [
        (claims.rows[0].token, gone),
        (claims.rows[1].token, Settlement::RetryAt(deadline)),
    ];
    let settled = store.settle(&ends, later).await.unwrap();
    assert_eq!(settled, [Settled::Done; 2]);
    store.stats(later).await.unwrap();
    assert_eq!(store.expire(10, deadline).await.unwrap(), 1);
    let claims = store.claim(&request, deadline).await.unwrap();
    assert_eq!(claims.rows.len(), 0);
    let after = deadline + Duration::from_secs(1);
    assert_eq!(store.status(damaged, after).await.unwrap(), None);
    assert_eq!(store.prune(after).await.unwrap().broadcasts, 1);
}

/// A damaged pause or tally of one origin holds up no other origin, and is replaced (L11, L15).
pub(crate) async fn damage_of_one_origin_stays_there(
    store: &dyn DeliveryLedger,
    damaged: &Origin,
    now: Timestamp,
) {
    let until = now + Duration::from_secs(60);
    let pauses = store.pauses(now).await.unwrap();
    let origins: Vec<_> = pauses.iter().map(|pause| pause.origin.as_str()).collect();
    assert_eq!(origins, ["https://healthy.example.net"]);
    let pause = Pause::new(damaged.clone(), until, PauseReason::SenderFault);
    store.pause(&pause, now).await.unwrap();
    assert_eq!(store.pauses(now).await.unwrap().len(), 2);
    assert_eq!(store.tallies().await.unwrap().len(), 1);
    let gone = Tally::new(0, 1);
    let sums = store.tally(&[(damaged.clone(), gone)], now).await.unwrap();
    assert_eq!(sums, [gone]);
    store.prune(now).await.unwrap();
}

/// Opens a broadcast with a row at each of two origins. Returns it, and the origin to damage.
pub(crate) async fn put_rows_at_two_origins(
    store: &dyn DeliveryLedger,
    now: Timestamp,
) -> (NewBroadcast, Origin) {
    let deadline = now + Duration::from_secs(9000);
    let new = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
    store.open(&new, now).await.unwrap();
    let rows = ["damaged", "healthy"].map(|name| {
        let origin = Origin::parse(&format!("https://{name}.example.net")).unwrap();
        let (&first, _) = name.as_bytes().split_first().unwrap();
        NewDelivery::new(EndpointKey::from_bytes([first; 32]), origin)
    });
    let (start, end) = (Cursor::Start, Cursor::End);
    let written = store.enqueue_page(new.id, &start, &rows, &end, now).await;
    assert_eq!(written.unwrap(), PageWrite::Stored);
    (new, rows[0].origin.clone())
}

/// Both rows are claimed, and again when their retries are due: numbers of one that are only counted on stop neither.
/// `damage` sets them before each call.
pub(crate) async fn both_are_claimed_again(
    store: &dyn DeliveryLedger,
    damage: impl AsyncFn(),
    now: Timestamp,
) {
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    for round in [0, 30, 60] {
        let now = now + Duration::from_secs(round);
        damage().await;
        let claims = store.claim(&request, now).await.unwrap();
        assert_eq!(claims.rows.len(), 2, "{round} s: {claims:?}");
        damage().await;
        let retry = Settlement::RetryAt(now + Duration::from_secs(30));
        let retries: Vec<_> = claims.rows.iter().map(|row| (row.token, retry)).collect();
        let settled = store.settle(&retries, now).await.unwrap();
        assert_eq!(settled, [Settled::Done; 2]);
    }
}

/// What a number that is only counted on may be: changes of it by one have no result, or wrong ones.
pub(crate) const NUMBERS: [i64; 4] = [-1, -8, i64::MIN, i64::MAX];

/// The name of one origin cannot be read: rows of the other are claimed, and the ledger does not say that there is work.
pub(crate) async fn the_healthy_origin_is_claimed(store: &dyn DeliveryLedger, now: Timestamp) {
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    let claims = store.claim(&request, now).await.unwrap();
    let [row] = claims.rows.as_slice() else {
        panic!("{claims:?}")
    };
    assert_eq!(row.origin.as_str(), "https://healthy.example.net");
    let accepted = (row.token, Settlement::Finished(FinalOutcome::Accepted));
    store.settle(&[accepted], now).await.unwrap();
    for passed in [0, 30, 3000] {
        let now = now + Duration::from_secs(passed);
        let again = store.claim(&request, now).await.unwrap();
        assert_eq!(again.rows.len(), 0);
        let next = store.next_due(now).await.unwrap().unwrap();
        assert!(next > now, "{passed} s: a worker would not wait");
    }
    store.pauses(now).await.unwrap();
    store.stats(now).await.unwrap();
    // An hour later it is looked at again, and set aside again.
    let later = now + Duration::from_secs(3601);
    let again = store.claim(&request, later).await.unwrap();
    assert_eq!(again.rows.len(), 0);
    assert!(store.next_due(later).await.unwrap().unwrap() > later);
}

/// The row of the other origin ends at its deadline.
pub(crate) async fn the_row_left_expires(store: &dyn DeliveryLedger, new: &NewBroadcast) {
    store.expire(10, new.deadline).await.unwrap();
    let status = store.status(new.id, new.deadline).await.unwrap().unwrap();
    let counts = status.counts;
    assert_eq!((counts.accepted, counts.expired, counts.pending), (1, 1, 0));
}

/// Stores a pause and a tally of two origins. Returns the one to damage.
pub(crate) async fn put_origins(store: &dyn DeliveryLedger, now: Timestamp) -> Origin {
    let origin = |name: &str| Origin::parse(&format!("https://{name}.example.net")).unwrap();
    let until = now + Duration::from_secs(30);
    for origin in [origin("damaged"), origin("healthy")] {
        let pause = Pause::new(origin.clone(), until, PauseReason::RateLimited);
        store.pause(&pause, now).await.unwrap();
        let seen = [(origin, Tally::new(3, 2))];
        store.tally(&seen, now).await.unwrap();
    }
    origin("damaged")
}

/// Stores three subscriptions of one user, with a tag. Returns the key of the one to damage, the first, and their ids.
pub(crate) async fn put_subscriptions(
    store: &dyn SubscriptionStore,
    some: [NewSubscription; 3],
    now: Timestamp,
) -> (EndpointKey, Vec<SubscriptionId>) {
    let ids = some.iter().map(|new| new.id).collect();
    let first = some.iter().map(NewSubscription::key).min().unwrap();
    for mut new in some {
        new.principal = Some(Principal::from("alice"));
        new.tags = Some([Tag::parse("news").unwrap()].into());
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, now).await.unwrap();
    }
    (first, ids)
}

/// A row that cannot be read is left out of a page, which goes on behind it (S9, S17).
pub(crate) async fn a_damaged_row_is_left_out(
    store: &dyn SubscriptionStore,
    (damaged, ids): (EndpointKey, Vec<SubscriptionId>),
    now: Timestamp,
) {
    let audiences = [
        Audience::All,
        Audience::user("alice"),
        Audience::Tag(Tag::parse("news").unwrap()),
        Audience::Ids(ids),
    ];
    for audience in audiences {
        let page = store.page(&audience, None, 2, now).await.unwrap();
        // The third is behind the damaged one. By its id a damaged row is not found at all in some stores.
        assert_eq!(page.len(), 2, "{audience:?}");
        let last = page[1].subscription.endpoint().key();
        let page = store.page(&audience, Some(&last), 2, now).await.unwrap();
        assert_eq!(page.len(), 0, "{audience:?}");
    }
    let alice = Principal::from("alice");
    assert_eq!(store.owned_by(&alice, None, 2).await.unwrap().len(), 2);
    let error = store.get(&[SubscriptionRef::Key(damaged)]).await;
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

/// The id of a damaged row goes to a whole row at another endpoint, which replaces it (C2).
pub(crate) async fn a_damaged_row_gives_its_id(
    store: &dyn PortableStore,
    (id, other): (SubscriptionId, NewSubscription),
    now: Timestamp,
) {
    let row = SubscriptionRecord::new(
        id,
        other.subscription,
        KeyId::from_bytes([1; KeyId::LEN]),
        now,
    );
    let rows = std::slice::from_ref(&row);
    assert_eq!(store.put(rows).await.unwrap(), [true]);
    assert_eq!(store.put(rows).await.unwrap(), [false]);
    let found = store.get(&[id.into()]).await.unwrap();
    assert_eq!(found, [Some(row)]);
}

/// The names of the schedules that a test damages. They are due before the healthy one.
pub(crate) fn damaged_names() -> impl Iterator<Item = String> {
    (0..300).map(|number| format!("damaged-{number}"))
}

/// Stores schedules that are due.
pub(crate) async fn put_schedules(store: &dyn ScheduleStore, now: Timestamp) {
    for name in damaged_names().chain(["healthy".to_owned()]) {
        let plan = Plan::Application {
            label: ScheduleLabel::parse(&name).unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), now);
        store.put_schedule(&schedule).await.unwrap();
    }
}

/// The healthy schedule is listed, and the damaged ones are an error only when nothing else is due (D2, D5). They are counted
/// (D10).
pub(crate) async fn the_healthy_schedule_is_due(store: &dyn ScheduleStore, now: Timestamp) {
    let due = store.due_schedules(9, now).await.unwrap();
    let names: Vec<_> = due.iter().map(Schedule::name).collect();
    assert_eq!(
        names,
        ["healthy"].map(|name| ScheduleName::Application(ScheduleLabel::parse(name).unwrap()))
    );
    let left_out = damaged_names().count() as u64;
    assert_eq!(store.schedules(None).await.unwrap(), due);
    assert_eq!(store.unreadable_schedules(None).await.unwrap(), left_out);
    store.remove_schedule(&names[0]).await.unwrap();
    let error = store.due_schedules(9, now).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert_eq!(store.schedules(None).await.unwrap(), []);
    assert_eq!(store.unreadable_schedules(None).await.unwrap(), left_out);
    let another = Some(SubscriptionId::random());
    assert_eq!(store.unreadable_schedules(another).await.unwrap(), 0);
}

/// Puts rows and returns their VAPID key. The numbers that the store keeps are damaged after that.
pub(crate) async fn put_counted(
    store: &dyn SubscriptionStore,
    new: [NewSubscription; 2],
    now: Timestamp,
) -> KeyId {
    let which = SubscriptionRef::Key(new[0].key());
    for mut new in new {
        new.tags = Some([Tag::parse("news").unwrap()].into());
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, now).await.unwrap();
    }
    let rows = store.get(&[which]).await.unwrap();
    rows[0].as_ref().unwrap().vapid_key
}

/// A number below zero counts as zero: neither counting nor registering fails (S10).
pub(crate) async fn numbers_below_zero_count_as_zero(
    store: &dyn SubscriptionStore,
    new: &NewSubscription,
    now: Timestamp,
) {
    for audience in [Audience::All, Audience::Tag(Tag::parse("news").unwrap())] {
        let live = CountFilter::new(audience, Liveness::Live);
        assert_eq!(store.count(&live, now).await.unwrap(), 0);
    }
    let limits = SubscriptionLimits::default();
    store.upsert(new, &limits, now).await.unwrap();
}

/// The rows of a key are counted although the numbers say that there are none: such a key would be removed for good.
pub(crate) async fn a_key_that_rows_name_is_in_use(
    store: &dyn SubscriptionStore,
    key: KeyId,
    now: Timestamp,
) {
    let mut filter = CountFilter::new(Audience::All, Liveness::Any);
    filter.vapid_key = Some(key);
    assert_eq!(store.count(&filter, now).await.unwrap(), 1);
    filter.vapid_key = Some(KeyId::from_bytes([0xee; KeyId::LEN]));
    assert_eq!(store.count(&filter, now).await.unwrap(), 0);
}
