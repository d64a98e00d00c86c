//! What a claim reads from the stores: rows, their messages and their subscriptions.

use std::collections::HashMap;
use std::sync::Arc;

use super::Engine;
use super::records::{Record, records};
use crate::clock::Timestamp;
use crate::deliver::OriginGate;
use crate::observe::Span;
use crate::store::{ClaimRequest, Claimed, Claims, StoreError, SubscriptionRef};

/// The most calls of one step, as long as they find nothing and leave rows whose time has come.
const CLAIMS: usize = 16;

/// Claimed rows.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) claims: Claims,
    /// The subscription of each row, and the gate of its origin. After an error the rows have to be released.
    pub(super) records: Result<Vec<(Record, Arc<OriginGate>)>, StoreError>,
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
    let records = match records {
        Ok(records) => Ok(with_gates(engine, &claims.rows, records).await),
        Err(error) => Err(error),
    };
    Ok(Taken {
        claims,
        records,
        epoch,
        limit: request.limit,
    })
}

/// Finds the gate of each row's origin, and learns which of the origins have accepted a push from this server before: the
/// first responses of a new process may be those of strangers.
async fn with_gates(
    engine: &Engine,
    rows: &[Claimed],
    records: Vec<Record>,
) -> Vec<(Record, Arc<OriginGate>)> {
    let gates = engine.gates.of_each(rows.iter().map(|row| &row.origin));
    let mut unknown = HashMap::new();
    for (record, gate) in records.iter().zip(&gates) {
        if gate.is_recalled() {
            continue;
        }
        match record {
            Record::Found(record) if record.last_success_at.is_some() => gate.recall(true),
            _ => drop(unknown.insert(gate.origin(), Arc::clone(gate))),
        }
    }
    engine.recall(unknown.into_values()).await;
    records.into_iter().zip(gates).collect()
}
