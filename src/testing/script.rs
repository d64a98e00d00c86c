//! Scripted answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use crate::subscription::{Endpoint, Origin};

/// The push service's answer to a request, instead of the checks.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) what: What,
    pub(super) delay: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// The answer without a script.
    Ordinary,
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
    Disconnect,
    Never,
}

impl Answer {
    /// Makes a response without a body.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self::of(What::Response {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        })
    }

    /// The push service's own answer, for use with [`after`](Self::after).
    #[must_use]
    pub const fn ordinary() -> Self {
        Self::of(What::Ordinary)
    }

    /// The connection breaks before an answer.
    #[must_use]
    pub const fn disconnect() -> Self {
        Self::of(What::Disconnect)
    }

    /// No answer ever comes.
    #[must_use]
    pub const fn never() -> Self {
        Self::of(What::Never)
    }

    const fn of(what: What) -> Self {
        Self {
            what,
            delay: Duration::ZERO,
        }
    }

    /// Adds a header to a response. No effect on other answers.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let What::Response { headers, .. } = &mut self.what {
            headers.append(name, value);
        }
        self
    }

    /// Adds `Retry-After` in seconds (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn with_retry_after(self, secs: u32) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(secs))
    }

    /// Adds a body to a response. No effect on other answers.
    #[must_use]
    pub fn with_body(mut self, content: impl Into<Bytes>) -> Self {
        if let What::Response { body, .. } = &mut self.what {
            *body = content.into();
        }
        self
    }

    /// Delays the answer, by tokio's clock: `tokio::time::pause` works.
    #[must_use]
    pub const fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A condition for requests that a scripted [`Answer`] is for, and their number.
#[derive(Clone)]
pub struct When {
    condition: Condition,
    times: Option<u64>,
}

#[derive(Clone)]
enum Condition {
    Any,
    Path(Endpoint),
    At(Origin),
    Head(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
}

impl When {
    /// Matches every request.
    #[must_use]
    pub const fn any() -> Self {
        Self::of(Condition::Any)
    }

    /// Matches requests to one endpoint.
    #[must_use]
    pub fn endpoint(endpoint: &Endpoint) -> Self {
        Self::of(Condition::Path(endpoint.clone()))
    }

    /// Matches requests to one origin, by the absolute URI, which a request in process or over HTTP/2 has.
    #[must_use]
    pub fn origin(origin: &Origin) -> Self {
        Self::of(Condition::At(origin.clone()))
    }

    /// Matches requests by their head. The closure must not script answers.
    #[must_use]
    pub fn head(picks: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self::of(Condition::Head(Arc::new(picks)))
    }

    const fn of(condition: Condition) -> Self {
        Self {
            condition,
            times: None,
        }
    }

    /// Limits it to the next `times` matching requests. Default: all of them, until the script is cleared.
    #[must_use]
    pub const fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn matches(&self, request: &Parts) -> bool {
        match &self.condition {
            Condition::Any => true,
            Condition::Path(endpoint) => {
                let uri = &request.uri;
                endpoint.uri().path_and_query() == uri.path_and_query()
                    && Origin::of(uri).is_none_or(|origin| origin == *endpoint.origin())
            }
            Condition::At(origin) => Origin::of(&request.uri).as_ref() == Some(origin),
            Condition::Head(picks) => picks(request),
        }
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let condition: &dyn fmt::Debug = match &self.condition {
            Condition::Any => &"any",
            Condition::Path(endpoint) => endpoint,
            Condition::At(origin) => origin,
            Condition::Head(_) => &"head",
        };
        f.debug_struct("When")
            .field("condition", condition)
            .field("times", &self.times)
            .finish()
    }
}

/// The scripted answers, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<(When, Answer)>);

impl Script {
    pub(super) fn push(&mut self, when: When, answer: Answer) {
        if when.times != Some(0) {
            self.0.push((when, answer));
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the first matching answer and counts its use.
    pub(super) fn take(&mut self, request: &Parts) -> Option<Answer> {
        let at = self.0.iter().position(|(when, _)| when.matches(request))?;
        let (when, answer) = self.0.get_mut(at)?;
        let answer = answer.clone();
        if let Some(times) = &mut when.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.0.remove(at);
            }
        }
        Some(answer)
    }
}
