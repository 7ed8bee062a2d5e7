#!/bin/sh
# Runs each fuzz target for so many seconds and prints its executions: scripts/fuzz.sh SECONDS [TARGET...]
#
# Builds fuzz/ with the coverage that libFuzzer looks at, on the stable toolchain and without sanitizers, as
# `cargo fuzz run -s none` would. Reads the corpus of the repository; what is new goes to target/fuzz, an input that
# breaks a target to fuzz/artifacts. Exit status 1 if there is one.
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
out=${CARGO_TARGET_DIR:-$PWD/target/fuzz-build}
coverage=-Cllvm-args=-sanitizer-coverage
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module $coverage-level=4 $coverage-inline-8bit-counters $coverage-pc-table \
$coverage-trace-compares" CARGO_TARGET_DIR=$out \
    cargo build --manifest-path fuzz/Cargo.toml --release --locked --target "$host"
[ $# -gt 0 ] || set -- $(ls fuzz/corpus)
failed=0
for target in "$@"; do
    new=target/fuzz/$target
    mkdir -p "$new" fuzz/artifacts/"$target"
    log=target/fuzz/$target.log
    if "$out/$host/release/$target" -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix=fuzz/artifacts/"$target"/ "$new" fuzz/corpus/"$target" >"$log" 2>&1; then
        state=ok
    else
        state=FOUND
        failed=1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    echo "$target: ${runs:-?} executions, ${covered:-?} edges, $state"
done
exit $failed
