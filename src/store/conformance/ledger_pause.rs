//! L5, L10, L11, L15 and L16: pauses, tallies and statistics.

use super::Handles;
use super::sample::{LEASE, at, broadcast, claim, delivery, origin, recipient, sending};
use crate::broadcast::{BroadcastStatus, FinalOutcome};
use crate::push_service::PushService;
use crate::store::{
    ClaimRequest, Cursor, DeliveryLedger, LedgerStats, NewDelivery, OldestDue, Pause, PauseReason,
    STEP, Settlement, Tally,
};
use crate::subscription::Origin;

fn pause(name: &str, until: i64, reason: PauseReason) -> Pause {
    Pause::new(origin(name), at(until), reason)
}

async fn pauses<L: DeliveryLedger + ?Sized>(ledger: &L, secs: i64) -> Vec<Pause> {
    let mut pauses = ledger.pauses(at(secs)).await.unwrap();
    pauses.sort_by_key(|pause| pause.origin.clone());
    pauses
}

/// L11: the pause with the later end holds, for every handle.
pub async fn l11_the_later_end_of_two_pauses_holds<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let long = pause("a", 60, PauseReason::RateLimited);
    let short = pause("a", 30, PauseReason::RateLimited);
    let other = pause("b", 20, PauseReason::RateLimited);
    for one in [&short, &long, &short, &other] {
        h.store().pause(one, at(0)).await.unwrap();
    }
    assert_eq!(pauses(h.second(), 1).await, [long.clone(), other]);
    assert_eq!(pauses(h.second(), 20).await, [long]);
    assert_eq!(pauses(h.second(), 60).await, []);
    // A pause that is over does not affect later ones.
    let next = pause("a", 90, PauseReason::RateLimited);
    h.store().pause(&next, at(61)).await.unwrap();
    assert_eq!(pauses(h.second(), 61).await, [next]);
}

/// L11: the pause with the latest end holds, whichever is written last.
pub async fn l11_the_latest_end_of_concurrent_pauses_holds<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    for number in 0..10 {
        let name = format!("o{number}");
        h.race(8, |ledger, n| {
            let until = 60 + 10 * i64::try_from(n).unwrap();
            let pause = pause(&name, until, PauseReason::RateLimited);
            async move { ledger.pause(&pause, at(0)).await.unwrap() }
        })
        .await;
    }
    let ends = pauses(h.second(), 1).await;
    let ends: Vec<_> = ends.iter().map(|pause| pause.until).collect();
    assert_eq!(ends, [at(130); 10]);
}

/// L11: a probed pause keeps its reason and details until it is lifted.
pub async fn l11_a_probed_pause_ends_by_being_lifted<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut fault = pause("a", 60, PauseReason::SenderFault);
    fault.closures = 3;
    fault.contact = Some("mailto:ops@example.com".to_owned());
    ledger.pause(&fault, at(0)).await.unwrap();
    assert_eq!(pauses(h.second(), 61).await, [fault.clone()]);
    let limit = pause("a", 90, PauseReason::RateLimited);
    h.second().pause(&limit, at(61)).await.unwrap();
    fault.until = at(90);
    assert_eq!(pauses(ledger, 99).await, [fault]);
    let lift = pause("a", 99, PauseReason::SenderFault);
    h.second().pause(&lift, at(99)).await.unwrap();
    assert_eq!(pauses(ledger, 99).await, []);
    // The next pause inherits nothing.
    let next = pause("a", 120, PauseReason::SenderFault);
    h.second().pause(&next, at(99)).await.unwrap();
    assert_eq!(pauses(ledger, 100).await, [next]);
}

/// L11: an end that is not after now lifts the pause.
pub async fn l11_a_past_end_lifts_the_pause<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    sending(ledger, &[delivery("a", 1)], at(0)).await;
    ledger
        .pause(&pause("a", 60, PauseReason::RateLimited), at(0))
        .await
        .unwrap();
    assert_eq!(claim(h.second(), 9, at(5)).await.len(), 0);
    let lift = pause("a", 5, PauseReason::RateLimited);
    h.second().pause(&lift, at(5)).await.unwrap();
    assert_eq!(pauses(ledger, 5).await, []);
    assert_eq!(claim(ledger, 9, at(5)).await.len(), 1);
}

