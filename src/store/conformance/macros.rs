//! The list of cases, and the macros that make tests of them.

/// Makes one test of each contract sentence of all four store traits.
///
/// `store_conformance!(name, make)` expands to a module `name` of `#[tokio::test]` functions. `make` is the
/// path of an async function without parameters that returns the
/// [`Handles`](crate::store::conformance::Handles) of a fresh, empty store each time, or an `Option` of them: with
/// `None` (such as without a server to test against) the case is skipped, which the function should report.
#[macro_export]
macro_rules! store_conformance {
    ($name:ident, $make:path) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::__store_conformance_subscriptions!($make);
            $crate::__store_conformance_tests! {
                $make;
                k1_the_first_key_is_inserted_once
                k1_one_of_many_concurrent_first_keys_wins
                k2_an_active_key_replaces_the_active_one
                k3_an_inactive_key_leaves_the_active_one
                k4_keys_are_listed_the_active_one_first
                k5_resealing_compares_first
                k6_only_inactive_keys_are_removed
                l1_an_open_broadcast_is_stored_whole
                l1_a_first_page_is_stored_with_its_broadcast
                l2_a_repeated_request_opens_once
                l2_a_known_id_is_a_repeat
                l2_one_of_many_concurrent_requests_opens
                l2_a_repeat_writes_no_first_page
                l2_one_of_many_concurrent_requests_writes_its_page
                l3_due_broadcasts_are_expandable
                l3_the_least_recently_expanded_is_first
                l3_urgent_broadcasts_are_first
                l3_a_faster_clock_hides_no_broadcast
                l3_a_faster_clock_makes_no_broadcast_due
                l4_a_page_is_written_where_the_cursor_is_expected
                l4_a_page_of_an_ended_broadcast_is_stale
                l4_one_of_many_concurrent_pages_is_written
                l4_expansion_continues_behind_a_first_page
                l4_only_a_due_broadcast_gets_a_first_page
                l4_an_empty_first_page_ends_its_broadcast
                l5_a_claim_leases_due_rows
                l5_a_message_to_a_user_is_only_for_this_user
                l5_a_lease_that_ended_is_claimed_again
                l5_a_claim_is_fair_over_origins
                l5_every_origin_gets_its_turn
                l5_origins_take_turns_at_any_limit
                l5_the_limit_of_an_origin_holds_over_many_broadcasts
                l5_a_claim_leaves_out_what_it_is_told
                l5_origins_without_room_hold_up_no_others
                l5_named_origins_take_turns
                l5_origins_without_rows_hold_up_no_others
                l5_one_claimant_probes_a_paused_origin
                l5_one_of_many_concurrent_claims_probes
                l5_the_end_of_a_probe_makes_room
                l5_a_probe_is_a_row_that_is_sent
                l5_a_probe_outlives_another_row_of_its_recipient
                l5_a_probe_outlives_a_row_that_was_claimed_before
                l5_each_paused_origin_has_its_own_probe
                l5_what_is_sent_late_is_due_when_it_was_accepted
                l6_concurrent_claims_share_no_row
                l7_settling_ends_or_postpones
                l7_a_lost_token_settles_nothing
                l7_a_late_settlement_counts_where_nobody_claimed
                l7_a_token_settles_once
                l7_a_token_is_spent_by_its_first_use
                l7_a_deferred_row_is_due_then_without_an_attempt
                l8_a_released_row_is_due_without_an_attempt
                l9_cancel_ends_what_is_not_leased
                l9_a_cancelled_row_is_not_claimed_again
                l9_cancel_stops_the_expansion
                l9_a_large_cancellation_takes_steps
                l9_claims_complete_a_cancellation
                l9_a_done_broadcast_is_not_cancelled
                l9_cancel_ends_rows_whose_lease_has_ended
                l10_the_state_follows_the_rows
                l10_an_empty_broadcast_is_done
                l10_the_statistics_follow_the_rows
                l10_the_oldest_due_row_is_told_by_push_service
                l10_no_number_of_other_origins_hides_a_late_push_service
                l11_the_later_end_of_two_pauses_holds
                l11_the_latest_end_of_concurrent_pauses_holds
                l11_a_probed_pause_ends_by_being_lifted
                l11_a_past_end_lifts_the_pause
                l12_expire_ends_what_is_late
                l12_what_is_due_later_than_any_wait_is_due
                l12_no_due_time_is_that_of_a_row_put_aside
                l12_many_late_broadcasts_end_in_one_call
                l12_expire_stops_the_expansion
                l12_expire_counts_rows_of_cancelled_broadcasts
                l12_a_broadcast_without_rows_expires
                l13_prune_forgets_what_ended_before
                l13_a_broadcast_may_be_forgotten_when_it_is_over
                l13_pruning_takes_steps
                l13_origins_that_stay_hide_no_others
                l13_steps_leave_out_no_origin
                l13_an_origin_with_rows_keeps_its_tally
                l13_a_young_tally_is_kept
                l13_a_young_pause_is_kept
                l14_a_scheduled_broadcast_is_due_then
                l14_rows_are_due_as_they_can_be_claimed
                l14_what_is_late_and_leased_is_not_due
                l14_a_deadline_is_due
                l14_paused_origins_hide_no_other
                l14_paused_origins_without_rows_hide_no_other
                l15_tallies_add_up_per_origin
                l15_concurrent_tallies_lose_nothing
                l16_broadcasts_underway_are_listed
                l17_rows_of_a_user_are_erased
                l17_broadcasts_to_a_user_alone_are_cancelled
                l17_an_erased_probe_makes_room
                l17_an_erased_row_ends_no_other_probe
                l17_no_open_broadcast_is_left_out
                l18_broadcasts_of_an_origin_take_turns
                l18_one_message_does_not_wait_for_a_broadcast
                l18_an_urgent_message_is_first
                l18_urgent_messages_leave_a_share
                l18_what_is_not_urgent_is_last
                l18_retries_do_not_wait_in_front
                l18_a_retry_has_its_turn
                l18_expired_leases_do_not_wait_in_front
                l18_rows_become_ready_in_the_order_of_their_times
                l18_due_rows_of_a_paused_origin_hold_up_no_others
                l18_the_next_rows_of_several_broadcasts_are_first
                l18_pages_do_not_add_to_a_share
                l18_a_page_stands_behind_rows_that_are_ready
                l18_a_first_page_stands_in_its_own_band
                l18_a_first_page_does_not_add_to_a_share
                l18_cancelled_rows_take_no_places
                l19_a_process_that_lives_keeps_its_rows
                l20_pages_wait_for_their_time
                l20_lost_time_is_not_made_up_for
                l20_only_new_rows_take_time
                l20_a_wrong_clock_stops_no_broadcast
                l20_a_pace_holds_up_no_other
                l21_a_paused_broadcast_is_not_expanded
                l21_a_scheduled_broadcast_may_be_paused
                l21_ready_rows_wait_until_it_goes_on
                l21_leased_rows_are_settled
                l21_a_large_pause_takes_steps
                l21_many_leases_may_end_in_a_pause
                l21_a_claim_that_puts_aside_no_more_says_so
                l21_rows_to_bring_back_are_due
                l21_a_broadcast_that_goes_on_takes_turns
                l21_a_paused_broadcast_is_cancelled
                l21_a_paused_broadcast_expires
                l21_a_wrong_clock_does_not_outlast_a_pause
                l21_rows_put_aside_are_erased
                l21_a_repeated_pause_changes_nothing
                l22_an_empty_outbox_has_no_entries
                l23_changes_and_outcomes_are_written_together
                l24_the_newest_broadcast_is_first
                l24_broadcasts_of_a_time_are_listed
                l24_every_state_is_listed
                l24_few_among_many_are_listed_in_steps
                l25_a_failure_is_counted_and_kept
                l25_samples_are_shared_out
                l25_samples_go_with_their_broadcast
                l26_a_trace_parent_is_kept_with_its_broadcast
                l26_a_first_page_keeps_the_trace_parent
                d1_a_schedule_is_inserted_or_replaced
                d1_the_same_time_stays_due
                d2_schedules_are_listed_by_name
                d3_schedules_are_removed
                d4_schedules_move_where_there_is_none
                d5_due_schedules_are_listed_oldest_first
                d6_fire_opens_and_moves_on
                d6_many_fire_at_once
                d6_fire_writes_first_pages
                d6_one_of_many_concurrent_calls_fires
                d6_a_known_broadcast_is_not_opened_twice
                d7_the_latest_run_is_kept
                d8_the_next_moment_is_the_earliest
                d9_a_schedule_that_was_replaced_is_not_removed
                d10_no_readable_schedule_is_left_out
                d11_a_day_keeps_its_first_number
                d12_days_are_listed_until_now
            }
        }
    };
}

