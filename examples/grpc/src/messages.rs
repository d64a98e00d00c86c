//! What goes over the wire.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Empty {}

#[derive(Debug, Serialize, Deserialize)]
pub struct VapidKey {
    /// What the page subscribes with, as `applicationServerKey`.
    pub application_server_key: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// What the browser's `PushSubscription.toJSON()` gives.
    pub subscription: Value,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribed {
    pub id: String,
    pub created: bool,
    /// The page should subscribe again with the present key.
    pub stale_key: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Devices {
    pub devices: Vec<Device>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    pub push_service: String,
    pub state: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Remove {
    pub id: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Forgotten {
    pub subscriptions: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ship {
    pub order: u32,
    pub customer: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Shipped {
    /// How many browsers of the customer will hear of it.
    pub recipients: u64,
}
