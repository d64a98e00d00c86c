//! L5 to L8: claiming rows, settling and releasing them.

use std::collections::{HashMap, HashSet};

use super::Handles;
use super::sample::{
    LEASE, at, broadcast, claim, claim_as, delivery, origin, recipient, sending, sending_as, tag,
    unknown_id,
};
use crate::broadcast::{Audience, BroadcastState, FinalOutcome, Principal};
use crate::store::{
    ClaimRequest, Claimed, Cursor, DeliveryLedger, Pause, PauseReason, STEP, Settled, Settlement,
};

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

fn count(rows: &[Claimed], name: &str) -> usize {
    let origin = origin(name);
    rows.iter().filter(|row| row.origin == origin).count()
}

/// L5: due rows are leased once, and their attempt is counted.
pub async fn l5_a_claim_leases_due_rows<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1), delivery("b", 2)], at(0)).await;
    let rows = claim(ledger, 9, at(0)).await;
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!((row.token.broadcast, row.attempt), (id, 1));
        let expected = if row.token.key == recipient(1) {
            "a"
        } else {
            "b"
        };
        assert_eq!(row.origin, origin(expected));
    }
    assert_eq!(claim(ledger, 9, at(0)).await.len(), 0, "they are leased");
    let status = ledger.status(id, at(0)).await.unwrap().unwrap();
    assert_eq!(status.counts.pending, 2);
    assert_eq!(claim(ledger, 0, at(0)).await.len(), 0);
}

/// L5: a claim says for which user a message is.
pub async fn l5_a_message_to_a_user_is_only_for_this_user<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let users = ["alice", "{\"ids\":[\"ä\"]}"];
    let mut expected = HashMap::new();
    for (number, audience) in [
        Audience::user(users[0]),
        Audience::user(users[1]),
        Audience::All,
        Audience::Tag(tag("alice")),
        Audience::Ids(vec![unknown_id(); 3]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut new = broadcast();
        new.audience = audience;
        let row = delivery("a", u32::try_from(number).unwrap());
        sending_as(ledger, &new, &[row], at(0)).await;
        expected.insert(new.id, users.get(number).copied().map(Principal::from));
    }
    let request = ClaimRequest::new(9, LEASE);
    for (store, now) in [(ledger, at(0)), (h.second(), at(0) + LEASE)] {
        let claims = store.claim(&request, now).await.unwrap();
        assert_eq!(claims.rows.len(), 5);
        let messages = claims.messages.into_iter();
        let only_for: HashMap<_, _> = messages
            .map(|(id, message)| (id, message.only_for))
            .collect();
        assert_eq!(only_for, expected);
    }
}

/// L5: a row whose lease has ended is claimed again with another token.
pub async fn l5_a_lease_that_ended_is_claimed_again<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    sending(h.store(), &[delivery("a", 1)], at(0)).await;
    let first = claim(h.store(), 9, at(0)).await;
    let last_moment = at(0) + LEASE - std::time::Duration::from_millis(1);
    assert_eq!(claim(h.second(), 9, last_moment).await.len(), 0);
    let second = claim(h.second(), 9, at(0) + LEASE).await;
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].attempt, 2);
    assert!(second[0].token.fence > first[0].token.fence);
}

/// L5: an origin with few rows does not wait for one with many.
pub async fn l5_a_claim_is_fair_over_origins<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut rows: Vec<_> = (0..60).map(|n| delivery("many", n)).collect();
    sending(ledger, &rows, at(0)).await;
    rows = (0..3).map(|n| delivery("few", 100 + n)).collect();
    rows.push(delivery("one", 200));
    sending(ledger, &rows, at(1)).await;
    let rows = claim(ledger, 12, at(2)).await;
    assert_eq!(rows.len(), 12);
    assert_eq!((count(&rows, "few"), count(&rows, "one")), (3, 1));
    assert_eq!(count(&rows, "many"), 8, "no other origin needs the rest");
}

