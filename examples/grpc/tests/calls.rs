//! Tests of the application with a gRPC client. Its browsers and their push service are in this process.
#![allow(clippy::unwrap_used, reason = "a test says what failed")]

use tokio::net::TcpListener;
use tonic::codegen::InterceptedService;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower_web_push::WebPush;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::testing::{TestPushService, UserAgent};
use tower_web_push_grpc::generated::devices_client::DevicesClient;
use tower_web_push_grpc::generated::orders_client::OrdersClient;
use tower_web_push_grpc::messages::{Empty, Remove, Ship, Subscribe};

/// The application on a free port, and its push service.
struct World {
    push: WebPush,
    push_service: TestPushService,
    channel: Channel,
}

impl World {
    async fn new() -> Self {
        let push_service = TestPushService::new();
        let push = WebPush::builder("mailto:ops@example.com")
            .client(push_service.clone())
            .endpoint_policy(EndpointPolicy::public_hosts())
            .build()
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = tower_web_push_grpc::app(push.clone());
        tokio::spawn(app.serve_with_incoming(TcpIncoming::from(listener)));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self {
            push,
            push_service,
            channel: endpoint.connect().await.unwrap(),
        }
    }

    fn devices(&self, user: &'static str) -> DevicesClient<InterceptedService<Channel, Session>> {
        DevicesClient::with_interceptor(self.channel.clone(), Session(user))
    }

    fn orders(&self, user: &'static str) -> OrdersClient<InterceptedService<Channel, Session>> {
        OrdersClient::with_interceptor(self.channel.clone(), Session(user))
    }

    fn browser(&self) -> (UserAgent, Subscribe) {
        let browser = self.push_service.user_agent();
        browser.subscribe(&self.push.vapid_public_key()).unwrap();
        let json = browser.subscription_json().unwrap();
        let subscription = serde_json::from_str(&json).unwrap();
        (browser, Subscribe { subscription })
    }
}

/// The session of a user, added to each request.
struct Session(&'static str);

impl Interceptor for Session {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let session = MetadataValue::try_from(format!("Bearer {}-session", self.0)).unwrap();
        request.metadata_mut().insert("authorization", session);
        Ok(request)
    }
}

#[tokio::test]
async fn a_user_is_registered_sent_to_and_forgotten() {
    let world = World::new().await;
    let mut alice = world.devices("alice");
    let key = alice.vapid_key(Empty {}).await.unwrap().into_inner();
    let active = world.push.vapid_public_key().to_base64url();
    assert_eq!(key.application_server_key, active);
    let (browser, subscribe) = world.browser();
    let subscribed = alice.subscribe(subscribe).await.unwrap().into_inner();
    assert!(subscribed.created && !subscribed.stale_key);
    let devices = alice.list(Empty {}).await.unwrap().into_inner().devices;
    assert_eq!(devices.len(), 1);
    assert_eq!(
        (&devices[0].id, &*devices[0].state),
        (&subscribed.id, "live")
    );

    for _ in 0..2 {
        let ship = Ship {
            order: 7,
            customer: "alice".into(),
        };
        let shipped = world.orders("bob").ship(ship).await.unwrap();
        assert_eq!(shipped.into_inner().recipients, 1);
    }
    while !world.push.tick().await.unwrap().is_idle() {}
    assert_eq!(
        browser.messages().len(),
        1,
        "the repeated call sent nothing"
    );

    let forgotten = alice.forget_me(Empty {}).await.unwrap().into_inner();
    assert_eq!(forgotten.subscriptions, 1);
    let devices = alice.list(Empty {}).await.unwrap().into_inner().devices;
    assert!(devices.is_empty());
}

#[tokio::test]
async fn another_user_reaches_nothing() {
    let world = World::new().await;
    let (_, subscribe) = world.browser();
    let id = world.devices("alice").subscribe(subscribe).await.unwrap();
    let id = id.into_inner().id;
    let mut bob = world.devices("bob");
    let remove = Remove { id: id.clone() };
    let refused = bob.remove(remove).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    bob.forget_me(Empty {}).await.unwrap();
    let remove = Remove { id };
    world.devices("alice").remove(remove).await.unwrap();
    let stranger = world.devices("mallory").list(Empty {}).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_refusal_has_the_code_of_the_http_api() {
    let world = World::new().await;
    let mut alice = world.devices("alice");
    let (_, mut subscribe) = world.browser();
    subscribe.subscription["endpoint"] = "http://127.0.0.1/1".into();
    let refused = alice.subscribe(subscribe).await.unwrap_err();
    let told = (refused.code(), refused.message());
    assert_eq!(told, (Code::InvalidArgument, "endpoint_not_allowed"));
    let subscription = serde_json::json!({"endpoint": "https://push.example/1"});
    let refused = alice
        .subscribe(Subscribe { subscription })
        .await
        .unwrap_err();
    assert_eq!(refused.message(), "missing_keys");
}
