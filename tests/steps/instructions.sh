# How many instructions it takes to prepare a message: a figure that does not depend on the load of the machine.

# Counted in the build of the tests, whose crypto is optimized, and compared with benches/instructions.txt. Keys and salts
# are random; the code that depends on them takes constant time.
step_instructions() {
    have valgrind || { leave_out "valgrind is missing, so no instructions were counted"; return 0; }
    [ "$(uname -m)" = x86_64 ] || { leave_out "benches/instructions.txt is of x86_64"; return 0; }
    local bench backend baseline count messages=20 failed=0
    bench=$(cargo build --all-features --bench instructions --message-format json |
        sed -nE 's/.*"executable":"([^"]*instructions-[^"]*)".*/\1/p')
    while read -r backend baseline; do
        count=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*counted_prepare*' \
            "$bench" "$backend" "$messages" 2>&1 | sed -nE 's/.*Collected : ([0-9]+)$/\1/p')
        count=$((${count:?no count from valgrind} / messages))
        echo "$backend: $count instructions for a message, $baseline in benches/instructions.txt"
        # A count that has become lower is written down, or the next regression hides behind it.
        if [ $((count * 10)) -gt $((baseline * 11)) ] || [ $((count * 10)) -lt $((baseline * 9)) ]; then
            echo "error: $backend differs by more than 10 %: find out why, or write $count there"
            failed=1
        fi
    done < <(grep -v '^#' benches/instructions.txt)
    return "$failed"
}
