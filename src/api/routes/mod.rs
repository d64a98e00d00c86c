//! The routes: path and method, required rights, dispatch.

mod assets;
mod assign;
mod broadcasts;
mod devices;
mod estimate;
mod export;
mod notify;
mod open_gate;
mod ping;
mod prefer;
mod ready;
mod regenerate;
mod registration;
mod renew;
mod send_test;
mod stats;
mod subscribe;
mod subscriptions;
mod unsubscribe;
mod vapid;

use http::Method;
use http::request::Parts;

use super::authorizer::AdminAction;
use super::problem::{Problem, ProblemKind};
use super::reply::{self, Reply};
use crate::api::WebPushService;

/// A route: path and method together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Vapid,
    Subscribe,
    Unsubscribe,
    Renew,
    Notify,
    Broadcasts,
    ShowBroadcast(&'a str),
    CancelBroadcast(&'a str),
    ChangeBroadcast(&'a str),
    Subscriptions,
    SearchSubscriptions,
    RemoveSubscription(&'a str),
    Devices,
    RemoveDevice(&'a str),
    Assign(&'a str),
    SendTest,
    RegenerateVapid,
    Ping,
    Live,
    Ready,
    Stats,
    Estimate,
    OpenGate,
    OpenApi,
    Client,
    ServiceWorker,
}

impl<'a> Route<'a> {
    /// Returns the route of a method and a path. Each path has one spelling, so that a rule for it in a proxy holds:
    /// no percent-encoding, no slash at its end.
    pub(super) fn find(method: &Method, path: &'a str) -> Result<Self, Problem> {
        let methods = Methods::of(path).ok_or(ProblemKind::NotFound)?;
        let route = match *method {
            Method::GET | Method::HEAD => methods.get,
            Method::POST => methods.post,
            Method::DELETE => methods.delete,
            Method::PATCH => methods.patch,
            _ => None,
        };
        route
            .ok_or_else(|| Problem::from(ProblemKind::MethodNotAllowed).with_allow(methods.allow()))
    }

    /// The name of requests without a route in metrics.
    pub(super) const NONE: &'static str = "none";

    /// The names of all routes.
    #[cfg(feature = "metrics")]
    pub(super) const NAMES: [&'static str; 26] = [
        "vapid",
        "subscribe",
        "unsubscribe",
        "renew",
        "notify",
        "broadcasts",
        "show_broadcast",
        "cancel_broadcast",
        "change_broadcast",
        "subscriptions",
        "search_subscriptions",
        "remove_subscription",
        "devices",
        "remove_device",
        "change_subscription",
        "send_test",
        "regenerate_vapid",
        "ping",
        "live",
        "ready",
        "stats",
        "estimate",
        "open_gate",
        "openapi",
        "client",
        "service_worker",
    ];

    /// The name in logs and metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Vapid => "vapid",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Renew => "renew",
            Self::Notify => "notify",
            Self::Broadcasts => "broadcasts",
            Self::ShowBroadcast(_) => "show_broadcast",
            Self::CancelBroadcast(_) => "cancel_broadcast",
            Self::ChangeBroadcast(_) => "change_broadcast",
            Self::Subscriptions => "subscriptions",
            Self::SearchSubscriptions => "search_subscriptions",
            Self::RemoveSubscription(_) => "remove_subscription",
            Self::Devices => "devices",
            Self::RemoveDevice(_) => "remove_device",
            Self::Assign(_) => "change_subscription",
            Self::SendTest => "send_test",
            Self::RegenerateVapid => "regenerate_vapid",
            Self::Ping => "ping",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Stats => "stats",
            Self::Estimate => "estimate",
            Self::OpenGate => "open_gate",
            Self::OpenApi => "openapi",
            Self::Client => "client",
            Self::ServiceWorker => "service_worker",
        }
    }

    /// Returns the action that it needs, or `None` for a public route.
    pub(super) const fn admin_action(self) -> Option<AdminAction> {
        Some(match self {
            Self::Notify => AdminAction::Notify,
            Self::Broadcasts => AdminAction::ListBroadcasts,
            Self::ShowBroadcast(_) => AdminAction::ShowBroadcast,
            Self::CancelBroadcast(_) => AdminAction::CancelBroadcast,
            Self::ChangeBroadcast(_) => AdminAction::PauseBroadcast,
            Self::Subscriptions | Self::SearchSubscriptions => AdminAction::ListSubscriptions,
            Self::RemoveSubscription(_) => AdminAction::RemoveSubscription,
            Self::Assign(_) => AdminAction::ChangeSubscription,
            Self::RegenerateVapid => AdminAction::RegenerateVapid,
            Self::Stats => AdminAction::ShowStats,
            Self::Estimate => AdminAction::EstimateRecipients,
            Self::OpenGate => AdminAction::OpenGate,
            Self::Vapid
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::Renew
            | Self::Devices
            | Self::RemoveDevice(_)
            | Self::SendTest
            | Self::Ping
            | Self::Live
            | Self::Ready
            | Self::OpenApi
            | Self::Client
            | Self::ServiceWorker => return None,
        })
    }

    /// Whether unauthenticated callers may call it.
    pub(super) const fn is_public(self) -> bool {
        self.admin_action().is_none()
    }

    /// Whether it reads a JSON object from the request's body.
    pub(super) const fn takes_json(self) -> bool {
        matches!(
            self,
            Self::Subscribe
                | Self::Unsubscribe
                | Self::Renew
                | Self::Notify
                | Self::ChangeBroadcast(_)
                | Self::SearchSubscriptions
                | Self::Assign(_)
                | Self::SendTest
                | Self::Estimate
                | Self::OpenGate
        )
    }
}

/// The routes of one path, by method.
#[derive(Clone, Copy, Default)]
struct Methods<'a> {
    get: Option<Route<'a>>,
    post: Option<Route<'a>>,
    delete: Option<Route<'a>>,
    patch: Option<Route<'a>>,
}

impl<'a> Methods<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let get = |route| Self {
            get: Some(route),
            ..Self::default()
        };
        let post = |route| Self {
            post: Some(route),
            ..Self::default()
        };
        Some(match path {
            "/vapid" => get(Route::Vapid),
            "/subscribe" => Self {
                get: Some(Route::Vapid),
                ..post(Route::Subscribe)
            },
            "/unsubscribe" => post(Route::Unsubscribe),
            "/renew" => post(Route::Renew),
            "/devices" => get(Route::Devices),
            "/broadcasts" => get(Route::Broadcasts),
            "/subscriptions" => get(Route::Subscriptions),
            "/subscriptions/search" => post(Route::SearchSubscriptions),
            "/notify" => post(Route::Notify),
            "/send-test" => post(Route::SendTest),
            "/regenerate-vapid" => post(Route::RegenerateVapid),
            "/ping" => get(Route::Ping),
            "/live" => get(Route::Live),
            "/ready" => get(Route::Ready),
            "/stats" => get(Route::Stats),
            "/broadcasts/estimate" => post(Route::Estimate),
            "/open-gate" => post(Route::OpenGate),
            "/openapi.json" => get(Route::OpenApi),
            "/client.js" => get(Route::Client),
            "/service-worker.js" => get(Route::ServiceWorker),
            _ => match path.strip_prefix('/')?.split_once('/')? {
                (_, id) if id.is_empty() || id.contains('/') => return None,
                ("broadcasts", id) => Self {
                    delete: Some(Route::CancelBroadcast(id)),
                    patch: Some(Route::ChangeBroadcast(id)),
                    ..get(Route::ShowBroadcast(id))
                },
                ("subscriptions", id) => Self {
                    delete: Some(Route::RemoveSubscription(id)),
                    patch: Some(Route::Assign(id)),
                    ..Self::default()
                },
                ("devices", id) => Self {
                    delete: Some(Route::RemoveDevice(id)),
                    ..Self::default()
                },
                _ => return None,
            },
        })
    }

    const fn allow(self) -> &'static str {
        match (
            self.get.is_some(),
            self.post.is_some(),
            self.delete.is_some(),
        ) {
            (true, true, _) => "GET, HEAD, POST",
            (true, false, true) => "GET, HEAD, PATCH, DELETE",
            (true, false, false) => "GET, HEAD",
            (false, true, _) => "POST",
            (false, false, true) if self.patch.is_some() => "PATCH, DELETE",
            (false, false, true) => "DELETE",
            (false, false, false) => "PATCH",
        }
    }
}

