# /// script
# requires-python = ">=3.11"
# dependencies = ["lm-eval[api]==0.4.13"]
# ///
"""lm-evaluation-harness, both of its model types for HTTP, against a running server, with no tokenizer download.

    python scripts/clients/lm_eval_check.py http://127.0.0.1:8080/v1 [--model NAME] [--items 200] [--batch 2]

The harness runs offline, so its tokens can only come from the server's `/tokenizer_info` and `/tokenize`. First
`local-completions` on the two small tasks beside this file, which any model in working order can do. Then items made
here: every log-likelihood that `local-completions` reports must be what `/v1/score` says of the same prompt and choice,
to the last digit that is printed, and every text that `local-completions` and `local-chat-completions` report must be
what one plain request gives. `--model 'NAME@(0.8 warm)'` does the same for a steered model. Exits 1 if the harness fails,
anything differs, or a score is below its floor.
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

TASKS = pathlib.Path(__file__).resolve().parent / "lm_eval_tasks"
FLOORS = {"demeanor_choices": ("acc,none", 0.5), "demeanor_copies": ("exact_match,trimmed", 0.5)}
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
           "seventeen eighteen nineteen twenty").split()
THINGS = "lamp boat river stone apple bread green white chair table house cloud music paper horse glass train night".split()


def ask(base_url, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base_url + path, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def write_items(folder, count):
    """Two tasks of so many items in the form of the small ones: sums with four choices, words to say again."""
    pairs = [(i % 10, (i // 10 + 3 * i) % 11) for i in range(count)]
    sums = [{"question": f"{i + 1}. {NUMBERS[a].capitalize()} {THINGS[i % 18]}s and {NUMBERS[b]} {THINGS[i % 18]}s make",
             "choices": [NUMBERS[(a + b + shift) % 21] for shift in (0, 1, 5, 12)], "answer": 0}
            for i, (a, b) in enumerate(pairs)]
    words = [{"word": f"{THINGS[i % 18]} {NUMBERS[i // 18 % 21]}", "other": THINGS[(i + 7) % 18]} for i in range(count)]
    for old, new, items in (("choices", "sums", sums), ("copies", "words", words)):
        text = (TASKS / f"{old}.yaml").read_text(encoding="utf-8")
        for name in (f"demeanor_{old}", f"{old}.jsonl"):
            text = text.replace(name, name.replace(old, new))
        (folder / f"{new}.yaml").write_text(text)
        (folder / f"{new}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def harness(kind, route, base_url, model, tasks, folder, batch):
    """Run the harness in `folder`, where the tasks are; returns its results or None after printing its last lines."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    options = {"model": model, "base_url": f"{base_url}/{route}", "max_retries": 1, "num_concurrent": 2}
    command = [sys.executable, "-m", "lm_eval", "run", "--model", kind, "--tasks", ",".join(tasks)]
    command += ["--include_path", str(folder), "--output_path", str(out), "--batch_size", str(batch), "--log_samples"]
    command += ["--model_args", json.dumps(options)]
    command += ["--apply_chat_template"] if "chat" in kind else []
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=folder, env=os.environ | offline, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    files = sorted(out.rglob("results_*.json"))
    if done.returncode != 0 or not files:
        print(*done.stdout.splitlines()[-15:], sep="\n")
        return None
    return json.loads(files[-1].read_text())["results"]


def samples(folder, task):
    """(arguments, response) of every request that the harness made for a task."""
    file = sorted((folder / "out").rglob(f"samples_{task}_*.jsonl"))[-1]
    for line in file.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        requests = sorted(sample["arguments"].items(), key=lambda entry: int(entry[0].rsplit("_", 1)[1]))
        for (_, arguments), responses in zip(requests, sample["resps"], strict=True):
            yield arguments, responses[0]


def compare_scores(base_url, model, folder):
    """Differences between the harness's log-likelihoods and `/v1/score`, and how many were compared."""
    wrong, compared = [], 0
    for arguments, (reported, _greedy) in samples(folder, "demeanor_sums"):
        prompt, choice = arguments["arg_0"], arguments["arg_1"]
        scored = ask(base_url, "/score", {"model": model, "prompt": prompt, "choices": [choice]})["choices"][0]
        # The harness adds up the numbers of each token as it reads them.
        if float(reported) != sum(scored["logprobs"]):
            wrong.append(f"{prompt!r} + {choice!r}: {reported} by the harness, {sum(scored['logprobs'])} by /v1/score")
        compared += 1
    return wrong, compared


def compare_texts(base_url, model, folder, is_chat):
    wrong, compared = [], 0
    for arguments, reported in samples(folder, "demeanor_words"):
        prompt, options = arguments["arg_0"], arguments["arg_1"]
        body = {"model": model, "max_tokens": options["max_gen_toks"], "temperature": 0, "stop": options["until"], "seed": 1234}
        if is_chat:
            # The harness keeps the messages as JSON in a list of one.
            messages = json.loads(prompt[0] if isinstance(prompt, list) else prompt)
            plain = ask(base_url, "/chat/completions", body | {"messages": messages})["choices"][0]["message"]["content"]
        else:
            plain = ask(base_url, "/completions", body | {"prompt": prompt})["choices"][0]["text"]
        if plain != reported:
            wrong.append(f"{prompt!r}: {reported!r} by the harness, {plain!r} by one request")
        compared += 1
    return wrong, compared


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2, help="prompts per request")
    arguments = parser.parse_args()
    base_url, items = arguments.base_url.rstrip("/"), arguments.items
    model = arguments.model or ask(base_url, "/models")["data"][0]["id"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file in TASKS.iterdir():
            shutil.copy(file, folder)
        write_items(folder, items)
        texts, chats = ("local-completions", "completions"), ("local-chat-completions", "chat/completions")
        results = harness(*texts, base_url, model, FLOORS, folder, arguments.batch)
        if results is None:
            print(f"FAILED lm_eval on `{model}`: no results")
            return 1
        for task, (metric, floor) in FLOORS.items():
            score = results.get(task, {}).get(metric)
            if score is None or score < floor:
                print(f"FAILED {task}: {metric} is {score}, at least {floor} expected")
                return 1
            print(f"ok     {task}: {metric} {score:.3f}", flush=True)
        for (kind, route), task, compare in (
                (texts, "demeanor_sums", lambda: compare_scores(base_url, model, folder)),
                (texts, "demeanor_words", lambda: compare_texts(base_url, model, folder, False)),
                (chats, "demeanor_words", lambda: compare_texts(base_url, model, folder, True))):
            if harness(kind, route, base_url, model, [task], folder, 1 if "chat" in kind else arguments.batch) is None:
                print(f"FAILED {kind} on {task}: no results")
                return 1
            wrong, compared = compare()
            if wrong or compared < items:
                print(f"FAILED {kind} on {task}: {len(wrong)} of {compared} differ: {wrong[:3]}")
                return 1
            print(f"ok     {kind} on {items} items of {task}: all {compared} answers are the server's", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
