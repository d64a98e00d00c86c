//! Pauses and tallies of origins, the next due time and statistics, in Redis.
//!
//! Pauses are merged in Rust, as in every back end, and written if the stored pause is unchanged. Tallies are added up by
//! a script, since every worker adds to the same few.

use std::collections::{BTreeMap, BTreeSet};

use super::error::outrun;
use super::reply::{Fields, Reply, bytes, bytes_or_nil, number, text, time};
use super::script::{Args, NEXT_DUE, PAUSE, PRUNE_ORIGINS, STATS, TALLY};
use super::{RedisStore, StoreError};
use crate::clock::Timestamp;
use crate::store::reason::corrupt;
use crate::store::{LedgerStats, Pause, PauseReason, Tally};
use crate::subscription::Origin;

/// The number of attempts of a change. Each failure means that a concurrent change succeeded.
const TRIES: usize = 100;
/// The largest count that one call adds: a script's numbers are doubles.
const COUNTABLE: u64 = 1 << 50;
/// Origins that one script prunes.
const PRUNED_AT_ONCE: usize = 200;

impl RedisStore {
    pub(super) async fn pause_origin(
        &self,
        pause: &Pause,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let origin = pause.origin.as_str();
        for _ in 0..TRIES {
            let raw = bytes_or_nil(self.read("HGET", "pauses", &[origin]).await?)?;
            let stored = match &raw {
                Some(raw) => Some(read_pause(pause.origin.clone(), raw)?),
                None => None,
            };
            let merged = pause.on_top_of(stored.as_ref(), now);
            let raw = raw.unwrap_or_default();
            let new = merged.map_or_else(String::new, |merged| pause_text(&merged));
            let args = Args::default().with(origin).with(raw).with(new);
            if number(self.run(&PAUSE, &args).await?)? != 0 {
                return Ok(());
            }
        }
        Err(outrun())
    }

    pub(super) async fn paused_origins(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        let mut pauses = Vec::new();
        for (origin, raw) in Fields::of(self.read("HGETALL", "pauses", &[]).await?)? {
            let pause = read_pause(origin_of(origin)?, &raw)?;
            if !pause.is_over(now) {
                pauses.push(pause);
            }
        }
        Ok(pauses)
    }

    pub(super) async fn add_tallies(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        if counts.is_empty() {
            return Ok(Vec::new());
        }
        let mut args = Args::at(now).number(Tally::WINDOW);
        for (origin, new) in counts {
            // Clamped to what a script can count exactly. The sums are halved above the window anyway.
            let Tally { accepted, gone } = *new;
            args = args
                .with(origin.as_str())
                .number(accepted.min(COUNTABLE))
                .number(gone.min(COUNTABLE));
        }
        let mut answer = Reply::of(self.run(&TALLY, &args).await?)?;
        let mut sums = Vec::with_capacity(counts.len());
        for _ in counts {
            let damaged = |_| corrupt("a tally");
            let accepted = answer.number().map_err(damaged)?;
            sums.push(Tally::new(accepted, answer.number()?));
        }
        Ok(sums)
    }

    pub(super) async fn tallies_with_gone(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        let mut tallies = Vec::new();
        for (origin, raw) in Fields::of(self.read("HGETALL", "tallies", &[]).await?)? {
            let (tally, _) = read_tally(&raw)?;
            if tally.gone > 0 {
                tallies.push((origin_of(origin)?, tally));
            }
        }
        tallies.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(tallies)
    }

    /// Deletes origins without rows whose pause and tally are old.
    pub(super) async fn prune_origins(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut origins: BTreeMap<Vec<u8>, [Vec<u8>; 2]> = BTreeMap::new();
        let mut young = BTreeSet::new();
        for (origin, raw) in Fields::of(self.read("HGETALL", "pauses", &[]).await?)? {
            if read_pause(origin_of(origin.clone())?, &raw)?.until > before {
                young.insert(origin.clone());
            }
            origins.entry(origin).or_default()[0] = raw;
        }
        for (origin, raw) in Fields::of(self.read("HGETALL", "tallies", &[]).await?)? {
            if read_tally(&raw)?.1 > before {
                young.insert(origin.clone());
            }
            origins.entry(origin).or_default()[1] = raw;
        }
        for origin in Reply::of(self.read("ZRANGE", "served", &["0", "-1"]).await?)? {
            origins.entry(bytes(origin)?).or_default();
        }
        let mut old: Vec<_> = origins
            .into_iter()
            .filter(|(origin, _)| !young.contains(origin))
            .collect();
        while !old.is_empty() {
            let some = old.split_off(old.len().saturating_sub(PRUNED_AT_ONCE));
            let mut args = Args::default();
            for (origin, [pause, tally]) in some {
                args = args.with(origin).with(pause).with(tally);
            }
            self.run(&PRUNE_ORIGINS, &args).await?;
        }
        Ok(())
    }

