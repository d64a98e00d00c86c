# The long forms of tests that are short elsewhere: for a night, and a machine with nothing else to do.

step_night() {
    start_servers
    cargo build --all-features --examples
    # 50 kills in a row on each store.
    WEB_PUSH_TEST_KILLS=50 cargo test --all-features --test system killed:: -- --test-threads=1
    # Servers that come and go while they send to more.
    WEB_PUSH_TEST_RECIPIENTS=20000 cargo test --all-features --test system comings_and_goings:: -- --test-threads=1
    # The cost of claims, pages and counts at a million rows.
    export WEB_PUSH_TEST_ROWS=1000000
    cargo test --all-features --lib cost_tests -- --test-threads=1
    cargo test --all-features --test stores sqlite_scale -- --test-threads=1
    # A million subscriptions between all pairs of stores.
    WEB_PUSH_TEST_COPY=1000000 cargo test --release --all-features --test stores copying:: -- --test-threads=1 --nocapture
    WEB_PUSH_SIMULATION_SEEDS=1000000 cargo test --release --all-features --lib simulation::every
    (step_rusqlite_range)
    FUZZ_SECONDS=600 step_fuzz
}
