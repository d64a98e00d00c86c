//! What follows from what, by name; and which requests are made.

use http::{HeaderMap, StatusCode};

use super::*;
use crate::deliver::{
    Accepted as Acceptance, Closed, PushService, ResolveError, ResolveErrorKind, Verdict,
};
use crate::message::Ttl;
use crate::p256::UaSecretKey;
use crate::store::{PauseReason, Retired, Settlement};
use crate::subscription::{AuthSecret, Subscription, SubscriptionId};
use FinalOutcome::*;
use Settlement::{Deferred, Finished, RetryAt};

type Answer = Result<Acceptance, DeliveryError>;

/// When the attempt begins; the answer comes two seconds later.
const BEGAN: Timestamp = Timestamp::from_secs(1_000_000);
const NOW: Timestamp = Timestamp::from_secs(1_000_002);
const DEADLINE: Timestamp = Timestamp::from_secs(1_003_600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEKS: Duration = Duration::from_secs(21 * 24 * 3600);
const MILLI: Duration = Duration::from_millis(1);
/// A pause of 4 seconds after the second attempt, three attempts in all.
const POLICY: RetryPolicy = RetryPolicy::new(Duration::from_secs(2), HOUR, 3);
const PAUSED: Timestamp = Timestamp::from_millis(NOW.as_millis() + 3_999);

fn own_key() -> Arc<VapidKey> {
    Arc::new(VapidKey::generate().unwrap())
}

/// A row that was last posted an hour ago, and reached just before.
fn record(own: &VapidKey) -> SubscriptionRecord {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let endpoint = "https://push.example.com/1".parse().unwrap();
    let subscription = Subscription::new(endpoint, *secret.public(), auth);
    let id = SubscriptionId::random();
    let mut record = SubscriptionRecord::new(id, subscription, own.id(), BEGAN - HOUR);
    record.last_success_at = Some(BEGAN - MINUTE);
    record
}

fn attempt(record: &SubscriptionRecord, number: u32) -> Attempt<'_> {
    let message = Message::new("hello").with_ttl(Ttl::from_secs(3600));
    Attempt::new(record, message, BEGAN, number, BEGAN).with_policy(POLICY)
}

fn accepted() -> Answer {
    let headers = HeaderMap::new();
    Ok(Acceptance::new(
        PushService::Other,
        StatusCode::CREATED,
        &headers,
    ))
}

fn error(outcome: Outcome, retry_after: Option<Duration>) -> Answer {
    let verdict = Verdict {
        outcome,
        reason: None,
        retry_after,
    };
    Err(DeliveryError::answered(
        PushService::Other,
        StatusCode::BAD_REQUEST,
        &HeaderMap::new(),
        verdict,
    ))
}

/// A delivery that ended after a response of [`error`].
fn failed(outcome: FinalOutcome) -> Consequence {
    let failure = Failure::new(Some(400), None);
    Consequence {
        cause: Some(FailureCause::new(PushService::Other, failure)),
        ..Consequence::finished(outcome)
    }
}

/// The push service answered with this status, which is a bad request.
fn answered(status: u16) -> Answer {
    let verdict = Verdict {
        outcome: Outcome::BadRequest,
        reason: None,
        retry_after: None,
    };
    let status = StatusCode::from_u16(status).unwrap();
    let headers = HeaderMap::new();
    Err(DeliveryError::answered(
        PushService::Other,
        status,
        &headers,
        verdict,
    ))
}

fn host_not_found() -> Answer {
    let lookup = ResolveError::from(ResolveErrorKind::NotFound);
    Err(DeliveryError::client(PushService::Other, lookup.into()))
}

/// Never accepted, and failing since this time ago.
fn invented(ago: Duration, failures: u32) -> impl Fn(&mut SubscriptionRecord) {
    move |row| {
        row.last_success_at = None;
        row.last_seen_at = BEGAN - HOUR * 24 * 100;
        row.failing_since = Some(BEGAN - ago);
        row.failure_streak = failures;
    }
}

/// Accepted and posted long ago, and failing since this time ago.
fn silent(ago: Duration, failures: u32) -> impl Fn(&mut SubscriptionRecord) {
    move |row| {
        row.last_seen_at = BEGAN - HOUR * 24 * 100;
        row.last_success_at = Some(BEGAN - HOUR * 24 * 50);
        row.failing_since = Some(BEGAN - ago);
        row.failure_streak = failures;
    }
}

