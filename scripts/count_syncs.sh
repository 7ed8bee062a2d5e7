#!/bin/sh
# Counts the disk syncs of acknowledged writes with strace: one writer waits for each of its own, many share them.
# Usage: scripts/count_syncs.sh [WRITES]
set -eu
cd "$(dirname "$0")/.."
writes=${1:-800}
binary=$(scripts/test_binary.sh)
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT
for threads in 1 8 64; do
    DEMEANOR_SYNC_THREADS=$threads DEMEANOR_SYNC_WRITES=$writes \
        strace -f -qq -e trace=fsync,fdatasync -o "$trace" \
        "$binary" --exact kill_store::grouped_writes --ignored --nocapture 2>/dev/null | grep 'writes of'
    printf '  %s fdatasync, %s fsync\n' "$(grep -c fdatasync "$trace")" "$(grep -c ' fsync' "$trace")"
done
