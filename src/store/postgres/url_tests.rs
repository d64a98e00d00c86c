use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tokio_postgres::config::Host;

use super::*;
use crate::store::StoreErrorKind;

const PLACE: &str = "postgres://u:hunter2@127.0.0.1:5432/d";

fn parse(query: &str) -> Url {
    Url::parse(&format!("{PLACE}?{query}")).unwrap_or_else(|error| panic!("{query}: {error:?}"))
}

/// Returns the reason why a URL is refused. Asserts that it does not contain the password.
#[track_caller]
fn refused(url: &str) -> String {
    let Err(error) = Url::parse(url) else {
        panic!("taken: {url}");
    };
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{url}");
    let why = error.source().unwrap().to_string();
    assert!(!format!("{error:?} {why}").contains("hunter2"), "{why}");
    why
}

#[test]
fn what_libpq_understands_is_understood() {
    let mode = |query: &str| parse(query).config.get_ssl_mode();
    for (query, expected) in [
        ("", SslMode::Prefer),
        ("sslmode=disable", SslMode::Disable),
        ("sslmode=allow", SslMode::Prefer),
        ("sslmode=prefer", SslMode::Prefer),
        ("sslmode=require", SslMode::Require),
        ("sslmode=verify-ca", SslMode::Require),
        ("sslmode=verify%2Dfull", SslMode::Require),
        ("sslmode=disable&sslmode=require&", SslMode::Require),
    ] {
        assert_eq!(mode(query), expected, "{query}");
    }
    let target = |query: &str| parse(query).config.get_target_session_attrs();
    for (query, expected) in [
        ("application_name=x", TargetSessionAttrs::Any),
        ("target_session_attrs=any", TargetSessionAttrs::Any),
        (
            "target_session_attrs=read-write",
            TargetSessionAttrs::ReadWrite,
        ),
        (
            "target_session_attrs=primary",
            TargetSessionAttrs::ReadWrite,
        ),
    ] {
        assert_eq!(target(query), expected, "{query}");
    }
    for harmless in [
        "application_name=push&gssencmode=disable",
        "gssencmode=prefer&sslcompression=0&sslsni=1&client_encoding=UTF8",
        "ssl_min_protocol_version=TLSv1.2&sslnegotiation=postgres",
        "channel_binding=prefer&load_balance_hosts=random&tcp_user_timeout=5",
        "options=-c%20work_mem%3D4MB&sslrootcert=system",
    ] {
        let url = parse(harmless);
        assert!(url.root_certificates.is_none(), "{harmless}");
        assert!(url.schema.is_none() && url.pool_size.is_none());
        assert_eq!(url.config.get_dbname(), Some("d"));
        assert_eq!(url.config.get_password(), Some(&b"hunter2"[..]));
    }
    let config = parse(
        "connect_timeout=3&keepalives_idle=7&keepalives_count=9&fallback_application_name=a%20b",
    )
    .config;
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(7));
    assert_eq!(config.get_keepalives_retries(), Some(9));
    assert_eq!(config.get_application_name(), Some("a b"));
    let config = parse("fallback_application_name=a&application_name=b").config;
    assert_eq!(config.get_application_name(), Some("b"));
}

#[test]
fn the_root_certificates_are_a_file_unless_there_is_no_tls() {
    let file = |query: &str| parse(query).root_certificates;
    for (query, expected) in [
        (
            "sslmode=verify-full&sslrootcert=/etc/ssl/certs/db-ca.pem",
            "/etc/ssl/certs/db-ca.pem",
        ),
        ("sslrootcert=ca%20of%20the%20db.pem", "ca of the db.pem"),
    ] {
        assert_eq!(file(query).as_deref(), Some(Path::new(expected)), "{query}");
    }
    assert_eq!(file("sslrootcert=ca.pem&sslmode=disable"), None);
}