fn closed_until(until: Timestamp) -> Answer {
    let closed = Closed::new(until, PauseReason::RateLimited);
    Err(DeliveryError::closed_gate(PushService::Other, closed, NOW))
}

/// What follows where each key is answered in turn.
fn after(mut attempt: Attempt<'_>, answers: impl IntoIterator<Item = Answer>) -> Consequence {
    let mut answers = answers.into_iter();
    while attempt.next_push(BEGAN).is_some() {
        let answer = answers.next().expect("an answer for each request");
        attempt.answered(&answer, NOW, Jitter::FULL);
    }
    assert!(answers.next().is_none(), "no request for this answer");
    attempt.end(NOW)
}

/// The same with the row's own key, in short: what next, and what is written of the row.
fn follows(
    answer: Answer,
    number: u32,
    change: impl Fn(&mut SubscriptionRecord),
) -> (Settlement, Vec<&'static str>) {
    let own = own_key();
    let mut record = record(&own);
    change(&mut record);
    let consequence = after(attempt(&record, number).with_keys(vec![own]), [answer]);
    (consequence.settlement, names(&consequence))
}

fn names(consequence: &Consequence) -> Vec<&'static str> {
    let name = |change: &Change| match change {
        Change::Accepted(_) => "accepted",
        Change::Failed { .. } => "failed",
        Change::Retire { observed_at, .. } => {
            assert_eq!(*observed_at, BEGAN, "S12");
            "retire"
        }
        Change::Stale { observed_at, .. } => {
            assert_eq!(*observed_at, BEGAN, "S12");
            "stale"
        }
        Change::UseVapidKey { .. } => "use_vapid_key",
        _ => "other",
    };
    consequence.changes.iter().map(name).collect()
}

fn as_it_is(_: &mut SubscriptionRecord) {}

/// One named test for each row: answer, number of the attempt, what is next, what is written.
macro_rules! rows {
    ($($name:ident: $answer:expr, $number:expr, $row:expr => $next:expr, $changes:expr;)*) => {$(
        #[test]
        fn $name() {
            let changes: &[&str] = &$changes;
            assert_eq!(follows($answer, $number, $row), ($next, changes.to_vec()));
        }
    )*};
}

