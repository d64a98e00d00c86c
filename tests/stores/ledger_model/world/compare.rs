//! Comparing a ledger with its model after every step and at the end.

use std::cmp::Reverse;
use std::time::Duration;

use proptest::prelude::*;
use tower_web_push::broadcast::BroadcastState::{self, Expanding, Paused, Scheduled, Sending};
use tower_web_push::store::{
    BroadcastCursor, BroadcastFilter, ClaimRequest, ClaimToken, DeliveryLedger, Pause,
};
use tower_web_push::subscription::Origin;

use super::{ALL, Checked, World};
use crate::ledger_model::Backend;
use crate::ledger_model::ops::{End, RECIPIENTS};
use crate::redis::world::keys;

impl World {
    /// Asserts that all visible state matches the model.
    pub(super) async fn compare(&mut self) -> Checked {
        self.model.forget_over();
        let (ledger, now) = (self.ledger(1), self.now);
        for id in &self.ids {
            let status = ledger.status(*id, now).await.unwrap();
            prop_assert_eq!(status, self.model.status(*id, now));
        }
        self.compare_lists(&*ledger).await?;
        let (stats, expected) = (ledger.stats(now).await.unwrap(), self.model.stats(now));
        prop_assert_eq!(
            (stats.depth, stats.leased),
            (expected.depth, expected.leased)
        );
        let latest = self.model.latest_oldest_due(now);
        // Of paused broadcasts it is not visible which rows were put aside.
        let is_exact = !self
            .model
            .rows
            .iter()
            .any(|row| self.model.is_held(row.broadcast));
        prop_assert!(!is_exact || stats.oldest_due.is_some() == latest.is_some());
        prop_assert!(
            stats
                .oldest_due
                .is_none_or(|at| expected.oldest_due <= Some(at))
                && (!is_exact || stats.oldest_due <= latest),
            "{:?} is not between {:?} and {:?}",
            stats,
            expected,
            latest
        );
        // A probe whose lease has ended may be over from then on, or from when its row ended: its origin can be claimed.
        let until_now = |mut pause: Pause| {
            pause.until = pause.until.max(now);
            pause
        };
        let pauses = ledger.pauses(now).await.unwrap();
        let mut pauses: Vec<_> = pauses.into_iter().map(until_now).collect();
        pauses.sort_by_key(|pause| pause.origin.clone());
        let expected = self.model.origins.pauses(now);
        prop_assert_eq!(
            pauses,
            expected.into_iter().map(until_now).collect::<Vec<_>>()
        );
        let tallies = ledger.tallies().await.unwrap();
        prop_assert_eq!(tallies, self.model.origins.tallies());
        self.compare_underway(&*ledger).await?;

        // L14.
        let next = ledger.next_due(now).await.unwrap();
        let work = self.model.first_work(now);
        if let Some(work) = work {
            prop_assert!(
                next.is_some_and(|next| now <= next && next <= work),
                "work at {:?} would be slept through until {:?}",
                work,
                next
            );
        }
        // Rows that a claim would only end or put aside count as work too.
        let is_idle = self.model.abandoned(now).is_empty() && !self.model.puts_aside(now);
        if work != Some(now) && is_idle {
            prop_assert!(next.is_none_or(|next| next > now), "it would spin");
        }
        // `next_due` may end them too (L9), the last ones of a broadcast to be forgotten among them.
        self.see_what_was_swept(&*ledger).await?;
        self.model.forget_over();
        Ok(())
    }

