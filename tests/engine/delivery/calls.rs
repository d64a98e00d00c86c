//! An application without the HTTP API: Rust calls with the same rules.

use tower_web_push::broadcast::{BroadcastId, FinalOutcome, Principal, Tag};
use tower_web_push::engine::{DeviceState, RegisterErrorKind, Registered, Renewal, SendErrorKind};
use tower_web_push::schedule::{Daily, DailyTime, NotifyType, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{
    Assignment, Cursor, Failure, NewBroadcast, NewDelivery, PageWrite, RetireReason,
    ScheduleStore as _,
};
use tower_web_push::subscription::{AuthSecret, Subscription};
use tower_web_push::{Broadcast, Notification, Registration};

use super::order::tampered;
use super::world::*;

fn alice() -> Principal {
    Principal::from("alice")
}

fn daily(notify_type: NotifyType) -> Daily {
    Daily::new(notify_type, DailyTime::new(12, 0).unwrap(), None).unwrap()
}

/// A subscription that is not stored yet.
fn fresh(world: &World) -> (UserAgent, Subscription) {
    let browser = world.service.user_agent();
    let key = world.push.vapid_public_key();
    let subscription = browser.subscribe(&key).unwrap();
    (browser, subscription)
}

async fn register(world: &World, registration: Registration) -> Registered {
    world.push.subscribe(registration).await.unwrap()
}

#[tokio::test]
async fn a_user_subscribes_is_sent_to_and_leaves() {
    let world = World::at(FCM).await;
    let push = &world.push;
    let (browser, subscription) = fresh(&world);
    let registration = Registration::new(subscription.clone())
        .principal("alice")
        .tags(["news".parse::<Tag>().unwrap()])
        .vapid_key(push.vapid_public_key())
        .daily(daily(NotifyType::DailyCheck));
    let registered = register(&world, registration).await;
    assert!(registered.created && !registered.stale_key);
    world.clock.advance(2 * MINUTE);

    let queued = push
        .enqueue_broadcast(Broadcast::to(
            Audience::user("alice"),
            Message::new("hello"),
        ))
        .await
        .unwrap();
    assert_eq!((queued.recipients, queued.is_repeat), (1, false));
    world.settle().await;
    let status = push
        .wait_until_over(queued.broadcast, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(status.unwrap().counts.accepted, 1);
    assert_eq!(browser.messages().len(), 1);
    let outcome = push.send_test(&subscription, Message::new("test")).await;
    assert_eq!(outcome.unwrap(), Some(FinalOutcome::Accepted));

    let [device] = &push.devices(&alice()).await.unwrap()[..] else {
        panic!("one device");
    };
    assert_eq!(
        (device.id, device.state),
        (registered.id, DeviceState::Live)
    );
    assert_eq!(device.last_success_at, Some(world.clock.now()));
    assert_eq!(device.schedules.len(), 1);
    assert_eq!(device.push_service.as_str(), "fcm");
    assert!(device.tags.contains(&"news".parse().unwrap()));

    // The browser exchanged its subscription. Everything else stays.
    let (_, renewed) = fresh(&world);
    let renewal = Renewal::new(
        subscription.endpoint().clone(),
        Registration::new(renewed.clone()),
    )
    .old_auth(subscription.auth().clone());
    let moved = push.renew(renewal).await.unwrap();
    assert_eq!(moved.id, registered.id);
    assert_eq!(push.devices(&alice()).await.unwrap().len(), 1);

    let ended = push.unsubscribe_daily(renewed.endpoint(), NotifyType::DailyCheck);
    assert!(ended.await.unwrap());
    assert!(!push.remove(&"bob".into(), moved.id).await.unwrap());
    assert!(push.remove(&alice(), moved.id).await.unwrap());
    assert!(!push.remove(&alice(), moved.id).await.unwrap());
    assert!(!push.unsubscribe(moved.id).await.unwrap());
    assert!(push.devices(&alice()).await.unwrap().is_empty());
}

#[tokio::test]
async fn calls_refuse_what_the_http_api_refuses() {
    let world = World::with(FCM, |builder| {
        builder.endpoint_policy(EndpointPolicy::known_push_services())
    })
    .await;
    let (_, known) = fresh(&world);
    register(&world, Registration::new(known.clone()).principal("alice")).await;
    let other_keys = |of: &Subscription| {
        let keys = fresh(&world).1;
        Subscription::new(
            of.endpoint().clone(),
            *keys.ua_public(),
            keys.auth().clone(),
        )
    };
    let elsewhere = "https://push.evil.example/1".parse().unwrap();
    let elsewhere = Subscription::new(elsewhere, *known.ua_public(), known.auth().clone());
    let expired = fresh(&world)
        .1
        .with_expiration_time(Some(world.clock.now()));
    let tags = (0..33).map(|n| format!("t{n}").parse::<Tag>().unwrap());
    let unknown_key = known.ua_public().as_bytes();
    let unknown_key = tower_web_push::vapid::VapidPublicKey::from_bytes(unknown_key).unwrap();
    for (registration, code) in [
        (Registration::new(elsewhere), "endpoint_not_allowed"),
        (Registration::new(expired), "subscription_expired"),
        (
            Registration::new(fresh(&world).1).tags(tags),
            "too_many_tags",
        ),
        (
            Registration::new(fresh(&world).1).principal("é".repeat(513)),
            "principal_too_long",
        ),
        (
            Registration::new(fresh(&world).1).vapid_key(unknown_key),
            "unknown_vapid_key",
        ),
        (
            Registration::new(other_keys(&known)).principal("bob"),
            "subscription_conflict",
        ),
        (
            Registration::new(other_keys(&known)),
            "subscription_conflict",
        ),
    ] {
        let refused = world.push.subscribe(registration.clone()).await;
        let refused = refused.expect_err(code);
        assert_eq!(refused.kind().code(), code, "{registration:?}");
    }
    let filter = CountFilter::new(Audience::All, Liveness::Any);
    let rows = world.store.count(&filter, world.clock.now()).await;
    assert_eq!(rows.unwrap(), 1, "nothing was stored");
    let changed = Registration::new(other_keys(&known)).principal("alice");
    assert!(!register(&world, changed).await.created);
    let longest = Registration::new(fresh(&world).1).principal("é".repeat(512));
    assert!(register(&world, longest).await.created);
}

#[tokio::test]
async fn an_assignment_has_the_limits_of_a_registration() {
    let world = World::at(FCM).await;
    let (_, subscription) = fresh(&world);
    let id = register(&world, Registration::new(subscription)).await.id;
    let user = |len| Assignment {
        principal: Some(Some("a".repeat(len).into())),
        tags: None,
    };
    let tagged = |number| Assignment {
        principal: None,
        tags: Some(
            (0..number)
                .map(|n| format!("t{n}").parse().unwrap())
                .collect(),
        ),
    };
    for (fits, exceeds, code) in [
        (user(1024), user(1025), "principal_too_long"),
        (tagged(32), tagged(33), "too_many_tags"),
    ] {
        let before = world.push.assign(id, fits).await.unwrap().unwrap();
        let refused = world.push.assign(id, exceeds).await.unwrap_err();
        assert_eq!(refused.kind().code(), code);
        let nothing = world.push.assign(id, Assignment::default()).await.unwrap();
        assert_eq!(nothing, Some(before));
    }
}

#[tokio::test]
async fn renewing_needs_the_secret_or_the_owner() {
    let world = World::at(FCM).await;
    for owner in [None, Some("alice")] {
        let (_, old) = fresh(&world);
        let mut registration = Registration::new(old.clone());
        if let Some(owner) = owner {
            registration = registration.principal(owner);
        }
        let id = register(&world, registration).await.id;
        let wrong = AuthSecret::from_bytes(&[7; AuthSecret::LEN]).unwrap();
        for (caller, auth) in [
            (None, None),
            (Some("bob"), None),
            (Some("bob"), Some(wrong)),
        ] {
            let mut new = Registration::new(fresh(&world).1);
            if let Some(caller) = caller {
                new = new.principal(caller);
            }
            let mut renewal = Renewal::new(old.endpoint().clone(), new);
            if let Some(auth) = auth {
                renewal = renewal.old_auth(auth);
            }
            let renewed = world.push.renew(renewal).await.unwrap();
            assert_ne!(renewed.id, id, "{owner:?} {caller:?}");
        }
    }
}

#[tokio::test]
async fn a_full_store_and_a_failing_one_have_different_errors() {
    let world = World::with(FCM, |builder| {
        builder.subscription_limits(SubscriptionLimits::new(0, 32))
    })
    .await;
    let full = world
        .push
        .subscribe(Registration::new(fresh(&world).1))
        .await;
    assert_eq!(full.unwrap_err().kind(), RegisterErrorKind::StoreFull);
    let store = std::sync::Arc::new(crate::support::tampered_store::TamperedStore::default());
    let push = WebPush::builder("mailto:ops@example.com")
        .store(std::sync::Arc::clone(&store))
        .client(world.service.clone())
        .build()
        .await
        .unwrap();
    store.fail("upsert");
    let failed = push.subscribe(Registration::new(fresh(&world).1)).await;
    assert_eq!(failed.unwrap_err().kind(), RegisterErrorKind::Store);
    // A subscription without its requested daily notification is removed.
    store.fail("put_schedule");
    let asked = Registration::new(fresh(&world).1)
        .principal("alice")
        .daily(daily(NotifyType::DailyCheck));
    let failed = push.subscribe(asked).await;
    assert_eq!(failed.unwrap_err().kind(), RegisterErrorKind::Store);
    store.fail(None);
    assert!(push.devices(&alice()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_daily_time_without_a_next_occurrence_changes_no_stored_row() {
    let world = World::at(FCM).await;
    let (_, row) = world.subscribe().await;
    // The evening of the last day that can be named: noon does not come again.
    let last_evening = Timestamp::from_secs(253_402_200_000);
    world.clock.set(last_evening);
    let asked = Registration::new(row.subscription.clone())
        .principal("alice")
        .tags(["news".parse::<Tag>().unwrap()])
        .daily(daily(NotifyType::DailyCheck));
    let refused = world.push.subscribe(asked.clone()).await;
    assert_eq!(refused.unwrap_err().kind(), RegisterErrorKind::NeverDue);
    assert_eq!(world.record(&row).await, row);
    let renewed = Subscription::new(
        fresh(&world).1.endpoint().clone(),
        *row.subscription.ua_public(),
        row.subscription.auth().clone(),
    );
    let asked = Registration::new(renewed).daily(daily(NotifyType::DailyCheck));
    let renewal = Renewal::new(row.subscription.endpoint().clone(), asked)
        .old_auth(row.subscription.auth().clone());
    let refused = world.push.renew(renewal).await;
    assert_eq!(refused.unwrap_err().kind(), RegisterErrorKind::NeverDue);
    assert_eq!(world.record(&row).await, row);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_limit_ends_with_the_broadcast() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let broadcast = world.enqueue().await;
    let push = world.push.clone();
    let waiting = tokio::spawn(async move { push.wait_until_over(broadcast, Duration::MAX).await });
    tokio::task::yield_now().await;
    world.settle().await;
    let status = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Done);
}

#[tokio::test]
async fn a_user_with_more_subscriptions_than_one_page_sees_and_erases_all() {
    let world = World::with(FCM, |builder| {
        builder.subscription_limits(SubscriptionLimits::new(1_000, 1_000))
    })
    .await;
    for _ in 0..201 {
        register(
            &world,
            Registration::new(fresh(&world).1).principal("alice"),
        )
        .await;
    }
    assert_eq!(world.push.devices(&alice()).await.unwrap().len(), 201);
    let forgotten = world.push.forget(&alice()).await.unwrap();
    assert_eq!(forgotten.subscriptions, 201);
}

/// The application replaces its schedule between the look at it and its removal.
#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_for_others_meanwhile_is_not_erased() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let put = async |to: Audience, text: &'static str| {
        let label = ScheduleLabel::parse("digest").unwrap();
        let time = DailyTime::new(9, 0).unwrap();
        let message = Message::new(text);
        world.push.schedule(label, time, to, message).await.unwrap();
    };
    store.delay("remove_unchanged_schedule", Duration::from_secs(2));
    for (to, erased) in [
        (Audience::All, 0),
        (Audience::user("bob"), 0),
        (Audience::user("alice"), 1),
    ] {
        put(Audience::user("alice"), "hello").await;
        let replaced = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            put(to.clone(), "hello again").await;
        };
        let user = alice();
        let (forgotten, ()) = tokio::join!(push.forget(&user), replaced);
        assert_eq!(forgotten.unwrap().schedules, erased, "{to:?}");
        let left = world.push.schedules().await.unwrap();
        assert_eq!(left.len(), 1 - erased as usize, "{to:?}");
    }
}

#[tokio::test]
async fn an_unknown_id_takes_the_schedules_that_were_left_behind() {
    let world = World::at(FCM).await;
    let asked = Registration::new(fresh(&world).1).daily(daily(NotifyType::DailyCheck));
    let id = register(&world, asked).await.id;
    let row = world.store.get(&[SubscriptionRef::Id(id)]).await.unwrap();
    let delete = Change::delete(row[0].as_ref().unwrap());
    let now = world.clock.now();
    world.store.apply(&[delete], now).await.unwrap();
    assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 1);
    assert!(!world.push.unsubscribe(id).await.unwrap());
    assert_eq!(world.store.schedules(Some(id)).await.unwrap(), []);
}