rows! {
    accepted_and_reached_lately: accepted(), 2, as_it_is => Finished(Accepted), [];
    accepted_within_a_day: accepted(), 2, |row| row.last_success_at = Some(NOW - DAY + MINUTE)
        => Finished(Accepted), [];
    accepted_after_a_day: accepted(), 2, |row| row.last_success_at = Some(NOW - DAY)
        => Finished(Accepted), ["accepted"];
    accepted_for_the_first_time: accepted(), 2, |row| row.last_success_at = None
        => Finished(Accepted), ["accepted"];
    accepted_after_failures: accepted(), 2, |row| row.failure_streak = 1
        => Finished(Accepted), ["accepted"];

    gone: error(Outcome::Gone, None), 2, as_it_is => Finished(Gone), ["retire"];
    gone_with_new_keys: error(Outcome::Gone, None), 2, |row| row.keys_changed_at = BEGAN - MINUTE / 2
        => RetryAt(BEGAN + MINUTE / 2), [];
    gone_with_keys_that_turn_a_minute_old_meanwhile: error(Outcome::Gone, None), 2,
        |row| row.keys_changed_at = BEGAN - Duration::from_secs(59)
        => RetryAt(BEGAN + Duration::from_secs(1)), [];
    gone_with_keys_of_a_minute: error(Outcome::Gone, None), 2, |row| row.keys_changed_at = BEGAN - MINUTE
        => Finished(Gone), ["retire"];
    gone_with_keys_that_are_young_until_the_deadline: error(Outcome::Gone, None), 2,
        |row| row.keys_changed_at = DEADLINE - MINUTE => Finished(Expired), [];

    rate_limited: error(Outcome::RateLimited, None), 2, as_it_is => RetryAt(PAUSED), ["failed"];
    rate_limited_for_so_long: error(Outcome::RateLimited, Some(MINUTE)), 2, as_it_is
        => RetryAt(NOW + MINUTE), ["failed"];
    rate_limited_until_the_deadline: error(Outcome::RateLimited, Some(HOUR)), 2, as_it_is
        => Finished(Expired), ["failed"];
    rate_limited_too_often: error(Outcome::RateLimited, None), 3, as_it_is => Finished(Failed), ["failed"];

    transient: error(Outcome::Transient, None), 2, as_it_is => RetryAt(PAUSED), ["failed"];
    transient_for_so_long: error(Outcome::Transient, Some(MINUTE)), 2, as_it_is
        => RetryAt(NOW + MINUTE), ["failed"];
    transient_until_the_deadline: error(Outcome::Transient, Some(HOUR)), 2, as_it_is
        => Finished(Expired), ["failed"];
    transient_too_often: error(Outcome::Transient, None), 3, as_it_is => Finished(Failed), ["failed"];

    sender_fault: error(Outcome::SenderFault, None), 2, as_it_is => RetryAt(PAUSED), ["failed"];
    sender_fault_until_the_deadline: error(Outcome::SenderFault, Some(HOUR)), 2, as_it_is
        => Finished(SenderFault), ["failed"];
    sender_fault_too_often: error(Outcome::SenderFault, None), 3, as_it_is
        => Finished(SenderFault), ["failed"];

    key_mismatch: error(Outcome::KeyMismatch, None), 2, as_it_is => Finished(KeyMismatch), ["stale"];
    key_mismatch_of_a_key_that_is_known: error(Outcome::KeyMismatch, None), 2, |row| row.last_seen_at = BEGAN
        => Finished(KeyMismatch), ["stale"];

    too_large: error(Outcome::TooLarge, None), 2, as_it_is => Finished(TooLarge), [];
    bad_request: answered(400), 2, as_it_is => Finished(BadRequest), ["failed"];
    bad_request_of_another_status: answered(301), 2, as_it_is => Finished(BadRequest), [];
    bad_request_for_weeks: answered(400), 2, silent(WEEKS, 8) => Finished(BadRequest), ["retire"];
    method_not_allowed_for_weeks: answered(405), 2, silent(WEEKS, 8) => Finished(BadRequest), ["retire"];
    bad_request_of_a_row_that_was_never_accepted: answered(405), 2, invented(WEEKS, 8)
        => Finished(BadRequest), ["retire"];
    bad_request_for_weeks_of_another_status: answered(301), 2, silent(WEEKS, 8) => Finished(BadRequest), [];
    bad_request_for_less_than_weeks: answered(400), 2, silent(WEEKS - MILLI, 8)
        => Finished(BadRequest), ["failed"];
    bad_request_seldom: answered(400), 2, silent(WEEKS, 7) => Finished(BadRequest), ["failed"];
    bad_request_after_weeks_without_an_attempt: answered(400), 2, silent(MINUTE, 8)
        => Finished(BadRequest), ["failed"];
    transient_for_weeks: error(Outcome::Transient, None), 2, silent(WEEKS, 8) => RetryAt(PAUSED), ["failed"];

    host_not_found_of_a_row_that_is_accepted: host_not_found(), 2, as_it_is => RetryAt(PAUSED), ["failed"];
    host_not_found_for_weeks: host_not_found(), 2, silent(WEEKS, 8) => Finished(Gone), ["retire"];
    host_not_found_for_less_than_weeks: host_not_found(), 2, silent(WEEKS - MILLI, 8)
        => RetryAt(PAUSED), ["failed"];
    host_not_found_for_a_day: host_not_found(), 1, invented(DAY, 3) => Finished(Gone), ["retire"];
    host_not_found_for_less_than_a_day: host_not_found(), 1, invented(DAY - MILLI, 24)
        => Finished(Expired), ["failed"];
    host_not_found_seldom: host_not_found(), 2, invented(DAY, 2) => Finished(Expired), ["failed"];
    host_not_found_too_often: host_not_found(), 3, invented(HOUR, 2) => Finished(Failed), ["failed"];
    refused: error(Outcome::Refused, None), 2, as_it_is => Finished(Refused), [];

    a_closed_gate: closed_until(NOW + MINUTE), 2, as_it_is => Deferred(NOW + MINUTE), [];
    a_closed_gate_at_the_last_attempt: closed_until(NOW + MINUTE), 3, as_it_is => Deferred(NOW + MINUTE), [];
    a_gate_that_is_closed_beyond_the_deadline: closed_until(DEADLINE + HOUR), 2, as_it_is
        => Deferred(DEADLINE), [];
}

