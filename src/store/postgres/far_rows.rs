//! Rows whose moment is later than any that a correct clock writes, in PostgreSQL.

use super::connection::Database;
use super::rows::{Values, integer, read};
use crate::clock::Timestamp;
use crate::store::{LONGEST_WAIT, STEP, StoreError};

/// Origins that one step looks at.
const ORIGINS: usize = 256;

/// The next origins by id, with the last moment of their rows.
pub(super) const LAST: &str = "SELECT o.id, (SELECT d.at FROM web_push.delivery AS d WHERE d.origin = o.id \
         ORDER BY d.origin DESC, d.at DESC LIMIT 1) \
     FROM web_push.origin AS o WHERE o.id > $1 ORDER BY o.id LIMIT $2";
/// Leased rows keep their token until they are claimed again. Skips locked rows: they are being claimed or settled.
pub(super) const PULL: &str = "UPDATE web_push.delivery AS d SET at = $2 WHERE d.ctid = ANY(ARRAY( \
     SELECT ctid FROM web_push.delivery WHERE origin = $1 AND at > $3 ORDER BY at DESC LIMIT $4 FOR UPDATE SKIP LOCKED))";

/// Makes such rows due (L12), among the next origins of a walk. Returns the last origin for the next step.
pub(super) async fn pull(
    database: &Database,
    after: i64,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let latest = now + LONGEST_WAIT;
    let rows = database.query(LAST, &[&after, &integer(ORIGINS)]).await?;
    let origins = read(&rows, |columns| {
        Ok((columns.get::<i64>()?, columns.time_or_null()?))
    })?;
    let (now, latest_millis, step) = (now.as_millis(), latest.as_millis(), integer(STEP));
    for (origin, last) in &origins {
        if last.is_some_and(|last| last > latest) {
            let values: Values<'_> = &[origin, &now, &latest_millis, &step];
            database.query(PULL, values).await?;
        }
    }
    // After the last origin the walk starts again.
    let next = origins.last().filter(|_| origins.len() == ORIGINS);
    Ok(next.map_or(i64::MIN, |(origin, _)| *origin))
}
