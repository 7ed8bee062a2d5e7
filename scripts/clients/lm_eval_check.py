# /// script
# requires-python = ">=3.11"
# dependencies = ["lm-eval[api]==0.4.13"]
# ///
"""lm-evaluation-harness `local-completions` against a running server: log-likelihoods and generation, no tokenizer download.

    python scripts/clients/lm_eval_check.py http://127.0.0.1:8080/v1 [--model NAME] [--limit N]

The tasks are two small files beside this one. The harness runs offline, so its tokens can only come from the server's
`/tokenizer_info` and `/tokenize`. Exits 1 if the harness fails, a score is missing or below what any model in working
order reaches (choices: chance is 0.25), or if it tried to download.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

TASKS = pathlib.Path(__file__).resolve().parent / "lm_eval_tasks"
FLOORS = {"demeanor_choices": ("acc,none", 0.5), "demeanor_copies": ("exact_match,trimmed", 0.5)}


def first_model(base_url):
    with urllib.request.urlopen(f"{base_url}/models", timeout=10) as answer:
        return json.load(answer)["data"][0]["id"]


def harness(base_url, model, folder, limit, batch):
    """Run the harness; returns its results or None after printing its last lines."""
    options = {"model": model, "base_url": f"{base_url}/completions", "max_retries": 1, "num_concurrent": 2}
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--tasks", ",".join(FLOORS)]
    command += ["--include_path", str(TASKS), "--output_path", folder, "--batch_size", str(batch)]
    command += ["--model_args", json.dumps(options)]
    if limit:
        command += ["--limit", str(limit)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": folder, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=TASKS, env=os.environ | offline, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    files = sorted(pathlib.Path(folder).rglob("results_*.json"))
    if done.returncode != 0 or not files:
        print(*done.stdout.splitlines()[-15:], sep="\n")
        return None
    return json.loads(files[-1].read_text())["results"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch", type=int, default=2, help="prompts per request")
    arguments = parser.parse_args()
    base_url = arguments.base_url.rstrip("/")
    model = arguments.model or first_model(base_url)
    with tempfile.TemporaryDirectory() as folder:
        results = harness(base_url, model, folder, arguments.limit, arguments.batch)
    if results is None:
        print(f"FAILED lm_eval on `{model}`: no results")
        return 1
    for task, (metric, floor) in FLOORS.items():
        score = results.get(task, {}).get(metric)
        if score is None or score < floor:
            print(f"FAILED {task}: {metric} is {score}, at least {floor} expected")
            return 1
        print(f"ok     {task}: {metric} {score:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
