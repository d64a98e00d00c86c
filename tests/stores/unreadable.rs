//! The content of one broadcast cannot be read: it holds up no others.

use std::collections::HashMap;
use std::time::Duration;

use tower_web_push::broadcast::{Audience, BroadcastId};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::schedule::{DailyTime, Plan, Schedule, ScheduleLabel, ScheduleName};
use tower_web_push::store::{
    ClaimRequest, DeliveryLedger, NewBroadcast, ScheduleStore, StoreErrorKind,
};

/// Broadcasts of a store of which some are damaged.
pub(crate) struct Damaged {
    /// Its audience is unreadable.
    pub(crate) unread: BroadcastId,
    /// It can be expanded.
    pub(crate) read: BroadcastId,
    /// The only one with rows whose message can be read.
    pub(crate) healthy: BroadcastId,
    /// All rows, those of unreadable messages too.
    pub(crate) rows: usize,
}

/// The others are expanded (L3) and claimed (L5), and users are erased (L17).
pub(crate) async fn holds_up_no_others(
    store: &dyn DeliveryLedger,
    damaged: &Damaged,
    now: Timestamp,
) {
    let expandable = store.expandable(10, now).await.unwrap();
    let found: HashMap<_, _> = expandable
        .into_iter()
        .map(|one| (one.id, one.audience))
        .collect();
    let expected = [(damaged.unread, None), (damaged.read, Some(Audience::All))];
    assert_eq!(found, HashMap::from(expected));
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    let claims = store.claim(&request, now).await.unwrap();
    assert_eq!(claims.rows.len(), damaged.rows);
    let messages: Vec<_> = claims.messages.keys().copied().collect();
    assert_eq!(messages, [damaged.healthy]);

    let deadline = now + Duration::from_secs(60);
    let alice = Audience::user("alice");
    let theirs = NewBroadcast::new(alice, Message::new("x"), deadline);
    store.open(&theirs, now).await.unwrap();
    let erased = store.erase(&"alice".into(), &[], now).await.unwrap();
    assert_eq!(erased.broadcasts, 1);
}

/// The name of the schedule that a test damages.
pub(crate) const DAMAGED: &str = "damaged";

/// Stores two schedules that are due.
pub(crate) async fn put_schedules(store: &dyn ScheduleStore, now: Timestamp) {
    for name in [DAMAGED, "healthy"] {
        let plan = Plan::Application {
            label: ScheduleLabel::parse(name).unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), now);
        store.put_schedule(&schedule).await.unwrap();
    }
}

/// The healthy schedule is listed, and the damaged one is an error only when nothing else is due (D5).
pub(crate) async fn the_healthy_schedule_is_due(store: &dyn ScheduleStore, now: Timestamp) {
    let due = store.due_schedules(9, now).await.unwrap();
    let names: Vec<_> = due.iter().map(Schedule::name).collect();
    assert_eq!(
        names,
        ["healthy"].map(|name| ScheduleName::Application(ScheduleLabel::parse(name).unwrap()))
    );
    store.remove_schedule(&names[0]).await.unwrap();
    let error = store.due_schedules(9, now).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}
