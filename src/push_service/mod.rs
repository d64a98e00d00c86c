//! The push services of the browsers and how they differ from RFC 8030. Pure values.

mod pause;
mod tally;

pub use pause::{Pause, PauseReason};
pub use tally::Tally;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::message::Ttl;
use crate::subscription::Endpoint;

/// The operator of a push service, known by its host.
///
/// For a known service the reason in an answer's body is read too; for any other only the status, since the reason
/// words of an unknown service have no defined meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PushService {
    /// Google's Firebase Cloud Messaging: Chrome and most Chromium browsers.
    Fcm,
    /// Mozilla autopush: Firefox, Sunup.
    Mozilla,
    /// Apple: Safari, Home Screen apps.
    Apple,
    /// Windows Notification Service: Edge on Windows.
    Wns,
    /// Meta: the browser of Quest headsets. Its answers are not documented, and are read by status only.
    Meta,
    /// Any other host: UnifiedPush servers, gateways, tests.
    Other,
}

impl PushService {
    /// Every push service.
    pub const ALL: &'static [Self] = &[
        Self::Fcm,
        Self::Mozilla,
        Self::Apple,
        Self::Wns,
        Self::Meta,
        Self::Other,
    ];

    /// The push service that an endpoint belongs to, by its host: whole labels, without regard to case.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Self {
        Self::of_host(endpoint.host())
    }

    /// The push service of a host name.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        let is = |name: &str| host.eq_ignore_ascii_case(name);
        // `jmt17` serves Chromium builds without Google API keys, test browsers among them.
        if is("fcm.googleapis.com") || is("jmt17.google.com") {
            Self::Fcm
        } else if is("graph.facebook.com") {
            Self::Meta
        } else {
            let below = BELOW.iter().find(|(suffix, _)| is_below(host, suffix));
            below.map_or(Self::Other, |(_, service)| *service)
        }
    }

    /// Whether an endpoint has the path and query that this push service gives to its endpoints, if its
    /// form is known. A host of a push service may have other resources, which a sender must not request: those of Google
    /// and Meta are APIs.
    ///
    /// - FCM: `/fcm/send/` or `/wp/` and a token, no query.
    /// - Mozilla: `/wpush/`, a version, and a token, no query.
    /// - WNS: `/w/`, and a query that begins with `token=`.
    /// - Meta: `/rl_push_send`, and a query of `notif_token=` and a token.
    /// - Apple and any other: no rule, since none is documented.
    #[must_use]
    pub fn has_shape(self, endpoint: &Endpoint) -> bool {
        let uri = endpoint.uri();
        let (path, query) = (uri.path(), uri.query());
        let below = |prefix| path.strip_prefix(prefix).is_some_and(is_token);
        let value = |name| query.and_then(|query| query.strip_prefix(name));
        match self {
            Self::Fcm => query.is_none() && (below("/fcm/send/") || below("/wp/")),
            Self::Mozilla => {
                let versioned = path.strip_prefix("/wpush/v");
                let token = versioned.and_then(|rest| rest.split_once('/'));
                query.is_none()
                    && token.is_some_and(|(version, token)| {
                        !version.is_empty()
                            && version.bytes().all(|byte| byte.is_ascii_digit())
                            && is_token(token)
                    })
            }
            Self::Wns => path == "/w/" && value("token=").is_some_and(|token| !token.is_empty()),
            // The host is the Graph API, whose parameters give requests another meaning.
            Self::Meta => path == "/rl_push_send" && value("notif_token=").is_some_and(is_token),
            Self::Apple | Self::Other => true,
        }
    }

    /// The name below which a host is one of any number of names of a known push service; `None` for the hosts that are
    /// known one by one, and for all others.
    #[cfg(feature = "_engine")]
    pub(crate) fn suffix_of_host(host: &str) -> Option<&'static str> {
        let is_well_known = WELL_KNOWN
            .iter()
            .any(|name| host.eq_ignore_ascii_case(name));
        let below = BELOW.iter().find(|(suffix, _)| is_below(host, suffix));
        below.map(|(suffix, _)| *suffix).filter(|_| !is_well_known)
    }

    /// The stable name: `fcm`, `mozilla`, `apple`, `wns`, `meta` or `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fcm => "fcm",
            Self::Mozilla => "mozilla",
            Self::Apple => "apple",
            Self::Wns => "wns",
            Self::Meta => "meta",
            Self::Other => "other",
        }
    }

    /// The TTL that goes on the wire: at most [`Ttl::SAFE_MAX`], and for Apple at least one second.
    ///
    /// Apple documents a *positive* number. Whether it refuses 0 is not known; one second instead of
    /// none changes nothing for the user, a 400 loses the message.
    #[must_use]
    pub fn wire_ttl(self, ttl: Ttl) -> Ttl {
        let least = match self {
            Self::Apple => Ttl::from_secs(1),
            _ => Ttl::ZERO,
        };
        ttl.clamp(least, Ttl::SAFE_MAX)
    }

    /// Whether the request needs `X-WNS-Cache-Policy: no-cache`: on WNS with a TTL of 0, and only there.
    #[must_use]
    pub fn wants_no_cache(self, ttl: Ttl) -> bool {
        self == Self::Wns && ttl == Ttl::ZERO
    }

    /// The longest wait an answer of this service may ask for; anything above counts as this.
    ///
    /// A day for services whose answers are known, an hour for any other host: it is the subscriber who chose that.
    #[must_use]
    pub const fn longest_wait(self) -> Duration {
        match self {
            Self::Meta | Self::Other => Duration::from_secs(3600),
            _ => Duration::from_secs(24 * 3600),
        }
    }
}

