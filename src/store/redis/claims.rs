//! Claiming, settling and releasing rows in Redis.
//!
//! A claim reads the origins first, deals the rows among them here, and takes the rows of each in scripts of bounded size.
//! A concurrent claim may have left fewer rows than were dealt: then the origins are read again.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use super::content::message;
use super::origins::origin_of;
use super::reply::{Reply, bytes, bytes_or_nil, parse};
use super::script::{Args, CLAIM, HEADS, SETTLE};
use super::{RedisStore, StoreError};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::failure_sample::text::{line, read};
use crate::store::heartbeat::WorkerId;
use crate::store::readable::readable_or_none;
use crate::store::rules::deal;
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, Claims, FailureSample, STEP, Settled, Settlement,
};
use crate::subscription::{EndpointKey, Origin};

/// Rows that one script claims. A script runs for a few milliseconds, however many broadcasts the rows belong to.
const CLAIMED_AT_ONCE: usize = 256;
/// Rows that one script settles.
const SETTLED_AT_ONCE: usize = 1000;
/// Origins that one script looks up by name.
const NAMED_AT_ONCE: usize = 500;
/// The most rounds of one claim.
const ROUNDS: usize = 16;
/// Scripts of one claim that make rows ready whose time has come, 200 each.
pub(super) const WAKES: usize = STEP / 200;

/// An origin with ready rows.
struct Head {
    origin: Origin,
    /// The fence of the last claim of its rows.
    served: u64,
    is_probed: bool,
    /// A lower bound for the number of ready rows.
    rows: usize,
    /// Whether `rows` is exact.
    is_exact: bool,
}

/// The answer of a script that reads origins.
struct Heads {
    /// Whether the call has to be repeated: rows or origins became ready.
    is_out_of_order: bool,
    /// The number of origins to skip next.
    passed: u64,
    has_more: bool,
    heads: Vec<Head>,
}