#[test]
fn gone_for_days_takes_days_and_several_failures() {
    let own = own_key();
    let is_gone_for_days = |change: &dyn Fn(&mut SubscriptionRecord), answer| {
        let mut record = record(&own);
        change(&mut record);
        let attempt = Attempt::new(&record, Message::new("hello"), BEGAN, 1, BEGAN)
            .with_keys(vec![Arc::clone(&own)]);
        after(attempt, [answer]).is_gone_for_days
    };
    let gone = || error(Outcome::Gone, None);
    assert!(is_gone_for_days(&invented(3 * DAY, 5), gone()));
    assert!(!is_gone_for_days(&invented(3 * DAY - MILLI, 5), gone()));
    assert!(!is_gone_for_days(&invented(3 * DAY, 4), gone()));
    assert!(is_gone_for_days(&silent(7 * DAY, 5), gone()));
    assert!(!is_gone_for_days(&silent(7 * DAY - MILLI, 5), gone()));
    assert!(!is_gone_for_days(&silent(7 * DAY, 4), gone()));
    assert!(!is_gone_for_days(&invented(3 * DAY, 5), answered(400)));
    let mismatch = || error(Outcome::KeyMismatch, None);
    assert!(is_gone_for_days(&silent(7 * DAY, 5), mismatch()));
    assert!(!is_gone_for_days(&silent(7 * DAY, 4), mismatch()));
}

#[test]
fn a_name_that_does_not_exist_is_looked_up_a_few_times_a_day() {
    let own = own_key();
    let mut record = record(&own);
    invented(HOUR, 0)(&mut record);
    let deadline = BEGAN + DAY;
    let hours = |number, jitter| {
        let mut attempt = attempt(&record, number)
            .with_policy(RetryPolicy::default())
            .with_deadline(deadline)
            .with_keys(vec![Arc::clone(&own)]);
        attempt.next_push(BEGAN).unwrap();
        attempt.answered(&host_not_found(), BEGAN, jitter);
        match attempt.end(BEGAN).settlement {
            RetryAt(at) => at.since(BEGAN).as_secs_f64() / 3600.0,
            next => panic!("{next:?}"),
        }
    };
    let shortest: Vec<_> = (1..=5).map(|number| hours(number, Jitter::NONE)).collect();
    assert_eq!(shortest, [1.0, 2.0, 4.0, 8.0, 8.0]);
    let usual: Vec<_> = (1..=5).map(|number| hours(number, Jitter::HALF)).collect();
    assert_eq!(usual, [1.5, 3.0, 6.0, 12.0, 12.0]);
}

/// What needs no request.
fn foregone(number: u32, change: impl Fn(&mut SubscriptionRecord)) -> Option<FinalOutcome> {
    let own = own_key();
    let mut record = record(&own);
    change(&mut record);
    let mut attempt = attempt(&record, number).with_keys(vec![own]);
    if attempt.next_push(BEGAN).is_some() {
        return None;
    }
    let consequence = attempt.end(NOW);
    assert_eq!(names(&consequence), [""; 0]);
    let Finished(outcome) = consequence.settlement else {
        panic!("{consequence:?}");
    };
    Some(outcome)
}

#[test]
fn nobody_is_asked_about_what_is_certain() {
    let retired = Some(Retired::new(BEGAN, RetireReason::Gone));
    assert_eq!(foregone(3, as_it_is), None);
    assert_eq!(foregone(4, as_it_is), Some(Failed));
    assert_eq!(
        foregone(1, |row| row.stale_since = Some(NOW)),
        Some(KeyMismatch)
    );
    assert_eq!(foregone(1, |row| row.retired = retired), Some(Gone));
    let both = |row: &mut SubscriptionRecord| (row.stale_since, row.retired) = (Some(NOW), retired);
    assert_eq!(foregone(1, both), Some(Gone));
}

#[test]
fn a_policy_of_no_attempts_allows_one() {
    let own = own_key();
    let record = record(&own);
    let policy = RetryPolicy::new(MINUTE, HOUR, 0);
    let attempt = attempt(&record, 1).with_policy(policy).with_keys(vec![own]);
    let consequence = after(attempt, [error(Outcome::Transient, None)]);
    assert_eq!(consequence.settlement, Finished(Failed));
}

