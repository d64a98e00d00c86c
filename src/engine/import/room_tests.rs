//! The subscriptions that a principal may have.

use super::super::test_world::{START, World};
use super::*;
use crate::schedule::{Daily, DailyTime, NotifyType, ScheduleName, Zone};
use crate::store::ScheduleStore as _;
use crate::subscription::SubscriptionId;

/// A row of alice, who may have 32.
fn row(world: &World, number: u8) -> ImportedSubscription {
    let browser = world.service.user_agent();
    let active = world.engine.key_ring.active();
    let subscription = browser.subscribe(active.public_key()).unwrap();
    let mut row = ImportedSubscription::new(subscription);
    row.id = Some(SubscriptionId::from_bytes([number; 16]));
    row.principal = Some("alice".into());
    row
}

fn counts(import: &Import) -> [u64; 4] {
    let report = import.report();
    [
        report.created,
        report.updated,
        report.unchanged,
        report.refused,
    ]
}

fn import(world: &World) -> Import {
    Import::new(world.engine.clone())
}

#[tokio::test]
async fn a_row_that_is_refused_takes_no_place_of_its_user() {
    let world = World::new().await;
    let mut rows: Vec<_> = (0..33).map(|number| row(&world, number)).collect();
    let time = DailyTime::new(9, 0).unwrap();
    let nowhere = time.in_zone(Zone::stored("Europe/Atlantis"));
    rows[0].daily = vec![Daily::new(NotifyType::DailyCheck, nowhere, None).unwrap()];
    for expected in [[32, 0, 0, 1], [0, 0, 32, 1]] {
        let mut import = import(&world);
        import.add(rows.iter().cloned().map(Ok)).await.unwrap();
        assert_eq!(counts(&import), expected);
        assert_eq!(import.report().refusals[0].kind(), RefusalKind::NeverDue);
    }
}

#[tokio::test]
async fn a_dry_run_refuses_the_rows_that_the_import_refuses() {
    let world = World::new().await;
    let rows: Vec<_> = (0..100).map(|number| row(&world, number)).collect();
    for mut import in [import(&world).dry_run(), import(&world)] {
        // In two calls.
        let (first, second) = rows.split_at(70);
        for rows in [first, second] {
            import.add(rows.iter().cloned().map(Ok)).await.unwrap();
        }
        assert_eq!(counts(&import), [32, 0, 0, 68]);
    }
}

/// An import that was interrupted is completed, also of a user who has no place left.
#[tokio::test]
async fn rows_that_are_stored_need_no_place() {
    let world = World::new().await;
    let mut rows: Vec<_> = (0..32).map(|number| row(&world, number)).collect();
    let time = DailyTime::new(9, 0).unwrap();
    for row in &mut rows {
        row.daily = vec![Daily::new(NotifyType::DailyCheck, time.clone(), None).unwrap()];
    }
    for (is_removed, expected) in [(false, [32, 0, 0, 0]), (true, [0, 1, 31, 0])] {
        if is_removed {
            let id = rows[7].id.unwrap();
            let name = ScheduleName::Subscriber(id, NotifyType::DailyCheck);
            assert!(world.store.remove_schedule(&name).await.unwrap());
        }
        let mut import = import(&world);
        import.add(rows.iter().cloned().map(Ok)).await.unwrap();
        assert_eq!(counts(&import), expected);
    }
    assert_eq!(world.engine.now(), START);
}