/// Whether a text is one token that no server reads as more: not empty, one path segment or one parameter, no dot
/// segment, none of it encoded but `:` and `=`, which senders may have encoded.
fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:=+,".contains(&byte);
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default();
    !matches!(text, "" | "." | "..")
        && first.bytes().all(plain)
        && parts.all(|part| {
            let encoded = part.get(..2).unwrap_or_default();
            let is_harmless = ["3a", "3d"]
                .iter()
                .any(|code| encoded.eq_ignore_ascii_case(code));
            is_harmless && part.bytes().all(plain)
        })
}

/// Names below which every name belongs to a push service.
const BELOW: [(&str, PushService); 3] = [
    ("push.services.mozilla.com", PushService::Mozilla),
    ("push.apple.com", PushService::Apple),
    ("notify.windows.com", PushService::Wns),
];

/// Of those, the names that every browser of the vendor uses.
#[cfg(feature = "_engine")]
const WELL_KNOWN: [&str; 2] = ["updates.push.services.mozilla.com", "web.push.apple.com"];

/// Whether a host is some name below `parent`, compared by whole labels and without regard to case.
pub(crate) fn is_below(host: &str, parent: &str) -> bool {
    host.len()
        .checked_sub(parent.len())
        .and_then(|at| host.split_at_checked(at))
        .is_some_and(|(labels, tail)| {
            tail.eq_ignore_ascii_case(parent) && labels.len() > 1 && labels.ends_with('.')
        })
}

impl fmt::Display for PushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PushService {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_host_is_recognised_whatever_its_case() {
        for (host, service) in [
            ("fcm.googleapis.com", PushService::Fcm),
            ("FCM.GoogleAPIs.com", PushService::Fcm),
            ("jmt17.google.com", PushService::Fcm),
            ("updates.push.services.mozilla.com", PushService::Mozilla),
            ("web.push.apple.com", PushService::Apple),
            ("eu.web.push.apple.com", PushService::Apple),
            ("wns2-par02p.notify.windows.com", PushService::Wns),
            ("db5p.Notify.Windows.com", PushService::Wns),
            ("graph.facebook.com", PushService::Meta),
        ] {
            let endpoint = Endpoint::parse(&format!("https://{host}/x")).unwrap();
            assert_eq!(PushService::of(&endpoint), service, "{host}");
        }
    }

    #[test]
    fn labels_compare_whole() {
        for host in [
            "evilfcm.googleapis.com",
            "fcm.googleapis.com.evil.example",
            "evilpush.apple.com",
            "push.apple.com",
            ".push.apple.com",
            "web.push.apple.com.evil.example",
            "evilnotify.windows.com",
            "notify.windows.com",
            "a.notify.windows.com.",
            "push.services.mozilla.com.evil.example",
            "www.graph.facebook.com",
            "facebook.com",
            "",
        ] {
            assert_eq!(PushService::of_host(host), PushService::Other, "{host}");
        }
    }

    const FCM: &str = "https://fcm.googleapis.com";
    const JMT: &str = "https://jmt17.google.com";
    const MOZILLA: &str = "https://updates.push.services.mozilla.com";
    const WNS: &str = "https://wns2-par02p.notify.windows.com";
    const META: &str = "https://graph.facebook.com";