    /// L24 and L25.
    async fn compare_lists(&self, ledger: &dyn DeliveryLedger) -> Checked {
        let statuses = self.ids.iter();
        let statuses = statuses.filter_map(|id| self.model.status(*id, self.now));
        let mut statuses: Vec<_> = statuses.collect();
        statuses.sort_by_key(|status| Reverse(BroadcastCursor::from(status)));
        statuses.dedup_by_key(|status| status.id);
        let open = [Scheduled, Expanding, Sending, Paused].to_vec();
        for states in [Vec::new(), open] {
            let filter = BroadcastFilter {
                states,
                ..BroadcastFilter::default()
            };
            let page = ledger.list_broadcasts(&filter, None, ALL, self.now).await;
            let expected = statuses.iter().filter(|status| filter.takes(status));
            let expected: Vec<_> = expected.cloned().collect();
            prop_assert_eq!(page.unwrap().broadcasts, expected);
        }
        for id in &self.ids {
            let samples = ledger.failure_samples(*id).await.unwrap();
            let expected = self.model.broadcast(*id).map(|one| one.samples.clone());
            prop_assert_eq!(samples, expected.unwrap_or_default());
        }
        Ok(())
    }

    /// L16: the order of broadcasts with equal deadlines is up to the ledger.
    async fn compare_underway(&self, ledger: &dyn DeliveryLedger) -> Checked {
        let open = self.model.underway();
        for limit in [1, ALL] {
            let listed = ledger.underway(limit, self.now).await.unwrap();
            let deadlines: Vec<_> = listed.iter().map(|status| status.deadline).collect();
            let expected = open.iter().map(|new| new.deadline).take(limit);
            prop_assert_eq!(deadlines, expected.collect::<Vec<_>>());
            for status in listed {
                prop_assert!(open.iter().any(|new| new.id == status.id));
                prop_assert_eq!(self.model.status(status.id, self.now), Some(status));
            }
        }
        Ok(())
    }

    /// Works like a worker that waits for `next_due`, until nothing is left.
    pub(crate) async fn finish(&mut self) -> Checked {
        let mut request = ClaimRequest::new(ALL, Duration::from_secs(60));
        request.per_origin = ALL;
        for _ in 0..ALL {
            self.expire(ALL).await?;
            self.look(0, ALL).await?;
            for seen in self.workers[0].seen.clone() {
                self.page(0, &seen, &[1, 2], true).await?;
            }
            let claimed = self.claim(0, &request).await?;
            let accepted = End::Finished(0);
            let settled: Vec<_> = claimed.into_iter().map(|row| (row, accepted)).collect();
            self.settle(0, &settled).await?;
            for pause in self.model.origins.pauses(self.now) {
                // Its probe has ended.
                if settled.iter().any(|(row, _)| at(&pause.origin, row)) {
                    self.pause(&Pause::new(pause.origin, self.now, pause.reason))
                        .await;
                }
            }
            self.compare().await?;
            let next = self.ledger(0).next_due(self.now).await.unwrap();
            self.see_what_was_swept(&*self.ledger(0)).await?;
            match next {
                Some(next) => self.now = next,
                None => return self.nothing_is_left().await,
            }
        }
        prop_assert!(false, "it never ends");
        Ok(())
    }

    async fn nothing_is_left(&self) -> Checked {
        prop_assert_eq!(self.ledger(0).stats(self.now).await.unwrap().depth, 0);
        for broadcast in &self.model.broadcasts {
            let status = self.ledger(0).status(broadcast.new.id, self.now).await;
            let status = status.unwrap().unwrap();
            let over = [BroadcastState::Done, BroadcastState::Cancelled];
            prop_assert!(over.contains(&status.state), "{:?}", status);
            prop_assert_eq!(status.counts.pending, 0);
            prop_assert_eq!(status.counts.finished(), status.recipients);
        }
        let later = self.now + Duration::from_secs(1_000);
        self.ledger(0).prune(later).await.unwrap();
        if let Backend::Redis(url, prefix) = &self.backend {
            let left = keys(url, prefix).await;
            prop_assert!(
                left.iter().all(|key| key == "format" || key == "meta"),
                "{:?}",
                left
            );
        }
        Ok(())
    }
}

fn at(origin: &Origin, row: &ClaimToken) -> bool {
    (0..RECIPIENTS).any(|number| super::key(number) == row.key && super::origin(number) == *origin)
}
