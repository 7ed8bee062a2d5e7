# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""promptfoo against a running server: exits 1 at the first thing that does not work.

    npm install promptfoo@0.119.14
    python scripts/clients/promptfoo_check.py http://127.0.0.1:8080/v1 --model NAME [--steering "0.8 warm"] [--promptfoo PATH]

0.119.14 runs on Node 20; 0.123 wants Node 22.22. Five providers answer the same prompts: plain, steered by `passthrough`,
steered by model name, steered by header, and the plain one on `/v1/completions`; each answer must be what one request
gives. `--promptfoo` is the program, by default `node_modules/.bin/promptfoo` here or `promptfoo` on the path.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

PROMPTS = ["Say hello to {{who}} in one sentence.", "One word that rhymes with {{who}}:"]
PEOPLE = ["the reader", "a cat"]
TOKENS = 12


def ask(base_url, path, body):
    request = urllib.request.Request(base_url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        choice = json.load(answer)["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]


def providers(base_url, model, expression):
    """promptfoo's configuration of each, and how one request says the same."""
    common = {"apiBaseUrl": base_url, "apiKey": "none", "temperature": 0, "max_tokens": TOKENS}
    # For chats this version drops a temperature of 0, so it goes the way of our own fields.
    greedy = {"temperature": 0}

    def chat(label, name, headers=None, **fields):
        config = common | {"passthrough": greedy | fields} | ({"headers": headers} if headers else {})
        return {"id": f"openai:chat:{name}", "label": label, "config": config}, "/chat/completions"

    steered = {"steering": expression}
    yield *chat("plain", model), {}
    yield *chat("passthrough", model, **steered), steered
    yield *chat("model name", f"{model}@({expression})"), steered
    yield *chat("header", model, headers={"x-demeanor-steering": expression}), steered
    yield {"id": f"openai:completion:{model}", "label": "completion", "config": common}, "/completions", {}


def program(given):
    beside = pathlib.Path("node_modules/.bin/promptfoo")
    found = given or (str(beside.resolve()) if beside.exists() else shutil.which("promptfoo"))
    if not found:
        raise SystemExit("promptfoo is not here: npm install promptfoo@0.119.14")
    return found


def evaluate(command, configuration, folder):
    (folder / "promptfooconfig.json").write_text(json.dumps(configuration))
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
             "PROMPTFOO_CONFIG_DIR": str(folder / "home"), "NO_COLOR": "1"}
    arguments = [command, "eval", "-c", "promptfooconfig.json", "--no-cache", "--no-progress-bar", "--no-table", "-o", "out.json"]
    done = subprocess.run(arguments, cwd=folder, env=os.environ | quiet, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = folder / "out.json"
    if not out.exists():
        raise SystemExit(f"FAILED promptfoo ended with {done.returncode}: {done.stdout[-1500:]}")
    return json.loads(out.read_text())["results"]["results"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--steering")
    parser.add_argument("--promptfoo")
    arguments = parser.parse_args()
    base_url = arguments.base_url.rstrip("/")
    table = list(providers(base_url, arguments.model, arguments.steering or "0 warm"))
    configuration = {
        "providers": [provider for provider, _, _ in table],
        "prompts": PROMPTS,
        "tests": [{"vars": {"who": who}, "assert": [{"type": "javascript", "value": "output.length > 0"}]} for who in PEOPLE],
    }
    with tempfile.TemporaryDirectory() as folder:
        results = evaluate(program(arguments.promptfoo), configuration, pathlib.Path(folder))
    wanted = len(table) * len(PROMPTS) * len(PEOPLE)
    if len(results) != wanted:
        print(f"FAILED {len(results)} results, {wanted} expected")
        return 1
    for provider, path, more in table:
        own = [result for result in results if result["provider"]["label"] == provider["label"]]
        for result in own:
            prompt = result["prompt"]["raw"]
            given = {"prompt": prompt} if path == "/completions" else {"messages": [{"role": "user", "content": prompt}]}
            body = {"model": arguments.model, "temperature": 0, "max_tokens": TOKENS} | given | more
            plain = ask(base_url, path, body)
            output = (result.get("response") or {}).get("output")
            if output != plain:
                print(f"FAILED {provider['label']}: {output!r} by promptfoo ({result.get('error')}), {plain!r} by one request")
                return 1
            if result["response"]["tokenUsage"]["total"] <= 0:
                print(f"FAILED {provider['label']}: tokenUsage {result['response']['tokenUsage']}")
                return 1
        print(f"ok     {provider['label']}: {len(own)} answers")
    print(f"{wanted} of {wanted} answers through promptfoo are the server's on `{arguments.model}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
