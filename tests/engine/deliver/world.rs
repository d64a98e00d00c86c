//! A client that the test plays, and bodies as push services send them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use tower::ServiceExt as _;
use tower_test::mock::{self, Mock};
use tower_web_push::deliver::{Accepted, Deliver, DeliveryError, EndpointPolicy};
use tower_web_push::error::BoxError;
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::{Push, PushBody};
use tower_web_push::subscription::{AuthSecret, Origin, Subscription};
use tower_web_push::vapid::{Contact, VapidKey};

pub(crate) const FCM: &str = "https://fcm.googleapis.com/fcm/send/token";
pub(crate) const MOZILLA: &str = "https://updates.push.services.mozilla.com/wpush/v2/token";
pub(crate) const APPLE: &str = "https://web.push.apple.com/Qtoken";
pub(crate) const WNS: &str = "https://db5p.notify.windows.com/w/?token=x";
pub(crate) const OTHER: &str = "https://push.example.com/token";

pub(crate) type Client = Mock<Request<PushBody>, Response<TestBody>>;
pub(crate) type Handle = mock::Handle<Request<PushBody>, Response<TestBody>>;

pub(crate) fn deliver() -> (Deliver<Client>, Handle) {
    let (client, handle) = mock::pair();
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let deliver = Deliver::new(client, contact).with_policy(EndpointPolicy::public_hosts());
    (deliver, handle)
}

pub(crate) fn push(endpoint: &str) -> Push {
    push_message(endpoint, Message::new("hello"))
}

pub(crate) fn push_message(endpoint: &str, message: Message) -> Push {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let subscription = Subscription::new(endpoint.parse().unwrap(), *secret.public(), auth);
    Push::new(
        subscription,
        message,
        Arc::new(VapidKey::generate().unwrap()),
    )
}

pub(crate) fn origin(endpoint: &str) -> Origin {
    push(endpoint).subscription().endpoint().origin().clone()
}

/// A body of frames, then its end, or a behaviour of the test.
#[derive(Default)]
pub(crate) struct TestBody {
    frame: &'static [u8],
    times: usize,
    then: Then,
    pub(crate) polled: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(crate) enum Then {
    #[default]
    End,
    Fail,
    Hang,
}

impl TestBody {
    pub(crate) fn of(frame: &'static [u8], times: usize) -> Self {
        Self {
            frame,
            times,
            ..Self::default()
        }
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polled.fetch_add(1, Ordering::Relaxed);
        if self.times == 0 {
            return match self.then {
                Then::End => Poll::Ready(None),
                Then::Fail => Poll::Ready(Some(Err("broken".into()))),
                Then::Hang => Poll::Pending,
            };
        }
        self.times -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.frame)))))
    }
}

pub(crate) fn answer(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: TestBody,
) -> Response<TestBody> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}

/// One call, answered with `response`.
pub(crate) async fn exchange(
    deliver: &Deliver<Client>,
    handle: &mut Handle,
    endpoint: &str,
    response: Response<TestBody>,
) -> Result<Accepted, DeliveryError> {
    let call = deliver.clone().oneshot(push(endpoint));
    let serve = async {
        let (_, send) = handle.next_request().await.unwrap();
        send.send_response(response);
    };
    let (result, ()) = tokio::join!(call, serve);
    result
}