/// Answers a request that passed the checks of its route.
pub(super) async fn answer(
    api: &WebPushService,
    route: Route<'_>,
    parts: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    match route {
        Route::Vapid => Ok(vapid::show(api)),
        Route::Subscribe => subscribe::subscribe(api, parts, body).await,
        Route::Unsubscribe => unsubscribe::unsubscribe(api, body).await,
        Route::Renew => renew::renew(api, parts, body).await,
        Route::Subscriptions => subscriptions::list(api, parts).await,
        Route::SearchSubscriptions => subscriptions::search(api, body).await,
        Route::RemoveSubscription(id) => subscriptions::remove(api, id).await,
        Route::Devices => devices::list(api, parts).await,
        Route::RemoveDevice(id) => devices::remove(api, parts, id).await,
        Route::Assign(id) => assign::assign(api, id, body).await,
        Route::Notify => notify::notify(api, parts, body).await,
        Route::Broadcasts => broadcasts::list(api, parts).await,
        Route::ShowBroadcast(id) => broadcasts::show(api, id).await,
        Route::CancelBroadcast(id) => broadcasts::cancel(api, id).await,
        Route::ChangeBroadcast(id) => broadcasts::change(api, id, body).await,
        Route::SendTest => send_test::send_test(api, parts, body).await,
        Route::RegenerateVapid => regenerate::regenerate(api).await,
        Route::Ping => ping::ping(api).await,
        Route::Live => Ok(reply::text("live".to_owned())),
        Route::Ready => Ok(ready::ready(api).await),
        Route::Stats => stats::stats(api).await,
        Route::Estimate => estimate::estimate(api, body).await,
        Route::OpenGate => open_gate::open_gate(api, body).await,
        Route::OpenApi => Ok(assets::OPENAPI.answer(&parts.headers)),
        Route::Client => Ok(assets::CLIENT.answer(&parts.headers)),
        Route::ServiceWorker => Ok(assets::SERVICE_WORKER.answer(&parts.headers)),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::Value;

    use super::*;

    fn contract() -> Value {
        serde_json::from_str(include_str!("../openapi.json")).unwrap()
    }

    #[test]
    fn the_contract_and_the_routes_agree() {
        let contract = contract();
        let mut listed = 0;
        for (path, methods) in contract["paths"].as_object().unwrap() {
            let path = path.replace("{id}", "x");
            for method in methods
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "parameters")
            {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                assert!(Route::find(&method, &path).is_ok(), "{method} {path}");
                listed += 1;
            }
        }
        assert_eq!(listed, 27, "one for each route, and GET /subscribe twice");
        #[cfg(feature = "metrics")]
        assert_eq!(listed, Route::NAMES.len() + 1, "each route is listed");
    }

    #[test]
    fn the_contract_lists_every_code() {
        let contract = contract();
        let listed = &contract["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
        let listed: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_str().unwrap())
            .collect();
        let codes: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(listed, codes);
    }

    #[test]
    fn the_contract_says_what_is_malformed() {
        let contract = contract();
        let malformed = &contract["components"]["responses"]["Malformed"]["description"];
        let malformed = malformed.as_str().unwrap();
        for kind in ProblemKind::ALL {
            let is_listed = malformed.contains(&format!("`{}`", kind.code()));
            assert_eq!(
                kind.status() == StatusCode::BAD_REQUEST,
                is_listed,
                "{kind}"
            );
        }
    }

    #[test]
    fn every_reference_in_the_contract_leads_somewhere() {
        fn walk(at: &Value, root: &Value) {
            match at {
                Value::Object(members) => {
                    if let Some(reference) = members.get("$ref") {
                        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                        assert!(root.pointer(pointer).is_some(), "{pointer}");
                    }
                    members.values().for_each(|value| walk(value, root));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(value, root)),
                _ => {}
            }
        }
        let contract = contract();
        walk(&contract, &contract);
    }

    #[test]
    fn a_path_has_one_spelling() {
        for path in [
            "",
            "/",
            "/vapid/",
            "//vapid",
            "/Vapid",
            "/%76apid",
            "vapid",
            "/vapid/x",
            "/broadcasts/",
            "/subscriptions/",
            "/subscriptions/a/b",
            "/broadcasts/a/b",
            "/devices/",
            "/devices/a/b",
            "/device/a",
            "*",
        ] {
            let refused = Route::find(&Method::GET, path).unwrap_err();
            assert_eq!(refused.kind(), ProblemKind::NotFound, "{path}");
        }
    }

    #[test]
    fn another_method_is_told_the_right_ones() {
        for (method, path, allow) in [
            (Method::POST, "/vapid", "GET, HEAD"),
            (Method::DELETE, "/subscribe", "GET, HEAD, POST"),
            (Method::GET, "/notify", "POST"),
            (Method::HEAD, "/notify", "POST"),
            (Method::OPTIONS, "/notify", "POST"),
            (Method::POST, "/broadcasts/x", "GET, HEAD, PATCH, DELETE"),
            (Method::GET, "/broadcasts/estimate", "POST"),
            (Method::PATCH, "/devices/x", "DELETE"),
            (Method::DELETE, "/devices", "GET, HEAD"),
            (Method::GET, "/devices/x", "DELETE"),
            (Method::DELETE, "/broadcasts", "GET, HEAD"),
            (Method::GET, "/subscriptions/search", "POST"),
            (Method::POST, "/subscriptions/x", "PATCH, DELETE"),
        ] {
            let response = Route::find(&method, path).unwrap_err().into_response();
            assert_eq!(response.status(), 405, "{method} {path}");
            assert_eq!(response.headers()["allow"], allow, "{method} {path}");
        }
    }

    #[test]
    fn head_is_get() {
        assert_eq!(Route::find(&Method::HEAD, "/ping").unwrap(), Route::Ping);
    }
}
