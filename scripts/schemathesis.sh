#!/usr/bin/env bash
# Asks a server of its own everything that /openapi.json allows, and much that it forbids, with a fixed seed: no answer may
# be a failure of ours, and each must be what the description says. Exit status: 0 without findings.
# Usage: scripts/schemathesis.sh [BINARY] [EXAMPLES]     (default: target/release/demeanor, 40 of each operation)
# Needs schemathesis (pip install schemathesis==4.32.5); SCHEMATHESIS names another than `st`, MODEL another model than
# the default one, REPORT a folder that gets the report.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/serving.sh
binary=$(realpath "${1:-target/release/demeanor}")
examples=${2:-40}
schemathesis=${SCHEMATHESIS:-st}
work=$(mktemp -d)
report=$(realpath -m "${REPORT:-$work/report}")
server=

finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    rm -rf "$work"
}
trap finish EXIT

# Short answers and a small context: what is asked here is whether, not how well.
"$binary" serve ${MODEL:+--model "$MODEL"} --port 0 --data-dir "$work/data" --max-output-tokens 4 --context 512 \
    --extract-wait 300 2>"$work/log" &
server=$!
url=$(ready "$server" "$work/log" 2400)

# Until the sentence encoder is loaded, its route says 503, and rightly so.
tries=0
until curl -sf -o "$work/warm" "$url/v1/embeddings" -d '{"input": "a"}'; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "schemathesis: the sentence encoder does not load" >&2; cat "$work/log" >&2; exit 1; }
    sleep 0.5
done

# Not among the checks: that all data which fits the description is accepted (numbers of tokens, names that exist and
# fields that exclude one another are no matter of a schema). A vector that is still being made is answered 503, and
# rightly so; what else is is looked for below.
# The events of a job end with the job: a request for those of an extraction would wait for all that are queued before it.
printf '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 503]\n' >"$work/schemathesis.toml"
mkdir -p "$report"
status=0
(cd "$work" && "$schemathesis" --config-file schemathesis.toml run "$url/openapi.json" --url "$url" --seed 6 \
    --max-examples "$examples" --phases examples,coverage,fuzzing,stateful --continue-on-failure \
    --exclude-operation-id get_v1_jobs_id_events \
    --generation-database none --request-timeout 300 --suppress-health-check all --no-color --warnings off \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,allow_header_conformance,use_after_free,ensure_resource_availability \
    --report junit,ndjson --report-dir "$report" --report-ndjson-path "$report/events.ndjson") || status=$?
kill -0 "$server" 2>/dev/null || { echo "schemathesis: the server has ended" >&2; cat "$work/log" >&2; exit 1; }
python3 - "$report/events.ndjson" <<'END' || status=1
"""Counts the answers by status; fails on a 503 that is not that of a vector being made."""
import base64, collections, json, sys

statuses, others = collections.Counter(), []
for line in open(sys.argv[1]):
    recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder") or {}
    for interaction in (recorder.get("interactions") or {}).values():
        response = interaction.get("response") or {}
        statuses[response.get("status_code")] += 1
        if response.get("status_code") == 503:
            body = base64.b64decode((response.get("content") or {}).get("$base64", "")).decode()
            if '"vector_not_ready"' not in body:
                others.append(f"{recorder.get('label')}: {body}")
print("answers:", ", ".join(f"{status} {count}" for status, count in sorted(statuses.items(), key=str)))
print("\n".join(others))
sys.exit(bool(others))
END
exit $status
