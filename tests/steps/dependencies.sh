# What the crate depends on: licences, versions, known faults, and whose types its users see.

# With what only the tests and the example servers use: people run those, too.
step_deny() {
    have cargo-deny || { leave_out "cargo-deny is missing"; return 0; }
    cargo deny --locked --all-features check bans licenses sources
    # The database of known faults comes from the network, which is no reason for a change to fail.
    if cargo deny --locked --all-features fetch db; then
        cargo deny --locked --all-features check --disable-fetch advisories
    else
        tell "the database of advisories cannot be fetched here, so no dependency was looked up in it"
    fi
}

# Types of other crates in the public API: each is a promise, so each is a decision.
step_public_types() {
    # The format is unstable; the toolchain stays the stable one. Only rustdoc is told so: build scripts of dependencies would run
    # again, and all that depends on them be compiled again.
    RUSTDOC="$PWD/tests/steps/unstable_rustdoc" cargo rustdoc --quiet --lib --all-features -- -Z unstable-options --output-format json
    python3 tests/steps/public_types.py "$CARGO_TARGET_DIR/doc/tower_web_push.json" <tests/steps/public_types.txt
}