#[test]
fn nothing_is_asked_at_or_after_the_deadline() {
    let own = own_key();
    let record = record(&own);
    let keys = vec![own];
    for (deadline, outcome) in [(BEGAN, Expired), (BEGAN + MINUTE, Accepted)] {
        let attempt = attempt(&record, 1)
            .with_keys(keys.clone())
            .with_deadline(deadline);
        let answers = (outcome == Accepted).then(accepted);
        assert_eq!(after(attempt, answers).settlement, Finished(outcome));
    }
}

#[test]
fn the_deadline_ends_an_attempt_between_its_requests_and_before_one_that_waited() {
    let keys = vec![own_key(), own_key()];
    let record = record(&keys[0]);
    let deadline = BEGAN + MINUTE;
    let new = || {
        let attempt = attempt(&record, 1).with_keys(keys.clone());
        attempt.with_deadline(deadline)
    };
    let expired = Consequence::finished(Expired);
    let mut mismatch = new();
    assert_eq!(mismatch.next_push(BEGAN).unwrap().deadline(), deadline);
    mismatch.answered(&error(Outcome::KeyMismatch, None), NOW, Jitter::FULL);
    assert!(mismatch.next_push(deadline).is_none());
    assert_eq!(mismatch.end(deadline), failed(Expired));
    // Nothing was asked, so it is no failure of the subscription.
    let mut waited = new();
    let push = waited.next_push(BEGAN).unwrap();
    let too_late = Err(DeliveryError::not_begun(&push, deadline));
    waited.answered(&too_late, deadline, Jitter::FULL);
    assert_eq!(waited.end(deadline), expired);
}

#[test]
fn a_request_has_the_ttl_that_is_left_and_says_whether_there_are_other_keys() {
    let keys = vec![own_key(), own_key()];
    let record = record(&keys[0]);
    let mut attempt = attempt(&record, 1).with_keys(keys.clone());
    let first = attempt.next_push(BEGAN + MINUTE).unwrap();
    assert_eq!(first.key().id(), keys[0].id());
    assert_eq!(
        (first.ttl().as_secs(), first.has_other_keys()),
        (3540, true)
    );
    // A wait for a permit counts as well.
    assert_eq!(first.ttl_at(BEGAN + MINUTE * 3).as_secs(), 3420);
    assert_eq!(first.subscription(), &record.subscription);
    attempt.answered(&error(Outcome::KeyMismatch, None), NOW, Jitter::FULL);
    let second = attempt.next_push(BEGAN + MINUTE * 2).unwrap();
    assert_eq!(second.key().id(), keys[1].id());
    assert_eq!(
        (second.ttl().as_secs(), second.has_other_keys()),
        (3480, false)
    );
}

#[test]
fn the_key_that_fits_becomes_the_rows_own() {
    let keys = vec![own_key(), own_key(), own_key()];
    let record = record(&keys[0]);
    let attempt = attempt(&record, 1).with_keys(keys.clone());
    let consequence = after(attempt, [error(Outcome::KeyMismatch, None), accepted()]);
    assert_eq!(consequence.settlement, Finished(Accepted));
    let key = record.subscription.endpoint().key();
    let vapid_key = keys[1].id();
    assert_eq!(
        consequence.changes,
        [Change::UseVapidKey { key, vapid_key }]
    );
}

#[test]
fn another_answer_than_a_mismatch_ends_it_with_any_key() {
    let keys = vec![own_key(), own_key(), own_key()];
    let record = record(&keys[0]);
    let attempt = attempt(&record, 1).with_keys(keys);
    let answers = [
        error(Outcome::KeyMismatch, None),
        error(Outcome::TooLarge, None),
    ];
    let consequence = after(attempt, answers);
    assert_eq!(consequence, failed(TooLarge));
    let Settlement::Failed(TooLarge, cause) = consequence.settled() else {
        panic!("{consequence:?}")
    };
    assert_eq!(cause.failure, Failure::new(Some(400), None));
}

