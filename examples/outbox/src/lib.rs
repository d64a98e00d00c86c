//! A shop ships an order and tells its customer, in one transaction of the shop's own database driver: both happen, or
//! neither.
//!
//! One file for each driver, on PostgreSQL and on SQLite. Beside them is what needs no driver: SQL for psql, and triggers.

mod order;
pub mod postgres;
mod shop;
pub mod sqlite;

pub use order::Order;
pub use shop::{Shop, is_refused};

/// The error of any driver.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
