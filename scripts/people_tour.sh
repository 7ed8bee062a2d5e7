#!/usr/bin/env bash
# The tour of the README's section "People", against a server of its own: a persona and a user with a history are made,
# the persona answers that user in a stream with extra steering, the server is restarted, the same request gives the same
# bytes, the user's data is exported and deleted. Every request is one of the README's own blocks, run as it stands.
# Usage: scripts/people_tour.sh [BINARY] [MODEL]     (default: target/release/demeanor, the default model)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/serving.sh
binary=${1:-target/release/demeanor}
model=${2:-}
work=$(mktemp -d)
server=

finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    rm -rf "$work"
}
trap finish EXIT

# Starts the server on a free port and waits for its line "ready http://...".
start() {
    : >"$work/log"
    "$binary" serve ${model:+--model "$model"} --alias smollm2-135m-instruct --extract-wait 300 --port 0 --data-dir "$work/data" 2>"$work/log" &
    server=$!
    local url
    url=$(ready "$server" "$work/log" 1200)
    address=${url#http://}
}

stop() {
    kill "$server"
    wait "$server" || true
    server=
}

# Runs block N of the README's section in the work folder, shows it, and keeps what it printed in $work/N.
run() {
    awk -v wanted="$1" '/^## /{inside = ($0 == "## People")} !inside{next}
        /^```sh$/{n++; show = (n == wanted); next} /^```$/{show = 0} show' README.md >"$work/block"
    [ -s "$work/block" ] || { echo "the README's section People has no block $1" >&2; exit 1; }
    echo "--- $2"
    cat "$work/block"
    sed "s/127.0.0.1:8080/$address/g" "$work/block" >"$work/block.run"
    (cd "$work" && bash -e -o pipefail block.run) >"$work/$1"
    if grep -q '"error"' "$work/$1"; then cat "$work/$1" >&2; exit 1; fi
    tail -n 8 "$work/$1" | cut -c1-400
    echo
}

# What the stream said, piece by piece: identifiers and times are not part of it.
pieces() { grep -o '"delta":{[^}]*}' "$1"; }

start
run 1 "a persona"
run 2 "a user with a history"
run 3 "the persona answers the user, with extra steering, in a stream"
pieces "$work/3" >"$work/first"
[ "$(wc -l <"$work/first")" -gt 5 ] || { echo "the stream has no text" >&2; exit 1; }
grep -q '"soft_prompt":"u1@' "$work/3" || { echo "no soft prompt was attached" >&2; exit 1; }
grep -q '"persona":"ada@1"' "$work/3" || { echo "no persona was applied" >&2; exit 1; }
stop
start
run 3 "after a restart: the same request"
pieces "$work/3" >"$work/second"
cmp "$work/first" "$work/second" || { echo "the answer changed with the restart" >&2; exit 1; }
echo "same bytes after the restart: $(wc -c <"$work/first") of $(wc -c <"$work/second")"
echo
run 4 "everything the server holds of the user"
run 5 "delete user and persona"
code=$(curl -s -o /dev/null -w '%{http_code}' "http://$address/v1/users/u1")
[ "$code" = 404 ] || { echo "the deleted user answers $code" >&2; exit 1; }
stop
if grep -rqa "lighthouse" "$work/data"; then echo "text of the deleted user is left" >&2; exit 1; fi
echo "tour done: no text of the deleted user is left in the data folder"
