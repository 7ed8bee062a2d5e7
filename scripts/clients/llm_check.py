# /// script
# requires-python = ">=3.11"
# dependencies = ["llm==0.36"]
# ///
"""The `llm` command line against a running server: exits 1 at the first thing that does not work.

    python scripts/clients/llm_check.py http://127.0.0.1:8080/v1 --model NAME [--steering "0.8 warm"]

`llm` reads its models from a YAML file that has headers but no body fields, so steering goes by header and by model
name. Without `--steering` the coefficient is 0. `llm` must be on the path or beside this Python.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

QUESTION = "Say hello to the reader in one sentence."


def command():
    beside = pathlib.Path(sys.executable).with_name("llm")
    return str(beside) if beside.exists() else shutil.which("llm")


def models(arguments):
    """The YAML file, written as JSON, which is YAML too."""
    expression = arguments.steering or "0 warm"
    plain = {"api_base": arguments.base_url, "model_name": arguments.model}
    return [
        plain | {"model_id": "plain"},
        plain | {"model_id": "header", "headers": {"x-demeanor-steering": expression}},
        plain | {"model_id": "named", "model_name": f"{arguments.model}@({expression})"},
        plain | {"model_id": "text", "completion": True},
    ]


def run(folder, model, *options):
    environment = dict(os.environ, LLM_USER_PATH=str(folder))
    parts = [command(), "-m", model, "-o", "temperature", "0", "-o", "max_tokens", "12", *options, QUESTION]
    done = subprocess.run(parts, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise AssertionError(f"{model} {options}: {done.stderr.strip()}")
    return done.stdout


def check(arguments, folder):
    """What was exercised, by name."""
    plain = run(folder, "plain")
    if not plain.strip():
        raise AssertionError("the answer is empty")
    if run(folder, "plain", "--no-stream") != plain:
        raise AssertionError("streamed and at once differ")
    yield "chat, streamed and at once"
    by_header, by_name = run(folder, "header"), run(folder, "named")
    if by_header != by_name:
        raise AssertionError(f"header {by_header!r}, model name {by_name!r}")
    if not arguments.steering and by_header != plain:
        raise AssertionError(f"a coefficient of 0 changed {plain!r} into {by_header!r}")
    yield "steering by header and by model name"
    run(folder, "plain", "-s", "Answer in one word.")
    yield "system text"
    run(folder, "text", "--no-stream")
    yield "completion model"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--steering")
    arguments = parser.parse_args()
    if command() is None:
        print("`llm` is not installed")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "extra-openai-models.yaml").write_text(json.dumps(models(arguments)), encoding="utf-8")
        count = 0
        try:
            for what in check(arguments, folder):
                print(f"ok     {what}")
                count += 1
        except (AssertionError, subprocess.TimeoutExpired) as error:
            print(f"FAILED after {count} checks: {error}")
            return 1
    print(f"{count} checks passed on `{arguments.model}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