/// L5: with more origins than rows to claim, origins take turns.
pub async fn l5_every_origin_gets_its_turn<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..40)
        .map(|n| delivery(&format!("o{}", n % 8), n))
        .collect();
    sending(ledger, &rows, at(0)).await;
    let mut served = HashSet::new();
    for _ in 0..4 {
        let rows = claim(ledger, 2, at(1)).await;
        served.extend(rows.iter().map(|row| row.origin.clone()));
    }
    assert_eq!(served.len(), 8);
}

/// L5: origins take turns whatever the number of rows of a claim, and of those of one origin.
pub async fn l5_origins_take_turns_at_any_limit<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    const ORIGINS: u32 = 8;
    let ledger = h.store();
    for (limit, per_origin) in [(1, 9), (1, 1), (2, 1), (3, 1), (3, 9), (5, 2), (7, 1)] {
        let rows: Vec<_> = (0..ORIGINS * 10)
            .map(|n| delivery(&format!("o{}", n % ORIGINS), n))
            .collect();
        sending(ledger, &rows, at(0)).await;
        let mut request = ClaimRequest::new(limit, LEASE);
        request.per_origin = per_origin;
        let mut claimed = Vec::new();
        for turn in 0..3 {
            let mut served = HashSet::new();
            for _ in 0..(ORIGINS as usize).div_ceil(limit) {
                let rows = claim_as(h.second(), &request, at(1)).await;
                assert_eq!(rows.len(), limit);
                served.extend(rows.iter().map(|row| row.origin.clone()));
                claimed.extend(rows);
            }
            let what = format!("turn {turn} of {limit} rows, {per_origin} of one");
            assert_eq!(served.len(), ORIGINS as usize, "{what}");
        }
        claimed.extend(claim(ledger, rows.len(), at(1)).await);
        assert_eq!(claimed.len(), rows.len());
        let ends: Vec<_> = claimed.iter().map(|row| (row.token, ACCEPTED)).collect();
        ledger.settle(&ends, at(1)).await.unwrap();
    }
}

/// L5: the limit of an origin holds, however many broadcasts have rows there.
pub async fn l5_the_limit_of_an_origin_holds_over_many_broadcasts<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    for broadcast in 0..40 {
        let rows = if broadcast < 32 { 1 } else { 20 };
        let numbers = broadcast * 100..broadcast * 100 + rows;
        let rows: Vec<_> = numbers.map(|n| delivery("a", n)).collect();
        sending(ledger, &rows, at(0)).await;
    }
    let mut request = ClaimRequest::new(150, LEASE);
    request.per_origin = 60;
    assert_eq!(claim_as(ledger, &request, at(1)).await.len(), 60);
    request.per_origin = 0;
    request.origins = [(origin("a"), 50)].into();
    assert_eq!(claim_as(h.second(), &request, at(1)).await.len(), 50);
    assert_eq!(claim(ledger, 150, at(1)).await.len(), 32 + 8 * 20 - 110);
}

/// L5: limits by origin, and excluded and paused origins.
pub async fn l5_a_claim_leaves_out_what_it_is_told<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    for name in ["a", "b", "c"] {
        let number = |n| u32::from(name.as_bytes()[0]) * 100 + n;
        let rows: Vec<_> = (0..5).map(|n| delivery(name, number(n))).collect();
        sending(ledger, &rows, at(0)).await;
    }
    let pause = Pause::new(origin("c"), at(10), PauseReason::RateLimited);
    ledger.pause(&pause, at(0)).await.unwrap();
    let mut request = ClaimRequest::new(100, LEASE);
    request.per_origin = 2;
    request.origins.insert(origin("b"), 0);
    let rows = claim_as(ledger, &request, at(1)).await;
    assert_eq!((rows.len(), count(&rows, "a")), (2, 2));
    request.origins.insert(origin("b"), 3);
    request.per_origin = 4;
    let rows = claim_as(ledger, &request, at(1)).await;
    assert_eq!((count(&rows, "a"), count(&rows, "b")), (3, 3));
    assert_eq!(count(&rows, "c"), 0);
    let rows = claim_as(ledger, &request, at(10)).await;
    assert_eq!(count(&rows, "c"), 4, "the pause is over");
}

