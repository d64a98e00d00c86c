//! Requests that the push service has certainly not processed are sent again at once (RFC 9113 sections 6.8 and 8.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;
use tower_web_push::deliver::{EndpointPolicy, Outcome};
use tower_web_push::subscription::Origin;

use super::world::{local, over, push};
use crate::support::push_server::{acceptor, certificate};

/// How the server leaves requests unprocessed.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It ends each connection after this number of responses.
    GoAwayAfter(usize),
    /// It refuses this number of streams, over all connections.
    Refuse(usize),
    /// It ends this number of connections at their first request, and asks for fewer requests.
    Calm(usize),
}

#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    refused: AtomicUsize,
}

/// The least of HTTP/2 that a client can talk to: the frames decide what was processed, so no library writes them.
async fn serve(mut tls: TlsStream<TcpStream>, way: Way, seen: Arc<Seen>) -> std::io::Result<()> {
    const DATA_END: u8 = 1;
    let mut preface = [0; 24];
    tls.read_exact(&mut preface).await?;
    tls.write_all(&frame(4, 0, 0, &[])).await?;
    let mut answered = 0;
    // The last stream that is processed, once that is decided.
    let mut last = u32::MAX;
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        tls.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        let reply = match kind {
            4 if flags & 1 == 0 => frame(4, 1, 0, &[]),
            6 if flags & 1 == 0 => frame(6, 1, 0, &payload),
            // The end of a request's body.
            0 if flags & DATA_END != 0 && stream <= last => match way {
                Way::Calm(times) if stream == 1 && seen.refused.load(SeqCst) < times => {
                    seen.refused.fetch_add(1, SeqCst);
                    last = 0;
                    frame(7, 0, 0, &[[0; 4], 11_u32.to_be_bytes()].concat())
                }
                Way::Refuse(times) if seen.refused.load(SeqCst) < times => {
                    seen.refused.fetch_add(1, SeqCst);
                    frame(3, 0, stream, &7_u32.to_be_bytes())
                }
                _ => {
                    answered += 1;
                    seen.answered.fetch_add(1, SeqCst);
                    // `:status: 200`, the end of the headers and of the stream.
                    let mut reply = frame(1, 5, stream, &[0x88]);
                    if matches!(way, Way::GoAwayAfter(after) if answered == after) {
                        last = stream;
                        let no_error = [last.to_be_bytes(), [0; 4]].concat();
                        reply.extend(frame(7, 0, 0, &no_error));
                    }
                    reply
                }
            },
            _ => continue,
        };
        tls.write_all(&reply).await?;
        tls.flush().await?;
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends this number of requests at once. Returns the number of acceptances, and what the server saw.
async fn send(number: usize, way: Way) -> (usize, Vec<Outcome>, Arc<Seen>) {
    let (accepted, failed, seen, _) = send_through(number, way).await;
    (accepted, failed, seen)
}

/// And the limit on requests in flight.
async fn send_through(number: usize, way: Way) -> (usize, Vec<Outcome>, Arc<Seen>, usize) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let certified = certificate();
    let seen = Arc::new(Seen::default());
    let (tls, log): (TlsAcceptor, _) = (acceptor(&[b"h2"], &certified), Arc::clone(&seen));
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            let (tls, log) = (tls.clone(), Arc::clone(&log));
            connections.spawn(async move { serve(tls.accept(tcp).await?, way, log).await });
        }
    });
    let client = local().extra_root_ca_pem(certified.cert.pem());
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    let mut requests = JoinSet::new();
    for n in 0..number {
        let push = push(&format!("https://localhost:{port}/{n}"));
        requests.spawn(deliver.clone().oneshot(push));
    }
    let results = requests.join_all().await;
    server.abort();
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    let failed = results.into_iter().filter_map(Result::err);
    let origin = Origin::parse(&format!("https://localhost:{port}")).unwrap();
    (
        accepted,
        failed.map(|error| error.outcome()).collect(),
        seen,
        deliver.gates().gate(&origin).limit(),
    )
}

/// The public case h13.
#[tokio::test]
async fn requests_that_a_connection_leaves_behind_are_sent_on_the_next_one() {
    for after in [5, 1] {
        let (accepted, failed, seen) = send(60, Way::GoAwayAfter(after)).await;
        assert_eq!((accepted, failed), (60, vec![]), "{after}");
        assert_eq!(seen.answered.load(SeqCst), 60, "each was processed once");
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let (accepted, failed, seen) = send(20, Way::Refuse(20)).await;
    assert_eq!((accepted, failed), (20, vec![]));
    assert_eq!(seen.answered.load(SeqCst), 20);
}

/// RFC 9113 section 7: ENHANCE_YOUR_CALM.
#[tokio::test]
async fn a_server_that_asks_for_calm_gets_fewer_requests_at_once_and_each_message_once() {
    let (accepted, failed, seen, limit) = send_through(8, Way::Calm(1)).await;
    assert_eq!((accepted, failed), (8, vec![]));
    assert_eq!(seen.answered.load(SeqCst), 8, "each was processed once");
    assert_eq!(seen.refused.load(SeqCst), 1);
    assert!(limit < 8, "{limit}");
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_not_asked_for_ever() {
    let (_, failed, seen) = send(1, Way::Refuse(usize::MAX)).await;
    assert_eq!(failed, [Outcome::Transient]);
    assert_eq!(seen.refused.load(SeqCst), 33, "the first time and 32 more");
}
