//! The two streams: jobs and dead letters.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as Pull;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context, Message};

use crate::Error;
use crate::job::Job;

const JOBS: &str = "PUSH_JOBS";
const JOBS_SUBJECT: &str = "push.jobs";
const DEAD: &str = "PUSH_DEAD";
pub(crate) const DEAD_SUBJECT: &str = "push.dead";
/// The header of a dead letter with the reason.
pub(crate) const REASON: &str = "Push-Reason";

/// How long a message's name is remembered: longer than until a dead worker's job is redelivered.
const NAMES_KEPT: Duration = Duration::from_secs(3600);

/// With a backoff, servers before 2.10 require a number here.
const NEVER_BY_THE_SERVER: i64 = 1_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Streams {
    context: Context,
    jobs: Stream,
    dead: Stream,
}

impl Streams {
    /// Connects, and makes missing streams.
    pub(crate) async fn open(url: &str) -> Result<Self, Error> {
        let context = jetstream::new(async_nats::connect(url).await?);
        let jobs = Config {
            name: JOBS.to_owned(),
            subjects: vec![JOBS_SUBJECT.to_owned()],
            // An acknowledged job is deleted.
            retention: RetentionPolicy::WorkQueue,
            // If you set limits: a full stream refuses new jobs, and `produce` fails. No job is dropped.
            discard: DiscardPolicy::New,
            duplicate_window: NAMES_KEPT,
            ..Config::default()
        };
        let dead = Config {
            name: DEAD.to_owned(),
            subjects: vec![DEAD_SUBJECT.to_owned()],
            discard: DiscardPolicy::New,
            duplicate_window: NAMES_KEPT,
            ..Config::default()
        };
        Ok(Self {
            jobs: context.get_or_create_stream(jobs).await?,
            dead: context.get_or_create_stream(dead).await?,
            context,
        })
    }

    /// Returns the one consumer that all workers pull from.
    pub(crate) async fn workers(&self, ack_wait: Duration) -> Result<PullConsumer, Error> {
        let config = Pull {
            durable_name: Some("workers".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            backoff: (1..=4)
                .map(|delivered| backoff(ack_wait, delivered))
                .collect(),
            // The server's own limit would only stop delivering and publish an advisory. Workers count themselves:
            // see `bury`.
            max_deliver: NEVER_BY_THE_SERVER,
            // Delayed jobs count as pending, and there may be many: FCM has asked for an hour.
            max_ack_pending: -1,
            ..Pull::default()
        };
        Ok(self.jobs.create_consumer(config).await?)
    }

    /// Adds a job. Once this returns it is as durable as the stream. Of jobs with one name the first counts.
    pub(crate) async fn publish(&self, job: &Job, name: Option<&str>) -> Result<(), Error> {
        let payload = serde_json::to_vec(job)?;
        let publish = PublishMessage::build().payload(payload.into());
        let publish = match name {
            Some(name) => publish.message_id(name),
            None => publish,
        };
        self.context
            .send_publish(JOBS_SUBJECT, publish)
            .await?
            .await?;
        Ok(())
    }

    /// Copies a job as it is, readable or not, to the dead letters. Acknowledge it afterwards.
    pub(crate) async fn bury(&self, message: &Message, reason: &str) -> Result<(), Error> {
        let info = message.info()?;
        // With the time: numbers start again if the stream of jobs is made again.
        let name = format!("job-{}-{}", info.stream_sequence, info.published);
        let publish = PublishMessage::build()
            .payload(message.payload.clone())
            .header(REASON, reason)
            .message_id(name);
        self.context
            .send_publish(DEAD_SUBJECT, publish)
            .await?
            .await?;
        Ok(())
    }

    /// Puts a dead letter back into the queue.
    pub(crate) async fn replay(&self, number: u64) -> Result<(), Error> {
        let letter = self.dead.get_raw_message(number).await?;
        let publish = PublishMessage::build()
            .payload(letter.payload)
            .message_id(format!("dead-{number}"));
        self.context
            .send_publish(JOBS_SUBJECT, publish)
            .await?
            .await?;
        self.dead.delete_message(number).await?;
        Ok(())
    }

    pub(crate) const fn dead(&self) -> &Stream {
        &self.dead
    }
}

/// Returns the delay after this number of deliveries without a result.
pub(crate) fn backoff(ack_wait: Duration, delivered: i64) -> Duration {
    let doublings = u32::try_from(delivered.saturating_sub(1))
        .unwrap_or(0)
        .min(4);
    ack_wait * (1 << doublings)
}
