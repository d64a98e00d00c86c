//! Rows whose moment is later than any that a correct clock writes, in PostgreSQL.

use super::connection::Database;
use super::rows::{Values, integer};
use crate::clock::Timestamp;
use crate::store::rules::aside_sql;
use crate::store::{LONGEST_WAIT, STEP, StoreError};

/// Leased rows keep their token until they are claimed again. Skips locked rows: they are being claimed or settled.
pub(super) const PULL: &str = concat!(
    "UPDATE web_push.delivery AS d SET at = $2 WHERE d.ctid = ANY(ARRAY( \
     SELECT ctid FROM web_push.delivery WHERE turn IS NULL AND leased = $1 AND at > $3 AND at < ",
    aside_sql!(),
    " ORDER BY at DESC LIMIT $4 FOR UPDATE SKIP LOCKED))"
);

/// Makes such rows due, in one step (L12).
pub(super) async fn pull(database: &Database, now: Timestamp) -> Result<(), StoreError> {
    let (latest, now) = ((now + LONGEST_WAIT).as_millis(), now.as_millis());
    for leased in [true, false] {
        let values: Values<'_> = &[&leased, &now, &latest, &integer(STEP)];
        database.query(PULL, values).await?;
    }
    Ok(())
}