/// The statistics: depth, leases and the oldest due row.
pub async fn l10_the_statistics_follow_the_rows<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    // Which push service it is of may be left out.
    let plain = |stats: LedgerStats| LedgerStats::new(stats.depth, stats.leased, stats.oldest_due);
    let stats = async |secs| plain(ledger.stats(at(secs)).await.unwrap());
    assert_eq!(stats(0).await, LedgerStats::new(0, 0, None));
    let new = broadcast();
    ledger.open(&new, at(0)).await.unwrap();
    let rows: Vec<_> = (0..4).map(|n| delivery("a", n)).collect();
    ledger
        .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0))
        .await
        .unwrap();
    assert_eq!(stats(5).await, LedgerStats::new(4, 0, Some(at(0))));
    let claimed = claim(ledger, 3, at(5)).await;
    assert_eq!(stats(6).await, LedgerStats::new(4, 3, Some(at(0))));
    let lapsed = plain(ledger.stats(at(5) + LEASE).await.unwrap());
    assert_eq!(lapsed, LedgerStats::new(4, 0, Some(at(0))));
    let settlements = [
        (claimed[0].token, Settlement::Finished(FinalOutcome::Gone)),
        (claimed[1].token, Settlement::RetryAt(at(99))),
    ];
    ledger.settle(&settlements, at(6)).await.unwrap();
    assert_eq!(stats(6).await, LedgerStats::new(3, 1, Some(at(0))));
    ledger.cancel(new.id, at(7)).await.unwrap();
    assert_eq!(stats(7).await, LedgerStats::new(1, 1, None));
}

/// The oldest due row of each push service, paused or not, of a ledger that tells them apart.
pub async fn l10_the_oldest_due_row_is_told_by_push_service<L: DeliveryLedger + ?Sized>(
    h: &Handles<L>,
) {
    let ledger = h.store();
    let at_origin = |host: &str, number| {
        let origin = Origin::parse(&format!("https://{host}")).unwrap();
        NewDelivery::new(recipient(number), origin)
    };
    let (fcm, apple) = ("fcm.googleapis.com", "web.push.apple.com");
    sending(ledger, &[at_origin(fcm, 1)], at(3)).await;
    sending(ledger, &[at_origin(apple, 2), delivery("a", 3)], at(5)).await;
    sending(ledger, &[at_origin(fcm, 4)], at(7)).await;
    let origin = at_origin(apple, 2).origin;
    let pause = Pause::new(origin, at(60), PauseReason::RateLimited);
    ledger.pause(&pause, at(6)).await.unwrap();
    let stats = h.second().stats(at(9)).await.unwrap();
    assert_eq!(stats.oldest_due, Some(at(3)));
    if stats.oldest_due_at == OldestDue::default() {
        return;
    }
    for (service, due) in [
        (PushService::Fcm, Some(at(3))),
        (PushService::Apple, Some(at(5))),
        (PushService::Other, Some(at(5))),
        (PushService::Mozilla, None),
    ] {
        assert_eq!(stats.oldest_due_at.at(service), due, "{service:?}");
    }
    // One whose retry is due, before the next claim gives it a turn.
    let claimed = claim(ledger, 9, at(9)).await;
    let settled: Vec<_> = claimed
        .iter()
        .map(|row| match row.token.key == recipient(1) {
            true => (row.token, Settlement::RetryAt(at(20))),
            false => (row.token, Settlement::Finished(FinalOutcome::Gone)),
        })
        .collect();
    assert_eq!(settled.len(), 3);
    ledger.settle(&settled, at(10)).await.unwrap();
    let stats = ledger.stats(at(30)).await.unwrap();
    for (service, due) in [
        (PushService::Fcm, Some(at(20))),
        (PushService::Apple, Some(at(5))),
        (PushService::Other, None),
    ] {
        assert_eq!(stats.oldest_due_at.at(service), due, "{service:?}");
    }
}

/// The statistics look at a bounded number of origins, and always at those of known push services, paused or not. All others hang:
/// they stand in front.
pub async fn l10_no_number_of_other_origins_hides_a_late_push_service<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    let ledger = h.store();
    let at_origin = |host: &str, number| {
        let origin = Origin::parse(&format!("https://{host}")).unwrap();
        NewDelivery::new(recipient(number), origin)
    };
    let number = u32::try_from(STEP).unwrap() + 1;
    let strangers = (0..number).map(|number| at_origin(&format!("a{number}.example"), number));
    let strangers: Vec<_> = strangers.collect();
    sending(ledger, &strangers, at(1)).await;
    let known = [
        (PushService::Fcm, "fcm.googleapis.com"),
        (PushService::Apple, "web.push.apple.com"),
    ];
    let hosts = (number..).zip(known);
    let rows: Vec<_> = hosts
        .map(|(number, (_, host))| at_origin(host, number))
        .collect();
    sending(ledger, &rows, at(3)).await;
    let pause = Pause::new(rows[1].origin.clone(), at(9_000), PauseReason::RateLimited);
    ledger.pause(&pause, at(4)).await.unwrap();
    // Origins get their turns, and paused ones leave the order.
    let mut request = ClaimRequest::new(9, LEASE);
    request.per_origin = 0;
    for _ in 0..5 {
        ledger.claim(&request, at(5)).await.unwrap();
    }
    let stats = h.second().stats(at(60)).await.unwrap();
    assert_eq!(stats.oldest_due, Some(at(1)));
    if stats.oldest_due_at == OldestDue::default() {
        return;
    }
    for (service, host) in known {
        assert_eq!(stats.oldest_due_at.at(service), Some(at(3)), "{host}");
    }
}

