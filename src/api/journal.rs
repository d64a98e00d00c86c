//! The log of the HTTP API: what administrators do, refused credentials, and requests that fail.
//!
//! No line has a secret: of credentials it names the scheme, of a request the action, a broadcast's id and the target. Of a
//! subscription's id, which allows to unsubscribe, it has the beginning.

use std::hash::{Hash, Hasher};

use http::header::AUTHORIZATION;
use http::request::Parts;

use super::PeerAddr;
use super::authorizer::{AdminAction, Denied};
use super::problem::{Problem, ProblemKind};
use super::reply::Reply;
use crate::broadcast::{BroadcastId, Principal};
use crate::engine::HoldsLines;
use crate::observe::{Folded, Told, event};
use crate::subscription::SubscriptionId;

/// What would repeat without an end is told at first, and then once a minute with its number.
#[derive(Debug, Default)]
pub(super) struct Journal {
    denied: Folded<Refusal>,
    failed: Folded<Failure>,
}

/// Credentials that were refused. Those of one address are one kind, which the first of them stands for: what it asks for next
/// is no news.
#[derive(Clone, Debug)]
struct Refusal {
    peer: Option<PeerAddr>,
    action: AdminAction,
    reason: &'static str,
}

impl PartialEq for Refusal {
    fn eq(&self, other: &Self) -> bool {
        self.peer == other.peer
    }
}

impl Eq for Refusal {}

impl Hash for Refusal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.peer.hash(state);
    }
}

/// A request that an error of this server failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Failure {
    route: &'static str,
    kind: ProblemKind,
    error: String,
}

impl Journal {
    /// An administrator's request was refused. One without credentials is no attempt.
    pub(super) fn denied(&self, reason: &'static str, action: AdminAction, parts: &Parts) {
        if reason == Denied::NO_CREDENTIALS {
            return;
        }
        let refusal = Refusal {
            peer: parts.extensions.get().copied(),
            action,
            reason,
        };
        if let Some(told) = self.denied.add(refusal) {
            tell_denied(told);
        }
    }

    /// A request was refused. The log is told if an error of this server is the cause.
    pub(super) fn refused(&self, route: &'static str, problem: &Problem) {
        if let Some(error) = problem.cause() {
            let failure = Failure {
                route,
                kind: problem.kind(),
                error: error.to_owned(),
            };
            if let Some(told) = self.failed.add(failure) {
                tell_failed(told);
            }
        }
    }
}

impl HoldsLines for Journal {
    fn tell_due(&self) {
        self.denied.due().into_iter().for_each(tell_denied);
        self.failed.due().into_iter().for_each(tell_failed);
    }
}

/// What an administrator does: it is told with its end, and also if the client closes the connection before, since what the
/// request has begun may have been done.
pub(super) struct Audited<'a> {
    action: AdminAction,
    parts: &'a Parts,
    end: End,
}

/// What an administrator's request was about, as an extension of its reply.
#[derive(Clone, Debug)]
pub(super) struct Target(pub(super) String);

impl Target {
    /// The beginning of a subscription's id, which is enough to find it.
    pub(super) fn subscription(id: SubscriptionId) -> Self {
        Self(id.to_string().chars().take(8).collect())
    }

    pub(super) fn of(reply: &Reply) -> Option<&Self> {
        reply.extensions().get()
    }
}

/// How a request ended.
struct End {
    status: Option<u16>,
    /// Of a refusal, or `aborted`.
    code: Option<&'static str>,
    broadcast: Option<String>,
    target: Option<String>,
}

impl<'a> Audited<'a> {
    pub(super) const fn new(action: AdminAction, parts: &'a Parts) -> Self {
        let end = End {
            status: None,
            code: Some("aborted"),
            broadcast: None,
            target: None,
        };
        Self { action, parts, end }
    }

    pub(super) fn answered(mut self, answer: &Result<Reply, Problem>) {
        self.end = match answer {
            Ok(reply) => End {
                status: Some(reply.status().as_u16()),
                code: None,
                broadcast: broadcast(reply),
                target: Target::of(reply).map(|target| target.0.clone()),
            },
            Err(problem) => End {
                status: Some(problem.kind().status().as_u16()),
                code: Some(problem.kind().code()),
                broadcast: None,
                target: None,
            },
        };
    }
}

impl Drop for Audited<'_> {
    fn drop(&mut self) {
        acted(self.action, self.parts, &mut self.end);
    }
}

