//! The rules of the endpoint policy, and the corpus of endpoints that must never be reached.

use super::*;

fn check(policy: &EndpointPolicy, url: &str) -> Result<(), PolicyErrorKind> {
    let endpoint = Endpoint::parse(url).unwrap_or_else(|_| panic!("{url}"));
    policy.check(&endpoint).map_err(|error| error.kind())
}

fn refused(policy: &EndpointPolicy, urls: &[&str], kind: PolicyErrorKind) {
    for url in urls {
        assert_eq!(check(policy, url), Err(kind), "{url}");
    }
}

fn presets() -> [EndpointPolicy; 3] {
    [
        EndpointPolicy::known_push_services(),
        EndpointPolicy::public_hosts(),
        EndpointPolicy::hosts(["known", "*.example.com"]).unwrap(),
    ]
}

#[test]
fn the_push_services_of_the_browsers_pass_every_preset() {
    let mut policies = presets().to_vec();
    policies.push(EndpointPolicy::insecure_allow_local());
    for policy in policies {
        for url in [
            // Not a unique-local address, whose text also begins with "fc".
            "https://fcm.googleapis.com/fcm/send/x",
            "https://fcm.googleapis.com:443/wp/x",
            "https://jmt17.google.com/fcm/send/x",
            "https://updates.push.services.mozilla.com/wpush/v2/x",
            "https://web.push.apple.com/Qx",
            "https://wns2-par02p.notify.windows.com/w/?token=x",
            "https://graph.facebook.com/rl_push_send?notif_token=1",
        ] {
            assert_eq!(check(&policy, url), Ok(()), "{url}");
        }
    }
}

#[test]
fn fcm_is_not_mistaken_for_a_unique_local_address() {
    let policy = EndpointPolicy::default();
    assert_eq!(check(&policy, "https://fcm.googleapis.com/wp/x"), Ok(()));
    assert!(policy.check_addr("fc00::1".parse().unwrap()).is_err());
    let open = EndpointPolicy::public_hosts();
    assert_eq!(check(&open, "https://fd.example.com/x"), Ok(()));
    assert_eq!(check(&open, "https://fe80.example.com/x"), Ok(()));
}

#[test]
fn the_default_lists_known_push_services_only() {
    refused(
        &EndpointPolicy::default(),
        &[
            "https://push.example.com/x",
            "https://evilfcm.googleapis.com/x",
            "https://fcm.googleapis.com.evil.example/x",
            "https://googleapis.com/x",
            "https://notify.windows.com.evil.example/x",
        ],
        PolicyErrorKind::NotListed,
    );
}

#[test]
fn literal_addresses_are_refused() {
    for policy in presets() {
        refused(
            &policy,
            &[
                "https://127.0.0.1/x",
                "https://8.8.8.8/x",
                "https://169.254.169.254/latest/meta-data",
                "https://[::1]/x",
                "https://[::ffff:127.0.0.1]/x",
                "https://[2a00:1450:4001:80b::200a]/x",
            ],
            PolicyErrorKind::LiteralAddress,
        );
    }
}

#[test]
fn hosts_that_end_in_a_number_are_refused() {
    for policy in presets() {
        refused(
            &policy,
            &[
                "https://127.1/x",
                "https://0177.0.0.1/x",
                "https://0x7f.1/x",
                "https://0x7f.0x1/x",
                "https://127.0.0.0x1/x",
                "https://127.0.0.0X/x",
                "https://1.2.3.4.5/x",
                "https://push.example.08/x",
            ],
            PolicyErrorKind::NumericHost,
        );
    }
}

#[test]
fn single_labels_and_local_names_are_refused() {
    for policy in presets() {
        refused(
            &policy,
            &[
                "https://localhost/x",
                "https://LOCALHOST/x",
                "https://a.localhost/x",
                "https://printer.local/x",
                "https://metadata.google.internal/x",
                "https://permanently-removed.invalid/x",
                "https://ntfy.lan/x",
                "https://ntfy.home.arpa/x",
                "https://push.test/x",
                "https://push.onion/x",
                "https://intranet/x",
                "https://2130706433/x",
                "https://0x7f000001/x",
            ],
            PolicyErrorKind::LocalName,
        );
    }
}