/// L5: origins that the request does not admit may be many, and stand in front.
pub async fn l5_origins_without_room_hold_up_no_others<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let many = 2 * STEP as u32;
    let rows: Vec<_> = (0..many)
        .map(|n| delivery(&format!("o{n}"), n))
        .chain([delivery("z", many)])
        .collect();
    for page in rows.chunks(STEP) {
        sending(ledger, page, at(0)).await;
    }
    let mut request = ClaimRequest::new(9, LEASE);
    request.per_origin = 0;
    request.origins = [(origin("z"), 1)].into();
    let mut claims = ledger.claim(&request, at(1)).await.unwrap();
    while claims.rows.is_empty() {
        assert!(claims.more, "what it admits is not claimed");
        claims = ledger.claim(&request, at(1)).await.unwrap();
    }
    assert_eq!(count(&claims.rows, "z"), 1);
}

/// L5: if it admits named origins only, these take turns, and no other is claimed from.
pub async fn l5_named_origins_take_turns<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..40)
        .map(|n| delivery(&format!("o{}", n % 8), n))
        .collect();
    sending(ledger, &rows, at(0)).await;
    let pause = Pause::new(origin("o6"), at(10), PauseReason::RateLimited);
    ledger.pause(&pause, at(0)).await.unwrap();
    let mut request = ClaimRequest::new(2, LEASE);
    request.per_origin = 0;
    let named = ["o1", "o2", "o3", "o4", "o5", "o6", "unknown"];
    request.origins = named.map(|name| (origin(name), 9)).into();
    request.origins.insert(origin("o7"), 0);
    let mut served = HashSet::new();
    for _ in 0..3 {
        let rows = claim_as(h.second(), &request, at(1)).await;
        assert_eq!(rows.len(), 2);
        served.extend(rows.iter().map(|row| row.origin.clone()));
    }
    let expected = ["o1", "o2", "o3", "o4", "o5"].map(origin);
    assert_eq!(served, expected.into());
    request.limit = 100;
    let rows = claim_as(ledger, &request, at(1)).await;
    assert_eq!(rows.len(), 5 * 5 - 6);
    let rows = claim_as(ledger, &request, at(10)).await;
    assert_eq!(
        (rows.len(), count(&rows, "o6")),
        (5, 5),
        "the pause is over"
    );
    request.origins.clear();
    assert_eq!(claim_as(ledger, &request, at(10)).await.len(), 0);
}

/// L5: origins whose rows have ended may be many, and stand in front. A claim that looks only at some of them says so.
pub async fn l5_origins_without_rows_hold_up_no_others<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let many = 2 * STEP as u32 + 9;
    let rows: Vec<_> = (0..many).map(|n| delivery(&format!("o{n}"), n)).collect();
    let mut ids = Vec::new();
    for page in rows.chunks(STEP) {
        ids.push(sending(ledger, page, at(0)).await);
    }
    // All get a turn.
    let one = ClaimRequest::new(1, LEASE);
    while ledger.claim(&one, at(1)).await.unwrap().more {}
    for id in ids {
        let mut left = u64::MAX;
        loop {
            let status = ledger.cancel(id, at(2)).await.unwrap().unwrap();
            match status.counts.pending == left {
                true => break,
                false => left = status.counts.pending,
            }
        }
    }
    sending(ledger, &[delivery("z", many)], at(2)).await;
    let request = ClaimRequest::new(9, LEASE);
    let mut claims = h.second().claim(&request, at(3)).await.unwrap();
    while claims.rows.is_empty() {
        assert!(claims.more, "the ready row is not claimed");
        claims = h.second().claim(&request, at(3)).await.unwrap();
    }
    assert_eq!(count(&claims.rows, "z"), 1);
}

