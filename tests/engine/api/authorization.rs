//! Every combination of a row's owner, the caller, the caller's proof, and the route.

use std::collections::BTreeSet;

use http::{Method, Request};
use serde_json::{Value, json};
use tower_web_push::broadcast::{Principal, Tag};

use super::{Answer, FCM, PASSWORD, TOKEN, World, admin_routes, full, news, routes, with};

/// The owner of the row.
const OWNERS: [Option<&str>; 2] = [None, Some("alice")];
/// The callers: without a login, the owner of an owned row, another user.
const CALLERS: [Option<&str>; 3] = [None, Some("alice"), Some("bob")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    None,
    Wrong,
    Right,
}

const PROOFS: [Proof; 3] = [Proof::None, Proof::Wrong, Proof::Right];

/// One combination, with a row in a world of its own.
struct Case {
    world: World,
    row: Value,
    /// Keys of another browser.
    other: Value,
    owner: Option<&'static str>,
    caller: Option<&'static str>,
    proof: Proof,
}

impl Case {
    async fn new(owner: Option<&'static str>, caller: Option<&'static str>, proof: Proof) -> Self {
        let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
        let (_, row) = world.browser();
        let everything = json!({"tags": news(), "notifyTime": {"utcHour": 8, "minute": 0}});
        let answer = send(&world, owner, "/subscribe", &with(&row, everything)).await;
        assert_eq!(answer.status, 200);
        let (_, other) = world.browser();
        Self {
            world,
            row,
            other,
            owner,
            caller,
            proof,
        }
    }

    async fn call(&self, path: &str, body: &Value) -> Answer {
        send(&self.world, self.caller, path, body).await
    }

    /// The subscription with the keys that the caller knows; `None` proves nothing.
    fn subscription(&self) -> Value {
        match self.proof {
            Proof::None => with(&self.row, json!({"keys": null})),
            Proof::Wrong => with(&self.row, json!({"keys": self.other["keys"]})),
            Proof::Right => self.row.clone(),
        }
    }

    fn auth(&self) -> Value {
        match self.proof {
            Proof::None => Value::Null,
            Proof::Wrong => self.other["keys"]["auth"].clone(),
            Proof::Right => self.row["keys"]["auth"].clone(),
        }
    }

    fn is_owner(&self) -> bool {
        self.owner.is_some() && self.owner == self.caller
    }

    /// Whether a row of one user becomes that of another, who gets none of its tags.
    fn changes_hands(&self) -> bool {
        self.owner.is_some() && self.caller.is_some() && !self.is_owner()
    }

    fn says(&self) -> String {
        let Self {
            owner,
            caller,
            proof,
            ..
        } = self;
        format!("row of {owner:?}, caller {caller:?}, proof {proof:?}")
    }

    async fn owner_now(&self) -> Option<Principal> {
        self.world.row(&self.row).await.unwrap().principal
    }
}

async fn send(world: &World, caller: Option<&str>, path: &str, body: &Value) -> Answer {
    match caller {
        Some(name) => world.post_as(name, path, body).await,
        None => world.post(path, body).await,
    }
}

async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for owner in OWNERS {
        for caller in CALLERS {
            for proof in PROOFS {
                cases.push(Case::new(owner, caller, proof).await);
            }
        }
    }
    cases
}

#[tokio::test]
async fn renewing_takes_over_with_the_secret_or_as_the_owner_and_never_else() {
    for case in cases().await {
        let before = case.world.row(&case.row).await.unwrap();
        let body = json!({
            "oldEndpoint": case.row["endpoint"],
            "oldAuth": case.auth(),
            "subscription": case.other,
        });
        let answer = case.call("/renew", &body).await;
        assert_eq!(answer.status, 200, "{}", case.says());
        let takes_over = case.proof == Proof::Right || case.is_owner();
        assert_eq!(answer.id() == before.id, takes_over, "{}", case.says());
        let new = case.world.row(&case.other).await.unwrap();
        let keeps_tags = takes_over && !case.changes_hands();
        let tags = if keeps_tags { before.tags.len() } else { 0 };
        assert_eq!(new.tags == before.tags, keeps_tags, "{}", case.says());
        assert_eq!(new.tags.len(), tags, "{}", case.says());
        let old = case.world.row(&case.row).await;
        assert_eq!(old.is_none(), takes_over, "{}", case.says());
        if let Some(old) = old {
            assert_eq!(old, before, "left alone: {}", case.says());
        }
    }
}

#[tokio::test]
async fn subscribing_again_needs_the_keys_or_the_owner() {
    for case in cases().await {
        let before = case.world.row(&case.row).await.unwrap();
        let answer = case.call("/subscribe", &case.subscription()).await;
        let expected = match case.proof {
            Proof::None => 400,
            Proof::Right => 200,
            Proof::Wrong if case.is_owner() => 200,
            Proof::Wrong => 409,
        };
        assert_eq!(answer.status, expected, "{}", case.says());
        let row = case.world.row(&case.row).await.unwrap();
        if expected != 200 {
            assert_eq!(row, before, "nothing changed: {}", case.says());
            continue;
        }
        let tags = if case.changes_hands() {
            BTreeSet::new()
        } else {
            before.tags
        };
        assert_eq!((row.id, row.tags), (before.id, tags), "{}", case.says());
        // A caller with a login becomes the owner. One without a login changes nothing.
        let owner = case.caller.or(case.owner).map(Principal::from);
        assert_eq!(case.owner_now().await, owner, "{}", case.says());
    }
}

