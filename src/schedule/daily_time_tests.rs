use std::time::Duration;

use super::*;

fn daily(hour: u8, minute: u8) -> DailyTime {
    DailyTime::new(hour, minute).unwrap()
}

fn moment(text: &str) -> Timestamp {
    let moment: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_millis(moment.as_millisecond())
}

#[test]
fn the_first_occurrence_is_later_and_within_a_day() {
    let midnight = Timestamp::from_secs(1_700_006_400);
    let at = |hour, minute| daily(hour, minute).first_after(midnight).unwrap();
    assert_eq!(at(0, 1), midnight + Duration::from_secs(60));
    assert_eq!(at(23, 59), midnight + Duration::from_secs(86_340));
    assert_eq!(at(0, 0), midnight + Duration::from_secs(86_400));
}

#[test]
fn the_next_occurrence_is_on_the_next_date_however_late_this_one_was() {
    let fired = moment("2026-03-01T08:00:59Z");
    assert_eq!(
        daily(8, 0).next_after(fired),
        Some(moment("2026-03-02T08:00:00Z"))
    );
    assert_eq!(
        daily(7, 0).next_after(fired),
        Some(moment("2026-03-02T07:00:00Z"))
    );
    assert_eq!(
        daily(9, 0).next_after(fired),
        Some(moment("2026-03-02T09:00:00Z"))
    );
}

#[test]
fn it_works_before_the_epoch_and_ends_with_time() {
    let before = Timestamp::from_millis(-1);
    assert_eq!(
        daily(0, 0).first_after(before),
        Some(Timestamp::from_millis(0))
    );
    assert_eq!(daily(0, 0).first_after(Timestamp::MAX), None);
    assert_eq!(daily(0, 0).next_after(Timestamp::MIN), None);
}

#[test]
fn weekdays_are_waited_for() {
    // A Sunday.
    let sunday = moment("2026-03-01T12:00:00Z");
    let days = |names: &[&str]| Weekdays::parse(names.iter().copied()).unwrap();
    let workdays = daily(8, 0).on(days(&["mon", "tue", "wed", "thu", "fri"]));
    assert_eq!(
        workdays.first_after(sunday),
        Some(moment("2026-03-02T08:00:00Z"))
    );
    let friday = moment("2026-03-06T08:00:00Z");
    assert_eq!(
        workdays.next_after(friday),
        Some(moment("2026-03-09T08:00:00Z"))
    );
    let sundays = daily(12, 0).on(days(&["sun"]));
    assert_eq!(
        sundays.first_after(sunday),
        Some(moment("2026-03-08T12:00:00Z"))
    );
}

#[test]
fn there_is_no_25th_hour() {
    assert!(DailyTime::new(24, 0).is_err());
    assert!(DailyTime::new(0, 60).is_err());
    assert_eq!(daily(7, 5).to_string(), "07:05 UTC");
}

#[test]
fn a_zone_that_is_not_known_has_no_times() {
    let nowhere = daily(7, 0).in_zone(Zone::stored("Europe/Atlantis"));
    assert_eq!(nowhere.first_after(Timestamp::from_secs(0)), None);
    assert_eq!(nowhere.next_after(Timestamp::from_secs(0)), None);
}

#[cfg(feature = "zones")]
mod zones {
    use super::*;
    use crate::broadcast::Audience;
    use crate::message::Message;
    use crate::schedule::{Plan, Schedule, ScheduleLabel};

    fn local(hour: u8, minute: u8, zone: &str) -> DailyTime {
        daily(hour, minute).in_zone(Zone::parse(zone).unwrap())
    }

    /// The occurrences that follow a moment.
    fn after(time: &DailyTime, start: &str, number: usize) -> Vec<String> {
        let first = time.first_after(moment(start));
        std::iter::successors(first, |at| time.next_after(*at))
            .take(number)
            .map(|at| {
                let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap();
                at.to_string()
            })
            .collect()
    }

    #[test]
    fn the_wall_clock_counts() {
        let berlin = local(8, 0, "Europe/Berlin");
        assert_eq!(
            after(&berlin, "2026-03-27T12:00:00Z", 3),
            [
                "2026-03-28T07:00:00Z",
                "2026-03-29T06:00:00Z",
                "2026-03-30T06:00:00Z"
            ]
        );
    }

