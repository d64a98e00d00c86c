//! Outcomes that the server refuses for reasons of its own: a worker that runs on it loses none, and others do not wait.

use std::fmt::Write as _;
use std::future::pending;

use tower_web_push::WebPush;
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastStatus};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Message;
use tower_web_push::store::{NewSubscription, SubscriptionLimits, SubscriptionStore as _};
use tower_web_push::subscription::EndpointKey;
use tower_web_push::testing::{TestPushService, UserAgent};
use tower_web_push::vapid::KeyId;

use super::world::{Schema, until};

const BROWSERS: usize = 7;
const PENDING: &str = "SELECT count(*) FROM web_push.delivery";
/// A sequence counts what is rolled back, too.
const REFUSALS: &str = "SELECT last_value FROM web_push.refusals";

/// A store with browsers.
struct World {
    schema: Schema,
    push: WebPush,
    browsers: Vec<UserAgent>,
    keys: Vec<EndpointKey>,
}

impl World {
    async fn new() -> Option<Self> {
        let schema = Schema::fresh()?;
        let store = schema.store().await;
        let service = TestPushService::new();
        let push = WebPush::builder("mailto:ops@example.com")
            .store(store.clone())
            .client(service.clone())
            .endpoint_policy(EndpointPolicy::public_hosts())
            .build()
            .await
            .unwrap();
        let key = push.vapid_public_key();
        let (mut browsers, mut keys) = (Vec::new(), Vec::new());
        for _ in 0..BROWSERS {
            let browser = service.user_agent();
            let new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
            keys.push(new.key());
            let (limits, now) = (SubscriptionLimits::default(), SystemClock::new().now());
            store.upsert(&new, &limits, now).await.unwrap();
            browsers.push(browser);
        }
        Some(Self {
            schema,
            push,
            browsers,
            keys,
        })
    }

    /// Lets the server refuse to delete the row of one recipient, or all rows.
    async fn refuse(&self, key: Option<EndpointKey>, with: &str) {
        let of = key.map_or("true".to_owned(), |key| {
            let mut hex = String::new();
            for octet in key.as_bytes() {
                write!(hex, "{octet:02x}").unwrap();
            }
            format!("OLD.key = decode('{hex}', 'hex')")
        });
        let sql = format!(
            "CREATE SEQUENCE web_push.refusals; \
             CREATE FUNCTION web_push.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF {of} THEN PERFORM nextval('web_push.refusals'); {with}; END IF; RETURN OLD; END $$; \
             CREATE TRIGGER refused BEFORE DELETE ON web_push.delivery \
                 FOR EACH ROW EXECUTE FUNCTION web_push.refuse()"
        );
        self.schema.run(&sql).await;
    }

    async fn refuse_none(&self) {
        let sql = "DROP TRIGGER refused ON web_push.delivery";
        self.schema.run(sql).await;
    }

    async fn send(&self) -> BroadcastId {
        let queued = self.push.enqueue(Audience::All, Message::new("x")).await;
        queued.unwrap().broadcast
    }

    async fn status(&self, id: BroadcastId) -> BroadcastStatus {
        self.push.status(id).await.unwrap().unwrap()
    }

    /// The number of messages that each browser has received.
    fn received(&self) -> Vec<usize> {
        let received = self.browsers.iter().map(|browser| browser.messages().len());
        received.collect()
    }
}

/// Of the classes 22 (data exception), 23 (integrity constraint) and P0 (raised by a trigger).
#[tokio::test]
async fn a_row_that_cannot_be_deleted_keeps_no_other_outcome_from_being_written() {
    for with in [
        "PERFORM 1 / 0",
        "RAISE check_violation",
        "RAISE EXCEPTION 'not this one'",
    ] {
        let Some(world) = World::new().await else {
            return;
        };
        world.refuse(Some(world.keys[3]), with).await;
        let id = world.send().await;
        world.push.tick().await.unwrap();
        let counts = world.status(id).await.counts;
        assert_eq!((counts.accepted, counts.pending), (6, 1), "{with}");
        assert_eq!(world.schema.number(PENDING).await, 1, "{with}");
        assert_eq!(world.received(), [1; BROWSERS], "{with}");
    }
}

/// As one that was given a wrong trigger, for a while.
#[tokio::test]
async fn what_a_server_refuses_to_write_is_written_later_and_not_sent_again() {
    let Some(world) = World::new().await else {
        return;
    };
    world.refuse(None, "RAISE check_violation").await;
    tokio::spawn(world.push.run(pending()));
    let id = world.send().await;
    until(async || (world.received() == [1; BROWSERS]).then_some(())).await;
    // In several passes.
    until(async || (world.schema.number(REFUSALS).await > 12).then_some(())).await;
    assert_eq!(world.schema.number(PENDING).await, BROWSERS as i64);
    world.refuse_none().await;
    until(async || (world.status(id).await.counts.accepted == 7).then_some(())).await;
    assert_eq!(world.received(), [1; BROWSERS]);
}