/// An administrator did something: who, from where, what, and how it ended.
fn acted(action: AdminAction, parts: &Parts, end: &mut End) {
    let scheme = parts.headers.get(AUTHORIZATION);
    let scheme = scheme.and_then(|value| value.to_str().ok()?.split(' ').next());
    let credentials = match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => "bearer",
        Some(scheme) if scheme.eq_ignore_ascii_case("basic") => "basic",
        Some(_) => "other",
        None => "none",
    };
    let user = parts.extensions.get().map(Principal::as_str);
    let peer = peer(parts.extensions.get());
    let (status, code) = (end.status, end.code);
    let (broadcast, target) = (end.broadcast.take(), end.target.take());
    let action = action.as_str();
    event!(
        INFO,
        action,
        status,
        code,
        broadcast,
        // `target` is a name of tracing's own.
        about = target,
        peer,
        user,
        credentials,
        "administrator"
    );
    let _ = (action, status, code, credentials, user, peer);
    let _ = (broadcast, target);
}

fn peer(peer: Option<&PeerAddr>) -> Option<String> {
    peer.map(|peer| peer.ip().to_string())
}

fn broadcast(reply: &Reply) -> Option<String> {
    let id = reply.extensions().get::<BroadcastId>();
    id.map(ToString::to_string)
}

fn tell_denied((refusal, requests): Told<Refusal>) {
    let Some(refusal) = refusal else {
        event!(
            WARN,
            requests,
            "administrators' requests were refused for further addresses"
        );
        let _ = requests;
        return;
    };
    let (peer, reason) = (peer(refusal.peer.as_ref()), refusal.reason);
    let action = refusal.action.as_str();
    event!(
        WARN,
        action,
        reason,
        peer,
        requests,
        "administrators' requests were refused"
    );
    let _ = (action, reason, peer, requests);
}

fn tell_failed((failure, requests): Told<Failure>) {
    let Some(failure) = failure else {
        event!(ERROR, requests, "requests failed for further reasons");
        let _ = requests;
        return;
    };
    let Failure { route, kind, error } = failure;
    event!(
        ERROR,
        route,
        code = kind.code(),
        error,
        requests,
        "requests failed"
    );
    let _ = (route, kind, error, requests);
}

#[cfg(test)]
#[cfg(feature = "tracing")]
mod tests {
    use http::Request;

    use super::*;
    use crate::observe::logged;

    fn request(peer: &str) -> Parts {
        let (mut parts, ()) = Request::post("/notify")
            .header("authorization", "Bearer s3cret")
            .body(())
            .unwrap()
            .into_parts();
        parts
            .extensions
            .insert(PeerAddr::new(peer.parse().unwrap()));
        parts
    }

    #[test]
    fn what_an_administrator_did_is_told_also_if_nobody_waits_for_the_answer() {
        let parts = request("192.0.2.7");
        let aborted = logged(|| drop(Audited::new(AdminAction::Notify, &parts)));
        let refused = logged(|| {
            let problem = Problem::from(ProblemKind::StoreUnavailable);
            Audited::new(AdminAction::Notify, &parts).answered(&Err(problem));
        });
        for (line, end) in [
            (&aborted, "code=\"aborted\""),
            (&refused, "status=503 code=\"store_unavailable\""),
        ] {
            assert_eq!(line.lines().count(), 1, "{line}");
            for part in [
                "INFO",
                "administrator",
                "action=\"notify\"",
                "192.0.2.7",
                "bearer",
                end,
            ] {
                assert!(line.contains(part), "{part}: {line}");
            }
            assert!(!line.contains("s3cret"), "{line}");
        }
        assert!(!aborted.contains("status"), "{aborted}");
    }

    #[test]
    fn the_refusals_of_one_address_are_one_line_whatever_it_asks_for() {
        let journal = Journal::default();
        let refuse = |peer: &str, action, reason| {
            let parts = request(peer);
            logged(|| journal.denied(reason, action, &parts))
        };
        let first = refuse("192.0.2.7", AdminAction::Notify, "wrong_token");
        assert!(
            first.contains("notify") && first.contains("wrong_token"),
            "{first}"
        );
        let next = refuse("192.0.2.7", AdminAction::ShowStats, "wrong_password");
        assert_eq!(next, "");
        let other = refuse("192.0.2.8", AdminAction::ShowStats, "wrong_password");
        assert!(other.contains("show_stats"), "{other}");
    }
}