    fn has_shape(origin: &str, rest: &str) -> bool {
        let endpoint = Endpoint::parse(&format!("{origin}{rest}")).unwrap();
        PushService::of(&endpoint).has_shape(&endpoint)
    }

    #[test]
    fn endpoints_of_known_services_have_their_shape() {
        for (origin, rest) in [
            (FCM, "/fcm/send/dHIweWNraGxlbWM:APA91bH_x-y"),
            (FCM, "/fcm/send/dHIweWNraGxlbWM%3aAPA91bH_x-y"),
            (FCM, "/wp/dHIweWNraGxlbWM:APA91bH"),
            (JMT, "/fcm/send/x"),
            (JMT, "/wp/x"),
            (MOZILLA, "/wpush/v1/gAAAAABk"),
            (MOZILLA, "/wpush/v2/gAAAAABk_x-y=="),
            (WNS, "/w/?token=BQYAAACGsKDbQ%2ba%2bCq%2f%3d"),
            (WNS, "/w/?token=a&x=y"),
            (META, "/rl_push_send?notif_token=1525031671638599"),
            ("https://web.push.apple.com", "/QGuQyavXutnMH"),
            ("https://web.push.apple.com", "/3/device/x"),
            ("https://push.example.net", "/"),
            ("https://push.example.net", "/v1/projects/p/messages:send"),
        ] {
            assert!(has_shape(origin, rest), "{origin}{rest}");
        }
    }

    #[test]
    fn other_resources_of_known_services_have_not() {
        for origin in [FCM, JMT] {
            for rest in [
                "",
                "/",
                "/x",
                "/v1/projects/p/messages:send",
                "/fcm/send",
                "/fcm/send/",
                "/fcm/send/.",
                "/fcm/send/..",
                "/fcm/send/../../v1/projects/p/messages:send",
                "/fcm/send/%2e%2e/x",
                "/fcm/send/%2E%2E%2Fx",
                "/fcm/send/x%5cy",
                "/fcm/send/x%",
                "/fcm/send/x%3",
                "/fcm/send/x/y",
                "/fcm/send/x?alt=json",
                "/fcm/sendx/x",
                "/FCM/send/x",
                "//fcm/send/x",
                "/wp/",
                "/wp/x/",
                "/gcm/send/x",
            ] {
                assert!(!has_shape(origin, rest), "{origin}{rest}");
            }
        }
        for rest in [
            "/",
            "/x",
            "/wpush/",
            "/wpush/v2",
            "/wpush/v2/",
            "/wpush/2/x",
            "/wpush/v/x",
            "/wpush/v2/..",
            "/wpush/v2/x/y",
            "/wpush/v2/x?y",
            "/m/x",
            "/__heartbeat__",
        ] {
            assert!(!has_shape(MOZILLA, rest), "{rest}");
        }
        for rest in [
            "/",
            "/w/",
            "/w",
            "/w?token=x",
            "/w/?token=",
            "/w/?x=y&token=z",
            "/?token=x",
        ] {
            assert!(!has_shape(WNS, rest), "{rest}");
        }
        for rest in [
            "/rl_push_send",
            "/rl_push_send?notif_token=",
            "/rl_push_send?notif_token=1&access_token=x",
            "/rl_push_send?method=delete&notif_token=1",
            "/rl_push_send/?notif_token=1",
            "/v21.0/me/feed?notif_token=1",
            "/me",
        ] {
            assert!(!has_shape(META, rest), "{rest}");
        }
    }

    #[test]
    fn apple_gets_a_positive_ttl_and_everyone_at_most_28_days() {
        for &service in PushService::ALL {
            assert_eq!(service.wire_ttl(Ttl::MAX), Ttl::SAFE_MAX);
            let least = if service == PushService::Apple { 1 } else { 0 };
            assert_eq!(service.wire_ttl(Ttl::ZERO), Ttl::from_secs(least));
        }
    }

    #[test]
    fn only_wns_with_ttl_0_wants_the_cache_policy() {
        for &service in PushService::ALL {
            assert_eq!(
                service.wants_no_cache(Ttl::ZERO),
                service == PushService::Wns
            );
            assert!(!service.wants_no_cache(Ttl::from_secs(1)));
        }
    }
}
