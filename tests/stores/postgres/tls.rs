//! TLS and authentication, against servers that the tests start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tower_web_push::store::{PostgresBuilder, PostgresStore, StoreErrorKind};

use super::world::{client, until};
use crate::support::servers::{Kind, Server};

/// A certification authority, and the certificate and key of the server `localhost`.
struct Certificates {
    root: String,
    certificate: String,
    key: String,
}

fn certificates() -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, &issuer).unwrap().pem();
    Certificates {
        root,
        certificate,
        key: key.serialize_pem(),
    }
}

/// The server's files, readable by its user only.
fn put(path: &Path, pem: &str, owner: &Path) {
    fs::write(path, pem).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let reference = format!("--reference={}", owner.display());
    let status = Command::new("chown").arg(reference).arg(path).status();
    assert!(status.unwrap().success());
}

/// A server with a certificate, and its root.
async fn encrypted() -> Option<(Server, String)> {
    let mut server = Server::start(Kind::Postgres, &[]).await?;
    let made = certificates();
    let data = server.folder().join("data");
    put(&data.join("server.crt"), &made.certificate, &data);
    put(&data.join("server.key"), &made.key, &data);
    until(async || {
        let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
            .await
            .ok()?;
        tokio::spawn(connection);
        client.batch_execute("ALTER SYSTEM SET ssl = on").await.ok()
    })
    .await;
    server.stop().await;
    server.start_again().await;
    Some((server, made.root))
}

fn url(server: &Server, host: &str, mode: &str) -> String {
    let port = server.port();
    format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}")
}

fn builder() -> PostgresBuilder {
    PostgresStore::builder().pool_size(1)
}

/// Connects once the server has started, and returns the result.
async fn connect(builder: PostgresBuilder, url: &str) -> Result<PostgresStore, String> {
    until(async || match builder.clone().connect(url).await {
        Err(error) if format!("{error:?}").contains("starting up") => None,
        connected => Some(connected.map_err(|error| {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            format!("{error:?}")
        })),
    })
    .await
}

#[tokio::test]
async fn require_is_tls_with_a_certificate_that_is_verified() {
    let Some((server, root)) = encrypted().await else {
        return;
    };
    let trusting = builder().extra_root_ca_pem(root);
    for mode in ["require", "verify-full", "prefer"] {
        let url = url(&server, "localhost", mode);
        connect(trusting.clone(), &url).await.unwrap();
    }
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE ssl AND application_name = 'tower-web-push'";
    let store = connect(trusting.clone(), &url(&server, "localhost", "require")).await;
    let encrypted: i64 = client(&server.url())
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0);
    assert!(encrypted > 0);
    drop(store);
    // With an unknown root or a wrong name, the password is not even sent.
    for mode in ["require", "prefer"] {
        let error = connect(builder(), &url(&server, "localhost", mode))
            .await
            .unwrap_err();
        assert!(error.contains("UnknownIssuer"), "{error}");
        let error = connect(trusting.clone(), &url(&server, "127.0.0.1", mode))
            .await
            .unwrap_err();
        assert!(error.contains("NotValidForName"), "{error}");
    }
    connect(builder(), &url(&server, "localhost", "disable"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_of_root_certificates_is_all_that_is_trusted() {
    let Some((server, root)) = encrypted().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (root_file, other) = (
        file("root.pem", &root),
        file("other.pem", &certificates().root),
    );
    for mode in ["require", "verify-ca", "verify-full", "prefer", "allow"] {
        let url =
            |host: &str, file: &str| format!("{}&sslrootcert={file}", url(&server, host, mode));
        connect(builder(), &url("localhost", &root_file))
            .await
            .unwrap();
        let error = connect(builder(), &url("127.0.0.1", &root_file))
            .await
            .unwrap_err();
        assert!(error.contains("NotValidForName"), "{error}");
        // Other trusted roots are ignored.
        let trusting = builder().extra_root_ca_pem(root.as_str());
        let error = connect(trusting, &url("localhost", &other))
            .await
            .unwrap_err();
        // The root has the same name but has not signed the certificate.
        assert!(
            error.contains("InvalidCertificate(BadSignature)"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn require_is_not_content_with_a_plain_server() {
    let Some(server) = Server::start(Kind::Postgres, &[]).await else {
        return;
    };
    connect(builder(), &url(&server, "localhost", "prefer"))
        .await
        .unwrap();
    let error = connect(builder(), &url(&server, "localhost", "require"))
        .await
        .unwrap_err();
    assert!(error.contains("TLS"), "{error}");
}

#[test]
fn a_root_that_is_none_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ] {
        let connected = builder()
            .extra_root_ca_pem(pem)
            .connect("postgres://u@localhost/d");
        let error = runtime.block_on(connected).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    }
}

#[tokio::test]
async fn a_wrong_password_is_in_no_error() {
    let Some(mut server) = Server::start(Kind::Postgres, &[]).await else {
        return;
    };
    until(async || {
        let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
            .await
            .ok()?;
        tokio::spawn(connection);
        let sql =
            "CREATE ROLE push LOGIN PASSWORD 'correct'; GRANT CREATE ON DATABASE postgres TO push";
        client.batch_execute(sql).await.ok()
    })
    .await;
    let data = server.folder().join("data");
    let rules = "host all all 127.0.0.1/32 scram-sha-256\n";
    put(&data.join("pg_hba.conf"), rules, &data);
    server.stop().await;
    server.start_again().await;
    let url = |password: &str| {
        format!(
            "postgres://push:{password}@127.0.0.1:{}/postgres",
            server.port()
        )
    };
    let store = connect(builder(), &url("correct")).await.unwrap();
    assert!(!format!("{store:?}").contains("correct"));
    let error = builder().connect(&url("hunter2")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
    let mut shown = format!("{error:?} {error} {error:#?}");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        shown = format!("{shown} {error} {error:?}");
        source = error.source();
    }
    assert!(shown.contains("28P01"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
