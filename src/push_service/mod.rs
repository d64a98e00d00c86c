//! The push services of the browsers and how they differ from RFC 8030. Pure values.

#[cfg(feature = "_engine")]
mod endpoint_shape;
mod pause;
mod tally;
#[cfg(feature = "_engine")]
mod throttling;

#[cfg(feature = "vapid")]
use crate::message::Ttl;
use crate::subscription::Endpoint;
#[cfg(feature = "_engine")]
use crate::subscription::Origin;
use crate::text::as_text;
pub use pause::{Pause, PauseReason};
pub use tally::Tally;

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

    /// The push service that an origin belongs to.
    #[cfg(feature = "_engine")]
    pub(crate) fn of_origin(origin: &Origin) -> Self {
        Self::of_host(origin.host())
    }

    /// The push service of a host name.
    pub(crate) fn of_host(host: &str) -> Self {
        let is = |(name, _): &&(&str, _)| host.eq_ignore_ascii_case(name);
        let below = |(suffix, _): &&(&str, _)| is_below(host, suffix);
        let known = ALONE.iter().find(is).or_else(|| BELOW.iter().find(below));
        known.map_or(Self::Other, |(_, service)| *service)
    }

    /// The hosts of the known push services that every browser of the vendor uses.
    #[cfg(feature = "_engine")]
    pub(crate) fn hosts() -> impl Iterator<Item = &'static str> {
        ALONE.iter().map(|(host, _)| *host).chain(WELL_KNOWN)
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
    #[cfg(feature = "vapid")]
    pub(crate) fn wire_ttl(self, ttl: Ttl) -> Ttl {
        let least = match self {
            Self::Apple => Ttl::from_secs(1),
            _ => Ttl::ZERO,
        };
        ttl.clamp(least, Ttl::SAFE_MAX)
    }

    /// Whether the request needs `X-WNS-Cache-Policy: no-cache`: on WNS with a TTL of 0, and only there.
    #[cfg(feature = "vapid")]
    pub(crate) fn wants_no_cache(self, ttl: Ttl) -> bool {
        self == Self::Wns && ttl == Ttl::ZERO
    }
}

/// Hosts of push services. `jmt17` serves Chromium builds without Google API keys, test browsers among them.
const ALONE: [(&str, PushService); 3] = [
    ("fcm.googleapis.com", PushService::Fcm),
    ("jmt17.google.com", PushService::Fcm),
    ("graph.facebook.com", PushService::Meta),
];

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

as_text!(PushService: Display, Serialize);

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
            #[cfg(feature = "_engine")]
            assert_eq!(PushService::of_origin(endpoint.origin()), service);
            let other = Endpoint::parse(&format!("https://{host}:8443/x")).unwrap();
            #[cfg(feature = "_engine")]
            assert_eq!(PushService::of_origin(other.origin()), service);
            let _ = other;
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
