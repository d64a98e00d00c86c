//! The application's own call, which sends.

use tonic::{Request, Response, Status};
use tower_web_push::{Audience, Broadcast, Notification, WebPush};

use crate::generated::orders_server::Orders;
use crate::messages::{Ship, Shipped};

#[derive(Debug)]
pub(crate) struct MyOrders(pub WebPush);

#[tonic::async_trait]
impl Orders for MyOrders {
    /// If a client repeats the call because the response was lost, the message is not sent twice.
    async fn ship(&self, request: Request<Ship>) -> Result<Response<Shipped>, Status> {
        let Ship { order, customer } = request.into_inner();
        let shipped = Notification::new("Shipped").body(format!("Order {order} is on its way"));
        let broadcast = Broadcast::to(Audience::user(customer), shipped)
            .idempotency_key(format!("order-{order}-shipped"));
        let queued = self.0.enqueue_broadcast(broadcast).await;
        let queued = queued.map_err(|error| Status::unavailable(error.kind().code()))?;
        Ok(Response::new(Shipped {
            recipients: queued.recipients,
        }))
    }
}
