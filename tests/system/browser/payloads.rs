//! Messages sent without a server, in the site's own worker: payloads, octet by octet.

use futures_util::future::join_all;
use serde_json::json;
use tower_web_push::deliver::Outcome;
use tower_web_push::message::Message;

use super::world::World;

pub(crate) async fn octets_arrive_as_they_were_sent(w: &mut World) {
    let there = w.subscribe("octets").await;
    let json = json!({"title": "JSON", "data": {"order": 7, "lines": [1, 2.5, null]}});
    let longest: String = ('a'..='z').cycle().take(Message::MAX_PAYLOAD).collect();
    assert_eq!(longest.len(), 3993);
    let payloads = [
        Some("Plain text, which is no JSON".to_owned()),
        Some(json.to_string()),
        Some(
            "Zażółć gęślą jaźń · 通知が届きました · إشعار · \u{1F514}\u{1F3FD} e\u{301}\0"
                .to_owned(),
        ),
        Some(longest),
        Some("{\"title\": \"cut".to_owned()),
        None,
    ];
    for (index, payload) in payloads.iter().enumerate() {
        let message = match payload {
            Some(payload) => Message::new(payload.clone()),
            None => Message::without_payload(),
        };
        let accepted = w.send(&there, message).await.unwrap();
        assert_eq!(accepted.status(), 201);
        // One by one: push services guarantee no order.
        let arrived = w.arrived(&there, index + 1).await;
        let wanted = payload.as_ref().map(|payload| payload.as_bytes());
        assert_eq!(arrived.len(), index + 1);
        assert_eq!(arrived[index].as_deref(), wanted);
    }
    let shown = w
        .browser
        .wait_for(
            "navigator.serviceWorker.getRegistration('/octets/')
                .then((registration) => registration.getNotifications())
                .then((shown) => shown.length === 6 && shown.map(({ title, body }) => [title, body]))",
        )
        .await;
    let shown = shown.as_array().unwrap();
    let host = "127.0.0.1";
    for wanted in [
        json!([host, "Plain text, which is no JSON"]),
        json!(["JSON", ""]),
        json!([host, "{\"title\": \"cut"]),
        json!([host, "You have a new notification."]),
    ] {
        assert!(shown.contains(&wanted), "{wanted} in {shown:?}");
    }
    w.unsubscribe(&there).await;
}

pub(crate) async fn what_was_changed_on_the_way_is_no_message(w: &mut World) {
    let there = w.subscribe("changed").await;
    w.push.flip_next();
    w.send(&there, Message::new("changed")).await.unwrap();
    let version = w
        .push
        .look(|state| format!("version{}", state.pushes.len() - 1));
    if w.is_firefox() {
        let code = w.push.wait_for("the browser's word", |state| {
            let mut acks = state.acks.iter();
            acks.find_map(|(acked, code)| (*acked == version).then_some(*code))
        });
        assert_eq!(code.await, 101, "the browser cannot decrypt it");
    }
    w.send(&there, Message::new("whole")).await.unwrap();
    assert_eq!(w.arrived(&there, 1).await, [Some(b"whole".to_vec())]);
    w.unsubscribe(&there).await;
}

pub(crate) async fn a_burst_arrives_whole_and_once(w: &mut World) {
    let there = w.subscribe("burst").await;
    let mut sent: Vec<Vec<u8>> = (0..25).map(|n| format!("{n:02}").into_bytes()).collect();
    let sending = sent
        .iter()
        .map(|payload| w.send(&there, Message::new(payload.clone())));
    for accepted in join_all(sending).await {
        accepted.unwrap();
    }
    w.arrived(&there, 25).await;
    // A repeat has arrived by now.
    w.send(&there, Message::new("last")).await.unwrap();
    sent.push(b"last".to_vec());
    let arrived = w.arrived(&there, 26).await;
    let mut arrived: Vec<_> = arrived.into_iter().map(Option::unwrap).collect();
    // Push services guarantee no order.
    arrived.sort();
    assert_eq!(arrived, sent);
    w.unsubscribe(&there).await;
}

/// Through a server on another origin, with its client and its worker imported.
pub(crate) async fn eight_subscriptions_each_get_their_own(w: &mut World) {
    let mount = w.server().mount();
    let mut ids = Vec::new();
    for number in 0..8 {
        let subscribe = format!(
            "import('{mount}client.js').then(async (client) => {{
                const registration = await registered('eight{number}', '{mount}');
                return (await client.subscribe({{ registration }})).id;
            }})"
        );
        ids.push(w.browser.evaluate(&subscribe).await);
    }
    for (number, id) in ids.iter().enumerate() {
        let own = json!({"title": format!("For {number}"), "audience": {"ids": [id]}});
        assert_eq!(w.server().notify(&own).await, 1);
    }
    let all = json!({"title": "For all", "audience": {"ids": ids}});
    assert_eq!(w.server().notify(&all).await, 8);
    let arrived = w
        .browser
        .wait_for(
            "(() => {
                const decoder = new TextDecoder();
                const eight = arrived.filter(({ name }) => name.startsWith('eight'));
                const titles = eight.map(({ name, octets }) =>
                    [name, JSON.parse(decoder.decode(new Uint8Array(octets))).title]);
                return titles.length >= 16 && titles.sort();
            })()",
        )
        .await;
    let wanted: Vec<_> = (0..8)
        .flat_map(|number| {
            let name = format!("eight{number}");
            [
                json!([name, format!("For {number}")]),
                json!([name, "For all"]),
            ]
        })
        .collect();
    assert_eq!(arrived, json!(wanted));

    for number in 0..8 {
        let unsubscribe = format!(
            "import('{mount}client.js').then(async (client) => {{
                const registration = await navigator.serviceWorker.getRegistration('/eight{number}/');
                await client.unsubscribe({{ registration }});
            }})"
        );
        w.browser.evaluate(&unsubscribe).await;
    }
    assert_eq!(w.server().notify(&json!({"title": "Nobody"})).await, 0);
}

pub(crate) async fn who_left_without_a_word_is_gone(w: &mut World) {
    let there = w.subscribe("left").await;
    w.send(&there, Message::new("here")).await.unwrap();
    w.arrived(&there, 1).await;
    w.unsubscribe(&there).await;
    let pushes = w.push.look(|state| state.pushes.len());
    let refused = w.send(&there, Message::new("gone")).await.unwrap_err();
    assert_eq!(refused.status().unwrap(), 410);
    assert_eq!(refused.outcome(), Outcome::Gone);
    let asked = w.push.look(|state| state.pushes.len());
    assert_eq!(asked, pushes + 1, "there is nothing to try again");
}
