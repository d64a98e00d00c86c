//! `GET /subscriptions` as CSV (RFC 4180): all that match, page by page.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Response};

use crate::api::WebPushService;
use crate::api::body::{ApiBody, Parts};
use crate::api::journal::Target;
use crate::api::problem::Problem;
use crate::api::reply::Reply;
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::engine::{DeviceState, Engine};
use crate::error::BoxError;
use crate::moment::iso8601;
use crate::push_service::PushService;
use crate::store::{ReasonWord, StoreError, SubscriptionFilter, SubscriptionRecord};
use crate::subscription::EndpointKey;

/// Rows read at once: about 100 kB of CSV.
const PAGE: usize = 500;
/// The place of the column `keyId`.
const KEY_ID: usize = 5;
const HEADER: &str = "id,state,pushService,user,tags,keyId,createdAt,lastSeenAt,lastSuccessAt,failureStreak,\
     lastFailureAt,lastFailureStatus,lastFailureReason,retireReason,expirationTime\r\n";

/// Answers with all rows that the filter takes. An error of the first page is a refusal; one of a later page ends the
/// connection.
pub(super) async fn answer(
    api: &WebPushService,
    filter: SubscriptionFilter,
) -> Result<Reply, Problem> {
    let (mut first, next) = page(api.engine.clone(), filter.clone(), None).await?;
    first.insert_str(0, HEADER);
    let export = Export {
        engine: api.engine.clone(),
        filter,
        first: Some(first.into()),
        pending: None,
        next,
    };
    let mut reply = Response::new(ApiBody::in_parts(export));
    let headers = reply.headers_mut();
    let csv = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    headers.insert(CONTENT_TYPE, csv);
    let file = HeaderValue::from_static("attachment; filename=\"subscriptions.csv\"");
    headers.insert(CONTENT_DISPOSITION, file);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
        .extensions_mut()
        .insert(Target("all that match, as CSV".to_owned()));
    Ok(reply)
}

/// The text of a page, and where the list goes on.
type Page = (String, Option<EndpointKey>);

type Pending = Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send>>;

/// An export under way: no more than one page of it is in memory.
struct Export {
    engine: Engine,
    filter: SubscriptionFilter,
    first: Option<Bytes>,
    pending: Option<Pending>,
    /// Where the next page begins. `None` at the end.
    next: Option<EndpointKey>,
}

impl Parts for Export {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let Some(pending) = &mut self.pending else {
                let Some(after) = self.next.take() else {
                    return Poll::Ready(None);
                };
                let next = page(self.engine.clone(), self.filter.clone(), Some(after));
                self.pending = Some(Box::pin(next));
                continue;
            };
            let read = ready!(pending.as_mut().poll(cx));
            self.pending = None;
            match read {
                Ok((text, next)) => {
                    self.next = next;
                    // A page of which the filter takes nothing.
                    if text.is_empty() {
                        // A store may never make it wait, and others want this thread.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(text.into())));
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

async fn page(
    engine: Engine,
    filter: SubscriptionFilter,
    after: Option<EndpointKey>,
) -> Result<Page, StoreError> {
    let now = engine.now();
    let list = engine
        .subscriptions
        .list_subscriptions(&filter, after.as_ref(), PAGE, now);
    let list = list.await?;
    let mut text = String::new();
    for row in &list.rows {
        push_row(&mut text, row, now);
    }
    Ok((text, list.next))
}

fn push_row(text: &mut String, row: &SubscriptionRecord, now: Timestamp) {
    let time = |at: Option<Timestamp>| at.map(iso8601).unwrap_or_default();
    let tags: Vec<_> = row.tags.iter().map(Tag::as_str).collect();
    let failure = row.last_failure.map(|last| last.failure);
    let status = failure.and_then(|failure| failure.status);
    let reason = failure.and_then(|failure| failure.reason);
    let cells = [
        row.id.to_string(),
        DeviceState::of(row, now).to_string(),
        PushService::of(row.subscription.endpoint())
            .as_str()
            .to_owned(),
        row.principal
            .as_ref()
            .map_or("", Principal::as_str)
            .to_owned(),
        tags.join(" "),
        row.vapid_key.to_string(),
        iso8601(row.created_at),
        iso8601(row.last_seen_at),
        time(row.last_success_at),
        row.failure_streak.to_string(),
        time(row.last_failure.map(|last| last.at)),
        status.map(|status| status.to_string()).unwrap_or_default(),
        reason.as_ref().map_or("", ReasonWord::as_str).to_owned(),
        row.retired
            .map_or("", |retired| retired.reason.as_str())
            .to_owned(),
        time(row.subscription.expiration_time()),
    ];
    for (number, cell) in cells.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        match KEY_ID == number {
            // Base64url may begin with a hyphen, and needs no quotes.
            true => text.push_str(cell),
            false => push_cell(text, cell),
        }
    }
    text.push_str("\r\n");
}

/// Writes a cell, quoted if it has to be. Programs that show tables take a text that begins with one of some characters for a
/// formula, and run it: an apostrophe before it makes it a text.
fn push_cell(text: &mut String, cell: &str) {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let needs_quotes = is_formula || cell.contains(['"', ',', '\r', '\n']);
    if !needs_quotes {
        text.push_str(cell);
        return;
    }
    text.push('"');
    if is_formula {
        text.push('\'');
    }
    text.push_str(&cell.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_formulas_are_texts() {
        for (cell, written) in [
            ("alice", "alice"),
            ("", ""),
            ("a b", "a b"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("a\r\nb", "\"a\r\nb\""),
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            ("+49", "\"'+49\""),
            ("-cmd|' /c calc'!A1", "\"'-cmd|' /c calc'!A1\""),
            ("\t=1", "\"'\t=1\""),
            ("a=1", "a=1"),
        ] {
            let mut text = String::new();
            push_cell(&mut text, cell);
            assert_eq!(text, written, "{cell:?}");
        }
    }
}
