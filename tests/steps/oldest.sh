# The oldest that the manifest allows: of the compiler, and of what the crate depends on.

# A copy of the crate with a lock file of its own: copy_crate FOLDER.
copy_crate() {
    local work=$1 part
    rm -rf "$work" && mkdir -p "$work"
    cp Cargo.toml Cargo.lock clippy.toml "$work"
    for part in src tests examples benches README.md CHANGELOG.md; do
        if [ -e "$part" ]; then ln -s "../../$part" "$work/$part"; fi
    done
}

# SQLite by the oldest rusqlite of the range in the manifest; the lock file has the newest. That it compiles is a part of the next step.
step_rusqlite_range() {
    local oldest work=target/rusqlite-oldest
    oldest=$(sed -nE 's/^rusqlite = .*"(>=)?([0-9]+\.[0-9]+)(\.[0-9]+)?,.*/\2.0/p' Cargo.toml)
    [ -n "$oldest" ] || { echo "no range of rusqlite in Cargo.toml"; return 1; }
    copy_crate "$work"
    cd "$work"
    cargo update --quiet --package rusqlite --precise "$oldest"
    cargo tree --locked --all-features --prefix none --depth 1 | grep -x "rusqlite v$oldest"
    # Only what touches SQLite: the rest does not depend on the version.
    cargo test --all-features --test stores -- contracts:: sqlite:: sqlite_at_rest:: sqlite_crash::
}

# The version of each direct dependency that the manifest names, built by the compiler that it names.
step_minimal_versions() {
    local work=target/minimal-versions
    copy_crate "$work"
    cd "$work"
    rm Cargo.lock
    # The resolver's mode is unstable; the toolchain stays the stable one.
    RUSTC_BOOTSTRAP=1 cargo -Z direct-minimal-versions generate-lockfile --quiet
    if cargo "+$(rust_version)" --version >/dev/null 2>&1; then
        cargo "+$(rust_version)" check --locked --lib --all-features
    else
        leave_out "Rust $(rust_version) is missing, so this compiler checked the lower bounds"
        cargo check --locked --lib --all-features
    fi
}

# The manifest's `rust-version` is what its dependencies need: no older compiler could build them.
step_rust_version() {
    local newest
    newest=$(cargo metadata --locked --all-features --format-version 1 | python3 tests/steps/rust_version.py)
    echo "the dependencies need Rust $newest, Cargo.toml says $(rust_version)"
    [ "$newest" = "$(rust_version)" ]
}

rust_version() {
    sed -nE 's/^rust-version = "(.*)"/\1/p' Cargo.toml
}
