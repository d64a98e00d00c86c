//! PostgreSQL.

pub mod with_deadpool;
pub mod with_diesel;
pub mod with_sea_orm;
pub mod with_sqlx;

/// The application's table.
pub const ORDERS: &str = include_str!("orders.sql");
/// A trigger that tells of each state of an order.
pub const TRIGGER: &str = include_str!("trigger.sql");
