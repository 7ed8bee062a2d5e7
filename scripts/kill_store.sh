#!/bin/sh
# Kills a process that writes to a store 200 times at random moments and compares what is left with what was acknowledged.
# Usage: scripts/kill_store.sh [CYCLES] [SEED]
set -eu
cd "$(dirname "$0")/.."
DEMEANOR_KILL_CYCLES=${1:-200} DEMEANOR_KILL_SEED=${2:-1} \
    cargo test --locked --release --test main -- --exact kill_store::what_was_acknowledged_survives_kill_9 --nocapture