#[test]
fn malformed_hosts_are_refused() {
    let long = format!("https://{}.example.com/x", "a".repeat(64));
    for policy in presets() {
        refused(
            &policy,
            &[
                "https://fcm.googleapis.com./x",
                "https://localhost./x",
                "https://.example.com/x",
                "https://a..example.com/x",
                "https://./x",
                &long,
            ],
            PolicyErrorKind::MalformedHost,
        );
    }
}

#[test]
fn other_ports_and_plain_http_are_refused() {
    for policy in presets() {
        refused(
            &policy,
            &[
                "https://fcm.googleapis.com:22/x",
                "https://fcm.googleapis.com:8443/x",
            ],
            PolicyErrorKind::Port,
        );
        refused(
            &policy,
            &[
                "http://fcm.googleapis.com/x",
                "http://fcm.googleapis.com:443/x",
            ],
            PolicyErrorKind::InsecureScheme,
        );
    }
}

#[test]
fn the_dead_push_service_is_refused() {
    for policy in presets() {
        refused(
            &policy,
            &["https://android.googleapis.com/gcm/send/x"],
            PolicyErrorKind::DeadHost,
        );
    }
}

#[test]
fn a_list_names_hosts_parents_and_ports() {
    let policy: EndpointPolicy = "Push.Example.com, *.example.net:8443,push.example.com:8080"
        .parse()
        .unwrap();
    for url in [
        "https://push.example.com/x",
        "https://PUSH.example.COM/x",
        "https://push.example.com:8080/x",
        "https://a.example.net:8443/x",
        "https://a.b.example.net:8443/x",
    ] {
        assert_eq!(check(&policy, url), Ok(()), "{url}");
    }
    refused(
        &policy,
        &[
            "https://fcm.googleapis.com/x",
            "https://a.push.example.com/x",
            "https://example.net:8443/x",
            "https://badexample.net:8443/x",
        ],
        PolicyErrorKind::NotListed,
    );
    refused(
        &policy,
        &["https://a.example.net/x", "https://push.example.com:8443/x"],
        PolicyErrorKind::Port,
    );
}

#[test]
fn labels_have_63_characters_at_most_and_hosts_253() {
    let public = EndpointPolicy::public_hosts();
    // Longer ones than those of an endpoint come with the URLs that are dialled.
    let checked = |host: &str| {
        let uri: Uri = format!("https://{host}/x").parse().unwrap();
        public.check_uri(&uri).map_err(|error| error.kind())
    };
    let host = |lengths: &[usize]| {
        let labels: Vec<_> = lengths.iter().map(|length| "a".repeat(*length)).collect();
        format!("{}.com", labels.join("."))
    };
    let malformed = Err(PolicyErrorKind::MalformedHost);
    assert_eq!(checked(&host(&[63, 63, 63, 57])), Ok(()));
    assert_eq!(checked(&host(&[63, 63, 63, 58])), malformed);
    assert_eq!(checked(&host(&[64])), malformed);
    assert_eq!(checked("a!b.example.com"), malformed);
    assert_eq!(checked("push.example.x1"), Ok(()));
}

/// A stranger cannot make the server post to other resources of these hosts, under any rule that admits the host.
#[test]
fn other_resources_of_a_known_push_service_are_refused() {
    let mut policies = presets().to_vec();
    policies.push(EndpointPolicy::insecure_allow_local());
    let listed = [
        "*.googleapis.com",
        "jmt17.google.com",
        "*.facebook.com",
        "*.windows.com",
    ];
    let listed = listed
        .into_iter()
        .chain(["*.notify.windows.com", "*.mozilla.com"]);
    policies.push(EndpointPolicy::hosts(listed).unwrap());
    for policy in policies {
        refused(
            &policy,
            &[
                "https://fcm.googleapis.com/v1/projects/p/messages:send",
                "https://fcm.googleapis.com/fcm/send/../../v1/projects/p/messages:send",
                "https://fcm.googleapis.com/x",
                "https://jmt17.google.com/search",
                "https://updates.push.services.mozilla.com/m/x",
                "https://db5p.notify.windows.com/x",
                "https://graph.facebook.com/v21.0/me/feed",
            ],
            PolicyErrorKind::Path,
        );
    }
    // A connection is opened for a host; the path is not known.
    let policy = EndpointPolicy::default();
    let dialled = Uri::from_static("https://fcm.googleapis.com");
    assert!(policy.check_uri(&dialled).is_ok());
}