/// L5: after a probed pause one row of one claimant is the probe until its lease ends.
pub async fn l5_one_claimant_probes_a_paused_origin<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..5).map(|n| delivery("a", n)).collect();
    sending(ledger, &rows, at(0)).await;
    for reason in [PauseReason::SenderFault, PauseReason::Unreachable] {
        let pause = Pause::new(origin("a"), at(10), reason);
        ledger.pause(&pause, at(0)).await.unwrap();
        assert_eq!(claim(ledger, 9, at(9)).await.len(), 0);
        let probe = claim(ledger, 9, at(10)).await;
        assert_eq!(probe.len(), 1);
        assert_eq!(claim(h.second(), 9, at(11)).await.len(), 0, "one asks");
        let pauses = h.second().pauses(at(11)).await.unwrap();
        assert_eq!(pauses[0].until, at(10) + LEASE);
        assert_eq!(pauses[0].reason, reason);
        // The probe was not settled: another one follows.
        let next = claim(h.second(), 9, at(10) + LEASE).await;
        assert_eq!(next.len(), 1);
        let lift = Pause::new(origin("a"), at(0), reason);
        let then = at(11) + LEASE;
        h.second().pause(&lift, then).await.unwrap();
        let rest = claim(ledger, 9, then).await;
        assert_eq!(rest.len(), 4, "all but the probe");
        let tokens: Vec<_> = rest.iter().chain(&next).map(|row| row.token).collect();
        ledger.release(&tokens, at(0)).await.unwrap();
    }
}

/// L5: of several concurrent claims one probes a paused origin.
pub async fn l5_one_of_many_concurrent_claims_probes<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let names = ["a", "b", "c", "d", "e"];
    let rows: Vec<_> = (0..100)
        .map(|n| delivery(names[n % 5], u32::try_from(n).unwrap()))
        .collect();
    sending(h.store(), &rows, at(0)).await;
    for name in names {
        let pause = Pause::new(origin(name), at(10), PauseReason::Unreachable);
        h.store().pause(&pause, at(0)).await.unwrap();
    }
    let claims = h
        .race(
            8,
            |ledger, _| async move { claim(&*ledger, 50, at(10)).await },
        )
        .await;
    let mut probes: Vec<_> = claims.into_iter().flatten().collect();
    // One that no claim has taken, for others had locked it.
    probes.extend(claim(h.second(), 50, at(11)).await);
    let numbers = names.map(|name| count(&probes, name));
    assert_eq!(numbers, [1; 5], "one asks");
}

/// L5: after a settled probe without a new pause any claimant may take the next one.
pub async fn l5_the_end_of_a_probe_makes_room<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..5).map(|n| delivery("a", n)).collect();
    sending(ledger, &rows, at(0)).await;
    sending(ledger, &[delivery("b", 9)], at(0)).await;
    let pause = Pause::new(origin("a"), at(10), PauseReason::SenderFault);
    ledger.pause(&pause, at(0)).await.unwrap();
    let both = claim(ledger, 9, at(10)).await;
    assert_eq!((count(&both, "a"), count(&both, "b")), (1, 1));
    // Another row's settlement does not end the probe.
    let (probe, other) = match both[0].origin == origin("a") {
        true => (both[0].token, both[1].token),
        false => (both[1].token, both[0].token),
    };
    let gone = Settlement::Finished(FinalOutcome::Gone);
    ledger.settle(&[(other, gone)], at(11)).await.unwrap();
    assert_eq!(claim(h.second(), 9, at(11)).await.len(), 0);
    ledger.settle(&[(probe, gone)], at(12)).await.unwrap();
    let next = claim(h.second(), 9, at(12)).await;
    assert_eq!(next.len(), 1);
    ledger.release(&[next[0].token], at(13)).await.unwrap();
    let next = claim(ledger, 9, at(13)).await;
    assert_eq!(next.len(), 1);
    // A pause that was written meanwhile stays, and a spent token does not end a probe.
    let longer = Pause::new(origin("a"), at(500), PauseReason::SenderFault);
    h.second().pause(&longer, at(14)).await.unwrap();
    let again = Settlement::RetryAt(at(15));
    ledger
        .settle(&[(next[0].token, again)], at(15))
        .await
        .unwrap();
    ledger.settle(&[(probe, gone)], at(15)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(499)).await.len(), 0);
    assert_eq!(claim(ledger, 9, at(500)).await.len(), 1);
}

