#!/bin/sh
# Builds the standalone server of two commits and measures them in turns: benches/commits.sh OLD [NEW] [STORE…].
# NEW is the commit that is checked out, if it is not named.
set -eu
cd "$(dirname "$0")/.."
old=${1:?name the old commit}
new=HEAD
shift
case ${1:-sqlite} in sqlite | postgres | redis) ;; *) new=$1 && shift ;; esac
folder=$(mktemp -d)
trap 'git worktree remove --force "$folder/old" 2>/dev/null; git worktree remove --force "$folder/new" 2>/dev/null; rm -rf "$folder"' EXIT
for one in old new; do
	eval "commit=\$$one"
	git worktree add --quiet --detach "$folder/$one" "$commit"
	(cd "$folder/$one" && CARGO_TARGET_DIR="$folder/target-$one" cargo build --release --example axum_server --all-features)
done
programs=
for one in old new; do programs="$programs $one=$folder/target-$one/release/examples/axum_server"; done
# shellcheck disable=SC2086 # The words are arguments.
cargo bench --bench commits --all-features -- $programs "$@"
