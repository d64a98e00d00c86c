//! The gate of an origin: closed, full, closing, left.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_test::mock;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::deliver::{DeliverLayer, EndpointPolicy, OriginGates, Outcome};
use tower_web_push::message::{Message, Ttl};
use tower_web_push::push_request::PushBody;
use tower_web_push::store::PauseReason;
use tower_web_push::testing::ManualClock;
use tower_web_push::vapid::Contact;

use super::world::{
    APPLE, FCM, MOZILLA, OTHER, TestBody, WNS, answer, deliver, exchange, origin, push,
    push_message,
};

#[tokio::test(start_paused = true)]
async fn a_closed_gate_refuses_at_once() {
    let (deliver, mut handle) = deliver();
    let until = SystemClock::new().now() + Duration::from_secs(100);
    deliver
        .gates()
        .pause(&origin(FCM), until, PauseReason::SenderFault);
    let error = deliver
        .clone()
        .oneshot(push(FCM))
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::RateLimited);
    assert_eq!(error.closed().unwrap().reason, PauseReason::SenderFault);
    assert_eq!(error.reason(), Some("sender_fault"));
    assert_eq!(error.status(), None);
    let wait = error.retry_after().unwrap();
    assert!(
        wait > Duration::from_secs(90) && wait <= Duration::from_secs(100),
        "{wait:?}"
    );
    assert!(handle.next_request().now_or_never().is_none());

    let other = exchange(
        &deliver,
        &mut handle,
        MOZILLA,
        answer(201, &[], TestBody::default()),
    );
    assert!(other.await.is_ok(), "another origin goes on");
}

#[tokio::test(start_paused = true)]
async fn a_full_gate_makes_the_call_wait() {
    let (deliver, mut handle) = deliver();
    let deliver = deliver.with_gates(OriginGates::with_in_flight(1));
    handle.allow(2);
    let mut first = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut first).now_or_never().is_none());
    let (_, answer_first) = handle.next_request().now_or_never().unwrap().unwrap();
    let mut second = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut second).now_or_never().is_none());
    assert!(handle.next_request().now_or_never().is_none());

    answer_first.send_response(answer(201, &[], TestBody::default()));
    assert!(first.now_or_never().unwrap().is_ok());
    assert!((&mut second).now_or_never().is_none());
    let (_, answer_second) = handle.next_request().now_or_never().unwrap().unwrap();
    answer_second.send_response(answer(201, &[], TestBody::default()));
    assert!(second.now_or_never().unwrap().is_ok());
    assert_eq!(deliver.gates().gate(&origin(FCM)).available(), 1);
}

/// It would wait for a permit only to be refused then.
#[tokio::test(start_paused = true)]
async fn a_full_gate_that_is_closed_refuses_at_once() {
    let (deliver, mut handle) = deliver();
    let deliver = deliver.with_gates(OriginGates::with_in_flight(1));
    handle.allow(2);
    let mut first = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut first).now_or_never().is_none());
    let _request = handle.next_request().now_or_never().unwrap().unwrap();
    let gate = deliver.gates().gate(&origin(FCM));
    assert_eq!(gate.available(), 0);
    let until = SystemClock::new().now() + Duration::from_secs(60);
    deliver
        .gates()
        .pause(&origin(FCM), until, PauseReason::RateLimited);
    let second = deliver.clone().oneshot(push(FCM)).now_or_never();
    let closed = second.unwrap().unwrap_err().closed().unwrap();
    assert_eq!(closed.reason, PauseReason::RateLimited);
    assert!(handle.next_request().now_or_never().is_none());
}

