//! The default client against connections that a test makes.

use http::uri::Authority;
use http_body_util::BodyExt as _;
use hyper_rustls::MaybeHttpsStream;
use tokio::task::JoinSet;

use super::super::http2_pool::tests::connect;
use super::*;

/// Until it was sent for the last time. The time after that is the server's.
#[tokio::test(start_paused = true)]
async fn the_delay_of_a_request_that_was_repeated_ends_with_the_last_repeat() {
    const REFUSED: Duration = Duration::from_secs(3);
    const ANSWERED: Duration = Duration::from_secs(1);
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        for number in 0.. {
            let Some(request) = server.accept().await else {
                return;
            };
            let mut respond = request.unwrap().1;
            if (1..=2).contains(&number) {
                sleep(REFUSED).await;
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                sleep(ANSWERED).await;
                drop(respond.send_response(Response::new(()), true));
            }
        }
    });
    let mut delays = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let request = Request::post("https://push.example.com/p");
        let request = request.body(PushBody::new("x")).unwrap();
        let response = client.clone().call(request).await.unwrap();
        assert!(began.elapsed() >= ANSWERED);
        let delay = response.extensions().get::<Delayed>();
        delays.push(delay.map(|Delayed(delay)| delay.as_secs_f64()));
    }
    let [None, Some(delay), None] = delays[..] else {
        panic!("{delays:?}");
    };
    // The pause before the second repeat has 2 ms at most.
    let expected = (2 * REFUSED).as_secs_f64();
    assert!((expected..expected + 0.1).contains(&delay), "{delay}");
}

/// A server that refuses requests for a while is not asked as often as it can refuse them.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_again_is_repeated_after_a_pause() {
    const REFUSED: usize = 7;
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        for number in 0.. {
            let Some(request) = server.accept().await else {
                return;
            };
            let mut respond = request.unwrap().1;
            if number < REFUSED {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                drop(respond.send_response(Response::new(()), true));
            }
        }
    });
    let began = Instant::now();
    let request = Request::post("https://push.example.com/p");
    let request = request.body(PushBody::new("x")).unwrap();
    client.clone().call(request).await.unwrap();
    // The first repeat is at once, and the pauses before the others are random, of 126 ms in all at most.
    let pauses = began.elapsed();
    assert!(pauses > Duration::from_millis(2), "{pauses:?}");
}

/// The reasons of push services are there.
#[tokio::test]
async fn the_body_of_a_response_is_passed_on() {
    let client = HttpClient::builder().build().unwrap();
    let authority = Authority::from_static("push.example.com");
    let (server, _connection) = connect(&client.0.http2, &authority).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = h2::server::handshake(server).await.unwrap();
        while let Some(request) = server.accept().await {
            let head = Response::builder().status(403).body(()).unwrap();
            let mut body = request.unwrap().1.send_response(head, false).unwrap();
            body.send_data("Mismatch".into(), false).unwrap();
            body.send_data("SenderId".into(), true).unwrap();
        }
    });
    let request = Request::post("https://push.example.com/p");
    let request = request.body(PushBody::new("x")).unwrap();
    let response = client.clone().call(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "MismatchSenderId");
}

/// A request is small. It must not wait for the acknowledgement of the one before.
#[tokio::test]
async fn connections_send_at_once() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.unwrap();
    let client = HttpClient::builder().policy(EndpointPolicy::insecure_allow_local());
    let client = client.build().unwrap();
    let tls = tls::client_config(&[]).unwrap();
    let connector = Connector::http1(tls, Arc::clone(&client.0.shared));
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let dialled = connector.dial(uri.parse().unwrap(), false).await;
    let MaybeHttpsStream::Http(socket) = dialled.unwrap().0 else {
        panic!("without TLS");
    };
    assert!(socket.tcp().nodelay().unwrap());
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let error = HttpClient::builder().extra_root_ca_pem("").build();
    let kind = error.unwrap_err().kind();
    assert_eq!(kind, HttpClientErrorKind::InvalidRootCa);
}

#[test]
fn an_origin_has_one_spelling() {
    for (uri, expected) in [
        (
            "https://push.example.com/p?q=1",
            "https://push.example.com/p?q=1",
        ),
        (
            "https://Push.Example.com:443/P",
            "https://push.example.com/P",
        ),
        (
            "https://push.example.com:0443/",
            "https://push.example.com/",
        ),
        (
            "https://push.example.com:08443/",
            "https://push.example.com:8443/",
        ),
        ("http://LOCALHOST:80/", "http://localhost/"),
        ("http://localhost:443/", "http://localhost:443/"),
        ("https://[::1]:443/", "https://[::1]/"),
    ] {
        let uri = in_one_spelling(&uri.parse().unwrap()).unwrap();
        assert_eq!(uri.to_string(), expected);
    }
    assert_eq!(in_one_spelling(&Uri::from_static("/p")), None);
}

#[test]
fn a_client_is_built_without_a_runtime() {
    assert!(HttpClient::builder().build().is_ok());
}
