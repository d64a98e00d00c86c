//! Connecting: certificates, passwords and unsuitable servers.

use std::error::Error as _;
use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tower_web_push::store::redis_rs::{Client, aio::ConnectionManager};
use tower_web_push::store::{
    DeliveryLedger, RedisStore, StoreError, StoreErrorKind, VapidKeyStore,
};

use super::world::{ask, at, fresh_prefix, sending, store};
use crate::support::servers::{Kind, Port, Server, shared};

fn texts(error: &StoreError) -> String {
    let cause = error.source().map(ToString::to_string);
    format!("{error} {error:?} {cause:?}")
}

async fn refused(url: &str) -> StoreError {
    RedisStore::connect(url).await.unwrap_err()
}

#[tokio::test]
async fn a_certificate_has_to_come_from_a_trusted_root() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    fs::write(file("server.pem"), certificate.pem()).unwrap();
    fs::write(file("key.pem"), key.serialize_pem()).unwrap();
    fs::write(file("ca.pem"), ca.pem()).unwrap();
    let kept = Port::free();
    let port = kept.number().to_string();
    let options = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("key.pem"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ];
    let Some(_server) = Server::start(Kind::Redis, &options).await else {
        return;
    };
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("rediss://{host}:{port}/3");
        let trusting = RedisStore::builder().extra_root_ca_pem(ca.pem());
        let store = trusting.connect(&url).await.unwrap();
        sending(&store, 3, 1).await;
        assert!(format!("{store:?}").contains("tls: true"));
        let error = refused(&url).await;
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
        assert!(texts(&error).contains("UnknownIssuer"), "{error:?}");
        // A URL that disables certificate checks is refused.
        let error = refused(&format!("{url}#insecure")).await;
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    }
    // No process-wide provider is installed: that is the application's choice.
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    let garbled = RedisStore::builder().extra_root_ca_pem("no certificate");
    let error = garbled.connect("rediss://localhost").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
}

#[tokio::test]
async fn passwords_are_checked_and_never_shown() {
    let Some(server) = Server::start(Kind::Redis, &["--requirepass", "s3cret"]).await else {
        return;
    };
    let port = server.port();
    let rights = "on >hidden ~{web-push}* &{web-push}* +@all -@dangerous +info";
    let mut user = vec!["ACL", "SETUSER", "push"];
    user.extend(rights.split(' '));
    let _: String = ask(&format!("redis://:s3cret@127.0.0.1:{port}"), &user).await;
    for login in [":s3cret", "default:s3cret", "push:hidden"] {
        let store = RedisStore::connect(&format!("redis://{login}@127.0.0.1:{port}"))
            .await
            .unwrap();
        sending(&store, 3, 1).await;
        assert!(store.keys().await.unwrap().is_empty());
        let shown = format!("{store:?} {:?}", RedisStore::builder());
        assert!(
            !shown.contains("s3cret") && !shown.contains("hidden"),
            "{shown}"
        );
    }
    for login in [":s3crets", "push:hiddens", "nobody:hiddens"] {
        let error = refused(&format!("redis://{login}@127.0.0.1:{port}")).await;
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
        let texts = texts(&error);
        assert!(
            !texts.contains("s3cret") && !texts.contains("hidden"),
            "{texts}"
        );
    }
    let error = refused(&format!("redis://127.0.0.1:{port}")).await;
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
    // The user has no permission for another prefix.
    let other = RedisStore::builder().prefix("other");
    let other = other
        .connect(&format!("redis://push:hidden@127.0.0.1:{port}"))
        .await;
    assert_eq!(other.unwrap_err().kind(), StoreErrorKind::Misconfigured);
}

#[tokio::test]
async fn what_is_no_address_is_refused_without_being_repeated() {
    for url in [
        "",
        "redis://user:s3cret@host:notaport",
        "http://user:s3cret@host",
        "unix:///s3cret",
    ] {
        let error = refused(url).await;
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{url}");
        assert!(!texts(&error).contains("s3cret"), "{error:?}");
    }
    for prefix in ["", "a b", "{a}", "ä", &"x".repeat(65)] {
        let builder = RedisStore::builder().prefix(prefix);
        let error = builder.connect("redis://127.0.0.1:1").await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{prefix}");
    }
    let nobodys = Port::free();
    let error = refused(&format!("redis://127.0.0.1:{}", nobodys.number())).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "nobody listens");
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let Some(server) = Server::start(Kind::Redis, &["--maxmemory", "64mb"]).await else {
        return;
    };
    let set = async |policy: &str| -> String {
        ask(
            &server.url(),
            &["CONFIG", "SET", "maxmemory-policy", policy],
        )
        .await
    };
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        set(policy).await;
        let error = refused(&server.url()).await;
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{policy}");
        assert!(texts(&error).contains("noeviction"), "{error:?}");
    }
    // No key expires, so these policies do not evict any.
    for policy in ["volatile-lru", "volatile-ttl", "noeviction"] {
        set(policy).await;
        RedisStore::connect(&server.url()).await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_is_refused() {
    let Some(primary) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let of = format!("127.0.0.1 {}", primary.port());
    let replica = Server::start(Kind::Redis, &["--replicaof", &of])
        .await
        .unwrap();
    let error = refused(&replica.url()).await;
    // It may still be loading until it knows its primary.
    assert!(texts(&error).contains("replica"), "{error:?}");
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    // Also without permission for INFO.
    for server in [&primary, &replica] {
        let user = "ACL SETUSER push on nopass ~* &* +@all -info -config";
        let words: Vec<_> = user.split(' ').collect();
        let _: String = ask(&server.url(), &words).await;
    }
    let as_user = |server: &Server| format!("redis://push:any@127.0.0.1:{}", server.port());
    RedisStore::connect(&as_user(&primary)).await.unwrap();
    let error = refused(&as_user(&replica)).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn what_another_version_has_written_is_left_alone() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(url) = shared(kind) else {
            continue;
        };
        let prefix = fresh_prefix();
        let key = format!("{{{prefix}}}:format");
        store(&url, &prefix).await;
        let format: u32 = ask(&url, &["GET", &key]).await;
        assert_eq!(format, 7);
        store(&url, &prefix).await;
        for other in ["1", "6", "8"] {
            let _: String = ask(&url, &["SET", &key, other]).await;
            let error = RedisStore::builder()
                .prefix(&prefix)
                .connect(&url)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_of_the_applications_own_will_do() {
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    for protocol in ["resp2", "resp3"] {
        let client = Client::open(format!("{url}/?protocol={protocol}")).unwrap();
        let manager = ConnectionManager::new(client).await.unwrap();
        let prefix = fresh_prefix();
        let builder = RedisStore::builder().prefix(&prefix);
        let own = builder.with_connection(manager).await.unwrap();
        let id = sending(&own, 10, 2).await;
        let other = store(&url, &prefix).await;
        assert_eq!(own.description(), other.description());
        assert_eq!(super::world::claim(&own, 4, at(1)).await.len(), 4);
        assert_eq!(super::world::claim(&other, 10, at(1)).await.len(), 6);
        assert_eq!(
            own.status(id, at(1)).await.unwrap(),
            other.status(id, at(1)).await.unwrap()
        );
        assert!(own.server_time().await.unwrap().is_some());
        assert_eq!(own.pauses(at(1)).await.unwrap(), []);
        assert_eq!(own.tallies().await.unwrap(), []);
        assert!(own.keys().await.unwrap().is_empty());
    }
}
