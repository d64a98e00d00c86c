//! Web Push in a tonic application.
//!
//! It does not mount the crate's HTTP API: the application has its own calls, which call [`WebPush`] and so have the
//! same rules as the routes. The messages are JSON, so that this example needs no `protoc`.

mod devices;
mod json;
pub mod messages;
mod orders;
mod sign_in;

/// What `build.rs` generates.
#[allow(
    clippy::clone_on_ref_ptr,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated"
)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/shop.push.v1.Devices.rs"));
    include!(concat!(env!("OUT_DIR"), "/shop.push.v1.Orders.rs"));
}

use generated::devices_server::DevicesServer;
use generated::orders_server::OrdersServer;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower_web_push::WebPush;

use devices::MyDevices;
use orders::MyOrders;
use sign_in::sign_in;

/// The application: both services behind its sign-in.
pub fn app(push: WebPush) -> Router {
    let devices = DevicesServer::with_interceptor(MyDevices(push.clone()), sign_in);
    let orders = OrdersServer::with_interceptor(MyOrders(push), sign_in);
    Server::builder().add_service(devices).add_service(orders)
}