#[tokio::test]
async fn a_key_that_another_process_made_is_not_stale_here() {
    let world = World::at(FCM).await;
    let other = world.replica().await;
    other.rotate_vapid_key().await.unwrap();
    let key = other.vapid_public_key();
    assert_ne!(key, world.push.vapid_public_key());
    let subscription = world.service.user_agent().subscribe(&key).unwrap();
    let registration = Registration::new(subscription).vapid_key(key);
    assert!(!register(&world, registration).await.stale_key);
}

/// The beginning of an id of this time: its milliseconds in 48 bits.
fn beginning(id: BroadcastId) -> u64 {
    let octets = u128::from_be_bytes(*id.as_bytes());
    u64::try_from(octets >> 80).unwrap()
}

#[tokio::test]
async fn the_id_of_a_broadcast_begins_with_the_time_of_its_acceptance() {
    let world = World::at(FCM).await;
    let (_browser, _) = world.subscriber().await;
    for _ in 0..2 {
        world.clock.advance(MINUTE);
        let now = u64::try_from(world.clock.now().as_millis()).unwrap();
        let to = || Broadcast::to(Audience::All, Notification::new("x"));
        let at_once = world.push.enqueue_broadcast(to()).await.unwrap();
        let later = to().at(world.clock.now() + MINUTE);
        let later = world.push.enqueue_broadcast(later).await.unwrap();
        for queued in [at_once, later] {
            assert_eq!(beginning(queued.broadcast), now);
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_is_used_for_one_broadcast() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let to = |text: &str| {
        Broadcast::to(Audience::All, Notification::new(text)).idempotency_key("issue-42")
    };
    let first = world.push.enqueue_broadcast(to("a")).await.unwrap();
    let again = world.push.enqueue_broadcast(to("a")).await.unwrap();
    assert!(!first.is_repeat && again.is_repeat);
    assert_eq!((again.broadcast, again.recipients), (first.broadcast, 1));
    let conflict = world.push.enqueue_broadcast(to("b")).await.unwrap_err();
    assert_eq!(conflict.kind(), SendErrorKind::IdempotencyConflict);
    let malformed = to("a").idempotency_key("a b");
    let malformed = world.push.enqueue_broadcast(malformed).await.unwrap_err();
    assert_eq!(malformed.kind(), SendErrorKind::InvalidIdempotencyKey);
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
}

#[tokio::test]
async fn a_user_is_erased_in_every_state_and_no_other_user() {
    let world = World::at(FCM).await;
    let push = &world.push;
    let mut rows = Vec::new();
    for _ in 0..4 {
        let (_, subscription) = fresh(&world);
        let expires = (rows.len() == 3).then(|| world.clock.now() + MINUTE);
        let registration = Registration::new(subscription.with_expiration_time(expires))
            .principal("alice")
            .daily(daily(NotifyType::DirectNotification));
        rows.push(register(&world, registration).await.id);
    }
    let (bobs_browser, bobs) = fresh(&world);
    let bob = Registration::new(bobs)
        .principal("bob")
        .daily(daily(NotifyType::DailyCheck));
    register(&world, bob).await;
    let observed_at = world.clock.now();
    let mut keys = Vec::new();
    for id in &rows {
        let row = world.store.get(&[SubscriptionRef::Id(*id)]).await.unwrap();
        let row = row.into_iter().flatten().next().unwrap();
        keys.push(row.subscription.endpoint().key());
    }
    // Two campaigns, one of which is expanded: to alice's live row, and to bob.
    push.enqueue(Audience::All, Message::new("all"))
        .await
        .unwrap();
    let changes = [
        Change::Stale {
            key: keys[1],
            observed_at,
            failure: Failure::default(),
        },
        Change::Retire {
            key: keys[2],
            reason: RetireReason::Gone,
            observed_at,
            failure: Failure::default(),
        },
    ];
    world.store.apply(&changes, observed_at).await.unwrap();
    world.clock.advance(2 * MINUTE);
    let tomorrow = world.clock.now() + Duration::from_secs(86_400);
    for audience in [
        Audience::user("alice"),
        Audience::Ids(rows.clone()),
        Audience::user("bob"),
    ] {
        let broadcast = Broadcast::to(audience, Message::new("later")).at(tomorrow);
        push.enqueue_broadcast(broadcast).await.unwrap();
    }
    for (label, to) in [("a", "alice"), ("b", "bob")] {
        let (label, time) = (
            ScheduleLabel::parse(label).unwrap(),
            DailyTime::new(9, 0).unwrap(),
        );
        push.schedule(label, time, Audience::user(to), Message::new("daily"))
            .await
            .unwrap();
    }
    let states: Vec<_> = push.devices(&alice()).await.unwrap();
    let states: Vec<_> = states.iter().map(|device| device.state.as_str()).collect();
    for state in ["live", "stale", "retired", "expired"] {
        assert!(states.contains(&state), "{states:?}");
    }
    // Its rows are in the ledger, and none is sent.
    let expansion = world.store.expandable(1, world.clock.now()).await.unwrap();
    let page = world
        .store
        .page(&Audience::All, None, 9, world.clock.now())
        .await
        .unwrap();
    let deliveries: Vec<_> = page
        .iter()
        .map(|row| {
            let endpoint = row.subscription.endpoint();
            NewDelivery::new(endpoint.key(), endpoint.origin().clone())
        })
        .collect();
    let (start, end) = (Cursor::Start, Cursor::End);
    let written = world.store.enqueue_page(
        expansion[0].id,
        &start,
        &deliveries,
        &end,
        world.clock.now(),
    );
    written.await.unwrap();

    let forgotten = push.forget(&alice()).await.unwrap();
    assert_eq!(
        (
            forgotten.subscriptions,
            forgotten.schedules,
            forgotten.deliveries,
            forgotten.broadcasts
        ),
        (4, 5, 1, 2)
    );
    assert_eq!(push.forget(&alice()).await.unwrap(), Default::default());
    assert!(push.devices(&alice()).await.unwrap().is_empty());
    for id in rows {
        assert_eq!(world.store.schedules(Some(id)).await.unwrap(), []);
    }
    assert_eq!(push.schedules().await.unwrap().len(), 1);
    assert_eq!(push.devices(&"bob".into()).await.unwrap().len(), 1);
    assert_eq!(push.underway(9).await.unwrap().len(), 2);
    world.settle().await;
    assert_eq!(bobs_browser.messages().len(), 1);
    assert_eq!(
        world.asked(),
        1,
        "nothing was sent to an erased subscription"
    );
}

/// A page of a broadcast is written after what is pending was erased, and before the subscriptions are removed.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_expanded_while_its_recipient_is_erased_is_erased_too() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let (_, subscription) = fresh(&world);
    let endpoint = subscription.endpoint().clone();
    register(&world, Registration::new(subscription).principal("alice")).await;
    let now = world.clock.now();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), now + MINUTE);
    world.store.open(&new, now).await.unwrap();
    store.delay("apply", Duration::from_secs(2));
    let expanded = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let row = NewDelivery::new(endpoint.key(), endpoint.origin().clone());
        let (first, last) = (Cursor::Start, Cursor::End);
        let store = &world.store;
        store.enqueue_page(new.id, &first, &[row], &last, now).await
    };
    let user = alice();
    let (forgotten, written) = tokio::join!(push.forget(&user), expanded);
    assert_eq!(written.unwrap(), PageWrite::Stored);
    let forgotten = forgotten.unwrap();
    assert_eq!((forgotten.subscriptions, forgotten.deliveries), (1, 1));
    assert_eq!(world.status(new.id).await.counts.cancelled, 1);
}

/// The former owner sets it after the schedules were removed, and before the row changes hands.
#[tokio::test(start_paused = true)]
async fn a_daily_notification_of_the_former_owner_does_not_go_to_the_new_one() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let (_, subscription) = fresh(&world);
    let of_alice = Registration::new(subscription.clone()).principal("alice");
    let id = register(&world, of_alice).await.id;
    store.delay("upsert", Duration::from_secs(2));
    let set = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let plan = Plan::Subscriber {
            subscription: id,
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let time = DailyTime::new(12, 0).unwrap();
        let schedule = Schedule::new(plan, time, world.clock.now() + MINUTE);
        world.store.put_schedule(&schedule).await
    };
    let of_bob = Registration::new(subscription).principal("bob");
    let (taken_over, set) = tokio::join!(push.subscribe(of_bob), set);
    set.unwrap();
    assert_eq!(taken_over.unwrap().id, id);
    assert_eq!(push.devices(&alice()).await.unwrap().len(), 0);
    assert_eq!(world.store.schedules(Some(id)).await.unwrap(), []);
}