#[test]
fn an_underscore_is_admitted() {
    let policy = EndpointPolicy::public_hosts();
    assert_eq!(check(&policy, "https://push_1.example.com/x"), Ok(()));
    let listed: EndpointPolicy = "my_ntfy.example.com:8443".parse().unwrap();
    assert_eq!(check(&listed, "https://my_ntfy.example.com:8443/x"), Ok(()));
    for url in ["https://_/x", "https://a_b/x", "https://a_b.localhost/x"] {
        assert_eq!(
            check(&policy, url),
            Err(PolicyErrorKind::LocalName),
            "{url}"
        );
    }
}

#[test]
fn a_list_may_contain_public_hosts_with_ports() {
    let policy: EndpointPolicy = "public, ntfy.example.com:8443".parse().unwrap();
    for url in [
        "https://any.example.net/x",
        "https://ntfy.example.com/x",
        "https://ntfy.example.com:8443/x",
        "https://fcm.googleapis.com/fcm/send/x",
    ] {
        assert_eq!(check(&policy, url), Ok(()), "{url}");
    }
    refused(
        &policy,
        &[
            "https://any.example.net:8443/x",
            "https://ntfy.example.com:22/x",
        ],
        PolicyErrorKind::Port,
    );
    let policy: EndpointPolicy = "public,public:8443".parse().unwrap();
    assert_eq!(check(&policy, "https://any.example.net/x"), Ok(()));
    assert_eq!(check(&policy, "https://any.example.net:8443/x"), Ok(()));
    refused(
        &policy,
        &["https://any.example.net:80/x"],
        PolicyErrorKind::Port,
    );
    let policy: EndpointPolicy = "known,public:8443".parse().unwrap();
    assert_eq!(check(&policy, "https://fcm.googleapis.com/wp/x"), Ok(()));
    refused(
        &policy,
        &["https://any.example.net/x"],
        PolicyErrorKind::Port,
    );
    // Local names, addresses and http are still refused.
    for url in [
        "https://localhost:8443/x",
        "https://10.0.0.1:8443/x",
        "http://any.example.net:8443/x",
    ] {
        assert!(check(&policy, url).is_err(), "{url}");
    }
    assert!(policy.check_addr("10.0.0.1".parse().unwrap()).is_err());
}

#[test]
fn settings_are_parsed() {
    let parse = |text: &str| text.parse::<EndpointPolicy>();
    assert_eq!(parse("known").unwrap(), EndpointPolicy::default());
    assert_eq!(parse(" public ").unwrap(), EndpointPolicy::public_hosts());
    assert_eq!(
        parse("local").unwrap(),
        EndpointPolicy::insecure_allow_local()
    );
    for text in [
        "",
        ",",
        "known,",
        "localhost",
        "intranet",
        "127.0.0.1",
        "*",
        "*.",
        "*.local",
        "a.*.example.com",
        "https://push.example.com",
        "push.example.com:0",
        "push.example.com:65536",
        "push.example.com:",
        "push.example.com:+1",
        "public:",
        "public:0",
        "known:8443",
        "local,push.example.com",
        "public,local",
        "push.lan",
    ] {
        let kind = parse(text).map_err(|error| error.kind());
        assert_eq!(kind, Err(PolicyErrorKind::InvalidPattern), "{text}");
    }
}

