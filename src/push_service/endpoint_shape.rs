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
        let is_segment = |text: &str| is_token(text, ":=");
        let below = |prefix| path.strip_prefix(prefix).is_some_and(is_segment);
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
                            && is_segment(token)
                    })
            }
            Self::Wns => {
                path == "/w/" && value("token=").is_some_and(|token| is_token(token, "+/="))
            }
            // The host is the Graph API, whose parameters give requests another meaning.
            Self::Meta => path == "/rl_push_send" && value("notif_token=").is_some_and(is_segment),
            Self::Apple | Self::Other => true,
        }
    }
}

/// Returns whether a text is one token that no server reads as more: not empty, one path segment or one parameter, no dot
/// segment, none of it encoded but some characters.
///
/// Those are encoded all or none, in lower or in upper case: each spelling is an endpoint of its own, and one subscription must
/// not be many.
fn is_token(text: &str, encodable: &str) -> bool {
    let is_encodable = |byte: u8| encodable.as_bytes().contains(&byte);
    let (first, encoded) = match text.split_once('%') {
        None => (text, None),
        Some((first, encoded)) => (first, Some(encoded)),
    };
    let is_plain = |part: &str| {
        part.bytes().all(|byte| match is_encodable(byte) {
            true => encoded.is_none(),
            false => byte.is_ascii_alphanumeric() || b"-_.~:=+,".contains(&byte),
        })
    };
    let is_encoded_in = |to_hex: fn(u8) -> String| {
        let codes: Vec<_> = encodable.bytes().map(to_hex).collect();
        encoded
            .into_iter()
            .flat_map(|parts| parts.split('%'))
            .all(|part| {
                let after = |code: &String| part.strip_prefix(code.as_str());
                codes.iter().find_map(after).is_some_and(is_plain)
            })
    };
    !matches!(text, "" | "." | "..")
        && is_plain(first)
        && (is_encoded_in(|byte| format!("{byte:02x}"))
            || is_encoded_in(|byte| format!("{byte:02X}")))
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
            (WNS, "/w/?token=BQYAAACGsKDbQ%2Ba%2BCq%2F%3D"),
            (FCM, "/wp/dHIweWNraGxlbWM%3AAPA91bH%3D"),
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
                "/fcm/send/x%3a:y",
                "/fcm/send/x%3ay%3D",
                "/fcm/send/x%2f",
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
            "/w/?token=a&x=y",
            "/w/?token=a%26x=y",
            "/w/?token=a%2fb%3D",
            "/w/?token=a%2fb=",
            "/w/?token=a%61",
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
