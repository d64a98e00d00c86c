//! Tests of everything except the checks: scripts, offline user agents, recording.

use http::HeaderName;

use super::*;

#[tokio::test]
async fn offline_messages_wait_for_their_ttl_and_make_way_for_their_topic() {
    let world = World::new();
    world.browser.go_offline();
    world.push("now or never", &[("ttl", "0")]).await;
    world.push("old", &[("topic", "a")]).await;
    world.push("short", &[("ttl", "10")]).await;
    world.push("other topic", &[("topic", "b")]).await;
    world.push("new", &[("topic", "a")]).await;
    assert_eq!(world.texts(), [""; 0]);
    world.clock.advance(Duration::from_secs(10));
    world.browser.go_online();
    assert_eq!(world.texts(), ["other topic", "new"]);
    let counts = world.service.counts();
    assert_eq!(
        (counts.accepted, counts.replaced, counts.expired),
        (5, 1, 2)
    );
    world.push("again", &[("topic", "a")]).await;
    assert_eq!(world.texts(), ["other topic", "new", "again"]);
}

#[tokio::test]
async fn scripts_answer_in_the_order_given_and_so_often() {
    let world = World::new();
    let other = world.service.user_agent().subscribe_unrestricted().unwrap();
    let teapot = Answer::status(StatusCode::IM_A_TEAPOT).with_body("short");
    world
        .service
        .script(When::endpoint(other.endpoint()), teapot);
    world.service.script(When::any().times(0), Answer::never());
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(30);
    world.service.script(When::any().times(1), busy);
    let by_head = When::head(|head| head.headers.contains_key(HeaderName::from_static("topic")));
    world.service.script(by_head, Answer::disconnect());

    let response = world.send(world.request(b"x")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "30");
    assert_eq!(
        world.send(world.request(b"x")).await.status(),
        StatusCode::CREATED
    );
    let mut request = world.request(b"x");
    set("topic", "a")(&mut request);
    assert_eq!(
        world.service.clone().oneshot(request).await.unwrap_err(),
        Disconnected
    );
    let mut request = world.request(b"x");
    *request.uri_mut() = other.endpoint().uri().clone();
    let response = world.send(request).await;
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "short"
    );
    world.service.clear_script();
    world.push("fine", &[("topic", "a")]).await;
    assert_eq!(world.service.counts().scripted, 3);
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_swallows_and_a_slow_answer_takes_its_time() {
    let world = World::new();
    world.service.script(When::any().times(1), Answer::never());
    let lost = tokio::spawn(world.service.clone().oneshot(world.request(b"lost")));
    world
        .service
        .wait_until(|counts| counts.scripted == 1)
        .await;
    let slow = Answer::ordinary().after(Duration::from_secs(9));
    world.service.script(When::any(), slow);
    let start = tokio::time::Instant::now();
    assert_eq!(
        world.send(world.request(b"slow")).await.status(),
        StatusCode::CREATED
    );
    assert_eq!(start.elapsed(), Duration::from_secs(9));
    let counts = world.service.counts();
    assert_eq!(
        (counts.in_flight, counts.peak_in_flight, counts.accepted),
        (1, 2, 1)
    );
    lost.abort();
    assert!(lost.await.unwrap_err().is_cancelled());
    assert_eq!(world.service.counts().in_flight, 0);
}

#[tokio::test]
async fn counting_alone_keeps_no_push() {
    let service = TestPushService::builder()
        .recording(Recording::Counts)
        .build();
    let browser = service.user_agent();
    let subscription = browser.subscribe_unrestricted().unwrap();
    let request = || {
        let body = encrypt(p256::fastest(), &subscription, b"x", Padding::default()).unwrap();
        Request::post(subscription.endpoint().as_str())
            .header("ttl", "60")
            .header("content-encoding", "aes128gcm")
            .body(Full::new(body))
            .unwrap()
    };
    for _ in 0..3 {
        service.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(service.accepted_for(subscription.endpoint()), 3);
    assert!(service.accepted().is_empty() && browser.messages().is_empty());
    for _ in 0..40 {
        let mut wrong = request();
        without("ttl")(&mut wrong);
        service.clone().oneshot(wrong).await.unwrap();
    }
    assert_eq!(service.refusals().len(), 32);
    assert_eq!(service.counts().refused, 40);
}

#[tokio::test]
async fn mounted_it_has_no_errors_but_a_broken_answer() {
    let world = World::new();
    world
        .service
        .script(When::any().times(1), Answer::disconnect());
    let Ok(response) = world.service.mount().oneshot(world.request(b"x")).await;
    assert_eq!(
        response.into_body().collect().await.unwrap_err(),
        Disconnected
    );
}

#[test]
fn the_types_can_be_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    fn sent<T: Send + std::fmt::Debug>() {}
    shared::<TestPushService>();
    shared::<MountedPushService>();
    shared::<UserAgent>();
    shared::<ReceivedPush>();
    shared::<ManualClock>();
    shared::<Answer>();
    shared::<When>();
    sent::<AnswerFuture>();
    sent::<MountedAnswerFuture>();
}