#[tokio::test]
async fn a_test_push_needs_both_keys_of_every_caller() {
    for case in cases().await {
        let answer = case.call("/send-test", &case.subscription()).await;
        let expected = match case.proof {
            Proof::None => 400,
            Proof::Wrong => 404,
            Proof::Right => 200,
        };
        assert_eq!(answer.status, expected, "{}", case.says());
        let sent = case.world.service.counts().requests;
        assert_eq!(sent, u64::from(expected == 200), "{}", case.says());
    }
}

#[tokio::test]
async fn unsubscribing_needs_the_endpoint_or_the_id_and_nothing_else() {
    for case in cases().await {
        let id = case.world.row(&case.row).await.unwrap().id;
        let stranger = json!({"endpoint": format!("{FCM}/fcm/send/of-another-browser")});
        let answer = case.call("/unsubscribe", &stranger).await;
        assert_eq!(answer.status, 200, "{}", case.says());
        assert!(case.world.row(&case.row).await.is_some(), "{}", case.says());
        let by_id = case.proof == Proof::Right;
        let body = match by_id {
            true => json!({"id": id}),
            false => json!({"endpoint": case.row["endpoint"]}),
        };
        assert_eq!(case.call("/unsubscribe", &body).await.status, 200);
        assert!(case.world.row(&case.row).await.is_none(), "{}", case.says());
    }
}

#[tokio::test]
async fn devices_are_listed_and_removed_by_their_owner_alone() {
    let unknown = "f47ac10b-58cc-4372-a567-0e02b2c3d479".to_owned();
    for owner in OWNERS {
        for caller in CALLERS {
            let case = Case::new(owner, caller, Proof::None).await;
            let id = case.world.row(&case.row).await.unwrap().id.to_string();
            let call = async |method: Method, path: &str| {
                let mut request = Request::builder().method(method).uri(path);
                request = request.header("sec-fetch-site", "same-origin");
                let mut request = request.body(full("")).unwrap();
                if let Some(name) = caller {
                    request.extensions_mut().insert(Principal::from(name));
                }
                case.world.call(request).await
            };
            let listed = call(Method::GET, "/devices").await;
            let removed = call(Method::DELETE, &format!("/devices/{id}")).await;
            let left = case.world.row(&case.row).await.is_some();
            assert_eq!(left, !case.is_owner(), "{}", case.says());
            if caller.is_none() {
                listed.is(403, "principal_required");
                removed.is(403, "principal_required");
                continue;
            }
            let devices = listed.json()["devices"].as_array().unwrap().len();
            assert_eq!(devices, usize::from(case.is_owner()), "{}", case.says());
            if case.is_owner() {
                assert_eq!(removed.status, 200, "{}", case.says());
                continue;
            }
            removed.is(404, "unknown_subscription");
            for id in [unknown.as_str(), "x"] {
                let other = call(Method::DELETE, &format!("/devices/{id}")).await;
                assert_eq!(other.body, removed.body, "one answer: {id}");
            }
        }
    }
}

#[tokio::test]
async fn administration_needs_the_credentials_whoever_is_signed_in() {
    let wrong = [
        None,
        Some("Bearer another-token-of-its-length".to_owned()),
        Some(format!("Bearer {PASSWORD}")),
        Some("Basic YWRtaW46d3JvbmcgcGFzc3dvcmQ=".to_owned()),
    ];
    for (method, path) in &admin_routes() {
        for caller in CALLERS {
            let world = World::new().await;
            let active = world.push.vapid_public_key();
            let call = async |authorization: Option<&str>| {
                let mut request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header("content-type", "application/json");
                if let Some(value) = authorization {
                    request = request.header("authorization", value);
                }
                let mut request = request.body(full(r#"{"title":"Hello"}"#)).unwrap();
                if let Some(name) = caller {
                    request.extensions_mut().insert(Principal::from(name));
                }
                world.call(request).await
            };
            for authorization in &wrong {
                let answer = call(authorization.as_deref()).await;
                assert_eq!(answer.status, 401, "{method} {path} as {caller:?}");
            }
            assert_eq!(world.push.vapid_public_key(), active, "no key was made");
            assert!(
                world.push.underway(1).await.unwrap().is_empty(),
                "nothing was queued"
            );
            let answer = call(Some(TOKEN)).await;
            assert!(
                ![401, 403].contains(&answer.status),
                "{method} {path} as {caller:?}"
            );
        }
    }
}

/// The contract names the routes that need credentials, and all others go without.
#[tokio::test]
async fn no_other_route_asks_for_credentials() {
    for (method, path, is_admins) in routes() {
        let world = World::new().await;
        let request = Request::builder().method(&method).uri(&path);
        let answer = world.call(request.body(full("")).unwrap()).await;
        assert_eq!(answer.status == 401, is_admins, "{method} {path}");
    }
}
