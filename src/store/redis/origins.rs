//! Pauses and tallies of origins, the next due time and statistics, in Redis.
//!
//! Pauses are merged in Rust, as in every back end, and written if the stored pause is unchanged. Tallies are added up by
//! a script, since every worker adds to the same few.

use std::sync::{MutexGuard, PoisonError};

use super::error::outrun;
use super::reply::{Fields, Reply, bytes, bytes_or_nil, number, text, time};
use super::script::{Args, NEXT_DUE, PAUSE, PRUNE_ORIGINS, STATS, TALLY};
use super::{RedisStore, StoreError};
use crate::clock::Timestamp;
use crate::store::oldest_due::always_told;
use crate::store::readable::{
    ReadablePage, UNREADABLE_ORIGIN, UNREADABLE_REASON, readable_or_none, report_unreadable_origins,
};
use crate::store::reason::corrupt;
use crate::store::{LedgerStats, OldestDue, Pause, PauseReason, STEP, Tally};
use crate::subscription::Origin;

/// The number of attempts of a change. Each failure means that a concurrent change succeeded.
const TRIES: usize = 100;
/// The largest count that one call adds: a script's numbers are doubles.
const COUNTABLE: u64 = 1 << 50;
/// Origins that one script prunes.
const PRUNED_AT_ONCE: usize = 200;
/// Scripts of one call that make rows ready whose time has come.
const WAKES: usize = 64;
/// The keys that name origins, and the commands that walk over them.
const SETS: [(&str, &str); 3] = [
    ("HSCAN", "pauses"),
    ("HSCAN", "tallies"),
    ("ZSCAN", "served"),
];

impl RedisStore {
    pub(super) async fn pause_origin(
        &self,
        pause: &Pause,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let origin = pause.origin.as_str();
        for _ in 0..TRIES {
            let raw = bytes_or_nil(self.read("HGET", "pauses", origin).await?)?;
            // One that cannot be read is replaced.
            let stored = match &raw {
                Some(raw) => readable_or_none(read_pause(pause.origin.clone(), raw))?,
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

    /// Leaves an origin out of the order of turns whose name cannot be read.
    pub(super) async fn park(&self, name: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let raw = bytes_or_nil(self.read("HGET", "pauses", name).await?)?;
        let until = (now + UNREADABLE_ORIGIN).as_millis();
        let new = format!("{until}|0||{UNREADABLE_REASON}|1|");
        let args = Args::default().with(name).with(raw.unwrap_or_default());
        // If the pause has changed meanwhile, the next claim comes here again.
        self.run(&PAUSE, &args.with(new)).await?;
        report_unreadable_origins(1);
        Ok(())
    }

    pub(super) async fn paused_origins(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        let mut pauses = ReadablePage::new(0);
        for (origin, raw) in Fields::of(self.read("HGETALL", "pauses", &[] as &[&str]).await?)? {
            pauses.push(origin_of(&origin).and_then(|origin| read_pause(origin, &raw)))?;
        }
        let mut pauses = pauses.finish("pauses");
        pauses.retain(|pause| !pause.is_over(now));
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
        let mut tallies = ReadablePage::new(0);
        for (origin, raw) in Fields::of(self.read("HGETALL", "tallies", &[] as &[&str]).await?)? {
            let tally = read_tally(&raw);
            tallies.push(tally.and_then(|(tally, _)| Ok((origin_of(&origin)?, tally))))?;
        }
        let mut tallies = tallies.finish("tallies");
        tallies.retain(|(_, tally)| tally.gone > 0);
        tallies.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(tallies)
    }

    /// Deletes origins without rows whose pause and tally are old, among the next ones of a walk over all origins.
    /// Returns whether the walk goes on.
    pub(super) async fn prune_origins(&self, before: Timestamp) -> Result<bool, StoreError> {
        let count = PRUNED_AT_ONCE.to_string();
        for _ in 0..STEP / PRUNED_AT_ONCE {
            let (set, cursor) = *self.pruned_origins();
            let Some((scan, key)) = SETS.get(set) else {
                break;
            };
            let args = [&cursor.to_string(), "COUNT", &count];
            let mut answer = Reply::of(self.read(scan, key, &args).await?)?;
            let cursor = answer.number()?;
            let names = answer.fields()?.into_iter().map(|(name, _)| name);
            let names: Vec<_> = names.collect();
            // A small set comes as a whole.
            for names in names.chunks(PRUNED_AT_ONCE) {
                self.prune_named(names, before).await?;
            }
            *self.pruned_origins() = match cursor {
                0 => (set + 1, 0),
                cursor => (set, cursor),
            };
        }
        let mut place = self.pruned_origins();
        let has_more = place.0 < SETS.len();
        if !has_more {
            *place = (0, 0);
        }
        Ok(has_more)
    }

    fn pruned_origins(&self) -> MutexGuard<'_, (usize, u64)> {
        let place = self.inner.pruned_origins.lock();
        place.unwrap_or_else(PoisonError::into_inner)
    }

    async fn prune_named(&self, names: &[Vec<u8>], before: Timestamp) -> Result<(), StoreError> {
        let pauses = self.fields("pauses", names).await?;
        let tallies = self.fields("tallies", names).await?;
        let mut args = Args::default();
        for ((name, pause), tally) in names.iter().zip(pauses).zip(tallies) {
            let is_paused = match &pause {
                Some(raw) => {
                    let pause = origin_of(name).and_then(|origin| read_pause(origin, raw));
                    readable_or_none(pause)?.is_some_and(|pause| pause.until > before)
                }
                None => false,
            };
            let is_tallied = match &tally {
                Some(raw) => readable_or_none(read_tally(raw))?.is_some_and(|(_, at)| at > before),
                None => false,
            };
            if !is_paused && !is_tallied {
                args = args
                    .with(name.clone())
                    .with(pause.unwrap_or_default())
                    .with(tally.unwrap_or_default());
            }
        }
        self.run(&PRUNE_ORIGINS, &args).await.map(|_| ())
    }

    /// Reads fields of a hash.
    async fn fields(
        &self,
        key: &str,
        names: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let inner = &*self.inner;
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(format!("{}:{key}", inner.namespace)).arg(names);
        Reply::of(inner.link.send(&cmd, inner.limits).await?)?
            .map(bytes_or_nil)
            .collect()
    }

    pub(super) async fn next_moment(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !self.expandable_broadcasts(1, 0, now).await?.is_empty() {
            return Ok(Some(now));
        }
        for _ in 0..WAKES {
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
        // A claim goes on.
        Ok(Some(now))
    }

    pub(super) async fn ledger_stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        let args = always_told().fold(Args::at(now), Args::with);
        let mut answer = Reply::of(self.run(&STATS, &args).await?)?;
        let (depth, leased) = (answer.number()?, answer.number()?);
        let mut oldest = OldestDue::default();
        while let (Some(origin), Some(at)) = (answer.next(), answer.next()) {
            let origin = text(bytes(origin)?).ok();
            let origin = origin.and_then(|name| Origin::parse(&name).ok());
            let at = bytes(at)?;
            if !at.is_empty() {
                oldest.note(origin.as_ref(), time(&at)?);
            }
        }
        Ok(LedgerStats::by_push_service(
            depth,
            leased,
            oldest.until(now),
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

pub(super) fn origin_of(raw: &[u8]) -> Result<Origin, StoreError> {
    Origin::parse(&text(raw.to_vec())?).map_err(|_| corrupt("an origin"))
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