/// The gate was open when the call got its permit. It is looked at again while the client is awaited, and once more when
/// the client is ready.
#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_while_the_client_is_awaited_refuses_the_call() {
    for becomes_ready in [false, true] {
        let (deliver, mut handle) = deliver();
        handle.allow(0);
        let mut call = deliver.clone().oneshot(push(FCM)).boxed();
        assert!((&mut call).now_or_never().is_none());
        let gate = deliver.gates().gate(&origin(FCM));
        assert_eq!(gate.available(), gate.limit() - 1);
        let until = SystemClock::new().now() + Duration::from_secs(60);
        deliver
            .gates()
            .pause(&origin(FCM), until, PauseReason::RateLimited);
        handle.allow(u64::from(becomes_ready));
        let refused = call.now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.closed().unwrap().reason, PauseReason::RateLimited);
        assert!(handle.next_request().now_or_never().is_none());
        assert_eq!(gate.available(), gate.limit(), "{becomes_ready}");
    }
}

/// The client has two slots, which all origins share.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_full_origin_holds_no_slot_of_the_client() {
    let (client, mut handle) = mock::pair::<Request<PushBody>, Response<TestBody>>();
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let layer = DeliverLayer::new(contact).with_gates(OriginGates::with_in_flight(1));
    let deliver = ServiceBuilder::new()
        .layer(layer)
        .concurrency_limit(2)
        .service(client);
    let call = |endpoint| deliver.clone().oneshot(push(endpoint)).boxed();
    let mut request = |call: &mut BoxFuture<'_, _>| {
        assert!(call.now_or_never().is_none());
        handle.next_request().now_or_never().flatten()
    };
    let mut first = call(FCM);
    let (_, answer_first) = request(&mut first).unwrap();
    let mut waiting: Vec<_> = (0..4).map(|_| call(FCM)).collect();
    for waiting in &mut waiting {
        assert!(request(waiting).is_none());
    }

    let mut other = call(MOZILLA);
    assert!(request(&mut other).is_some(), "another origin goes on");
    // The client is full then, and a call of an idle origin waits with its permit.
    let mut third = call(APPLE);
    assert!(request(&mut third).is_none());
    answer_first.send_response(answer(201, &[], TestBody::default()));
    assert!(first.now_or_never().unwrap().is_ok());
    assert!(request(&mut third).is_some());
}

/// No request was sent, so the next one is the probe.
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_made_is_not_a_probe() {
    let (deliver, mut handle) = deliver();
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let deliver = deliver.with_clock(Arc::new(clock.clone()));
    let until = clock.now() + Duration::from_secs(10);
    deliver
        .gates()
        .pause(&origin(FCM), until, PauseReason::SenderFault);
    clock.set(until);
    let too_large = Message::new(vec![b'x'; Message::MAX_PAYLOAD + 1]);
    let refused = deliver.clone().oneshot(push_message(FCM, too_large));
    assert_eq!(refused.await.unwrap_err().outcome(), Outcome::TooLarge);
    let mut refused = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut refused).now_or_never().is_none());
    let (_, client) = handle.next_request().now_or_never().unwrap().unwrap();
    let private = "10.0.0.1".parse().unwrap();
    client.send_error(EndpointPolicy::default().check_addr(private).unwrap_err());
    assert_eq!(refused.await.unwrap_err().outcome(), Outcome::Refused);
    let mut probe = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut probe).now_or_never().is_none());
    assert!(handle.next_request().now_or_never().is_some());
    let second = deliver.oneshot(push(FCM)).now_or_never().unwrap();
    assert!(second.unwrap_err().closed().is_some(), "one at a time");
}

