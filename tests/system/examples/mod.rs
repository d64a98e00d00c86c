//! The examples as processes: both servers over real sockets, and the other programs.

mod backups;
mod behind_proxies;
mod checks;
mod clients;
mod closed;
mod copies;
mod crowding;
// Its tests are the conformance suite of the store contracts.
#[allow(dead_code, reason = "`programs` runs its main function")]
#[path = "../../../examples/custom_store.rs"]
mod custom_store;
mod daily;
mod existing_app;
mod forgetting;
mod keys;
#[cfg(unix)]
mod listeners;
mod logs;
mod metrics;
mod namespaces;
mod principal_tokens;
mod programs;
#[allow(dead_code, reason = "only the choice is looked at")]
#[path = "../../../examples/support/progress.rs"]
mod progress;
mod progress_line;
mod proxy_addresses;
mod restarts;
mod secrets;
mod settings;
mod shipped_proxies;
mod silent_names;
mod spans;
#[allow(dead_code, reason = "only the parser is called")]
#[path = "../../../examples/support/store.rs"]
mod store;
mod store_urls;
mod strangers;
mod trace;
mod vanishing;
mod waiting;
pub(crate) mod world;

/// The same cases for both servers: only the way they serve HTTP differs.
macro_rules! both_servers {
    ($($group:ident::$case:ident)*) => {
        mod axum_server {
            $(#[tokio::test]
            async fn $case() {
                crate::examples::$group::$case("axum_server").await;
            })*
        }

        mod hyper_server {
            $(#[tokio::test]
            async fn $case() {
                crate::examples::$group::$case("hyper_server").await;
            })*
        }
    };
}

both_servers! {
    backups::a_stop_leaves_one_file
    backups::a_server_starts_on_every_kind_of_backup
    backups::a_backup_that_cannot_be_made_is_one_line
    checks::what_is_wrong_is_said_in_words
    checks::a_check_changes_nothing
    checks::a_subscription_is_explained
    checks::subscriptions_whose_key_is_lost_are_found
    checks::what_keeps_a_subscription_from_messages_is_said
    checks::the_policy_and_its_names_are_checked
    checks::a_store_that_cannot_be_written_and_a_late_queue_are_found
    checks::a_prefix_without_a_store_is_not_made_one
    copies::a_killed_copy_goes_on_while_messages_are_sent
    copies::a_full_or_dead_target_loses_nothing
    copies::an_export_is_restored_into_another_store
    copies::a_backup_to_standard_output_can_be_restored
    copies::a_command_that_is_interrupted_leaves_no_file
    copies::a_full_journal_is_an_interruption
    clients::the_pages_may_do_nothing_but_what_they_need
    clients::the_console_can_be_switched_off
    clients::a_client_of_the_flask_and_redis_demo_works_unchanged
    clients::a_client_of_the_flask_and_sqlite_server_works_unchanged
    clients::a_path_has_one_spelling
    clients::the_admin_routes_and_the_metrics_want_credentials
    daily::wrong_times_zones_days_and_types_are_refused_and_nothing_is_stored
    forgetting::a_user_is_erased_from_the_store_of_a_running_server
    forgetting::nothing_is_created_for_an_erasure
    forgetting::an_erasure_that_fails_on_its_way_says_so
    forgetting::a_misspelt_schema_or_prefix_is_not_made_a_store
    settings::a_new_token_is_printed_where_only_this_machine_can_connect
    settings::pages_of_listed_origins_may_call
    settings::a_daily_subscription_is_confirmed_unless_switched_off
    keys::a_first_key_is_told_of_and_an_adopted_one_is_not
    keys::a_clear_key_is_refused_but_in_the_start_that_seals_it
    closed::without_a_contact_nothing_is_sent
    closed::local_endpoints_need_a_local_host
    closed::secrets_may_stand_in_files
    closed::the_log_is_never_silenced_by_a_target
    closed::the_proxy_names_the_user
    closed::the_header_of_a_stranger_names_no_one
    principal_tokens::a_token_names_the_user
    principal_tokens::a_token_can_have_a_public_key
    principal_tokens::the_backends_of_the_guide_make_tokens
    listeners::a_unix_socket_is_for_a_proxy
    listeners::a_stale_socket_file_is_replaced_and_no_other_file
    listeners::sockets_of_the_service_manager_go_first
    listeners::sockets_of_another_process_are_left_alone
    listeners::the_service_manager_is_told
    listeners::https_needs_no_proxy
    listeners::a_renewed_certificate_needs_no_restart
    listeners::a_key_file_that_cannot_be_read_to_its_end_delays_nobody
    waiting::a_database_that_comes_up_is_waited_for
    waiting::sigterm_ends_the_wait
    namespaces::each_has_its_own_schema_or_prefix
    logs::a_start_and_the_end_of_a_broadcast_are_one_line_each
    logs::administrators_and_wrong_credentials_are_told_without_secrets
    logs::a_store_that_fails_is_one_line_for_each_route
    metrics::metrics_are_read_with_get_and_head_only
    metrics::every_name_of_the_rules_and_the_dashboard_is_exported
    metrics::the_metrics_tell_what_happened_and_name_no_one
    metrics::the_metrics_answer_while_the_store_is_down
    restarts::a_restart_keeps_keys_subscriptions_and_what_is_due
    restarts::memory_is_forgotten
    settings::a_wrong_setting_is_one_line_and_exit_code_2
    settings::help_names_every_setting
    silent_names::sigterm_does_not_wait_for_a_silent_name_server
    silent_names::sighup_drains
    silent_names::a_second_sighup_does_not_end_the_drain
    silent_names::nohup_keeps_the_server
    spans::they_link_to_the_span_given_at_notify
    spans::a_collector_out_of_reach_costs_one_line
    strangers::idle_connections_keep_no_one_out
    strangers::answers_that_are_not_read_keep_no_one_out
    strangers::slow_clients_are_closed
    strangers::a_drain_does_not_wait_for_them
    strangers::long_heads_are_refused
    strangers::every_request_names_one_valid_host
    trace::on_memory_nothing_secret_is_logged_at_any_level
    trace::on_sqlite_nothing_secret_is_logged_at_any_level
    trace::on_postgres_nothing_secret_is_logged_at_any_level
    trace::on_redis_nothing_secret_is_logged_at_any_level
    vanishing::a_deleted_file_refuses_changes_and_is_not_ready
    vanishing::a_replaced_file_refuses_changes_and_is_not_ready
    vanishing::a_locked_file_is_not_ready_until_it_can_be_written
    vanishing::an_empty_store_is_refused_if_it_must_not_be_created
    vanishing::a_store_with_another_key_is_refused
}
