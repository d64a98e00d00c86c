//! A door in front of the push service, which holds requests or responses back.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};

use super::world::LIMIT;

/// Clones are the same door.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    hold: watch::Sender<Hold>,
    /// Held requests that may pass.
    passes: Semaphore,
    traffic: watch::Sender<Traffic>,
}

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Nothing,
    /// Requests, before the push service gets them.
    Requests,
    /// Requests to one host, before the push service gets them.
    RequestsTo(&'static str),
    /// Responses to requests that the push service has accepted.
    Answers,
}

/// The requests at the door.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// The time of each request.
    pub(crate) came: Vec<Timestamp>,
    /// Requests that were neither answered nor cancelled.
    pub(crate) under_way: usize,
    /// The same, by host.
    hosts: BTreeMap<String, usize>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            hold: watch::Sender::new(Hold::Nothing),
            passes: Semaphore::new(0),
            traffic: watch::Sender::default(),
        }))
    }

    pub(crate) fn hold(&self, hold: Hold) {
        self.0.hold.send_replace(hold);
    }

    /// Lets this number of held requests pass.
    pub(crate) fn let_pass(&self, number: usize) {
        self.0.passes.add_permits(number);
    }

    /// Returns the number of requests so far.
    pub(crate) fn came(&self) -> usize {
        self.0.traffic.borrow().came.len()
    }

    pub(crate) fn under_way(&self) -> usize {
        self.0.traffic.borrow().under_way
    }

    /// Requests to a host that were neither answered nor cancelled.
    pub(crate) fn under_way_at(&self, host: &str) -> usize {
        let traffic = self.0.traffic.borrow();
        traffic.hosts.get(host).copied().unwrap_or_default()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.0.traffic.borrow().clone()
    }

    /// Waits until no request is in flight.
    pub(crate) async fn wait_until_empty(&self) {
        let mut traffic = self.0.traffic.subscribe();
        let waited = timeout(LIMIT, traffic.wait_for(|traffic| traffic.under_way == 0)).await;
        assert!(waited.is_ok(), "{} under way", self.under_way());
    }

    /// Passes a request and its response through the door.
    pub(crate) async fn through<T>(
        &self,
        host: Option<&str>,
        answer: impl Future<Output = T>,
    ) -> T {
        let _under_way = UnderWay::new(&self.0.traffic, host.unwrap_or_default());
        let mut hold = self.0.hold.subscribe();
        let opens = hold.wait_for(|hold| match hold {
            Hold::Requests => false,
            Hold::RequestsTo(held) => host != Some(held),
            Hold::Nothing | Hold::Answers => true,
        });
        tokio::select! {
            _ = opens => {}
            pass = self.0.passes.acquire() => pass.unwrap().forget(),
        }
        let answer = answer.await;
        hold.wait_for(|hold| *hold != Hold::Answers).await.unwrap();
        answer
    }
}

/// A request in flight.
struct UnderWay<'a> {
    traffic: &'a watch::Sender<Traffic>,
    host: &'a str,
}

impl<'a> UnderWay<'a> {
    fn new(traffic: &'a watch::Sender<Traffic>, host: &'a str) -> Self {
        traffic.send_modify(|traffic| {
            traffic.came.push(SystemClock::new().now());
            traffic.under_way += 1;
            *traffic.hosts.entry(host.to_owned()).or_default() += 1;
        });
        Self { traffic, host }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.traffic.send_modify(|traffic| {
            traffic.under_way -= 1;
            if let Some(host) = traffic.hosts.get_mut(self.host) {
                *host -= 1;
            }
        });
    }
}
