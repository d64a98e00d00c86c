//! The form of the endpoints of known push services.

use super::PushService;
use crate::subscription::Endpoint;

impl PushService {
    /// Returns whether an endpoint has the path and query that this push service gives to its endpoints, if their form is
    /// known. A host of a push service may have other resources, which a sender must not request: those of Google and Meta
    /// are APIs. `EndpointPolicy` documents the forms.
    pub(crate) fn has_shape(self, endpoint: &Endpoint) -> bool {
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
}

/// Returns whether a text is one token that no server reads as more: not empty, one path segment or one parameter, no dot
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
