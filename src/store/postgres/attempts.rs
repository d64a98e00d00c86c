//! Other attempts of transactions that failed by a conflict, or without an origin that they need.

use std::time::Duration;

use tokio::time::sleep;

use super::connection::Database;
use super::error::{Again, Failed};
use super::origins::MAKE;
use crate::store::StoreError;

/// The number of attempts of a transaction that fails by a conflict.
const AFTER_CONFLICTS: u32 = 8;
/// That of one without an origin: one that has no rows yet may be pruned as soon as it is inserted.
const WITHOUT_ORIGINS: u32 = 32;

/// The attempts of a transaction so far.
pub(super) struct Attempts<'a> {
    database: &'a Database,
    number: u32,
}

impl<'a> Attempts<'a> {
    pub(super) const fn of(database: &'a Database) -> Self {
        Self {
            database,
            number: 0,
        }
    }

    /// Returns the result, or `None` if the transaction should be tried again: after a pause, or once the origins are there that
    /// it needs.
    pub(super) async fn last<T>(
        &mut self,
        done: Result<T, Failed>,
    ) -> Option<Result<T, StoreError>> {
        self.number += 1;
        let mut failed = match done {
            Ok(done) => return Some(Ok(done)),
            Err(failed) => failed,
        };
        if let Some(Again::WithOrigins(names)) = &failed.again
            && self.number < WITHOUT_ORIGINS
        {
            match self.database.execute_once(MAKE, &[names]).await {
                Ok(()) => return None,
                Err(not_made) => failed = not_made,
            }
        }
        if let Some(Again::Conflict) = failed.again
            && self.number < AFTER_CONFLICTS
        {
            self.pause().await;
            return None;
        }
        Some(Err(failed.error))
    }

    /// The winner commits soon. A random pause keeps several losers from colliding again.
    async fn pause(&self) {
        let mut noise = [0];
        let _ = getrandom::fill(&mut noise);
        let millis = u64::from(self.number * u32::from(noise[0] / 8 + 1));
        sleep(Duration::from_millis(millis)).await;
    }
}

/// Runs a transaction, again if it fails by a conflict or needs an origin that is not there.
macro_rules! in_transaction {
    ($database:expr, |$tx:ident| $work:expr) => {{
        let database: &$crate::store::postgres::connection::Database = $database;
        let mut attempts = $crate::store::postgres::attempts::Attempts::of(database);
        loop {
            let done = match database.begin().await {
                Ok(mut transaction) => {
                    let $tx = &mut transaction;
                    let done = $work.await;
                    transaction.end(done).await
                }
                Err(failed) => Err(failed),
            };
            if let Some(done) = attempts.last(done).await {
                break done;
            }
        }
    }};
}
pub(super) use in_transaction;
