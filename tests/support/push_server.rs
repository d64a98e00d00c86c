//! A real server on a loopback port: TLS, HTTP/2 or HTTP/1.1, and a handler of the test.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;
pub(crate) type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An extension of a response: instead of the response, the connection breaks; over HTTP/2 its stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken;

type Handler = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Stopped on drop, with its tasks and connections.
#[derive(Debug)]
pub(crate) struct PushServer {
    pub(crate) addr: SocketAddr,
    /// The certificate, for `extra_root_ca_pem`.
    pub(crate) ca_pem: String,
    connections: Arc<AtomicUsize>,
    breaks: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

/// The protocols that the server offers by ALPN; `None` for plain http.
pub(crate) type Alpn = Option<&'static [&'static [u8]]>;

pub(crate) const BOTH: Alpn = Some(&[b"h2", b"http/1.1"]);
pub(crate) const HTTP1: Alpn = Some(&[b"http/1.1"]);
pub(crate) const NO_ALPN: Alpn = Some(&[]);
pub(crate) const PLAIN: Alpn = None;

/// As many as hyper's servers allow.
pub(crate) const STREAMS: u32 = 200;

impl PushServer {
    pub(crate) async fn start<F>(alpn: Alpn, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Answering + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self::start_on(listener, &certificate(), alpn, STREAMS, handler)
    }

    /// Starts on an existing socket, with an existing certificate, and allows so many concurrent streams on each HTTP/2 connection.
    pub(crate) fn start_on<F>(
        listener: TcpListener,
        certified: &Certified,
        alpn: Alpn,
        streams: u32,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> Answering + Send + Sync + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let tls = alpn.map(|alpn| acceptor(alpn, certified));
        let connections = Arc::new(AtomicUsize::new(0));
        let handler: Handler = Arc::new(handler);
        let mut tasks = JoinSet::new();
        let breaks = watch::Sender::new(());
        tasks.spawn(accept(
            listener,
            tls,
            streams,
            handler,
            Arc::clone(&connections),
            breaks.clone(),
        ));
        Self {
            addr,
            ca_pem: certified.cert.pem(),
            connections,
            breaks,
            _tasks: tasks,
        }
    }

    /// Returns the number of TCP connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Breaks all connections. New ones are accepted.
    pub(crate) fn break_connections(&self) {
        self.breaks.send_replace(());
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }
}

pub(crate) type Certified = rcgen::CertifiedKey<rcgen::KeyPair>;

/// Makes a certificate for all names that tests use for their servers.
pub(crate) fn certificate() -> Certified {
    let names = [
        "localhost",
        "push.localhost",
        "127.0.0.1",
        "push.example.com",
    ];
    rcgen::generate_simple_self_signed(names.map(String::from)).unwrap()
}

pub(crate) fn acceptor(alpn: &[&[u8]], certified: &Certified) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    streams: u32,
    handler: Handler,
    connections: Arc<AtomicUsize>,
    breaks: watch::Sender<()>,
) {
    let mut tasks = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        // As every push service does: otherwise responses wait for the client's next packet.
        tcp.set_nodelay(true).unwrap();
        let (tls, handler) = (tls.clone(), Arc::clone(&handler));
        let mut breaks = breaks.subscribe();
        let serve = async move {
            let serve = service_fn(|request| {
                let answer = handler(request);
                async move {
                    let answer = answer.await;
                    match answer.extensions().get::<Broken>() {
                        Some(Broken) => Err(io::ErrorKind::ConnectionReset),
                        None => Ok(answer),
                    }
                    .map_err(io::Error::from)
                }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(streams);
            // A client may disconnect at any time.
            let _gone = match tls {
                None => builder.serve_connection(TokioIo::new(tcp), serve).await,
                Some(tls) => match tls.accept(tcp).await {
                    Ok(stream) => builder.serve_connection(TokioIo::new(stream), serve).await,
                    Err(_) => return,
                },
            };
        };
        tasks.spawn(async move {
            tokio::select! {
                () = serve => {}
                _ = breaks.changed() => {}
            }
        });
    }
}

/// Makes a response with a short body.
pub(crate) fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    response
        .body(body.map_err(|never| match never {}).boxed())
        .unwrap()
}
