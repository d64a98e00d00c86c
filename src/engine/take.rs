//! What a claim reads from the stores: rows, their messages and their subscriptions.

use std::collections::HashMap;

use super::Engine;
use super::records::{Record, records};
use crate::clock::Timestamp;
use crate::observe::Span;
use crate::store::{ClaimRequest, Claimed, Claims, StoreError, SubscriptionRef};

/// The most calls of one step, as long as they find nothing and leave rows whose time has come.
const CLAIMS: usize = 16;

/// Claimed rows.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) claims: Claims,
    /// The subscription of each row. After an error the rows have to be released.
    pub(super) records: Result<Vec<Record>, StoreError>,
    /// The epoch of the claim.
    pub(super) epoch: u64,
    /// The most rows that it could have.
    pub(super) limit: usize,
}

/// Claims rows and reads their subscriptions.
///
/// # Errors
///
/// Returns the error of the claim.
///
/// # Cancel safety
///
/// If dropped, claimed rows stay leased until their lease ends.
pub(super) async fn take(
    engine: &Engine,
    request: &ClaimRequest,
    epoch: u64,
    now: Timestamp,
) -> Result<Taken, StoreError> {
    let span = Span::claim();
    let taken = span.around(claim(engine, request, epoch, now)).await;
    match &taken {
        Ok(Taken {
            claims, records, ..
        }) => {
            let messages = claims.messages.values();
            span.link(messages.filter_map(|message| message.trace_parent.as_ref()));
            span.rows(claims.rows.len());
            match records {
                Ok(_) => span.outcome("claimed"),
                Err(error) => span.failed(error.kind().as_str()),
            }
        }
        Err(error) => span.failed(error.kind().as_str()),
    }
    taken
}

async fn claim(
    engine: &Engine,
    request: &ClaimRequest,
    epoch: u64,
    now: Timestamp,
) -> Result<Taken, StoreError> {
    let mut claims = engine.ledger.claim(request, now).await?;
    // Rows of a paused origin may stand in front, as after an outage.
    for _ in 1..CLAIMS {
        if !claims.rows.is_empty() || !claims.more {
            break;
        }
        claims = engine.ledger.claim(request, now).await?;
    }
    let keys = claims.rows.iter();
    let keys: Vec<_> = keys
        .map(|row| SubscriptionRef::Key(row.token.key))
        .collect();
    let records = match keys.as_slice() {
        [] => Ok(Vec::new()),
        keys => records(&*engine.subscriptions, keys).await,
    };
    if let Ok(records) = &records {
        recall(engine, &claims.rows, records).await;
    }
    Ok(Taken {
        claims,
        records,
        epoch,
        limit: request.limit,
    })
}

/// Learns which of the rows' origins have accepted a push from this server before: the first responses of a new process
/// may be those of strangers.
async fn recall(engine: &Engine, rows: &[Claimed], records: &[Record]) {
    let mut unknown = HashMap::new();
    for (row, record) in rows.iter().zip(records) {
        let gate = engine.gates.gate(&row.origin);
        if gate.is_recalled() {
            continue;
        }
        match record {
            Record::Found(record) if record.last_success_at.is_some() => gate.recall(true),
            _ => drop(unknown.insert(row.origin.clone(), gate)),
        }
    }
    engine.recall(unknown.into_values()).await;
}
