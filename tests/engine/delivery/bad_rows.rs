//! Five percent of the rows are bad, in ten ways, at each kind of push service: no other row waits for them.

use super::world::*;

const ROWS: usize = 200;
const BAD: usize = 10;

/// What a bad row gets for ever, after having worked.
fn ways() -> [(&'static str, Answer); 10] {
    let status = |status| Answer::status(StatusCode::from_u16(status).unwrap());
    [
        ("limited for an hour", status(429).with_retry_after(3600)),
        ("limited", status(429)),
        ("unauthorized", status(401)),
        ("forbidden", status(403)),
        ("unavailable", status(503)),
        (
            "unavailable for an hour",
            status(503).with_retry_after(3600),
        ),
        ("no active subscriber", status(507)),
        ("no response", Answer::never()),
        ("a broken connection", Answer::disconnect()),
        ("not acceptable", status(406)),
    ]
}

/// Twenty minutes: a message to all every ten, one to a healthy row each ten seconds.
async fn delay_no_other(origin: &str) {
    for (way, bad) in ways() {
        let world = World::at(origin).await;
        let rows = world.subscribers(ROWS).await;
        world.prove().await;
        for (_, record) in &rows[..BAD] {
            let endpoint = record.subscription.endpoint();
            world.service.script(When::endpoint(endpoint), bad.clone());
        }
        // Refusals are quicker than acceptances.
        let slow = Answer::ordinary().after(Duration::from_millis(50));
        world.service.script(When::any(), slow);
        for step in 0..120 {
            world.clock.advance(Duration::from_secs(10));
            world.settle().await;
            let (to, healthy) = match step % 60 {
                0 => (Audience::All, ROWS - BAD),
                _ => (rows[BAD + step].1.id.into(), 1),
            };
            // Later than two seconds is never.
            let message = Message::new("x").with_ttl(Ttl::from_secs(2));
            let queued = world.push.enqueue(to, message).await.unwrap();
            world.settle().await;
            let counts = world.status(queued.broadcast).await.counts;
            assert_eq!(counts.accepted, healthy as u64, "{way}, {step}: {counts:?}");
            assert_eq!(world.paused().await, [], "{way}, {step}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_rows_of_fcm_delay_no_other() {
    delay_no_other(FCM).await;
}

#[tokio::test(start_paused = true)]
async fn bad_rows_of_mozilla_delay_no_other() {
    delay_no_other(MOZILLA).await;
}

#[tokio::test(start_paused = true)]
async fn bad_rows_of_apple_delay_no_other() {
    delay_no_other(APPLE).await;
}

#[tokio::test(start_paused = true)]
async fn bad_rows_of_wns_delay_no_other() {
    delay_no_other(WNS).await;
}

#[tokio::test(start_paused = true)]
async fn bad_rows_of_an_unknown_host_delay_no_other() {
    delay_no_other("https://push.example.net").await;
}
