//! A browser that is offline: the messages that its push service stores.

use tower_web_push::message::{Message, Topic, Ttl};

use super::world::World;

pub(crate) async fn what_waits_is_what_was_allowed_to(w: &mut World) {
    w.open_site().await;
    let there = w.subscribe("away").await;
    w.send(&there, Message::new("here")).await.unwrap();
    w.arrived(&there, 1).await;

    w.push.go_offline();
    let news = Topic::of("news");
    let accepted = w.send(&there, Message::new("at once or never").with_ttl(Ttl::ZERO));
    assert_eq!(accepted.await.unwrap().ttl(), Some(Ttl::ZERO));
    for message in [
        Message::new("old news").with_topic(news.clone()),
        Message::new("no news"),
        Message::new("new news").with_topic(news),
    ] {
        w.send(&there, message.with_ttl(Ttl::from_secs(600)))
            .await
            .unwrap();
    }
    w.push.come_back();

    w.arrived(&there, 3).await;
    // All stored messages have arrived by now.
    w.send(&there, Message::new("last")).await.unwrap();
    let mut arrived = w.arrived(&there, 4).await;
    arrived.sort();
    let wanted = ["here", "last", "new news", "no news"];
    assert_eq!(arrived, wanted.map(|text| Some(text.as_bytes().to_vec())));
}
