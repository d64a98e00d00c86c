//! The requests at the push service, as its own door recorded them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};

use super::world::LIMIT;

/// Clones are the same record.
#[derive(Clone)]
pub(crate) struct Traffic(Arc<Inner>);

struct Inner {
    requests: Mutex<Vec<Request>>,
    taken: watch::Sender<usize>,
}

/// A request and its response.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) delivery: Delivery,
    pub(crate) came: Timestamp,
    pub(crate) is_taken: bool,
}

/// The same for every attempt: the path, and the topic of the broadcast, which the test sets. Daily notifications
/// have none, and there is one for each path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    pub(crate) path: String,
    topic: Option<HeaderValue>,
}

impl Delivery {
    pub(crate) fn of(path: &str, headers: &HeaderMap) -> Self {
        Self {
            path: path.to_owned(),
            topic: headers.get("topic").cloned(),
        }
    }

    /// Returns the topic of its broadcast, or an empty one.
    pub(crate) fn topic(&self) -> &str {
        let topic = self.topic.as_ref();
        topic.map_or("", |topic| topic.to_str().unwrap())
    }
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            requests: Mutex::default(),
            taken: watch::Sender::new(0),
        }))
    }

    pub(crate) fn note(&self, delivery: Delivery, came: Timestamp, status: StatusCode) {
        let is_taken = status.is_success();
        self.0.requests.lock().unwrap().push(Request {
            delivery,
            came,
            is_taken,
        });
        if is_taken {
            self.0.taken.send_modify(|taken| *taken += 1);
        }
    }

    /// Waits until this number of messages was accepted.
    pub(crate) async fn taken(&self, number: usize) {
        let mut taken = self.0.taken.subscribe();
        let enough = timeout(LIMIT, taken.wait_for(|taken| *taken >= number)).await;
        assert!(enough.is_ok(), "{} of {number} taken", self.number_taken());
    }

    pub(crate) fn number_taken(&self) -> usize {
        *self.0.taken.borrow()
    }

    /// Returns the requests of a period, with any response.
    pub(crate) fn came_between(&self, from: Timestamp, to: Timestamp) -> usize {
        let requests = self.0.requests.lock().unwrap();
        let came = |request: &&Request| request.came >= from && request.came < to;
        requests.iter().filter(came).count()
    }

    /// Returns the times at which each delivery was accepted.
    pub(crate) fn by_delivery(&self) -> HashMap<Delivery, Vec<Timestamp>> {
        let mut taken: HashMap<_, Vec<_>> = HashMap::new();
        for request in self.0.requests.lock().unwrap().iter() {
            if request.is_taken {
                let delivery = taken.entry(request.delivery.clone()).or_default();
                delivery.push(request.came);
            }
        }
        taken
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock::new().now()
}
