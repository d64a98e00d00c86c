# What later steps compile is compiled while the tests run: half of that time tests only wait, and leave the processors idle.

# Runs until all is compiled. Its failures are those of the steps themselves, which tell of them in their turn.
compile_ahead() {
    # A process of this class gets what no other one wants.
    chrt --idle --pid 0 "$BASHPID"
    # The databases of the tests wait for their disk: what is written here comes after that, where the disk's scheduler has classes.
    if have ionice; then ionice -c3 -p "$BASHPID"; fi
    # One part that fails keeps no other from being compiled.
    set +e
    # These have target folders of their own: what they compile waits for nothing else.
    (set -e; build_fuzz) &
    local fuzz=$! features part
    (set -e; step_features) &
    features=$!
    for part in build_package build_packages step_minimal_versions step_wasm32; do
        (set -e; "$part")
    done
    wait "$fuzz" "$features"
}

# Runs a command while that is done, and waits for both.
while_compiling_ahead() {
    if [ -z "${CI:-}" ] || ! have chrt; then
        "$@"
        return
    fi
    local log status=0 compiler
    log=$(mktemp)
    # Nothing is left out here that is not left out in its step.
    left_out=/dev/null compile_ahead >"$log" 2>&1 &
    compiler=$!
    "$@" || status=$?
    wait "$compiler" || true
    grep -E '^(error|warning: unused)' "$log" | head -n 5 || true
    rm -f "$log"
    return "$status"
}