#[test]
fn settings_of_the_store_are_taken_from_the_url() {
    let url = parse("schema=shop_push&pool_max_conns=3");
    assert_eq!(url.schema.as_deref(), Some("shop_push"));
    assert_eq!(url.pool_size, Some(3));
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    for (query, name) in [
        ("sslmode=no-verify", "sslmode"),
        ("sslmode=REQUIRE", "sslmode"),
        ("sslcert=client.pem", "sslcert"),
        ("sslkey=client.key", "sslkey"),
        ("sslnegotiation=direct", "sslnegotiation"),
        ("sslrootcert=%zz", "sslrootcert"),
        ("sslrootcert=%ff", "sslrootcert"),
        ("target_session_attrs=standby", "target_session_attrs"),
        ("target_session_attrs=read-only", "target_session_attrs"),
        (
            "target_session_attrs=prefer-standby",
            "target_session_attrs",
        ),
        ("gssencmode=require", "gssencmode"),
        ("connect_timeout=soon", "connect_timeout"),
        ("keepalives_count=x", "keepalives_count"),
        ("pool_max_conns=0", "pool_max_conns"),
        ("port=0x", "port"),
        ("hostaddr=db", "hostaddr"),
        ("ssl=true", "ssl"),
        ("pgbouncer=true", "pgbouncer"),
        ("currentSchema=a", "currentSchema"),
        ("SSLMODE=require", "SSLMODE"),
        ("application_name=a&passfile=/hunter2", "passfile"),
        ("sslmode", "sslmode"),
    ] {
        let why = refused(&format!("{PLACE}?{query}"));
        assert!(why.contains(&format!("`{name}`")), "{query}: {why}");
        // The value may be a secret too.
        let value = query.rsplit_once('=').map_or("/", |(_, value)| value);
        assert!(
            value.len() < 4 || !why.contains(value) || name == "sslmode",
            "{why}"
        );
    }
    // An invalid name is not repeated.
    for strange in ["hunter2%0a=1", "=1", "hunter2 hunter2", "hunter2\n=3"] {
        refused(&format!("postgres://u@h/d?{strange}"));
    }
}

#[test]
fn a_url_that_cannot_be_read_is_not_quoted() {
    for url in [
        "hunter2",
        "password=hunter2",
        "host=h password=hunter2",
        "mysql://u:hunter2@h/d",
        "postgres:/u:hunter2@h/d",
        "postgres://u:hunter2@h:port/d",
        "postgres://u:hunter2@[::1/d",
        "postgres://u:hunter2@/d",
        // A password with characters that have a meaning in a URL.
        "postgres://u:hunter2@hunter2@h/d",
        "postgres://u:a?hunter2=b@h/d",
        "postgres://u:a@b?hunter2=c@h/d",
        "postgres://h/d?application_name=hunter2@h",
    ] {
        refused(url);
    }
    let url = "PostgreSQL://u:%40%3F%2F:@[::1],h:1/d?host=/run/pg";
    let config = Url::parse(url).unwrap_or_else(|_| panic!("{url}")).config;
    assert_eq!(config.get_password(), Some(&b"@?/:"[..]));
    let hosts = ["::1", "h"].map(|host| Host::Tcp(host.to_owned()));
    assert_eq!(config.get_hosts().get(..2), Some(&hosts[..]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever else is in the password, and behind it.
    #[test]
    fn no_error_shows_a_part_of_a_password(
        before in "[?#/&=@:;%\\[\\] +a-z0-9]{0,6}",
        after in "[?#/&=@:;%\\[\\] +a-z0-9]{0,6}",
        rest in "[?#/&=@:%,a-z0-9]{0,12}",
    ) {
        let url = format!("postgres://u:{before}hunter2{after}@h{rest}");
        if let Err(error) = Url::parse(&url) {
            let why = error.source().map(ToString::to_string);
            prop_assert!(!format!("{error} {error:?} {why:?}").contains("hunter2"), "{}", url);
        }
    }
}
