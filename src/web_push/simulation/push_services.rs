//! The push services, the network to them, and the promises about requests.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request as HttpRequest, Response, header};
use tokio::time::{Sleep, sleep, sleep_until};
use tower_service::Service;

use super::clock::HostClock;
use super::ledger::wall;
use super::plan::{SERVICES, Stranger, Weather};
use super::world::{REQUEST_TIMEOUT, Request, Shared, World};
use crate::push_request::PushBody;

/// Clocks may differ by this much before a replica takes note.
const SKEW: Duration = Duration::from_secs(10);
/// The time between two readings of the pauses, and what a call to the store takes.
const PAUSES_KNOWN: Duration = Duration::from_secs(7);
/// An outcome is written within this time.
pub(super) const WRITTEN: Duration = Duration::from_secs(4);

/// The HTTP client of one replica.
pub(super) struct Network {
    host: usize,
    life: u32,
    clock: Arc<HostClock>,
    world: Shared,
    /// The wait until it takes requests.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Network {
    pub(super) fn new((host, life): (usize, u32), clock: &Arc<HostClock>, world: &Shared) -> Self {
        Self {
            host,
            life,
            clock: Arc::clone(clock),
            world: Arc::clone(world),
            wait: None,
        }
    }
}

impl Clone for Network {
    fn clone(&self) -> Self {
        Self::new((self.host, self.life), &self.clock, &self.world)
    }
}

#[derive(Debug)]
pub(super) struct ConnectionBroke;

impl fmt::Display for ConnectionBroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection broke")
    }
}

impl Error for ConnectionBroke {}

/// What comes back.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Status(u16, Option<u64>),
    Broken,
    Nothing,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<String>, ConnectionBroke>> + Send>>;

impl Service<HttpRequest<PushBody>> for Network {
    type Response = Response<String>;
    type Error = ConnectionBroke;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        loop {
            let until = self.world.lock().unwrap().busy[self.host];
            if self.clock.true_now() >= until {
                self.wait = None;
                return Poll::Ready(Ok(()));
            }
            let wait = sleep_until(self.clock.instant(until));
            let wait = self.wait.get_or_insert_with(|| Box::pin(wait));
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
    }

    fn call(&mut self, request: HttpRequest<PushBody>) -> Self::Future {
        let (clock, world) = (Arc::clone(&self.clock), Arc::clone(&self.world));
        let (number, after, reply) = {
            let by = (self.host, self.life);
            let mut world = world.lock().unwrap();
            world.requested(by, &request, clock.true_now())
        };
        Box::pin(async move {
            sleep(after).await;
            let (status, wait) = match reply {
                Reply::Nothing => pending().await,
                Reply::Broken => return Err(ConnectionBroke),
                Reply::Status(status, wait) => (status, wait),
            };
            let now = clock.true_now();
            world.lock().unwrap().answered(number, status, now);
            let mut response = Response::builder().status(status);
            if let Some(wait) = wait {
                response = response.header(header::RETRY_AFTER, wait);
            }
            Ok(response.body(String::new()).unwrap())
        })
    }
}