    #[test]
    fn a_gap_shifts_forward_by_its_length() {
        // 02:00 becomes 03:00 on 29 March: 02:30 is 03:30 there.
        let berlin = local(2, 30, "Europe/Berlin");
        assert_eq!(
            after(&berlin, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        // Half an hour on Lord Howe.
        let howe = local(2, 15, "Australia/Lord_Howe");
        assert_eq!(
            after(&howe, "2026-10-03T12:00:00Z", 1),
            ["2026-10-03T15:45:00Z"]
        );
    }

    #[test]
    fn of_a_fold_it_is_the_first_and_only_that() {
        let berlin = local(2, 30, "Europe/Berlin");
        assert_eq!(
            after(&berlin, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn a_gap_that_ends_at_midnight_moves_it_to_the_next_date_which_has_only_that_one() {
        // Nuuk's clocks go from 23:00 on Saturday to 00:00 on Sunday.
        let nuuk = local(23, 30, "America/Nuuk");
        assert_eq!(
            after(&nuuk, "2026-03-28T00:00:00Z", 3),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-31T00:30:00Z"
            ]
        );
    }

    #[test]
    fn in_the_hour_after_such_a_gap_the_moved_one_is_still_to_come() {
        // 00:10 on Sunday, and Saturday's 23:30 is 00:30.
        let nuuk = local(23, 30, "America/Nuuk");
        for (now, next) in [
            ("2026-03-29T00:59:59Z", "2026-03-29T01:30:00Z"),
            ("2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"),
            ("2026-03-29T01:29:59Z", "2026-03-29T01:30:00Z"),
            ("2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"),
        ] {
            assert_eq!(after(&nuuk, now, 1), [next], "{now}");
        }
        // Nothing is moved that stands outside of the gap.
        for (hour, minute, next) in [
            (22, 59, "2026-03-29T23:59:00Z"),
            (0, 0, "2026-03-30T01:00:00Z"),
        ] {
            let time = local(hour, minute, "America/Nuuk");
            assert_eq!(after(&time, "2026-03-29T01:10:00Z", 1), [next]);
        }
    }

    #[test]
    fn a_day_of_the_week_is_the_one_it_was_said_for() {
        let on = |days: &[&str]| {
            let days = Weekdays::parse(days.iter().copied()).unwrap();
            let time = local(23, 30, "America/Nuuk").on(days);
            after(&time, "2026-03-28T12:00:00Z", 2)
        };
        // Saturday's falls on a Sunday, and is Saturday's all the same.
        assert_eq!(
            on(&["sat"]),
            ["2026-03-29T01:30:00Z", "2026-04-05T00:30:00Z"]
        );
        assert_eq!(
            on(&["sun"]),
            ["2026-03-30T00:30:00Z", "2026-04-06T00:30:00Z"]
        );
        // That date has one then: no second.
        assert_eq!(
            on(&["sat", "sun"]),
            ["2026-03-29T01:30:00Z", "2026-04-05T00:30:00Z"]
        );
        assert_eq!(
            on(&["sat", "mon"]),
            ["2026-03-29T01:30:00Z", "2026-03-31T00:30:00Z"]
        );
    }

    #[test]
    fn a_date_that_a_zone_leaves_out_gives_its_time_to_the_next() {
        // Samoa went from 29 to 31 December 2011.
        let apia = local(8, 0, "Pacific/Apia");
        assert_eq!(
            after(&apia, "2011-12-29T12:00:00Z", 3),
            [
                "2011-12-29T18:00:00Z",
                "2011-12-30T18:00:00Z",
                "2011-12-31T18:00:00Z"
            ]
        );
    }

    #[test]
    fn a_schedule_that_crosses_midnight_is_due_once_for_each_of_its_days() {
        let plan = Plan::Application {
            label: ScheduleLabel::parse("late").unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        let time = local(23, 30, "America/Nuuk");
        // Set again in the hour after the gap, it is not postponed by a day.
        let first = plan.first_fire_at(&time, moment("2026-03-29T01:10:00Z"));
        assert_eq!(first, Some(moment("2026-03-29T01:30:00Z")));
        let schedule = Schedule::new(plan, time, first.unwrap());
        let due = schedule.due(moment("2026-03-29T01:30:10Z")).unwrap();
        assert!(due.fires);
        assert_eq!(
            (due.skipped, due.next_fire_at),
            (0, moment("2026-03-31T00:30:00Z"))
        );
    }
}