impl RedisStore {
    pub(super) async fn claim_rows(
        &self,
        request: &ClaimRequest,
        worker: Option<WorkerId>,
        now: Timestamp,
    ) -> Result<Claims, StoreError> {
        let mut claims = Claims::default();
        let mut taken = HashMap::new();
        let mut wakes = WAKES;
        for _ in 0..ROUNDS {
            if claims.rows.len() >= request.limit {
                break;
            }
            match self
                .claim_round(request, (worker, now), &mut wakes, &mut taken, &mut claims)
                .await
            {
                Ok(is_all) if is_all => break,
                Ok(_) => {}
                // Return the rows claimed so far, which would be lost until their lease ends.
                Err(_) if !claims.rows.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        claims.more |= wakes == 0;
        Ok(claims)
    }

    /// Reads the origins once and claims. Returns whether nothing is left to claim.
    async fn claim_round(
        &self,
        request: &ClaimRequest,
        (worker, now): (Option<WorkerId>, Timestamp),
        wakes: &mut usize,
        taken: &mut HashMap<Origin, usize>,
        claims: &mut Claims,
    ) -> Result<bool, StoreError> {
        let left = request.limit.saturating_sub(claims.rows.len());
        let room = |head: &Head| {
            let taken = taken.get(&head.origin).copied().unwrap_or(0);
            let room = request.most_of(&head.origin).saturating_sub(taken);
            if head.is_probed { room.min(1) } else { room }
        };
        let mut heads = match request.per_origin {
            0 => self.heads_named(left, request, room, now, wakes).await?,
            _ => self.heads(left, room, now, wakes).await?,
        };
        // With more origins than rows to claim, the origin that was served longest ago comes first.
        heads.sort_by_key(|head| head.served);
        let rooms: Vec<_> = heads.iter().map(room).collect();
        let mut shares = vec![0; heads.len()];
        let Ok(()) = deal::<Infallible>(&rooms, left, |index, wanted| {
            let (Some(head), Some(share)) = (heads.get(index), shares.get_mut(index)) else {
                return Ok(0);
            };
            let dealt = wanted.min(head.rows.saturating_sub(*share));
            *share += dealt;
            Ok(dealt)
        });
        let dealt: usize = shares.iter().sum();
        let before = claims.rows.len();
        let shares: Vec<_> = heads.iter().zip(shares).collect();
        for batch in batches(shares) {
            self.take(&batch, request, (worker, now), taken, claims)
                .await?;
        }
        let is_exact = heads.iter().all(|head| head.is_exact);
        Ok(dealt == 0 || (is_exact && claims.rows.len() - before >= dealt))
    }

    /// Returns origins with ready rows that the request admits, those served longest ago first, at most about as many
    /// as there are rows to claim. Makes rows ready first whose time has come, in at most `wakes` scripts.
    async fn heads(
        &self,
        wanted: usize,
        room: impl Fn(&Head) -> usize,
        now: Timestamp,
        wakes: &mut usize,
    ) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::new();
        let mut seen = HashSet::new();
        let mut passed = 0;
        loop {
            let args = Args::at(now)
                .number(wanted)
                .number(passed)
                .number(u8::from(*wakes > 0))
                .number(0);
            let read = self.read_heads(&args, now, wakes).await?;
            passed = read.passed;
            for head in read.heads {
                // An origin may have moved between two scripts.
                if room(&head) > 0 && seen.insert(head.origin.clone()) {
                    heads.push(head);
                }
            }
            if !read.is_out_of_order && (!read.has_more || heads.len() >= wanted) {
                return Ok(heads);
            }
        }
    }

    /// As [`heads`](Self::heads), where the request admits named origins only: others are not read, of which there may
    /// be any number.
    async fn heads_named(
        &self,
        wanted: usize,
        request: &ClaimRequest,
        room: impl Fn(&Head) -> usize,
        now: Timestamp,
        wakes: &mut usize,
    ) -> Result<Vec<Head>, StoreError> {
        let named = request.origins.iter().filter(|(_, room)| **room > 0);
        let mut named: Vec<_> = named.map(|(origin, _)| origin.as_str()).collect();
        let mut heads = Vec::new();
        // Without names too: rows become ready.
        loop {
            let part = named.split_off(named.len().saturating_sub(NAMED_AT_ONCE));
            let args = |wakes: usize| {
                let args = Args::at(now)
                    .number(wanted)
                    .number(0)
                    .number(u8::from(wakes > 0))
                    .number(1);
                part.iter().fold(args, |args, name| args.with(*name))
            };
            let read = loop {
                let read = self.read_heads(&args(*wakes), now, wakes).await?;
                if !read.is_out_of_order {
                    break read;
                }
            };
            heads.extend(read.heads.into_iter().filter(|head| room(head) > 0));
            if named.is_empty() {
                heads.sort_by_key(|head| head.served);
                heads.truncate(wanted);
                return Ok(heads);
            }
        }
    }

    /// Reads origins in one script.
    async fn read_heads(
        &self,
        args: &Args,
        now: Timestamp,
        wakes: &mut usize,
    ) -> Result<Heads, StoreError> {
        let mut answer = Reply::of(self.run(&HEADS, args).await?)?;
        let is_out_of_order = answer.flag()?;
        if is_out_of_order {
            *wakes = wakes.saturating_sub(1);
        }
        let mut read = Heads {
            is_out_of_order,
            passed: answer.number()?,
            has_more: answer.flag()?,
            heads: Vec::new(),
        };
        for head in answer.list()? {
            let mut head = Reply::of(head)?;
            let name = head.bytes()?;
            match readable_or_none(Head::read(&name, head))? {
                Some(head) => read.heads.push(head),
                None => self.park(&name, now).await?,
            }
        }
        Ok(read)
    }

    /// Claims up to the given number of rows of each origin.
    pub(super) async fn take(
        &self,
        shares: &[(&Origin, usize)],
        request: &ClaimRequest,
        (worker, now): (Option<WorkerId>, Timestamp),
        taken: &mut HashMap<Origin, usize>,
        claims: &mut Claims,
    ) -> Result<(), StoreError> {
        let leased_until = now + request.lease;
        let mut args = Args::at(now).time(leased_until);
        // An empty value for none.
        args.push(worker.map_or_else(String::new, |worker| worker.to_string()));
        for (origin, share) in shares {
            args = args.with(origin.as_str()).number(share);
        }
        let mut answer = Reply::of(self.run(&CLAIM, &args).await?)?;
        let fence = parse(&answer.bytes()?)?;
        for row in answer.list()? {
            let mut row = Reply::of(row)?;
            let origin = origin_of(&row.bytes()?)?;
            let broadcast = BroadcastId::from_bytes(row.array()?);
            // One whose name cannot be read stays leased: the others are claimed with their messages.
            let Ok(key) = row.array().map(EndpointKey::from_bytes) else {
                continue;
            };
            // Only counted on: damage must not end the claim.
            let attempt = row
                .number()
                .ok()
                .and_then(|number| u32::try_from(number).ok());
            let attempt = attempt.unwrap_or(u32::MAX);
            *taken.entry(origin.clone()).or_default() += 1;
            let token = ClaimToken::new(broadcast, key, fence);
            claims
                .rows
                .push(Claimed::new(token, origin, attempt, leased_until));
        }
        for content in answer.list()? {
            let mut content = Reply::of(content)?;
            let id = BroadcastId::from_bytes(content.array()?);
            let mut read = || {
                let times = (content.time()?, content.time()?);
                message(content.fields()?, times)
            };
            // One that cannot be read is left out, and its rows are claimed all the same (L5).
            if let Ok(message) = read() {
                claims.messages.insert(id, message);
            }
        }
        // Others may stand behind them.
        claims.more |= answer.flag()?;
        Ok(())
    }

    pub(super) async fn samples_of(
        &self,
        id: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        let inner = &*self.inner;
        let mut key = format!("{}:f:", inner.namespace).into_bytes();
        key.extend(id.as_bytes());
        let mut cmd = redis::cmd("GET");
        cmd.arg(key);
        let samples = bytes_or_nil(inner.link.send(&cmd, inner.limits).await?)?;
        Ok(samples.map_or_else(Vec::new, |samples| read(&String::from_utf8_lossy(&samples))))
    }

    pub(super) async fn settle_rows(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut answers = Vec::with_capacity(rows.len());
        for rows in rows.chunks(SETTLED_AT_ONCE) {
            let mut args = Args::at(now);
            for (token, settlement) in rows {
                let what = match settlement {
                    Settlement::Finished(outcome) => outcome.as_str().to_owned(),
                    Settlement::Failed(outcome, cause) => {
                        let sample = FailureSample {
                            key: token.key,
                            at: now,
                            outcome: *outcome,
                            cause: *cause,
                        };
                        format!("{outcome}!{}", line(&sample))
                    }
                    Settlement::RetryAt(at) => format!("+{}", at.as_millis()),
                    Settlement::Deferred(at) => format!("-{}", at.as_millis()),
                };
                args = args
                    .with(*token.broadcast.as_bytes())
                    .with(*token.key.as_bytes())
                    .number(token.fence)
                    .with(what);
            }
            let held = bytes(self.run(&SETTLE, &args).await?)?;
            answers.extend(held.iter().map(|held| match held {
                b'1' => Settled::Done,
                _ => Settled::Lost,
            }));
        }
        Ok(answers)
    }
}

impl Head {
    fn read(name: &[u8], mut parts: Reply) -> Result<Self, StoreError> {
        Ok(Self {
            origin: origin_of(name)?,
            served: parts.number()?,
            is_probed: parts.flag()?,
            rows: usize::try_from(parts.number()?).unwrap_or(usize::MAX),
            is_exact: parts.flag()?,
        })
    }
}

/// Groups shares into batches for one script each, splitting larger ones.
fn batches(shares: Vec<(&Head, usize)>) -> Vec<Vec<(&Origin, usize)>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut room = CLAIMED_AT_ONCE;
    for (head, mut share) in shares {
        while share > 0 {
            let part = share.min(room);
            batch.push((&head.origin, part));
            share -= part;
            room -= part;
            if room == 0 {
                batches.push(std::mem::take(&mut batch));
                room = CLAIMED_AT_ONCE;
            }
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_script_claims_more_than_its_part() {
        let heads = ["a", "b", "c"].map(|name| Head {
            origin: Origin::parse(&format!("https://{name}.example")).unwrap(),
            served: 0,
            is_probed: false,
            rows: 1000,
            is_exact: true,
        });
        let [a, b, c] = &heads;
        let batches = batches(vec![(a, 200), (b, 0), (c, 400)]);
        let (a, c) = (&a.origin, &c.origin);
        let expected = [vec![(a, 200), (c, 56)], vec![(c, 256)], vec![(c, 88)]];
        assert_eq!(batches, expected);
    }
}
