//! The workers of a server: their beats, and the rows of those that are dead (L19).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::link::{Limits, Link, Own};
use super::reply::{Reply, bytes_or_nil, number, parse, time};
use super::script::{Args, BEAT, ENLIST, HAS_LEASED, RESCUE};
use super::{Inner, RedisStore};
use crate::clock::Timestamp;
use crate::observe::event;
use crate::store::heartbeat::{LOOK_AGAIN, Other, Pulse, WorkerId};
use crate::store::{STEP, StoreError};

/// The timeouts of a beat.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(1),
};
/// Rows of dead workers that one script makes due.
const RESCUED_AT_ONCE: usize = 250;
/// The value of a worker that is marked as dead.
const DEAD: &[u8] = b"dead";

impl RedisStore {
    /// The number that a claim names, after enlisting at the first one.
    pub(super) async fn worker(&self) -> Option<WorkerId> {
        let beating = || Beating(self.beside());
        self.inner.heartbeat.worker(beating).await
    }

    /// The same keys over a connection of its own, if this store makes its connections itself.
    fn beside(&self) -> Self {
        let link = match &self.inner.link {
            Link::Own(own) => Link::Own(Box::new(Own::new(own.address.clone()))),
            Link::Manager(manager) => Link::Manager(manager.clone()),
            Link::Cluster(cluster) => Link::Cluster(cluster.clone()),
        };
        let namespace = self.inner.namespace.clone();
        Self::new(Arc::new(Inner::of(link, None, LIMITS, namespace)))
    }

    /// Makes rows of dead workers due: at most [`STEP`] of them. Returns whether there may be more.
    pub(super) async fn rescue(&self, now: Timestamp) -> Result<bool, StoreError> {
        let Some(silent) = self.inner.heartbeat.take_silent() else {
            return Ok(false);
        };
        let mut args = Args::at(now)
            .number(RESCUED_AT_ONCE)
            .time_or_nothing(silent.horizon);
        for worker in &silent.workers {
            args = args.number(worker);
        }
        let (mut rows, mut more) = (0, true);
        while more && rows < STEP {
            let rescued = number(self.run(&RESCUE, &args).await?)?;
            let rescued = usize::try_from(rescued).unwrap_or(usize::MAX);
            rows = rows.saturating_add(rescued);
            more = rescued >= RESCUED_AT_ONCE;
        }
        if rows > 0 {
            event!(
                WARN,
                workers = ?silent.workers,
                rows,
                "a process has ended without settling its rows: they are due again"
            );
        }
        if more {
            self.inner.heartbeat.put_back(silent);
        }
        Ok(more)
    }

    /// When to claim at the latest: while another worker has leased rows, it may die.
    pub(super) async fn next_look(
        &self,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let look = now + LOOK_AGAIN;
        let others = self.inner.heartbeat.others();
        if others.is_empty() || next.is_some_and(|next| next <= look) {
            return Ok(next);
        }
        let args = others
            .iter()
            .fold(Args::default(), |args, worker| args.number(worker));
        let has_leased = number(self.run(&HAS_LEASED, &args).await?)? > 0;
        Ok(if has_leased { Some(look) } else { next })
    }
}

/// The connection on which a worker beats.
struct Beating(RedisStore);

#[async_trait]
impl Pulse for Beating {
    async fn enlist(&mut self) -> Result<(WorkerId, Timestamp), StoreError> {
        let mut entry = Reply::of(self.0.run(&ENLIST, &Args::default()).await?)?;
        Ok((parse(&entry.bytes()?)?, entry.time()?))
    }

    async fn beat(&mut self, id: WorkerId) -> Result<Option<Timestamp>, StoreError> {
        let beat = self.0.run(&BEAT, &Args::default().number(id)).await?;
        bytes_or_nil(beat)?.map(|at| time(&at)).transpose()
    }

    async fn others(&mut self, id: WorkerId) -> Result<Vec<Other>, StoreError> {
        let mut workers = Reply::of(self.0.read("HGETALL", "workers", &[] as &[&str]).await?)?;
        let mut others = Vec::new();
        while let Ok(other) = workers.bytes() {
            let (other, beat) = (parse(&other)?, workers.bytes()?);
            // One that cannot be read has never beaten.
            let beat_at = time(&beat).unwrap_or(Timestamp::from_millis(0));
            if other != id {
                others.push(Other {
                    id: other,
                    beat_at,
                    is_dead: beat == DEAD,
                });
            }
        }
        Ok(others)
    }
}