    pub(super) async fn next_moment(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !self.expandable_broadcasts(1, now).await?.is_empty() {
            return Ok(Some(now));
        }
        loop {
            let mut answer = Reply::of(self.run(&NEXT_DUE, &Args::at(now)).await?)?;
            if answer.flag()? {
                continue;
            }
            let mut next: Option<Timestamp> = None;
            for moment in answer {
                let moment = time(&bytes(moment)?)?.max(now);
                next = Some(next.map_or(moment, |next| next.min(moment)));
            }
            return Ok(next);
        }
    }

    pub(super) async fn ledger_stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        let mut answer = Reply::of(self.run(&STATS, &Args::at(now)).await?)?;
        let (depth, leased) = (answer.number()?, answer.number()?);
        let mut oldest: Option<Timestamp> = None;
        for head in answer {
            let head = bytes(head)?;
            if !head.is_empty() {
                let head = time(&head)?;
                oldest = Some(oldest.map_or(head, |oldest| oldest.min(head)));
            }
        }
        Ok(LedgerStats::new(
            depth,
            leased,
            oldest.filter(|at| *at <= now),
        ))
    }
}

/// Serializes a pause as `UNTIL|PROBED||REASON|CLOSURES|=CONTACT`. The empty field clears the probe.
fn pause_text(pause: &Pause) -> String {
    let contact = pause
        .contact
        .as_ref()
        .map_or_else(String::new, |text| format!("={text}"));
    format!(
        "{}|{}||{}|{}|{contact}",
        pause.until.as_millis(),
        u8::from(pause.reason.is_probed()),
        pause.reason.as_str(),
        pause.closures,
    )
}

fn read_pause(origin: Origin, raw: &[u8]) -> Result<Pause, StoreError> {
    let damaged = || corrupt("a pause");
    let raw = text(raw.to_vec())?;
    let mut parts = raw.splitn(6, '|');
    let mut part = || parts.next().ok_or_else(damaged);
    let until = time(part()?.as_bytes())?;
    let (_probed, _probe) = (part()?, part()?);
    let reason = PauseReason::from_name(part()?).ok_or_else(damaged)?;
    let mut pause = Pause::new(origin, until, reason);
    pause.closures = part()?.parse().map_err(|_| damaged())?;
    pause.contact = part()?.strip_prefix('=').map(str::to_owned);
    Ok(pause)
}

/// Parses `accepted=NUMBER gone=NUMBER at=TIME`.
fn read_tally(raw: &[u8]) -> Result<(Tally, Timestamp), StoreError> {
    let damaged = || corrupt("a tally");
    let raw = text(raw.to_vec())?;
    let mut parts = raw.split(' ');
    let mut part = |name| {
        let part = parts.next().and_then(|part| part.strip_prefix(name));
        part.ok_or_else(damaged)
    };
    let accepted = part("accepted=")?.parse().map_err(|_| damaged())?;
    let gone = part("gone=")?.parse().map_err(|_| damaged())?;
    Ok((Tally::new(accepted, gone), time(part("at=")?.as_bytes())?))
}

fn origin_of(raw: Vec<u8>) -> Result<Origin, StoreError> {
    Origin::parse(&text(raw)?).map_err(|_| corrupt("an origin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_come_back() {
        let origin = Origin::parse("https://push.example.net").unwrap();
        for contact in [None, Some(""), Some("mailto:a|b@example.com")] {
            for &reason in PauseReason::ALL {
                let mut pause = Pause::new(origin.clone(), Timestamp::from_millis(-7), reason);
                pause.closures = 3;
                pause.contact = contact.map(str::to_owned);
                let text = pause_text(&pause);
                assert_eq!(read_pause(origin.clone(), text.as_bytes()).unwrap(), pause);
            }
        }
    }
}
