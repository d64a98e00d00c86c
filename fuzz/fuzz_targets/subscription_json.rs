//! Any text that a page posts as its subscription.
//!
//! Invariants: nothing panics; what parses prints as JSON that parses to the same; its endpoint is kept byte
//! for byte, within its limit, and has an origin that reads back as itself; an endpoint that the strictest
//! policy admits is one that every other preset for the open internet admits too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::subscription::{Endpoint, Origin, Subscription};

fuzz_target!(|input: &[u8]| {
    if let Ok(subscription) = Subscription::from_json(input) {
        let json = serde_json::to_vec(&subscription).expect("a subscription is JSON");
        assert_eq!(
            Subscription::from_json(&json).expect("our own JSON"),
            subscription
        );
        let again: Subscription = serde_json::from_slice(&json).expect("our own JSON");
        assert_eq!(again, subscription);
        endpoint(subscription.endpoint());
    }
    // The URL alone, so that the fuzzer need not get the keys right first.
    if let Some(url) = std::str::from_utf8(input).ok()
        && let Ok(parsed) = Endpoint::parse(url)
    {
        assert_eq!(parsed.as_str(), url);
        endpoint(&parsed);
    }
});

fn endpoint(endpoint: &Endpoint) {
    assert!(endpoint.as_str().len() <= Endpoint::MAX_LEN);
    assert!(!endpoint.host().contains(['@', '%', '\\', '#']));
    let origin = endpoint.origin();
    assert_eq!(Origin::parse(origin.as_str()).expect("an origin"), *origin);
    assert_eq!(*origin.as_str(), origin.as_str().to_ascii_lowercase());
    if EndpointPolicy::known_push_services()
        .check(endpoint)
        .is_ok()
    {
        assert!(EndpointPolicy::public_hosts().check(endpoint).is_ok());
        assert!(origin.as_str().starts_with("https://"));
    }
}
