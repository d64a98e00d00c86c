# What `./test --install` installs.

install() {
    local -a wanted=()
    have c++ || wanted+=(g++)
    have cc || wanted+=(gcc libc6-dev)
    have clang || wanted+=(clang)
    have git || wanted+=(git)
    have python3 || wanted+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
    have node || wanted+=(nodejs)
    have npm || wanted+=(npm)
    have firefox-esr || have firefox || wanted+=(firefox-esr)
    have chromium || wanted+=(chromium)
    have redis-server || wanted+=(redis-server)
    have valkey-server || wanted+=(valkey-server)
    have nats-server || wanted+=(nats-server)
    have nginx || wanted+=(nginx)
    have caddy || wanted+=(caddy)
    have systemd-analyze || wanted+=(systemd)
    have openssl || wanted+=(openssl)
    have pgbouncer || wanted+=(pgbouncer)
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || wanted+=(libfaketime)
    have setpriv || wanted+=(util-linux)
    have sqlite3 || wanted+=(sqlite3)
    have valgrind || wanted+=(valgrind)
    # What `web-push` of benches/peers links.
    have pkg-config || wanted+=(pkg-config)
    pkg-config --exists openssl 2>/dev/null || wanted+=(libssl-dev)
    if ! [ -d /usr/lib/postgresql ] && ! have postgres; then wanted+=(postgresql); fi
    # Tools are compiled while packages come over the network.
    local tools=''
    if have cc; then
        install_rust &
        tools=$!
    fi
    if [ ${#wanted[@]} -gt 0 ]; then
        echo "apt: ${wanted[*]}"
        as_root apt-get update -q
        case " ${wanted[*]} " in *" valkey-server "*) offer_valkey ;; esac
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${wanted[@]}"
    fi
    install_python
    install_node
    if [ -n "$tools" ]; then wait "$tools"; else install_rust; fi
}

install_rust() {
    local tool
    # They wait for others: optimized code would save less time than it takes to compile.
    for tool in cargo-nextest cargo-fuzz cargo-hack cargo-deny; do
        have "$tool" || CARGO_TARGET_DIR=target/tools cargo install --locked --debug "$tool"
    done
    rustup component add rustfmt clippy >/dev/null 2>&1 || cargo clippy --version >/dev/null
    rustup target add wasm32-unknown-unknown
    rustup toolchain install "$(rust_version)" --profile minimal --no-self-update
}

# Debian 12 has Valkey in its backports only.
offer_valkey() {
    if apt-cache show valkey-server >/dev/null 2>&1; then return 0; fi
    local release
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    echo "deb http://deb.debian.org/debian $release-backports main" | as_root tee /etc/apt/sources.list.d/backports.list
    as_root apt-get update -q
}

install_python() {
    local pins=tests/system/interop/requirements.txt
    if cmp -s "$pins" "$peers/venv/installed.txt"; then return 0; fi
    rm -rf "$peers/venv" && mkdir -p "$peers"
    python3 -m venv "$peers/venv"
    "$peers/venv/bin/pip" install --quiet --no-deps --requirement "$pins"
    "$peers/venv/bin/pip" check
    cp "$pins" "$peers/venv/installed.txt"
}

install_node() {
    local pins=tests/system/interop/package-lock.json
    if cmp -s "$pins" "$peers/node/installed.json"; then return 0; fi
    rm -rf "$peers/node" && mkdir -p "$peers/node"
    cp tests/system/interop/package.json "$pins" "$peers/node"
    npm ci --prefix "$peers/node" --ignore-scripts --no-audit --no-fund
    cp "$pins" "$peers/node/installed.json"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
