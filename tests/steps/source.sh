# The sources as they are written: format, lints, documentation, and that each feature builds.

step_format() {
    cargo fmt --all -- --check
    local manifest
    for manifest in $(other_packages) $(maybe fuzz/Cargo.toml); do
        cargo fmt --manifest-path "$manifest" -- --check
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
}

step_quick_lints() {
    cargo clippy --all-features --lib -- -D warnings
}

step_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
}

# Every feature works alone, and the two sets that people choose: none of them only builds beside others.
step_features() {
    local feature
    for feature in "" vapid jwt-simple client api sqlite testing postgres redis aws-lc-rs zones tracing metrics; do
        echo "features: ${feature:-none}"
        cargo clippy --quiet --lib --no-default-features --features "$feature" -- -D warnings
    done
    echo "features: default"
    cargo clippy --quiet --lib -- -D warnings
    echo "features: full"
    cargo clippy --quiet --lib --no-default-features --features full -- -D warnings
    # Where nothing else signs, tokens are those of the deterministic vectors.
    echo "features: vapid, its tests of tokens"
    cargo test --quiet --lib --no-default-features --features vapid vapid::token
}

step_examples() {
    cargo build --examples --all-features
}