#[test]
fn only_the_local_policy_admits_loopback_and_http_to_it() {
    let policy = EndpointPolicy::insecure_allow_local();
    for url in [
        "http://127.0.0.1:8090/notify/x",
        "https://127.0.0.1:8443/x",
        "http://localhost:8090/x",
        "http://a.localhost:1/x",
        "http://[::1]:8090/x",
    ] {
        assert_eq!(check(&policy, url), Ok(()), "{url}");
    }
    for url in [
        "http://push.example.com/x",
        "https://push.example.com:8443/x",
        "http://10.0.0.1/x",
        "https://169.254.169.254/x",
        "http://printer.local/x",
        "http://0.0.0.0:80/x",
        "http://127.1:80/x",
    ] {
        assert!(check(&policy, url).is_err(), "{url}");
    }
    let ok = |addr: &str| policy.check_addr(addr.parse().unwrap()).is_ok();
    assert!(ok("127.0.0.1") && ok("::1") && ok("8.8.8.8"));
    assert!(!ok("10.0.0.1") && !ok("169.254.169.254") && !ok("0.0.0.0"));
    for policy in presets() {
        let kind = policy.check_addr("127.0.0.1".parse().unwrap()).unwrap_err();
        assert_eq!(kind.kind(), PolicyErrorKind::PrivateAddress);
    }
}

#[test]
fn every_refusal_has_the_same_http_code() {
    assert_eq!(PolicyErrorKind::NotListed.code(), "endpoint_not_allowed");
    assert_eq!(
        PolicyErrorKind::PrivateAddress.code(),
        "endpoint_not_allowed"
    );
    assert_eq!(PolicyErrorKind::Path.code(), "endpoint_not_allowed");
    assert_eq!(
        PolicyErrorKind::InvalidPattern.code(),
        "invalid_endpoint_policy"
    );
}

