//! The messages of the calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Empty {}

#[derive(Debug, Serialize, Deserialize)]
pub struct VapidKey {
    /// The key that pages subscribe with, as `applicationServerKey`.
    pub application_server_key: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// The browser's `PushSubscription.toJSON()`.
    pub subscription: Value,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribed {
    pub id: String,
    pub created: bool,
    /// Whether the page should subscribe again with the active key.
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
    /// The number of the customer's browsers.
    pub recipients: u64,
}
