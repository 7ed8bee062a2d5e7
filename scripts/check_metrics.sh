#!/usr/bin/env bash
# What promtool says of /metrics under each dialect, fresh and after traffic: chats plain, steered, as a persona, of a
# user, with tools and a choice of two, refused; a stream that is left; scores. Exits 1 at anything that promtool finds,
# but for the colon in vLLM's own names, which is not ours to change.
# Usage: scripts/check_metrics.sh [BINARY] [MODEL]     (default: target/release/demeanor, the default model)
# promtool is Debian's package `prometheus`; PROMTOOL names another one.
set -euo pipefail
. "$(dirname "$0")/serving.sh"
binary=$(realpath "${1:-$(dirname "$0")/../target/release/demeanor}")
model=${2:-}
promtool=${PROMTOOL:-promtool}
work=$(mktemp -d)
server=

finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    rm -rf "$work"
}
trap finish EXIT

post() {
    local wanted=$1 status
    status=$(curl -s -o "$work/answer" -w '%{http_code}' "$url$2" -d "$3")
    [ "$status" = "$wanted" ] || { echo "check_metrics: $2 answered $status, $wanted expected: $(cat "$work/answer")" >&2; exit 1; }
}

check() {
    curl -s "$url/metrics" >"$work/metrics"
    local status=0
    "$promtool" check metrics <"$work/metrics" >"$work/all" 2>&1 || status=$?
    grep -vE "^vllm:[a-z_]+ metric names should not contain ':'$" "$work/all" >"$work/said" || true
    # 3 is said of findings alone.
    if [ -s "$work/said" ] || { [ $status != 0 ] && [ $status != 3 ]; }; then
        echo "check_metrics: $1: promtool says: $(cat "$work/said")" >&2
        exit 1
    fi
    echo "$1: promtool finds nothing in $(grep -c '^# TYPE' "$work/metrics") families, $(grep -vc '^#' "$work/metrics") samples"
}

for dialect in demeanor vllm both; do
    # The line that the server before wrote is not waited for.
    : >"$work/log"
    "$binary" serve ${model:+--model "$model"} --port 0 --metrics-dialect "$dialect" --data-dir "$work/$dialect" 2>"$work/log" &
    server=$!
    url=$(ready "$server" "$work/log" 2400)
    check "$dialect, fresh"
    messages='"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8'
    width=$(curl -s "$url/v1/models" | sed 's/.*"n_embd":\([0-9]*\).*/\1/')
    numbers=$(awk -v n="$width" 'BEGIN { for (i = 1; i <= n; i++) printf "%s%g", (i > 1 ? "," : ""), (i * 7 % 13 - 6) / 60 }')
    post 201 /v1/vectors "{\"name\": \"quiet\", \"directions\": {\"6\": [$numbers]}}"
    steering='"steering": [{"vector": "quiet", "coefficient": 0.5, "unit": "raw"}]'
    post 200 /v1/chat/completions "{$messages}"
    post 200 /v1/chat/completions "{$messages}"
    post 200 /v1/chat/completions "{$messages, $steering, \"compare\": true}"
    post 201 /v1/personas "{\"name\": \"ada\", \"system\": \"You are Ada.\", $steering}"
    post 200 /v1/chat/completions "{$messages, \"persona\": \"ada\"}"
    post 201 /v1/users '{"id": "u1"}'
    post 200 /v1/chat/completions "{$messages, \"user\": \"u1\"}"
    tool='{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"enum": ["utc", "cet"]}}, "required": ["zone"]}}}'
    post 200 /v1/chat/completions "{\"messages\": [{\"role\": \"user\", \"content\": \"What time is it?\"}], \"max_tokens\": 60, \"tools\": [$tool], \"tool_choice\": \"required\"}"
    post 200 /v1/chat/completions "{$messages, \"guided_choice\": [\"yes\", \"no\"]}"
    post 200 /v1/score '{"prompt": "The sky is", "choices": [" blue", " red"]}'
    post 400 /v1/chat/completions "{$messages, \"temperature\": -1}"
    post 404 /v1/chat/completions "{$messages, \"model\": \"none \\\" such\"}"
    # A client that leaves.
    curl -sN --max-time 1 "$url/v1/chat/completions" -d "{\"messages\": [{\"role\": \"user\", \"content\": \"Count.\"}], \"max_tokens\": 2000, \"ignore_eos\": true, \"stream\": true}" >/dev/null || true
    check "$dialect, after traffic"
    kill "$server"
    wait "$server" || true
    server=
done
