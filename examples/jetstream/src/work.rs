//! A worker process.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};
use tower::limit::ConcurrencyLimit;
use tower_web_push::broadcast::{Counts, FinalOutcome};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::{Deliver, HttpClient, RetryPolicy};
use tower_web_push::engine::{Effects, KeyRing, PruneBreaker};
use tower_web_push::store::{Settlement, StoreError, StoreErrorKind, SubscriptionRef};
use tower_web_push::vapid::KeyEncryptionKeys;

use crate::attempt::Post;
use crate::flags::{Places, Work};
use crate::job::Job;
use crate::left::Left;
use crate::store::{self, Store};
use crate::streams::{Streams, backoff};
use crate::{Error, shutdown, with_causes};

/// How long a pull waits for a job.
const PULL: Duration = Duration::from_secs(5);
/// The delay before NATS or the store gets another request after an error.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Worker {
    store: Arc<dyn Store>,
    streams: Streams,
    jobs: PullConsumer,
    post: Post,
    flags: Work,
    stop: watch::Receiver<bool>,
}

/// Delivers until this process is asked to stop. Parts in progress are finished.
pub(crate) async fn work(places: &Places, flags: Work) -> Result<(), Error> {
    let stop = shutdown::listen()?;
    let worker = Arc::new(Worker::open(places, flags, stop).await?);
    println!("working");
    let mut running = JoinSet::new();
    loop {
        while running.len() < worker.flags.jobs.max(1) && !worker.is_stopping() {
            running.spawn(Arc::clone(&worker).hand());
        }
        // A panic costs its job one delivery; the worker task is started again.
        if running.join_next().await.is_none() {
            return Ok(());
        }
    }
}

impl Worker {
    async fn open(
        places: &Places,
        flags: Work,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let store = store::open(&places.store_url).await?;
        let streams = Streams::open(&places.nats_url).await?;
        let clock = SystemClock::new();
        let keks = match &flags.key_encryption_key {
            Some(keys) => KeyEncryptionKeys::parse(keys)?,
            None => KeyEncryptionKeys::none(),
        };
        // The keys that browsers have subscribed with are in the store, shared with the application.
        let keys = KeyRing::open(Arc::clone(&store) as _, keks, None, clock.now()).await?;
        // The policy is used twice: for the endpoint, and for every address that its name resolves to.
        let policy = flags.endpoint_policy.clone();
        let client = HttpClient::builder().policy(policy.clone()).build()?;
        let client = ConcurrencyLimit::new(client, flags.concurrency.max(1));
        let post = Post {
            deliver: Deliver::new(client, flags.vapid_subject.clone()).with_policy(policy),
            keys,
            retry: RetryPolicy::default(),
            clock,
        };
        Ok(Self {
            jobs: streams.workers(flags.ack_wait).await?,
            store,
            streams,
            post,
            flags,
            stop,
        })
    }

