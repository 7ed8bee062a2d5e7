# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Post the request bodies that real clients were recorded to send, and compare each status with the expected one.

    python scripts/clients/replay.py http://127.0.0.1:8080 [--model NAME] [--embeddings]

BASE_URL without /v1: the bodies name their own paths. The bodies say `tiny` as model: serve with `--alias tiny`, or
give `--model` to replace it. Some ask a persona `p`, which is made for the run and deleted behind it. A 200 must be a
JSON object, or for a stream events that end with `data: [DONE]` (on llama.cpp's route with `"stop": true`) and carry no
error; any other status must be an error object whose message or param names the expected field. Requests for embeddings
are sent with `--embeddings`, which needs the sentence encoder on the server.
`--tokens N` lowers any `max_tokens`, and sets one where there is none, so that a slow machine is done sooner.
"""

import argparse
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

BODIES = pathlib.Path(__file__).resolve().parent / "recorded_bodies.json"
TIMEOUT = 300  # seconds
RETRIES = 12  # of a 503 that says when to come back


def send(base_url, case, body):
    """(status, text) of the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base_url + case["path"], data=data, method=case.get("method", "POST"))
    request.add_header("Content-Type", "application/json")
    if "bearer" in case:
        request.add_header("Authorization", f"Bearer {case['bearer']}")
    try:
        for _ in range(RETRIES):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                if error.code != 503 or "Retry-After" not in error.headers:
                    return error.code, error.read().decode("utf-8", "replace")
                # A vector that is being extracted: these clients, too, ask again.
                time.sleep(int(error.headers["Retry-After"]))
        return 503, f"still 503 after {RETRIES} tries"
    except (OSError, UnicodeDecodeError) as error:
        return 0, str(error)


def stream_fault(path, text):
    lines = [line for line in text.splitlines() if line.startswith("data:")]
    if path == "/completion":
        chunks = [json.loads(line[5:]) for line in lines]
        good = chunks and all("content" in chunk and chunk["stop"] == (chunk is chunks[-1]) for chunk in chunks)
        return None if good else f"chunks {chunks[:1]} to {chunks[-1:]}"
    if not lines or lines[-1] != "data: [DONE]":
        return f"the stream ends with {lines[-1:]}, not `data: [DONE]`"
    chunks = [json.loads(line[5:]) for line in lines[:-1]]
    bad = [chunk for chunk in chunks if "error" in chunk or not isinstance(chunk.get("choices"), list)]
    return f"chunk {bad[0]}" if bad else None


def fault(case, body, status, text):
    """What is wrong with the answer, or None."""
    if status != case["status"]:
        return f"status {status}, expected {case['status']}: {text[:300]}"
    try:
        if status == 200:
            return (stream_fault(case["path"], text) if body and body.get("stream")
                    else object_fault(json.loads(text)))
        error = json.loads(text)["error"]
        if case["names"] not in f"{error.get('param')} {error['message']}":
            return f"the error does not name `{case['names']}`: {error}"
    except (ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__} {error} in {text[:300]}"
    return None


def object_fault(answer):
    return None if isinstance(answer, dict) and "error" not in answer else f"answer {answer}"


def shortened(body, model, tokens):
    if body is None:
        return None
    body = dict(body)
    if model and body.get("model", "").startswith("tiny"):
        body["model"] = model + body["model"].removeprefix("tiny")
    if tokens and ("messages" in body or "model" in body or "max_tokens" in body):
        # All spellings of one number have to agree, or the server refuses them.
        low = min(tokens, body.get("max_tokens", tokens))
        spellings = ("max_tokens", "max_new_tokens", "n_predict", "num_predict")
        body |= {name: low for name in spellings if name in body or name == "max_tokens"}
    return body


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="without /v1")
    parser.add_argument("--model")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--embeddings", action="store_true")
    arguments = parser.parse_args()
    cases = json.loads(BODIES.read_text(encoding="utf-8"))
    cases = [case for case in cases if arguments.embeddings or not case.get("encoder")]
    base_url = arguments.base_url.rstrip("/")
    status, text = send(base_url, {"path": "/v1/personas"}, {"name": "p", "system": "You are Ada, a sailor."})
    if status != 201:
        print(f"FAILED persona `p`: {status} {text[:300]}")
        return 1
    try:
        return replay(base_url, cases, arguments)
    finally:
        send(base_url, {"path": "/v1/personas/p", "method": "DELETE"}, None)


def replay(base_url, cases, arguments):
    for number, case in enumerate(cases):
        body = shortened(case.get("body"), arguments.model, arguments.tokens)
        status, text = send(base_url, case, body)
        if wrong := fault(case, body, status, text):
            print(f"FAILED {number} {case['from']}: {wrong}")
            return 1
        print(f"ok     {number} {case['from']}: {status}")
    print(f"{len(cases)} of {len(cases)} recorded requests answered as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