/// L5: the end of other rows, even of the same recipient, does not end a probe.
pub async fn l5_a_probe_outlives_another_row_of_its_recipient<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    sending(ledger, &[delivery("a", 1), delivery("a", 2)], at(0)).await;
    let mut short = broadcast();
    short.deadline = at(11);
    ledger.open(&short, at(5)).await.unwrap();
    let (start, end) = (Cursor::Start, Cursor::End);
    let rows = [delivery("a", 1), delivery("a", 2)];
    ledger
        .enqueue_page(short.id, &start, &rows, &end, at(5))
        .await
        .unwrap();
    let pause = Pause::new(origin("a"), at(10), PauseReason::Unreachable);
    ledger.pause(&pause, at(5)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(10)).await.len(), 1);
    assert_eq!(ledger.expire(9, at(11)).await.unwrap(), 2);
    assert_eq!(claim(h.second(), 9, at(11)).await.len(), 0, "one asks");
    let pauses = ledger.pauses(at(11)).await.unwrap();
    assert_eq!(pauses[0].until, at(10) + LEASE);
}

/// L5: the end of a row that was claimed before the probe does not end it: here of one that was leased when its broadcast was
/// cancelled.
pub async fn l5_a_probe_outlives_a_row_that_was_claimed_before<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let cancelled = sending(ledger, &[delivery("a", 1)], at(0)).await;
    assert_eq!(claim(ledger, 9, at(0)).await.len(), 1);
    ledger.cancel(cancelled, at(1)).await.unwrap();
    sending(ledger, &[delivery("a", 2), delivery("a", 3)], at(1)).await;
    let pause = Pause::new(origin("a"), at(40), PauseReason::Unreachable);
    ledger.pause(&pause, at(1)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(40)).await.len(), 1);
    // The first of these ends the cancelled row, whose lease is over.
    for secs in [46, 47] {
        assert_eq!(claim(h.second(), 9, at(secs)).await.len(), 0, "one asks");
    }
    let end = ledger.status(cancelled, at(47)).await.unwrap().unwrap();
    assert_eq!((end.counts.cancelled, end.counts.pending), (1, 0));
    let pauses = ledger.pauses(at(47)).await.unwrap();
    assert_eq!(pauses[0].until, at(40) + LEASE);
}

/// L5: a cancelled row is never the probe.
pub async fn l5_a_probe_is_a_row_that_is_sent<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let first = sending(ledger, &[delivery("a", 1)], at(0)).await;
    sending(ledger, &[delivery("a", 2)], at(1)).await;
    assert_eq!(claim(ledger, 1, at(1)).await.len(), 1);
    ledger.cancel(first, at(2)).await.unwrap();
    let pause = Pause::new(origin("a"), at(90), PauseReason::SenderFault);
    ledger.pause(&pause, at(2)).await.unwrap();
    let probe = claim(ledger, 9, at(100)).await;
    assert_eq!(probe[0].token.key, recipient(2));
    let pauses = ledger.pauses(at(100)).await.unwrap();
    assert_eq!(pauses[0].until, at(100) + LEASE);
}

/// L6: each row goes to exactly one of several concurrent claims.
pub async fn l6_concurrent_claims_share_no_row<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let rows: Vec<_> = (0..100)
        .map(|n| delivery(["a", "b", "c"][n % 3], u32::try_from(n).unwrap()))
        .collect();
    sending(h.store(), &rows, at(0)).await;
    let claims = h
        .race(8, |ledger, _| async move {
            let mut rows = Vec::new();
            loop {
                let more = claim(&*ledger, 7, at(1)).await;
                if more.is_empty() {
                    return rows;
                }
                rows.extend(more);
            }
        })
        .await;
    let rows: Vec<_> = claims.into_iter().flatten().collect();
    let keys: HashSet<_> = rows.iter().map(|row| row.token.key).collect();
    assert_eq!((rows.len(), keys.len()), (100, 100));
    assert!(rows.iter().all(|row| row.attempt == 1));
}

