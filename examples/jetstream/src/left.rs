//! The recipients that remain after a part of a job.

use std::collections::BTreeMap;

use tower_web_push::clock::Timestamp;
use tower_web_push::subscription::SubscriptionId;

use crate::job::Job;

/// The recipients of a part to retry, grouped by delay.
#[derive(Debug)]
pub(crate) struct Left {
    now: Timestamp,
    /// By attempts made, and by the power of two of the delay in seconds.
    groups: BTreeMap<(u32, u32), (Timestamp, Vec<SubscriptionId>)>,
}

impl Left {
    pub(crate) const fn new(now: Timestamp) -> Self {
        let groups = BTreeMap::new();
        Self { now, groups }
    }

    pub(crate) fn add(&mut self, recipient: SubscriptionId, at: Timestamp, attempts: u32) {
        let power = (at.since(self.now).as_secs() + 1).ilog2();
        let group = self
            .groups
            .entry((attempts, power))
            .or_insert((at, Vec::new()));
        group.0 = group.0.max(at);
        group.1.push(recipient);
    }

    /// Makes a job for each group, with the time of its latest recipient: no request is early, and no recipient waits
    /// longer than about twice its delay.
    pub(crate) fn into_jobs(self, job: &Job) -> Vec<Job> {
        let group = |((attempts, _), (not_before, recipients))| Job {
            attempts,
            not_before,
            ..job.for_others(recipients)
        };
        self.groups.into_iter().map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tower_web_push::broadcast::BroadcastId;
    use tower_web_push::message::Message;

    use super::*;

    #[test]
    fn similar_delays_share_a_job_and_no_request_is_early() {
        let now = Timestamp::from_secs(1_000);
        let job = Job {
            broadcast: BroadcastId::random(),
            message: Message::new("hello"),
            due_at: now,
            not_before: now,
            attempts: 0,
            recipients: Vec::new(),
            only_for: None,
        };
        let waits: Vec<_> = [0, 0, 1, 2, 60, 61, 62, 3_600, 86_400]
            .map(|secs| (SubscriptionId::random(), now + Duration::from_secs(secs)))
            .into();
        let mut left = Left::new(now);
        for (recipient, at) in &waits {
            left.add(*recipient, *at, 1);
        }
        left.add(SubscriptionId::random(), now, 2);

        let jobs = left.into_jobs(&job);
        let sizes: Vec<_> = jobs.iter().map(|job| job.recipients.len()).collect();
        assert_eq!(sizes, [2, 2, 3, 1, 1, 1]);
        for (recipient, at) in waits {
            let job = jobs.iter().find(|job| job.recipients.contains(&recipient));
            let job = job.expect("no recipient is lost");
            assert!(job.not_before >= at && job.attempts == 1);
            let waits = job.not_before.since(now).as_secs();
            assert!(waits <= 2 * at.since(now).as_secs() + 1, "{waits} s");
        }
    }
}
