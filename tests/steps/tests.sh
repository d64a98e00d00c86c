# What runs tests. The unit tests run with the package, see packages.sh.

# Those of `tests/`, and with them the example servers. The unit tests run in the step `package`.
step_tests() {
    start_servers
    cargo build --all-features --examples
    if have cargo-nextest; then
        # They run without cargo, which would wait for the lock of the target folder while other things are compiled.
        local built
        built=$(mktemp -d)
        cargo nextest list --all-features --test '*' --list-type binaries-only --message-format json >"$built/binaries"
        cargo metadata --locked --all-features --format-version 1 >"$built/packages"
        while_compiling_ahead cargo nextest run --binaries-metadata "$built/binaries" --cargo-metadata "$built/packages" \
            --profile "$nextest_profile"
        rm -rf "$built"
    else
        leave_out "cargo-nextest is missing, so cargo test ran instead: no time limits"
        cargo test --all-features --test '*'
    fi
}

# What the tests themselves pass over: they say so aloud, but a passing test's output is not shown.
check_peers() {
    if ! [ -x "$peers/venv/bin/python" ]; then leave_out "interop with Python: no $peers/venv"; fi
    if ! [ -d "$peers/node/node_modules" ]; then leave_out "interop with Node: no $peers/node/node_modules"; fi
    if ! have firefox-esr && ! have firefox; then leave_out "Firefox is missing"; fi
    if ! have chromium; then leave_out "Chromium is missing"; fi
    if ! have sqlite3; then leave_out "sqlite3 is missing"; fi
    if ! [ -d /usr/lib/postgresql ] && ! have postgres; then leave_out "PostgreSQL is missing"; fi
    local server
    for server in redis-server valkey-server nats-server nginx pgbouncer; do
        if ! have "$server"; then leave_out "$server is missing"; fi
    done
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || leave_out "libfaketime is missing"
}

# Only what needs no browser, no other language and no program started.
step_quick_tests() {
    if have cargo-nextest; then
        cargo nextest run --all-features -E 'not (binary(system) or binary(stores) & test(/^(postgres|redis)::/))'
    else
        cargo test --all-features --lib
    fi
}

# What browsers are served: its types, and its behaviour in a browser made of small fakes.
step_javascript() {
    if have node; then
        node --no-warnings --experimental-vm-modules --test tests/js/*.test.mjs
    else
        leave_out "node is missing, so the client and the service worker were not tested"
    fi
    local tsc=$peers/node/node_modules/.bin/tsc project
    [ -x "$tsc" ] || { leave_out "types of the browser files: no $tsc"; return 0; }
    for project in tests/js/tsconfig*.json; do
        "$tsc" --project "$project"
        echo "$project: no type error"
    done
}

# The mutants of the pure rules: none survives but those that tests/mutants/kept.txt gives a reason for. Other sets take a night.
step_mutants() {
    # In a target folder that has the dependencies already; the copy with the mutants is built there too.
    cargo run --quiet --locked --manifest-path tests/mutants/Cargo.toml -- "${MUTANTS:-pure}"
}

step_doctests() {
    cargo test --doc --all-features
}

build_fuzz() (
    # The sanitizers are switched on by unstable flags; the toolchain stays the stable one.
    export RUSTC_BOOTSTRAP=1
    unset CARGO_TARGET_DIR
    # shellcheck disable=SC2046
    cargo fuzz build $(fuzz_options)
)

# Nothing that the targets link is unsafe code of this crate, or C. In a few seconds more is found without AddressSanitizer, which
# slows each input down and takes half as long again to compile; the long runs have it.
fuzz_options() {
    if [ -z "${FUZZ_SECONDS:-}" ]; then echo --sanitizer none; fi
}

# Each target for a moment, from its seeds: enough to see that it builds and that its invariants hold. fuzz/README.md has the rest.
step_fuzz() {
    [ -e fuzz/Cargo.toml ] || { leave_out "there are no fuzz targets"; return 0; }
    have cargo-fuzz || { leave_out "cargo-fuzz is missing"; return 0; }
    have c++ || { leave_out "a C++ compiler is missing, which builds libFuzzer"; return 0; }
    build_fuzz
    export RUSTC_BOOTSTRAP=1
    unset CARGO_TARGET_DIR
    local target seeds
    for target in $(cargo fuzz list); do
        mkdir -p "fuzz/corpus/$target"
        seeds=fuzz/corpus/seed_$target
        [ -d "$seeds" ] || { echo "no seeds for $target in $seeds"; return 1; }
    done
    # Two at a time; xargs fails if one of them does.
    # shellcheck disable=SC2046
    cargo fuzz list | xargs -I '{}' -P 2 cargo fuzz run $(fuzz_options) '{}' 'fuzz/corpus/{}' 'fuzz/corpus/seed_{}' -- \
        -max_total_time="${FUZZ_SECONDS:-10}" -print_final_stats=1
}