/// L7: a finished row is deleted and counted. A postponed row becomes due at its time.
pub async fn l7_settling_ends_or_postpones<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows: Vec<_> = (0..12).map(|n| delivery("a", n)).collect();
    let id = sending(ledger, &rows, at(0)).await;
    let claimed = claim(ledger, 12, at(0)).await;
    let outcomes = FinalOutcome::ALL.iter().copied().map(Settlement::Finished);
    let retries = [at(60), at(5)].map(Settlement::RetryAt);
    let settlements: Vec<_> = claimed
        .iter()
        .map(|row| row.token)
        .zip(outcomes.chain(retries))
        .collect();
    let answers = h.second().settle(&settlements, at(1)).await.unwrap();
    assert_eq!(answers, [Settled::Done; 12]);
    let status = ledger.status(id, at(1)).await.unwrap().unwrap();
    for &outcome in FinalOutcome::ALL {
        assert_eq!(status.counts.of(outcome), 1, "{outcome}");
    }
    assert_eq!((status.counts.pending, status.recipients), (2, 12));
    assert_eq!(claim(ledger, 9, at(4)).await.len(), 0);
    let second = claim(ledger, 9, at(5)).await;
    assert_eq!(second.len(), 1);
    assert_eq!(
        (second[0].token.key, second[0].attempt),
        (claimed[11].token.key, 2)
    );
    assert_eq!(
        claim(ledger, 9, at(60)).await.len(),
        2,
        "and a lease has ended"
    );
    assert_eq!(ledger.settle(&[], at(60)).await.unwrap(), []);
}

/// L7: a token is invalid after another claim or its first use.
pub async fn l7_a_lost_token_settles_nothing<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1), delivery("a", 2)], at(0)).await;
    let first = claim(ledger, 9, at(0)).await;
    let second = claim(ledger, 9, at(100)).await;
    assert_eq!(second.len(), 2);
    let mut unknown = second[0].token;
    unknown.key = recipient(7);
    let settlements = [
        (first[0].token, ACCEPTED),
        (second[0].token, ACCEPTED),
        (first[1].token, Settlement::RetryAt(at(5))),
        (unknown, ACCEPTED),
        (second[0].token, ACCEPTED),
        (second[1].token, Settlement::RetryAt(at(101))),
        (second[1].token, ACCEPTED),
    ];
    let answers = ledger.settle(&settlements, at(100)).await.unwrap();
    let done = [false, true, false, false, false, true, false];
    let done = done.map(|done| if done { Settled::Done } else { Settled::Lost });
    assert_eq!(answers, done);
    let status = ledger.status(id, at(100)).await.unwrap().unwrap();
    assert_eq!((status.counts.accepted, status.counts.pending), (1, 1));
    assert_eq!(status.state, BroadcastState::Sending);
}

/// L7: a token stays valid after the end of its lease.
pub async fn l7_a_late_settlement_counts_where_nobody_claimed<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1)], at(0)).await;
    let claimed = claim(ledger, 9, at(0)).await;
    let late = at(1000);
    let answers = ledger.settle(&[(claimed[0].token, ACCEPTED)], late).await;
    assert_eq!(answers.unwrap(), [Settled::Done]);
    let status = ledger.status(id, late).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Done);
}

/// L7: one of several concurrent settlements of a token counts.
pub async fn l7_a_token_settles_once<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let id = sending(h.store(), &[delivery("a", 1), delivery("a", 2)], at(0)).await;
    let claimed = claim(h.store(), 9, at(0)).await;
    let token = claimed[0].token;
    let answers = h
        .race(6, move |ledger, _| async move {
            ledger.settle(&[(token, ACCEPTED)], at(1)).await.unwrap()
        })
        .await;
    let done = answers.iter().filter(|answer| answer[0] == Settled::Done);
    assert_eq!(done.count(), 1);
    let status = h.second().status(id, at(1)).await.unwrap().unwrap();
    assert_eq!((status.counts.accepted, status.counts.pending), (1, 1));
}

