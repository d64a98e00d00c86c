# The database servers that the tests share.

# The database servers that the tests share, on free loopback ports, with their data in a temporary folder. They
# end with the step, whose shell this is. Tests that stop or kill a server start one of their own.
start_servers() {
    servers=$(mktemp -d) server_ids=()
    chmod 755 "$servers"
    trap stop_servers EXIT
    if [ -d /usr/lib/postgresql ] || have postgres; then
        start_server postgres && export WEB_PUSH_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres"
    fi
    if have redis-server; then start_server redis && export WEB_PUSH_TEST_REDIS="redis://127.0.0.1:$port"; fi
    if have valkey-server; then VALKEY=1 start_server redis valkey && export WEB_PUSH_TEST_VALKEY="redis://127.0.0.1:$port"; fi
    if have nats-server; then start_server nats && export WEB_PUSH_TEST_NATS="nats://127.0.0.1:$port"; fi
}

# start_server SCRIPT [NAME]: sets `port` once it listens.
start_server() {
    local script=$1 name=${2:-$1} tries
    port=$(free_port)
    "tests/servers/$script" "$servers/$name" "$port" >"$servers/$name.log" 2>&1 &
    server_ids+=($!)
    for tries in $(seq 600); do
        if is_ready "$script" "$port"; then return 0; fi
        if ! kill -0 "${server_ids[-1]}" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo "$name does not listen:" && tail -n 5 "$servers/$name.log"
    return 1
}

is_ready() {
    case $1 in
    postgres) tests/servers/postgres --ready "$2" ;;
    *) (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null ;;
    esac
}

# Below those that the system gives away, and above those that tests take for servers of their own.
free_port() {
    local port
    while port=$((30000 + RANDOM % 2700)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port" && return; fi
    done
}

stop_servers() {
    local id
    for id in "${server_ids[@]}"; do kill -INT "$id" 2>/dev/null || true; done
    for id in "${server_ids[@]}"; do wait "$id" 2>/dev/null || true; done
    rm -rf "$servers"
}
