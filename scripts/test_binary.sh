#!/bin/sh
# Builds the tests of tests/main.rs and prints where their binary is.
# Usage: scripts/test_binary.sh
set -eu
cd "$(dirname "$0")/.."
cargo test --locked --release --test main --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/main-[0-9a-f]*\)".*/\1/p' | tail -n 1