/// Makes one test of each contract sentence of [`SubscriptionStore`](crate::store::SubscriptionStore) alone, for
/// an application's own subscriptions table.
///
/// Used like [`store_conformance!`](crate::store_conformance).
#[macro_export]
macro_rules! subscription_store_conformance {
    ($name:ident, $make:path) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::__store_conformance_subscriptions!($make);
        }
    };
}

/// Makes one test of each case of L22, for a ledger with an outbox.
///
/// Used like [`store_conformance!`](crate::store_conformance), with a third argument: the path of
/// `async fn write(store: &Store, audience: &str, message: &str, opts: &str)`, which writes one entry as an application does,
/// and commits it.
#[macro_export]
macro_rules! outbox_conformance {
    ($name:ident, $make:path, $write:path) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::__outbox_conformance_tests! {
                $make, $write;
                l22_entries_wait_in_their_order
                l22_settling_opens_and_removes
                l22_the_first_entry_of_a_key_opens
                l22_a_repeat_is_removed_and_a_conflict_refused
                l22_a_refused_entry_is_kept
                l22_one_of_many_concurrent_calls_settles
                l22_entries_to_a_user_are_erased
            }
        }
    };
}

/// Makes one test of each contract sentence of [`PortableStore`](crate::store::PortableStore).
///
/// Used like [`store_conformance!`](crate::store_conformance).
#[macro_export]
macro_rules! portable_conformance {
    ($name:ident, $make:path) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::__store_conformance_tests! {
                $make;
                c1_unreachable_rows_are_walked_in_order
                c1_a_walk_goes_on_behind_a_row_that_is_gone
                c2_a_row_is_written_whole
                c2_the_newer_version_holds
                c2_a_later_registration_holds
                c2_an_id_that_has_moved_names_one_row
                c2_concurrent_versions_leave_the_newest
                c3_many_rows_are_one_call
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __outbox_conformance_tests {
    ($make:path, $write:path; $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                if let Some(handles) = $crate::store::conformance::made($make().await) {
                    $crate::store::conformance::$case(&handles, $write).await;
                }
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_subscriptions {
    ($make:path) => {
        $crate::__store_conformance_tests! {
            $make;
            s1_a_row_is_known_by_key_and_by_id
            s1_an_id_names_one_row
            s2_an_unknown_endpoint_is_inserted
            s2_one_of_many_concurrent_upserts_inserts
            s3_the_same_keys_update_the_row
            s3_another_principal_gets_no_stored_tags
            s3_absent_parts_leave_the_stored_ones
            s3_a_retired_or_stale_row_revives
            s3_a_row_is_said_to_have_been_stale
            s4_other_keys_need_the_same_principal
            s4_nobody_changes_the_keys_of_a_row_of_nobody
            s5_a_replacement_takes_over
            s5_what_is_given_wins
            s5_another_principal_takes_over_no_tags
            s5_a_row_that_stood_there_is_superseded
            s5_nothing_to_replace_is_a_plain_upsert
            s5_a_conflict_replaces_nothing
            s6_the_least_recently_seen_make_room
            s7_a_full_table_refuses_inserts
            s7_a_replacement_fits_into_a_full_table
            s8_get_answers_in_order
            s9_a_walk_sees_every_row_once_in_order
            s9_each_audience_is_walked
            s9_only_live_rows_are_walked
            s9_a_walk_survives_changes
            s10_every_filter_counts
            s10_counts_follow_every_change
            s10_concurrent_changes_are_all_counted
            s11_changes_are_made_in_order
            s11_every_reason_to_retire_is_kept
            s11_failures_count_from_their_first
            s11_a_success_is_noted_in_every_state
            s11_an_unknown_row_changes_nothing
            s18_a_row_that_changed_hands_is_not_deleted
            s21_an_assigned_row_is_in_its_audiences
            s21_an_assignment_revives_no_row
            s21_only_the_known_row_is_assigned
            s11_applying_twice_is_applying_once
            s12_an_observation_can_be_out_of_date
            s13_only_rows_retired_before_are_purged
            s13_only_rows_stale_before_are_purged
            s13_only_rows_expired_before_are_purged
            s13_expired_rows_are_no_longer_with_live_ones
            s13_many_expired_rows_take_steps
            s13_a_large_purge_takes_steps
            s13_the_first_reason_counts
            s14_only_an_unknown_endpoint_is_inserted
            s14_one_of_many_concurrent_inserts_wins
            s15_live_rows_are_counted_in_groups
            s16_unproven_rows_have_a_limit
            s16_a_verdict_takes_a_row_out_of_the_count
            s16_a_revived_row_counts_again
            s16_concurrent_changes_keep_the_count
            s17_a_principal_owns_rows_in_every_state
            s19_the_last_failure_is_kept
            s20_every_filter_lists
            s20_a_list_survives_changes
            s20_few_among_many_are_listed_in_steps
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_tests {
    ($make:path; $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                if let Some(handles) = $crate::store::conformance::made($make().await) {
                    $crate::store::conformance::$case(&handles).await;
                }
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_list() {
        let list = include_str!("macros.rs");
        let mut cases = 0;
        for file in [
            include_str!("ledger_claim.rs"),
            include_str!("ledger_due.rs"),
            include_str!("ledger_end.rs"),
            include_str!("ledger_erase.rs"),
            include_str!("ledger_first_page.rs"),
            include_str!("ledger_hold.rs"),
            include_str!("ledger_list.rs"),
            include_str!("ledger_living.rs"),
            include_str!("ledger_moments.rs"),
            include_str!("ledger_open.rs"),
            include_str!("ledger_outbox.rs"),
            include_str!("ledger_pace.rs"),
            include_str!("ledger_pause.rs"),
            include_str!("ledger_prune.rs"),
            include_str!("ledger_samples.rs"),
            include_str!("ledger_settle_with.rs"),
            include_str!("ledger_turns.rs"),
            include_str!("portable.rs"),
            include_str!("schedules.rs"),
            include_str!("subscription_assign.rs"),
            include_str!("subscription_changes.rs"),
            include_str!("subscription_counts.rs"),
            include_str!("subscription_list.rs"),
            include_str!("subscription_pages.rs"),
            include_str!("subscription_replace.rs"),
            include_str!("subscription_unproven.rs"),
            include_str!("subscriptions.rs"),
            include_str!("vapid_keys.rs"),
        ] {
            for line in file.lines() {
                let Some(rest) = line.strip_prefix("pub async fn ") else {
                    continue;
                };
                let (case, _) = rest.split_once('<').unwrap();
                let listed = list.lines().any(|line| line.trim() == case);
                assert!(listed, "{case}");
                cases += 1;
            }
        }
        assert!(cases > 60, "{cases}");
    }
}