#[test]
fn without_its_own_key_a_row_is_not_judged() {
    let record = record(&own_key());
    let follows = |number, answer| {
        let attempt = attempt(&record, number).with_keys(vec![own_key()]);
        after(attempt, [answer])
    };
    for answer in [
        error(Outcome::KeyMismatch, None),
        error(Outcome::Gone, None),
        error(Outcome::SenderFault, None),
        error(Outcome::Transient, None),
        answered(400),
    ] {
        let is_bad_request = answer.as_ref().unwrap_err().outcome() == Outcome::BadRequest;
        let consequence = follows(2, answer);
        assert_eq!(consequence.changes, []);
        assert_eq!(
            matches!(consequence.settlement, RetryAt(_)),
            !is_bad_request
        );
    }
    let given_up = follows(3, error(Outcome::KeyMismatch, None));
    assert_eq!(given_up, failed(KeyMismatch));
    // A key that is accepted is the row's own.
    assert_eq!(names(&follows(2, accepted())), ["use_vapid_key"]);
}

#[test]
fn what_this_machine_cannot_send_counts_for_nobody() {
    let own = own_key();
    let record = record(&own);
    let exhausted = std::io::Error::from_raw_os_error(24);
    let error = DeliveryError::client(PushService::Other, exhausted.into());
    assert_eq!((error.reason(), error.status()), (Some("local"), None));
    let attempt = attempt(&record, 3).with_keys(vec![own]);
    let consequence = after(attempt, [Err(error)]);
    assert_eq!(consequence.changes, []);
    let Deferred(at) = consequence.settlement else {
        panic!("it is tried again: {consequence:?}")
    };
    assert!(at > NOW && at < NOW + MINUTE);
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let error = DeliveryError::client(PushService::Other, broken.into());
    assert_eq!(error.reason(), None);
}

/// A worker that stops, or a lease that ends, and a gate that closes: between the keys, too.
#[test]
fn a_request_that_did_not_begin_counts_only_after_an_answer() {
    let keys = vec![own_key(), own_key()];
    let record = record(&keys[0]);
    let new = || attempt(&record, 1).with_keys(keys.clone());
    for (is_closed, at) in [(false, NOW), (true, NOW + MINUTE)] {
        let answer = |push: &Push| match is_closed {
            true => closed_until(at),
            false => Err(DeliveryError::not_begun(push, at)),
        };
        let mut first = new();
        let push = first.next_push(BEGAN).unwrap();
        first.answered(&answer(&push), NOW, Jitter::FULL);
        assert!(first.next_push(NOW).is_none());
        assert_eq!(first.end(NOW), Deferred(at).into());

        let mut second = new();
        second.next_push(BEGAN).unwrap();
        second.answered(&error(Outcome::KeyMismatch, None), NOW, Jitter::FULL);
        let push = second.next_push(NOW).unwrap();
        second.answered(&answer(&push), NOW, Jitter::FULL);
        assert_eq!(second.end(NOW), RetryAt(at).into());
    }
}

#[derive(Debug)]
struct Standing(Timestamp);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        self.0
    }
}

#[tokio::test]
async fn it_is_driven_until_there_is_nothing_more_to_ask() {
    let keys = vec![own_key(), own_key(), own_key()];
    let record = record(&keys[0]);
    let clock = Standing(BEGAN);
    let mut asked_with = Vec::new();
    let mut answers = vec![accepted(), error(Outcome::KeyMismatch, None)];
    let driven = attempt(&record, 1).with_keys(keys.clone());
    let (consequence, last) = driven
        .drive(&clock, |push| {
            asked_with.push(push.key().id());
            std::future::ready(answers.pop().unwrap())
        })
        .await;
    assert_eq!(consequence.settlement, Finished(Accepted));
    assert!(last.is_none());
    assert_eq!(asked_with, [keys[0].id(), keys[1].id()]);

    let limited = attempt(&record, 1).with_keys(keys);
    let answer = || std::future::ready(error(Outcome::TooLarge, None));
    let (consequence, last) = limited.drive(&clock, |_| answer()).await;
    assert_eq!(consequence, failed(TooLarge));
    assert_eq!(last.unwrap().outcome(), Outcome::TooLarge);
}

#[test]
fn without_keys_nothing_is_asked_and_nothing_is_concluded() {
    let record = record(&own_key());
    assert_eq!(after(attempt(&record, 1), []), Deferred(NOW).into());
}
