# The sources as they are written: format, lints, documentation, and that each feature builds.

step_format() {
    cargo fmt --all -- --check
    local manifest
    for manifest in $(other_packages) $(maybe fuzz/Cargo.toml); do
        cargo fmt --all --manifest-path "$manifest" -- --check
    done
}

# The lock files are what CI and users build with: they must fit the manifests.
step_locks() {
    local manifest
    for manifest in Cargo.toml $(maybe fuzz/Cargo.toml) $(other_packages); do
        cargo metadata --locked --format-version 1 --manifest-path "$manifest" >/dev/null
        echo "$manifest: up to date"
    done
}

step_lints() {
    cargo clippy --all-features --all-targets -- -D warnings
    # For the step `features`, while there is little to copy.
    if [ -n "${CI:-}" ]; then second_folder >/dev/null; fi
}

step_quick_lints() {
    cargo clippy --all-features --lib -- -D warnings
}

step_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
}

# Every feature that users have works alone, and so do none and the default ones: none of them only builds beside others. All of them,
# which `full` is, are linted above.
step_features() {
    have cargo-hack || { leave_out "cargo-hack is missing"; return 0; }
    # In one target folder, since many features share dependencies with others, and in one of their own, beside what else compiles.
    CARGO_TARGET_DIR=$(second_folder) \
        cargo hack clippy --quiet --each-feature --exclude-all-features --exclude-features full,_engine --lib -- -D warnings
}

step_examples() {
    cargo build --examples --all-features
}
