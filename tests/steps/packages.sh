# The package as it would be published, the other packages of the repository, and what the README tells people to type.

# Unpacks the archive that would be published, and leaves the shell there.
unpack_package() {
    local -a dirty=()
    # A change is checked before it is committed; what is published is not.
    if [ -z "${CI:-}" ]; then dirty=(--allow-dirty); fi
    cargo package --quiet --locked --no-verify "${dirty[@]}"
    local crate archive unpacked=$CARGO_TARGET_DIR/package/unpacked
    crate=$(basename "$(cargo pkgid)" | sed -E 's/.*#(.*@)?/tower-web-push-/')
    archive=$CARGO_TARGET_DIR/package/$crate.crate
    # The files in an archive have no times of their own. Those of another archive are newer than what was compiled before.
    if ! cmp -s "$archive" "$unpacked/archive"; then
        rm -rf "$unpacked" && mkdir -p "$unpacked"
        tar -xzmf "$archive" -C "$unpacked"
        cp "$archive" "$unpacked/archive"
    fi
    cd "$unpacked/$crate"
}

build_package() {
    unpack_package
    cargo test --locked --lib --all-features --no-run
}

# The archive builds alone, and has all that its unit tests include, which run here and not once more in the step `tests`. Their
# dependencies are those of the other steps.
step_package() {
    local settings=$PWD/.config/nextest.toml
    start_servers
    unpack_package
    if have cargo-nextest; then
        cargo nextest run --locked --lib --all-features --config-file "$settings" --profile "$nextest_profile"
    else
        leave_out "cargo-nextest is missing, so cargo test ran the unit tests instead: no time limits"
        cargo test --locked --lib --all-features
    fi
}

# What the README tells people to type has to exist. `cargo run` is only built: servers do not end.
step_readme() {
    [ -e README.md ] || { leave_out "there is no README.md"; return 0; }
    local command checked=0
    while IFS= read -r command; do
        case "$command" in
        "cargo run "* | "cargo build "* | "cargo test "*)
            command=${command%% -- *}
            command=${command/#cargo run/cargo build}
            command=${command/#cargo test/cargo check --tests}
            echo "+ $command"
            eval "$command"
            ;;
        "./test" | "./test "*)
            local -a words
            read -ra words <<<"${command%%#*}"
            echo "+ ${words[*]}"
            ./test --list "${words[@]:1}" >/dev/null
            ;;
        *) continue ;;
        esac
        checked=$((checked + 1))
    done < <(awk '/^```/ { inside = !inside && /^```(sh|bash|console|shell)$/ ? 1 : inside ? 0 : 2; next } inside == 1' README.md |
        sed -E 's/^\$ //; s/^([A-Z_]+=[^ ]+ )+//')
    [ "$checked" -gt 0 ] || { echo "no command found in README.md"; return 1; }
    echo "$checked commands of the README can be run"
    python3 benches/peers/report.py --check benches/peers/results README.md
}

# Tests the example packages, with lints: clippy compiles them as `cargo clippy` has it compile, which would have to check all
# their dependencies once more. It wants its arguments in one variable.
test_packages() {
    RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__ \
        cargo test --locked --workspace --all-features --manifest-path examples/packages/Cargo.toml "$@"
}

# Lints and builds the packages and their tests.
build_packages() {
    local manifest
    test_packages --no-run
    cargo clippy --locked --all-features --all-targets --manifest-path tests/mutants/Cargo.toml -- -D warnings
    # As their READMEs build them: what one lacks, another one may have brought above.
    for manifest in $(maybe examples/grpc/Cargo.toml examples/jetstream/Cargo.toml examples/outbox/Cargo.toml); do
        cargo check --locked --manifest-path "$manifest"
    done
}

# Packages with lock files of their own, for what the crate itself must not depend on.
step_packages() {
    build_packages
    have nats-server || leave_out "nats-server is missing, so no test of examples/jetstream runs"
    test_packages
    cargo test --locked --manifest-path tests/mutants/Cargo.toml
}

# The senders that are compared with this crate: each of them still sends.
step_peers() {
    [ -x "$peers/venv/bin/python" ] || { leave_out "the peers in Python: no $peers/venv"; return 0; }
    [ -d "$peers/node/node_modules" ] || { leave_out "the peers in Node: no $peers/node/node_modules"; return 0; }
    pkg-config --exists openssl || { leave_out "the headers of OpenSSL are missing"; return 0; }
    cargo clippy --locked --all-features --all-targets --manifest-path benches/peers/Cargo.toml -- -D warnings
    benches/peers/run --quick
}

other_packages() {
    maybe benches/peers/Cargo.toml examples/packages/Cargo.toml tests/mutants/Cargo.toml
}

maybe() {
    local file
    for file in "$@"; do
        if [ -e "$file" ]; then echo "$file"; fi
    done
}