impl World {
    /// A request arrives, or breaks off. Returns its number, and when what comes back.
    fn requested(
        &mut self,
        (host, life): (usize, u32),
        request: &HttpRequest<PushBody>,
        at: Duration,
    ) -> (usize, Duration, Reply) {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or_default();
        let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        let recipient: usize = number.parse().unwrap();
        let header = |name| {
            let value = request.headers().get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        let topic = header("topic").to_owned();
        let fits = header("authorization").contains(&self.recipients[recipient].vapid_key);
        let ttl = header("ttl").to_owned();
        let (after, reply, is_accepted) = self.reply(recipient, at);
        self.note(
            at,
            format_args!(
                "host{host} sends {topic} to {name}, ttl {ttl}: {reply:?} after {after:?}"
            ),
        );
        if !fits {
            self.broke(at, format_args!("{name} got a token of another VAPID key"));
        }
        if ttl.is_empty() {
            self.broke(at, format_args!("a request without TTL"));
        }
        let row = self.leased_row((host, life), &topic, recipient);
        let number = self.requests.len();
        let Some(row) = row else {
            self.broke(
                at,
                format_args!("host{host} sends {topic} to {name} without a lease"),
            );
            return (number, after, Reply::Nothing);
        };
        self.check_request(row, host, at);
        let Some(lease) = self.rows.get_mut(&row).and_then(|row| row.lease.as_mut()) else {
            return (number, after, Reply::Nothing);
        };
        lease.request = Some(number);
        let lease_until = lease.until;
        self.requests.push(Request {
            row,
            host,
            at,
            lease_until,
            arrives: (!matches!(reply, Reply::Nothing)).then_some(at + after),
            answered: None,
        });
        let entry = self.rows.entry(row).or_default();
        entry.requests += 1;
        if is_accepted {
            entry.accepted = Some(number);
            self.missing.remove(&row);
            if self.recipients[recipient].service == self.plan.calm {
                self.proven.get_or_insert(at);
            }
        }
        (number, after, reply)
    }

    /// The row of a topic and a recipient that this process has a lease of.
    fn leased_row(
        &self,
        (host, life): (usize, u32),
        topic: &str,
        recipient: usize,
    ) -> Option<(usize, usize)> {
        let casts = (0..self.casts.len()).rev();
        let mut rows = casts
            .filter(|cast| self.casts[*cast].topic == topic)
            .map(|cast| (cast, recipient));
        rows.find(|row| {
            let lease = self.rows.get(row).and_then(|row| row.lease);
            lease.is_some_and(|lease| (lease.host, lease.life) == (host, life))
        })
    }

    /// What may be sent now.
    fn check_request(&mut self, row: (usize, usize), host: usize, at: Duration) {
        let name = self.row_name(row);
        let entry = &self.rows[&row];
        let Some(lease) = entry.lease else { return };
        let had_fault = self.had_fault(host, lease.at, at);
        // The clock of a replica may have been set since.
        let skew = if had_fault {
            SKEW + Duration::from_secs(1)
        } else {
            Duration::ZERO
        };
        let latest = lease.until.saturating_sub(REQUEST_TIMEOUT);
        if at > latest + skew {
            let late = at.saturating_sub(latest);
            self.broke(
                at,
                format_args!("the request for {name} could outlast its lease: {late:?}"),
            );
        }
        let deadline = self.casts[row.0].deadline;
        if wall(at) >= deadline + skew {
            self.broke(at, format_args!("{name} is sent after its deadline"));
        }
        if let Some(paused) = self.pauses[self.recipients[row.1].service] {
            let is_over = !paused.is_probed && wall(at) + SKEW >= paused.until;
            let is_known = at > paused.since + PAUSES_KNOWN;
            let is_confused = self.had_fault(host, paused.since, at);
            if is_known && !is_over && !is_confused && !paused.is_doubtful && !lease.is_probe {
                self.broke(at, format_args!("{name} is sent during a pause"));
            }
        }
        if let Some(double) = self.rows[&row].accepted
            && let Some(why) = self.why_not_twice(double, at)
        {
            self.broke(at, format_args!("{name} is sent twice: {why}"));
        }
    }

    /// Why an accepted request may not be repeated now; `None` if it may.
    fn why_not_twice(&self, number: usize, at: Duration) -> Option<&'static str> {
        let first = &self.requests[number];
        let had_fault = self.had_fault(first.host, first.at, at);
        let Some(answered) = first.answered else {
            let is_late = first
                .arrives
                .is_none_or(|arrives| arrives >= first.at + REQUEST_TIMEOUT);
            return (!is_late && !had_fault).then_some("its response was not waited for");
        };
        let crash = self.crash_since(first.host, answered).unwrap_or(at);
        let until = first.lease_until.min(at).min(crash);
        (self.longest_calm(first.host, answered, until) > WRITTEN)
            .then_some("its outcome could have been written")
    }

    /// A replica has a response.
    fn answered(&mut self, number: usize, status: u16, at: Duration) {
        let Some(request) = self.requests.get_mut(number) else {
            return;
        };
        request.answered = Some(at);
        let (row, began) = (request.row, request.at);
        let name = self.row_name(row);
        self.note(at, format_args!("{name} is answered {status}"));
        let service = self.recipients[row.1].service;
        if let Some(paused) = &mut self.pauses[service]
            && began >= paused.since
            && !matches!(status, 401 | 429 | 500..)
        {
            paused.is_doubtful = true;
        }
    }

    /// What the push service of a recipient says, when, and whether it has accepted the message.
    fn reply(&mut self, recipient: usize, at: Duration) -> (Duration, Reply, bool) {
        let one = &self.recipients[recipient];
        let (service, stranger, is_gone) = (one.service, one.stranger, one.is_gone);
        let weather = self.weather(service, at);
        let after = match weather {
            Some(Weather::Slow(up_to)) => {
                let most = u64::try_from(up_to.as_millis()).unwrap();
                self.rng.millis(20, most)
            }
            _ => self.rng.millis(20, 120),
        };
        let refused = match (weather, stranger) {
            (Some(Weather::Limited(wait)), _) => Some(Reply::Status(429, wait)),
            (Some(Weather::Status(status)), _) => Some(Reply::Status(status, None)),
            (Some(Weather::Silent), _) => Some(Reply::Nothing),
            (Some(Weather::Broken), _) => Some(Reply::Broken),
            (_, Some(Stranger::Status(status))) => Some(Reply::Status(status, None)),
            (_, Some(Stranger::LimitedFor(wait))) => Some(Reply::Status(429, Some(wait))),
            (_, Some(Stranger::Silent)) => Some(Reply::Nothing),
            _ if is_gone => Some(Reply::Status(410, None)),
            _ => None,
        };
        match refused {
            Some(reply) => (after, reply, false),
            None if weather == Some(Weather::Deaf) => (after, Reply::Nothing, true),
            None => (after, Reply::Status(201, None), true),
        }
    }
}

/// The endpoint of a recipient.
pub(super) fn endpoint(service: usize, name: &str) -> String {
    format!("{}{name}", SERVICES[service])
}