/// L15: sums by origin, for every handle. Old answers fade.
pub async fn l15_tallies_add_up_per_origin<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let counts = [
        (origin("a"), Tally::new(3, 1)),
        (origin("b"), Tally::new(2, 0)),
        (origin("a"), Tally::new(1, 1)),
    ];
    let sums = ledger.tally(&counts, at(0)).await.unwrap();
    assert_eq!(sums, [Tally::new(3, 1), Tally::new(2, 0), Tally::new(4, 2)]);
    let nothing = [
        (origin("c"), Tally::default()),
        (origin("b"), Tally::default()),
    ];
    let sums = h.second().tally(&nothing, at(1)).await.unwrap();
    assert_eq!(sums, [Tally::default(), Tally::new(2, 0)]);
    let tallies = h.second().tallies().await.unwrap();
    assert_eq!(tallies, [(origin("a"), Tally::new(4, 2))]);
    let many = [(origin("a"), Tally::new(1_000, 0))];
    let sums = ledger.tally(&many, at(2)).await.unwrap();
    assert_eq!(sums, [Tally::new(4, 2).plus(Tally::new(1_000, 0))]);
}

/// L15: no concurrent addition is lost.
pub async fn l15_concurrent_tallies_lose_nothing<L>(h: &Handles<L>)
where
    L: DeliveryLedger + ?Sized,
{
    h.race(8, |ledger, _| async move {
        for _ in 0..5 {
            let one = [(origin("a"), Tally::new(1, 1))];
            ledger.tally(&one, at(0)).await.unwrap();
        }
    })
    .await;
    let tallies = h.store().tallies().await.unwrap();
    assert_eq!(tallies, [(origin("a"), Tally::new(40, 40))]);
}

/// L16: open broadcasts by deadline.
pub async fn l16_broadcasts_underway_are_listed<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let mut later = broadcast();
    later.deadline = at(500);
    later.send_at = Some(at(50));
    let mut sooner = broadcast();
    sooner.deadline = at(400);
    for new in [&later, &sooner] {
        ledger.open(new, at(0)).await.unwrap();
    }
    let ids = |listed: Vec<BroadcastStatus>| -> Vec<_> {
        listed.into_iter().map(|status| status.id).collect()
    };
    let listed = h.second().underway(9, at(1)).await.unwrap();
    let status = ledger.status(sooner.id, at(1)).await.unwrap();
    assert_eq!(Some(&listed[0]), status.as_ref());
    assert_eq!(ids(listed), [sooner.id, later.id]);
    assert_eq!(ids(ledger.underway(1, at(1)).await.unwrap()), [sooner.id]);
    ledger.cancel(sooner.id, at(2)).await.unwrap();
    assert_eq!(ids(ledger.underway(9, at(2)).await.unwrap()), [later.id]);
}

/// L5: each paused origin has a probe of its own, also where one claim took them.
pub async fn l5_each_paused_origin_has_its_own_probe<L: DeliveryLedger + ?Sized>(h: &Handles<L>) {
    let ledger = h.store();
    let rows = [("a", 1), ("a", 2), ("b", 3), ("b", 4)];
    let rows = rows.map(|(name, number)| delivery(name, number));
    sending(ledger, &rows, at(0)).await;
    for name in ["a", "b"] {
        let pause = pause(name, 10, PauseReason::SenderFault);
        ledger.pause(&pause, at(0)).await.unwrap();
    }
    let probes = claim(ledger, 9, at(10)).await;
    assert_eq!(probes.len(), 2);
    let gone = Settlement::Finished(FinalOutcome::Gone);
    let settled = [(probes[0].token, gone)];
    ledger.settle(&settled, at(11)).await.unwrap();
    let next = claim(h.second(), 9, at(11)).await;
    let origins: Vec<_> = next.iter().map(|row| &row.origin).collect();
    assert_eq!(origins, [&probes[0].origin]);
}