#[test]
fn nowhere_admits_no_endpoint_and_no_address() {
    let policy = EndpointPolicy::nowhere();
    assert!(!policy.allows_local());
    for url in [
        "http://127.0.0.1:8090/notify/x",
        "https://localhost/x",
        "https://[::1]/x",
        "http://push.example.com/x",
    ] {
        assert!(check(&policy, url).is_err(), "{url}");
    }
    for url in [
        "https://fcm.googleapis.com/fcm/send/x",
        "https://push.example.com/x",
    ] {
        assert_eq!(
            check(&policy, url),
            Err(PolicyErrorKind::NotListed),
            "{url}"
        );
    }
    for addr in ["127.0.0.1", "::1", "142.250.1.1", "192.168.0.1"] {
        assert!(policy.check_addr(addr.parse().unwrap()).is_err(), "{addr}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_passes_is_https_to_a_name_with_a_top_level_domain(
        url in "https?://[a-zA-Z0-9._:\\[\\]-]{1,40}/x",
    ) {
        if let Ok(endpoint) = Endpoint::parse(&url)
            && EndpointPolicy::public_hosts().check(&endpoint).is_ok()
        {
            let (_, last) = endpoint.host().rsplit_once('.').unwrap();
            proptest::prop_assert!(url.starts_with("https://"));
            proptest::prop_assert!(literal_addr(endpoint.host()).is_none());
            proptest::prop_assert!(!last.is_empty() && last.parse::<u128>().is_err());
        }
    }
}

#[test]
fn hosts_that_are_not_listed_individually_have_a_suffix() {
    let list = "known, *.Push.example.com, ntfy.example.org:8443, *.notify.windows.com";
    let list: EndpointPolicy = list.parse().unwrap();
    let public = EndpointPolicy::public_hosts();
    let both = "known, public, *.push.example.co.uk, ntfy.example.org:8443, a.notify.windows.com";
    let both: EndpointPolicy = both.parse().unwrap();
    let wide: EndpointPolicy = "*.windows.com".parse().unwrap();
    for (policy, host, suffix) in [
        (&wide, "db5p.notify.windows.com", Some("notify.windows.com")),
        (&wide, "db5p.push.windows.com", Some("windows.com")),
        (&public, "a.localhost", Some("a.localhost")),
        (&both, "fcm.googleapis.com", None),
        (&both, "x.push.apple.com", Some("push.apple.com")),
        (&both, "ntfy.example.org", None),
        (&both, "a.notify.windows.com", None),
        (&both, "a.example.org", Some("example.org")),
        (&both, "a.push.example.co.uk", Some("push.example.co.uk")),
        (&list, "fcm.googleapis.com", None),
        (&list, "jmt17.google.com", None),
        (&list, "updates.push.services.mozilla.com", None),
        (&list, "Web.Push.Apple.com", None),
        (&list, "x.web.push.apple.com", Some("push.apple.com")),
        (&list, "X.Push.Apple.COM", Some("push.apple.com")),
        (
            &list,
            "a.push.services.mozilla.com",
            Some("push.services.mozilla.com"),
        ),
        (&list, "db5p.notify.windows.com", Some("notify.windows.com")),
        (&list, "a.push.example.com", Some("push.example.com")),
        (&list, "A.B.Push.Example.com", Some("push.example.com")),
        (&list, "ntfy.example.org", None),
        (&public, "fcm.googleapis.com", None),
        (&public, "web.push.apple.com", None),
        (&public, "x.push.apple.com", Some("push.apple.com")),
        (&public, "ntfy.example.org", Some("example.org")),
        (&public, "a.b.C.Example.org", Some("example.org")),
        (&public, "example.org", Some("example.org")),
        (&EndpointPolicy::insecure_allow_local(), "a.localhost", None),
        (&EndpointPolicy::insecure_allow_local(), "127.0.0.1", None),
        (
            &EndpointPolicy::insecure_allow_local(),
            "a.example.org",
            Some("example.org"),
        ),
        // Whose hosts hang takes no places of others.
        #[cfg(feature = "client")]
        (&public, "X.Me.DuckDNS.org", Some("me.duckdns.org")),
        #[cfg(feature = "client")]
        (&both, "push.example.co.uk", Some("example.co.uk")),
    ] {
        assert_eq!(policy.open_suffix(host).as_deref(), suffix, "{host}");
    }
}

#[cfg(feature = "client")]
#[test]
fn a_policy_names_known_push_services_and_hosts_that_it_lists_whole() {
    let list: EndpointPolicy = "ntfy.example.org, *.example.net".parse().unwrap();
    for (host, by_list) in [
        ("fcm.googleapis.com", true),
        ("ntfy.example.org", true),
        ("NTFY.example.org", true),
        ("other.example.org", false),
        ("a.example.net", false),
    ] {
        assert_eq!(list.names(host), by_list, "{host}");
        let is_known = host == "fcm.googleapis.com";
        let public = EndpointPolicy::public_hosts();
        assert_eq!(public.names(host), is_known, "{host}");
    }
}

#[test]
fn a_port_that_begins_with_a_zero_is_refused() {
    for policy in ["known", "local", "public, localhost.example.com:8443"] {
        let policy: EndpointPolicy = policy.parse().unwrap();
        for url in [
            "https://fcm.googleapis.com:0443/fcm/send/x",
            "https://localhost.example.com:08443/x",
            "https://localhost:08443/x",
        ] {
            // A stored one is still read, and its messages are refused.
            let endpoint = Endpoint::parse(url).unwrap();
            let refused = policy.check(&endpoint).unwrap_err();
            assert_eq!(refused.kind(), PolicyErrorKind::Port, "{policy} {url}");
        }
    }
    let endpoint = Endpoint::parse("https://fcm.googleapis.com:443/fcm/send/x").unwrap();
    assert!(EndpointPolicy::default().check(&endpoint).is_ok());
}

#[test]
fn a_policy_is_written_as_it_is_parsed() {
    for text in [
        "local",
        "public",
        "known",
        "known,public:8443,push.example.com,*.example.com:444",
    ] {
        let policy: EndpointPolicy = text.parse().unwrap();
        assert_eq!(policy.to_string(), text);
    }
    assert_eq!(EndpointPolicy::nowhere().to_string(), "none");
}