    /// Processes one job after the other. A free task pulls a job, so that no job waits in this process while its
    /// acknowledgement time runs.
    async fn hand(self: Arc<Self>) {
        let mut stop = self.stop.clone();
        loop {
            let pulled = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                pulled = self.pull() => pulled,
            };
            let done = match pulled {
                Ok(Some(message)) => self.answer(&message).await,
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                // NATS is unavailable. The client reconnects, and unacknowledged jobs are redelivered.
                eprintln!("{}", with_causes(&*error));
                sleep(PAUSE).await;
            }
        }
    }

    async fn pull(&self) -> Result<Option<Message>, Error> {
        let batch = self.jobs.batch().max_messages(1).expires(PULL);
        batch.messages().await?.try_next().await
    }

    /// Processes a job and acknowledges it, with progress messages meanwhile.
    async fn answer(&self, message: &Message) -> Result<(), Error> {
        let mut work = pin!(self.work_on(message));
        let every = self.flags.ack_wait / 3;
        let mut signs_of_life = interval_at(Instant::now() + every, every);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                // If it is lost the job may be redelivered. The requests in flight continue all the same.
                _ = signs_of_life.tick() => drop(message.ack_with(AckKind::Progress).await),
            }
        };
        let ack = result.or_else(|error| {
            let info = message.info()?;
            eprintln!("job {}: {}", info.stream_sequence, with_causes(&*error));
            let pause = backoff(self.flags.ack_wait, info.delivered);
            Ok::<_, Error>(AckKind::Nak(Some(pause)))
        })?;
        // Confirmed: after a lost acknowledgement the job would be done twice.
        message.double_ack_with(ack).await
    }

    async fn work_on(&self, message: &Message) -> Result<AckKind, Error> {
        let info = message.info()?;
        let job = Job::read(&message.payload);
        if let Ok(job) = &job {
            let wait = job.not_before.since(self.post.clock.now());
            if !wait.is_zero() {
                // Not waited for here: NATS redelivers it at its time.
                return Ok(AckKind::Nak(Some(wait)));
            }
        }
        if info.delivered > self.flags.max_deliver {
            // This delivery only moves it, whatever the failure was: also if it kills its worker.
            let reason = match &job {
                Ok(_) => format!("{} deliveries came to nothing", self.flags.max_deliver),
                Err(error) => error.to_string(),
            };
            self.streams.bury(message, &reason).await?;
            println!("job {}: dead letter", info.stream_sequence);
            return Ok(AckKind::Ack);
        }
        self.part(&job?, info.stream_sequence, info.delivered)
            .await?;
        Ok(AckKind::Ack)
    }

    /// Retries a call of the store until it answers. Another worker would do no better, so the job is kept: each
    /// redelivery would bring it closer to the dead letters without a fault of its own.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Err(error)
                    if error.kind() == StoreErrorKind::Unavailable && !self.is_stopping() =>
                {
                    eprintln!("{}", with_causes(&error));
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Processes a part of a job. The rest becomes a job of its own.
    ///
    /// This order makes a crash harmless: first the changes of subscriptions, then the rest, then the
    /// acknowledgement. If the process dies at any point, the job is redelivered and this part is sent once more.
    async fn part(&self, job: &Job, number: u64, delivered: i64) -> Result<(), Error> {
        let size = self.flags.part.max(1).min(job.recipients.len());
        let (part, rest) = job.recipients.split_at(size);
        let refs: Vec<_> = part.iter().map(|id| SubscriptionRef::Id(*id)).collect();
        let records = self.patiently(|| self.store.get(&refs)).await?;
        let now = self.post.clock.now();
        let pauses = self.patiently(|| self.store.pauses(now)).await?;
        self.post.deliver.gates().load(pauses, now);

        // All at once, as far as `Post` allows.
        let ended = join_all(records.into_iter().map(|record| async {
            let record = record.filter(|record| job.is_for(record))?;
            let consequence = self.post.attempt(job, &record).await;
            Some((self.post.gate(&record), consequence))
        }))
        .await;

        let now = self.post.clock.now();
        let mut effects = Effects::new(
            Arc::clone(&self.store) as _,
            Arc::clone(&self.store) as _,
            PruneBreaker::default(),
            &self.flags.vapid_subject,
        );
        let mut left = Left::new(now);
        let mut counts = Counts::default();
        for (recipient, ended) in part.iter().zip(ended) {
            let Some((gate, consequence)) = ended else {
                // Unsubscribed in between, or another user's.
                counts.add(FinalOutcome::Gone, 1);
                continue;
            };
            match consequence.settlement {
                Settlement::Finished(outcome) | Settlement::Failed(outcome, _) => {
                    counts.add(outcome, 1)
                }
                Settlement::RetryAt(at) => left.add(*recipient, at, job.attempts + 1),
                Settlement::Deferred(at) => left.add(*recipient, at, job.attempts),
            }
            effects.note(&gate, consequence, now);
        }
        let effects = Mutex::new(effects);
        self.patiently(|| async { effects.lock().await.finish(now).await })
            .await?;

        if !rest.is_empty() {
            // It has the same name if this part is repeated after a crash, so there is no second one.
            let name = format!("rest-of-{number}");
            self.streams
                .publish(&job.for_others(rest.to_vec()), Some(&name))
                .await?;
        }
        // Without a name: a repeated part may have another result, which a duplicate must not hide.
        let later = left.into_jobs(job);
        for job in &later {
            self.streams.publish(job, None).await?;
        }
        report(number, delivered, counts, rest.len(), &later);
        Ok(())
    }
}

fn report(number: u64, delivered: i64, counts: Counts, rest: usize, later: &[Job]) {
    let ends = FinalOutcome::ALL
        .iter()
        .map(|outcome| (outcome.as_str(), counts.of(*outcome)));
    let later = later.iter().map(|job| job.recipients.len() as u64).sum();
    let mut line = format!("job {number}: delivery {delivered}");
    for (name, count) in ends
        .into_iter()
        .chain([("later", later), ("rest", rest as u64)])
    {
        if count > 0 {
            line = format!("{line}, {name} {count}");
        }
    }
    println!("{line}");
}
