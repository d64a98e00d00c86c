# The core is pure, it builds for browsers, and the table of features in the crate docs is true.

# The core and VAPID without a system: the application chooses where its random octets come from.
step_wasm32() {
    local target=wasm32-unknown-unknown features
    if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
        leave_out "the target $target is missing"
        return 0
    fi
    for features in getrandom/wasm_js vapid,getrandom/wasm_js; do
        cargo clippy --lib --no-default-features --features "$features" --target "$target" -- -D warnings
    done
}

# The core is pure: no runtime, no TLS, no database, no C code, and nothing in two versions.
step_core() {
    local crates found
    crates=$(linked_crates --no-default-features)
    found=$(echo "$crates" | grep -E "$IMPURE" || true)
    if [ -n "$found" ]; then
        echo "the core pulls in:" && echo "$found" && return 1
    fi
    found=$(duplicates --no-default-features)
    if [ -n "$found" ]; then
        echo "the core pulls these in twice:" && echo "$found" && return 1
    fi
    # Both questions must be able to find something: the default features have all of it.
    local name
    found=$(linked_crates | grep -E "$IMPURE")
    for name in tokio hyper rustls aws-lc-sys cc; do
        grep -qx "$name" <<<"$found" || { echo "the search for impure crates is blind to $name"; return 1; }
    done
    [ -n "$(duplicates)" ] || { echo "the search for duplicates is blind"; return 1; }
    # Without `jwt-simple`, nothing of a general JWT library is left in everything that serves.
    found=$(linked_crates --no-default-features --features client,api,sqlite,postgres,redis,zones | grep -E "$GENERAL_JWT" || true)
    if [ -n "$found" ]; then
        echo "without jwt-simple there still are:" && echo "$found" && return 1
    fi
    found=$(linked_crates | grep -E "$GENERAL_JWT")
    for name in jwt-simple superboring rsa ed25519-compact k256 p384 ml-dsa blake2b_simd; do
        grep -qx "$name" <<<"$found" || { echo "the search for a general JWT library is blind to $name"; return 1; }
    done
    echo "the core links $(echo "$crates" | wc -l) crates, itself included, none of them impure or twice"
    feature_table
}

# What the crate docs say that a feature pulls in is what it pulls in.
feature_table() {
    local feature pulls linked name checked=0
    while IFS='|' read -r _ feature _ pulls _; do
        feature=$(grep -o '`[a-z-]*`' <<<"$feature" | head -n 1 | tr -d '`' || true)
        linked=$(linked_crates --no-default-features --features "$feature")
        for name in $(grep -o '`[a-z0-9_-]*`' <<<"$pulls" | tr -d '`' || true); do
            grep -qx "$name" <<<"$linked" || { echo "feature ${feature:-none} does not pull in $name"; return 1; }
            checked=$((checked + 1))
        done
    done < <(sed -n '/^\/\/! | feature | adds/,/^\/\/!$/p' src/lib.rs | sed '1,2d;$d')
    [ "$checked" -ge 15 ] || { echo "the table of features in src/lib.rs was not found"; return 1; }
    echo "the table of features names $checked crates, each where it says"
}

# Names that a pure core has not. `libc` is bindings without code; `.*-sys` is code in another language.
readonly IMPURE='^(tokio|tokio-.*|mio|async-std|smol|hyper|hyper-.*|h2|tower|tower-(http|layer|service)|rustls|rustls-.*|ring|aws-lc-rs|openssl|openssl-.*|native-tls|rusqlite|cc|cmake|bindgen|pkg-config|vcpkg|.*-sys|jwt-simple|rsa|boring.*)$'

# `jwt-simple`, and the algorithms that VAPID has no use for.
readonly GENERAL_JWT='^(jwt-.*|superboring|boring.*|rsa|pkcs1|num-bigint.*|ed25519.*|k256|p384|ml-dsa|blake2.*|hmac-sha.*|coarsetime|anyhow)$'

# Names of what is linked or runs at build time, without what only the tests use.
linked_crates() {
    cargo tree --locked --edges normal,build --prefix none --format '{p}' "$@" | cut -d ' ' -f 1 | sort -u
}

# Procedural macros stay in the compiler, and bring versions of their own.
duplicates() {
    cargo tree --quiet --locked --edges normal,no-proc-macro --duplicates --depth 0 --prefix none --format '{p}' "$@" | sort -u
}