/// The push service counts the TTL from the request, and the wait has used a part of it.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_permit_shortens_the_ttl_and_ends_the_push_at_its_deadline() {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let began = clock.now();
    for (waited, sent) in [(29_900, Some("1")), (30_000, None), (30_100, None)] {
        clock.set(began);
        let (deliver, mut handle) = deliver();
        let deliver = deliver
            .with_gates(OriginGates::with_in_flight(1))
            .with_clock(Arc::new(clock.clone()));
        handle.allow(2);
        let mut first = deliver.clone().oneshot(push(FCM)).boxed();
        assert!((&mut first).now_or_never().is_none());
        let (_, answer_first) = handle.next_request().now_or_never().unwrap().unwrap();
        let ring = push_message(FCM, Message::new("ring").with_ttl(Ttl::from_secs(30)))
            .with_ttl_since(began)
            .with_deadline(began + Duration::from_secs(30));
        let mut second = deliver.clone().oneshot(ring).boxed();
        assert!((&mut second).now_or_never().is_none());

        clock.advance(Duration::from_millis(waited));
        answer_first.send_response(answer(201, &[], TestBody::default()));
        assert!(first.now_or_never().unwrap().is_ok());
        let ended = (&mut second).now_or_never();
        let request = handle.next_request().now_or_never().flatten();
        let ttl = request
            .as_ref()
            .map(|(request, _)| &request.headers()["ttl"]);
        assert_eq!(ttl.map(|ttl| ttl.to_str().unwrap()), sent, "{waited}");
        if sent.is_none() {
            let error = ended.unwrap().unwrap_err();
            assert_eq!(error.outcome(), Outcome::Transient);
            assert_eq!((error.status(), error.reason()), (None, Some("deadline")));
            assert_eq!(deliver.gates().gate(&origin(FCM)).available(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_while_a_call_waits_refuses_it() {
    let (deliver, mut handle) = deliver();
    let deliver = deliver.with_gates(OriginGates::with_in_flight(1));
    handle.allow(2);
    let mut first = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut first).now_or_never().is_none());
    let mut second = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut second).now_or_never().is_none());
    let (_, send) = handle.next_request().now_or_never().unwrap().unwrap();
    let until = SystemClock::new().now() + Duration::from_secs(60);
    deliver
        .gates()
        .pause(&origin(FCM), until, PauseReason::RateLimited);
    send.send_response(answer(503, &[], TestBody::default()));
    assert!(
        first
            .now_or_never()
            .unwrap()
            .unwrap_err()
            .closed()
            .is_none()
    );
    let refused = second.now_or_never().unwrap().unwrap_err();
    assert_eq!(refused.closed().unwrap().reason, PauseReason::RateLimited);
    assert!(handle.next_request().now_or_never().is_none());
}

/// Eight rows that were accepted before are limited within some seconds; those of strangers are no evidence beside them.
#[tokio::test(start_paused = true)]
async fn limits_of_proven_rows_close_the_gate_of_every_push_service() {
    for endpoint in [FCM, MOZILLA, OTHER, APPLE, WNS] {
        for is_proven in [true, false] {
            let (deliver, mut handle) = deliver();
            let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
            let deliver = deliver.with_clock(Arc::new(clock.clone()));
            let gate = deliver.gates().gate(&origin(endpoint));
            for number in 0..9 {
                assert!(gate.closed_at(clock.now()).is_none(), "{endpoint}");
                clock.advance(Duration::from_secs(1));
                let push = push(&format!("{endpoint}{number}"));
                let accepted_with = (is_proven || number == 0).then(|| push.key().id());
                let push = push.with_history(accepted_with, None);
                let limited = async {
                    let (_, send) = handle.next_request().await.unwrap();
                    let busy = [("retry-after", "60")];
                    send.send_response(answer(429, &busy, TestBody::default()));
                };
                let (result, ()) = tokio::join!(deliver.clone().oneshot(push), limited);
                assert!(result.is_err());
                if number == 7 && is_proven {
                    break;
                }
            }
            let closed = gate.closed_at(clock.now());
            assert_eq!(closed.is_some(), is_proven, "{endpoint}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_permit_back() {
    let (deliver, mut handle) = deliver();
    handle.allow(1);
    let mut call = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut call).now_or_never().is_none());
    let gate = deliver.gates().gate(&origin(FCM));
    assert_eq!((gate.available(), gate.in_flight()), (7, 1));
    drop(call);
    assert_eq!((gate.available(), gate.in_flight()), (8, 0));
}
