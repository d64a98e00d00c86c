//! Every row of the table, by name.

use http::HeaderName;

use super::*;
use Outcome::*;
use PushService::*;

const NOW: Timestamp = Timestamp::from_secs(784_111_777);

fn read(
    service: PushService,
    status: u16,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Verdict {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    classify(
        service,
        StatusCode::from_u16(status).unwrap(),
        &headers,
        body.as_bytes(),
        NOW,
    )
}

/// One named test for each row: service, status, body, outcome, reason.
macro_rules! rows {
    ($($name:ident: $service:expr, $status:expr, $body:expr => $outcome:expr, $reason:expr;)*) => {$(
        #[test]
        fn $name() {
            let verdict = read($service, $status, &[], $body);
            assert_eq!(verdict.outcome, $outcome);
            let reason: Option<&str> = $reason;
            assert_eq!(verdict.reason.as_deref(), reason);
        }
    )*};
}

rows! {
    fcm_201: Fcm, 201, "" => Accepted, None;
    fcm_400_body_above_4096: Fcm, 400, "Binary data passed in the request must be less than 4096 bytes."
        => TooLarge, Some("binary data passed in the request must be less than");
    fcm_400_ttl: Fcm, 400, "<H1>InvalidTtlParameter</H1>" => BadRequest, Some("InvalidTtlParameter");
    fcm_400_unauthorized_registration: Fcm, 400, "<HTML><TITLE>UnauthorizedRegistration</TITLE>"
        => KeyMismatch, Some("UnauthorizedRegistration");
    fcm_400_new_text: Fcm, 400, "something new" => BadRequest, None;
    fcm_401: Fcm, 401, "Authorization header must be specified: see https://tools.ietf.org"
        => SenderFault, None;
    fcm_403_other_key: Fcm, 403,
        "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.\n"
        => KeyMismatch, Some("do not correspond");
    fcm_403_sender_id: Fcm, 403, "MismatchSenderId" => KeyMismatch, Some("MismatchSenderId");
    fcm_403_case_does_not_count: Fcm, 403, "mismatchsenderid" => KeyMismatch, Some("MismatchSenderId");
    fcm_403_jwt: Fcm, 403, "permission denied: Invalid JWT Provided\n"
        => SenderFault, Some("invalid JWT provided");
    fcm_403_new_text: Fcm, 403, "" => SenderFault, None;
    fcm_404: Fcm, 404, "A valid push subscription endpoint should be specified in the URL as such: https://fcm.googleapis.com/wp/dHIp"
        => Gone, None;
    fcm_410: Fcm, 410, "push subscription has unsubscribed or expired.\n"
        => Gone, Some("push subscription has unsubscribed or expired");
    fcm_410_not_registered: Fcm, 410, "NotRegistered" => Gone, Some("NotRegistered");
    fcm_413: Fcm, 413, "" => TooLarge, None;
    fcm_429: Fcm, 429, "" => RateLimited, None;
    fcm_500: Fcm, 500, "" => Transient, None;
    fcm_503: Fcm, 503, "" => Transient, None;
    fcm_2xx_is_accepted_whatever_it_says: Fcm, 201, "MismatchSenderId" => Accepted, None;
    fcm_2xx_has_no_reason: Fcm, 201, "NotRegistered" => Accepted, None;
    fcm_410_is_gone_whatever_it_says: Fcm, 410, "do not correspond" => Gone, None;

    mozilla_201: Mozilla, 201, "" => Accepted, None;
    mozilla_202: Mozilla, 202, "" => Accepted, None;
    mozilla_101: Mozilla, 400, r#"{"code":400,"errno":101}"# => BadRequest, Some("101");
    mozilla_102: Mozilla, 404, r#"{"code":404,"errno":102}"# => Gone, Some("102");
    mozilla_103: Mozilla, 410, r#"{"code":410,"errno":103}"# => Gone, Some("103");
    mozilla_104: Mozilla, 413, r#"{"code":413,"errno":104}"# => TooLarge, Some("104");
    mozilla_105: Mozilla, 410, r#"{"code":410,"errno":105}"# => Gone, Some("105");
    mozilla_106: Mozilla, 410, r#"{"code":410,"errno":106,"error":"Gone","message":"…","more_info":"https://x"}"#
        => Gone, Some("106");
    mozilla_108: Mozilla, 400, r#"{"errno":108}"# => BadRequest, Some("108");
    mozilla_109_mismatch: Mozilla, 401, r#"{"code":401,"errno":109,"message":"VAPID public key mismatch"}"#
        => KeyMismatch, Some("109");
    mozilla_109_expiry: Mozilla, 401, r#"{"errno":109,"message":"The VAPID token expiration is too long"}"#
        => SenderFault, Some("109");
    mozilla_110: Mozilla, 400, r#"{"errno":110}"# => BadRequest, Some("110");
    mozilla_111: Mozilla, 400, r#"{"errno":111}"# => BadRequest, Some("111");
    mozilla_112: Mozilla, 400, r#"{"errno":112}"# => BadRequest, Some("112");
    mozilla_113: Mozilla, 400, r#"{"errno":113}"# => BadRequest, Some("113");
    mozilla_114: Mozilla, 400, r#"{"errno":114}"# => BadRequest, Some("114");
    mozilla_201_errno: Mozilla, 503, r#"{"errno":201}"# => Transient, Some("201");
    mozilla_202_errno: Mozilla, 503, r#"{"errno":202}"# => Transient, Some("202");
    mozilla_900: Mozilla, 502, r#"{"errno":900}"# => Transient, Some("900");
    mozilla_901: Mozilla, 502, r#"{"errno":901}"# => Transient, Some("901");
    mozilla_902: Mozilla, 502, r#"{"errno":902}"# => Transient, Some("902");
    mozilla_903: Mozilla, 502, r#"{"errno":903}"# => Transient, Some("903");
    mozilla_999: Mozilla, 500, r#"{"errno":999}"# => Transient, Some("999");
    mozilla_null_errno: Mozilla, 404, r#"{"errno":null}"# => Gone, None;
    mozilla_odd_errno: Mozilla, 404, r#"{"errno":"a"}"# => Gone, None;
    mozilla_html: Mozilla, 502, "<html>bad gateway" => Transient, None;
    mozilla_429: Mozilla, 429, "" => RateLimited, None;

    apple_201: Apple, 201, "" => Accepted, None;
    apple_bad_ttl: Apple, 400, r#"{"reason":"BadTtl"}"# => BadRequest, Some("BadTtl");
    apple_bad_urgency: Apple, 400, r#"{"reason":"BadUrgency"}"# => BadRequest, Some("BadUrgency");
    apple_bad_topic: Apple, 400, r#"{"reason":"BadWebPushTopic"}"# => BadRequest, Some("BadWebPushTopic");
    apple_bad_request: Apple, 400, r#"{"reason":"BadWebPushRequest"}"# => BadRequest, Some("BadWebPushRequest");
    apple_mismatch: Apple, 400, r#"{"reason":"VapidPkHashMismatch"}"# => KeyMismatch, Some("VapidPkHashMismatch");
    apple_mismatch_as_403: Apple, 403, r#"{"reason":"VapidPkHashMismatch"}"# => KeyMismatch, Some("VapidPkHashMismatch");
    apple_mismatch_as_401: Apple, 401, r#"{"reason":"VapidPkHashMismatch"}"# => KeyMismatch, Some("VapidPkHashMismatch");
    apple_bad_authorization_as_400: Apple, 400, r#"{"reason":"BadAuthorizationHeader"}"#
        => SenderFault, Some("BadAuthorizationHeader");
    apple_bad_key: Apple, 400, r#"{"reason":"BadVapidPublicKey"}"# => SenderFault, Some("BadVapidPublicKey");
    apple_bad_authorization: Apple, 403, r#"{"reason":"BadAuthorizationHeader"}"#
        => SenderFault, Some("BadAuthorizationHeader");
    apple_bad_jwt: Apple, 403, r#"{"reason":"BadJwtToken"}"# => SenderFault, Some("BadJwtToken");
    apple_bad_jwt_as_400: Apple, 400, r#"{"reason":"BadJwtToken"}"# => SenderFault, Some("BadJwtToken");
    apple_401: Apple, 401, "" => SenderFault, None;
    apple_bad_path: Apple, 404, r#"{"reason":"BadPath"}"# => Gone, Some("BadPath");
    apple_410: Apple, 410, "" => Gone, None;
    apple_method: Apple, 405, r#"{"reason":"MethodNotAllowed"}"# => BadRequest, Some("MethodNotAllowed");
    apple_too_large: Apple, 413, r#"{"reason":"PayloadTooLarge"}"# => TooLarge, Some("PayloadTooLarge");
    apple_429: Apple, 429, r#"{"reason":"TooManyRequests"}"# => RateLimited, Some("TooManyRequests");
    apple_idle: Apple, 400, r#"{"reason":"IdleTimeout"}"# => Transient, Some("IdleTimeout");
    apple_500: Apple, 500, r#"{"reason":"InternalServerError"}"# => Transient, Some("InternalServerError");
    apple_503: Apple, 503, r#"{"reason":"ServiceUnavailable"}"# => Transient, Some("ServiceUnavailable");
    apple_shutdown: Apple, 503, r#"{"reason":"Shutdown"}"# => Transient, Some("Shutdown");
    apple_new_reason: Apple, 400, r#"{"reason":"SomethingNew"}"# => BadRequest, Some("SomethingNew");
    apple_unprintable_reason: Apple, 400, "{\"reason\":\"a\\nb\"}" => BadRequest, None;

    wns_200: Wns, 200, "" => Accepted, None;
    wns_201: Wns, 201, "" => Accepted, None;
    wns_400: Wns, 400, "" => BadRequest, None;
    wns_401_cannot_tell_so_nobody_is_retired: Wns, 401, "" => SenderFault, None;
    wns_403: Wns, 403, "" => SenderFault, None;
    wns_404: Wns, 404, "" => Gone, None;
    wns_405: Wns, 405, "" => BadRequest, None;
    wns_406: Wns, 406, "" => RateLimited, None;
    wns_410: Wns, 410, "" => Gone, None;
    wns_413: Wns, 413, "" => TooLarge, None;
    wns_429: Wns, 429, "" => RateLimited, None;
    wns_500: Wns, 500, "" => Transient, None;
    wns_503: Wns, 503, "" => Transient, None;

    other_200_ntfy: Other, 200, "{}" => Accepted, None;
    other_400: Other, 400, r#"{"reason":"VapidPkHashMismatch"}"# => BadRequest, None;
    other_401: Other, 401, "key mismatch" => SenderFault, None;
    other_403: Other, 403, "MismatchSenderId" => SenderFault, None;
    other_404: Other, 404, "" => Gone, None;
    other_406: Other, 406, "" => BadRequest, None;
    other_410: Other, 410, "" => Gone, None;
    other_413: Other, 413, "" => TooLarge, None;
    other_429: Other, 429, "" => RateLimited, None;
    other_507_ntfy: Other, 507, r#"{"code":50701,"http":507}"# => Transient, None;
}

#[test]
fn these_statuses_mean_the_same_everywhere() {
    for &service in PushService::ALL {
        for (statuses, outcome) in [
            (&[200, 201, 202, 204, 299][..], Accepted),
            (&[300, 301, 302, 303, 304, 307, 308][..], BadRequest),
            (&[405, 409, 415, 418, 431, 451, 499][..], BadRequest),
            (&[408, 425][..], Transient),
            (&[404, 410][..], Gone),
            (&[413][..], TooLarge),
            (&[429][..], RateLimited),
            (&[401, 403][..], SenderFault),
            (
                &[500, 501, 502, 503, 504, 505, 507, 599, 999][..],
                Transient,
            ),
        ] {
            for status in statuses {
                let verdict = read(service, *status, &[], "");
                assert_eq!(verdict.outcome, outcome, "{service} {status}");
            }
        }
    }
}

#[test]
fn mozilla_503_waits_its_two_minutes() {
    let verdict = read(Mozilla, 503, &[("retry-after", "120")], r#"{"errno":201}"#);
    assert_eq!(verdict.outcome, Transient);
    assert_eq!(verdict.retry_after, Some(Duration::from_secs(120)));
}

#[test]
fn wns_406_waits_as_long_as_it_says() {
    let verdict = read(Wns, 406, &[("retry-after", "900")], "");
    assert_eq!(verdict.outcome, RateLimited);
    assert_eq!(verdict.retry_after, Some(Duration::from_secs(900)));
}

#[test]
fn wns_2xx_that_was_not_delivered_is_rate_limited() {
    for status in [
        "dropped",
        "channelthrottled",
        "ChannelThrottled",
        "appthrottled",
    ] {
        let verdict = read(Wns, 201, &[("x-wns-status", status)], "");
        assert_eq!(verdict.outcome, RateLimited, "{status}");
        assert_eq!(verdict.reason.as_deref(), Some(status));
    }
    let verdict = read(Wns, 201, &[("x-wns-status", "received")], "");
    assert_eq!(verdict.outcome, Accepted);
    let verdict = read(Other, 201, &[("x-wns-status", "dropped")], "");
    assert_eq!(verdict.outcome, Accepted);
}

#[test]
fn wns_400_says_why_in_a_header() {
    let text = "Ttl value conflicts with X-WNS-Cache-Policy.";
    let verdict = read(Wns, 400, &[("x-wns-error-description", text)], "");
    assert_eq!(verdict.outcome, BadRequest);
    assert_eq!(verdict.reason.as_deref(), Some(text));
}

#[test]
fn a_wait_means_nothing_where_no_attempt_follows() {
    for status in [201, 400, 403, 410, 413] {
        let verdict = read(Fcm, status, &[("retry-after", "60")], "");
        assert_eq!(verdict.retry_after, None, "{status}");
    }
}

#[test]
fn only_the_head_of_the_body_is_read() {
    let far = format!("{}MismatchSenderId", " ".repeat(BODY_LIMIT));
    assert_eq!(read(Fcm, 403, &[], &far).outcome, SenderFault);
    let near = format!("{}MismatchSenderId", " ".repeat(BODY_LIMIT - 16));
    assert_eq!(read(Fcm, 403, &[], &near).outcome, KeyMismatch);
}

#[test]
fn a_long_or_binary_reason_is_left_out() {
    let long = format!(r#"{{"reason":"{}"}}"#, "a".repeat(129));
    assert_eq!(read(Apple, 400, &[], &long).reason, None);
    let longest = "a".repeat(128);
    let verdict = read(Apple, 400, &[], &format!(r#"{{"reason":"{longest}"}}"#));
    assert_eq!(verdict.reason.as_deref(), Some(&*longest));
    assert_eq!(read(Apple, 400, &[], r#"{"reason":"é"}"#).reason, None);
    assert_eq!(read(Apple, 400, &[], r#"{"reason":""}"#).reason, None);
}

proptest::proptest! {
    #[test]
    fn no_answer_panics_and_only_the_status_retires(
        status in 100_u16..1000,
        date in "\\PC{0,40}",
        wait in "[0-9A-Za-z, :-]{0,40}",
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in [("date", &date), ("retry-after", &wait), ("x-wns-status", &date)] {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        let status = StatusCode::from_u16(status).unwrap();
        for &service in PushService::ALL {
            let verdict = classify(service, status, &headers, &body, NOW);
            let gone = matches!(status.as_u16(), 404 | 410);
            proptest::prop_assert_eq!(verdict.outcome == Gone, gone);
            if let Some(wait) = verdict.retry_after {
                proptest::prop_assert!(wait <= service.longest_wait());
            }
        }
    }
}
