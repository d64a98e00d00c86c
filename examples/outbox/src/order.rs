//! What the shop knows of an order, and what it tells the customer.

use tower_web_push::{Audience, Broadcast, Notification};

/// An order that is to be shipped.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its number.
    pub id: i64,
    /// The customer, as subscriptions know them.
    pub customer: String,
}

impl Order {
    /// Tells the customer that the order is shipped.
    ///
    /// The key names the effect. So a transaction whose end is unknown can be repeated, and the customer is told once.
    pub fn shipped(&self) -> Broadcast {
        let Self { id, customer } = self;
        let shipped = Notification::new("Shipped")
            .body(format!("Order {id} is on its way"))
            .tag(format!("order-{id}"));
        Broadcast::to(Audience::user(&**customer), shipped)
            .idempotency_key(format!("order-{id}-shipped"))
    }
}
