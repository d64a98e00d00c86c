# The package as it would be published, the other packages of the repository, and what the README tells people to type.

# The archive builds alone, and has all that its unit tests include. Their dependencies are those of the other steps.
step_package() {
    local -a dirty=()
    # A change is checked before it is committed; what is published is not.
    if [ -z "${CI:-}" ]; then dirty=(--allow-dirty); fi
    cargo package --quiet --locked --no-verify "${dirty[@]}"
    start_servers
    local crate
    crate=$(basename "$(cargo pkgid)" | sed -E 's/.*#(.*@)?/tower-web-push-/')
    # Outside of the repository, whose workspace it is no part of.
    unpacked=$(mktemp -d)
    trap 'stop_servers; rm -rf "$unpacked"' EXIT
    tar -xzf "$CARGO_TARGET_DIR/package/$crate.crate" -C "$unpacked"
    cd "$unpacked/$crate"
    # The simulation's seeds have their turn in the step `tests`.
    WEB_PUSH_SIMULATION_SEEDS=10 cargo test --locked --lib --all-features
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

has_tests() {
    [ -d "$(dirname "$1")/tests" ] || [[ $1 = *mutants* ]]
}

# Lints and builds the packages and their tests.
build_packages() {
    local manifest
    for manifest in $(other_packages); do
        if [[ $manifest = *peers* ]] && ! pkg-config --exists openssl; then continue; fi
        cargo clippy --locked --all-features --all-targets --manifest-path "$manifest" -- -D warnings
        if has_tests "$manifest"; then
            cargo test --locked --no-run --manifest-path "$manifest"
        fi
    done
}

# Packages with lock files of their own, for what the crate itself must not depend on.
step_packages() {
    build_packages
    local manifest
    for manifest in $(other_packages); do
        echo "$manifest"
        if [[ $manifest = *peers* ]] && ! pkg-config --exists openssl; then
            leave_out "the headers of OpenSSL are missing, so $manifest was not compiled"
            continue
        fi
        if has_tests "$manifest"; then
            [[ $manifest != *jetstream* ]] || have nats-server || leave_out "nats-server is missing, so no test of $manifest runs"
            cargo test --locked --manifest-path "$manifest"
        fi
    done
}

# The senders that are compared with this crate: each of them still sends.
step_peers() {
    [ -x "$peers/venv/bin/python" ] || { leave_out "the peers in Python: no $peers/venv"; return 0; }
    [ -d "$peers/node/node_modules" ] || { leave_out "the peers in Node: no $peers/node/node_modules"; return 0; }
    pkg-config --exists openssl || { leave_out "the headers of OpenSSL are missing"; return 0; }
    benches/peers/run --quick
}

other_packages() {
    maybe benches/peers/Cargo.toml examples/grpc/Cargo.toml examples/jetstream/Cargo.toml examples/outbox/Cargo.toml tests/mutants/Cargo.toml
}

maybe() {
    local file
    for file in "$@"; do
        if [ -e "$file" ]; then echo "$file"; fi
    done
}
