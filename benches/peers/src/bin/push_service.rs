//! A push service on a loopback port, over TLS with HTTP/2 and HTTP/1.1: `push_service FOLDER`.
//!
//! It writes its certificate into the folder and its port to the standard output. It answers 201 to whatever looks like
//! an encrypted message with a token, 400 to anything else, and does as little as it can on one thread. It ends with its
//! standard input.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_web_push_peers::{Result, ca_file};

/// The header of an encrypted message with its key, and the shortest record: RFC 8188 section 2.1, RFC 8291 section 4.
const SHORTEST: usize = 16 + 4 + 1 + 65 + 17;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1);
    let folder = PathBuf::from(folder.ok_or("usage: push_service FOLDER")?);
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(ca_file(&folder), certified.cert.pem())?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(acceptor))
}

async fn serve(acceptor: TlsAcceptor) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client may disconnect at any time.
            if let Ok(stream) = acceptor.accept(tcp).await {
                let _gone = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
) -> std::result::Result<Response<Empty<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let mut octets = 0;
    while let Some(Ok(frame)) = body.frame().await {
        octets += frame.data_ref().map_or(0, Bytes::len);
    }
    let mut response = Response::new(Empty::new());
    if is_message(&head.headers) && octets >= SHORTEST {
        *response.status_mut() = StatusCode::CREATED;
        let location = HeaderValue::from_static("https://localhost/message");
        response.headers_mut().insert(LOCATION, location);
    } else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    Ok(response)
}

fn is_message(headers: &HeaderMap) -> bool {
    let token = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    // Schemes are case-insensitive.
    let has_token = token.is_some_and(|token| {
        let scheme = token.split_at_checked(6).map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"vapid "))
    });
    has_token
        && headers.contains_key("ttl")
        && headers.get(CONTENT_ENCODING) == Some(&HeaderValue::from_static("aes128gcm"))
}