/// L7: a token is spent by its first use, even before its row is claimed again.
pub async fn l7_a_token_is_spent_by_its_first_use<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1), delivery("a", 2)], at(0)).await;
    let claimed = claim(ledger, 9, at(0)).await;
    let [retried, released] = [claimed[0].token, claimed[1].token];
    let retry = (retried, Settlement::RetryAt(at(5)));
    assert_eq!(
        ledger.settle(&[retry], at(1)).await.unwrap(),
        [Settled::Done]
    );
    ledger.release(&[released], at(1)).await.unwrap();
    for token in [retried, released] {
        for settlement in [ACCEPTED, Settlement::RetryAt(at(900))] {
            let again = h.second().settle(&[(token, settlement)], at(2)).await;
            assert_eq!(again.unwrap(), [Settled::Lost]);
        }
        // A spent token neither takes back the attempt nor makes the row due.
        h.second().release(&[token], at(2)).await.unwrap();
    }
    let status = ledger.status(id, at(2)).await.unwrap().unwrap();
    assert_eq!((status.counts.accepted, status.counts.pending), (0, 2));
    let now = claim(ledger, 9, at(2)).await;
    assert_eq!(now.len(), 1, "the retried row is not due yet");
    assert_eq!((now[0].token.key, now[0].attempt), (released.key, 1));
    let later = claim(ledger, 9, at(5)).await;
    assert_eq!((later[0].token.key, later[0].attempt), (retried.key, 2));
}

/// L7: a deferred row becomes due at its time with the same attempt.
pub async fn l7_a_deferred_row_is_due_then_without_an_attempt<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let id = sending(ledger, &[delivery("a", 1), delivery("b", 2)], at(0)).await;
    for (attempt, secs) in [(1, 0), (1, 60), (2, 105)] {
        if secs > 0 {
            assert_eq!(claim(ledger, 9, at(secs - 1)).await.len(), 0);
        }
        let claimed = claim(ledger, 9, at(secs)).await;
        assert_eq!(claimed.len(), 2, "at {secs}");
        assert!(claimed.iter().all(|row| row.attempt == attempt));
        if secs == 0 {
            let deferred = |row: &Claimed| (row.token, Settlement::Deferred(at(60)));
            let deferred: Vec<_> = claimed.iter().map(deferred).collect();
            let answers = h.second().settle(&deferred, at(1)).await.unwrap();
            assert_eq!(answers, [Settled::Done; 2]);
            assert_eq!(ledger.next_due(at(1)).await.unwrap(), Some(at(60)));
            // The token is spent.
            let again = ledger.settle(&deferred, at(2)).await.unwrap();
            assert_eq!(again, [Settled::Lost; 2]);
        }
    }
    let claimed = claim(ledger, 9, at(150)).await;
    ledger.cancel(id, at(151)).await.unwrap();
    let deferred = (claimed[0].token, Settlement::Deferred(at(170)));
    let answers = ledger.settle(&[deferred], at(152)).await.unwrap();
    assert_eq!(answers, [Settled::Done]);
    let status = ledger.status(id, at(152)).await.unwrap().unwrap();
    assert_eq!((status.counts.cancelled, status.counts.pending), (1, 1));
}

/// L8: a released row is due at once, as if it had not been claimed.
pub async fn l8_a_released_row_is_due_without_an_attempt<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    sending(ledger, &[delivery("a", 1), delivery("a", 2)], at(0)).await;
    let first = claim(ledger, 9, at(0)).await;
    let token = first[0].token;
    ledger.release(&[token], at(1)).await.unwrap();
    let again = claim(h.second(), 9, at(1)).await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].token.key, again[0].attempt), (token.key, 1));
    assert_ne!(again[0].token.fence, token.fence);
    // A spent token releases nothing.
    ledger.release(&[token], at(2)).await.unwrap();
    assert_eq!(claim(ledger, 9, at(2)).await.len(), 0);
    let answers = ledger.settle(&[(token, ACCEPTED)], at(2)).await.unwrap();
    assert_eq!(answers, [Settled::Lost]);
}
