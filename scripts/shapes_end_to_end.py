# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Loads models and walks each through everything a user does, over HTTP: prints seconds and memory as a Markdown table.

    python scripts/shapes_end_to_end.py BINARY MODEL[:q8|:q4] ... [--tokens 24] [--threads 2]

MODEL is a GGUF or a folder, with `:q8` or `:q4` rounded at load. Each is started on a data folder of its own, chats,
takes a random direction as a vector, chats steered by it, scores, keeps a persona with that steering and chats as the
persona; then the server is ended, started again on the same data folder, and the persona must give the same bytes. The
steered answer and the steered score must differ from the plain ones. `scripts/make_shape_models.py` writes models of
common sizes, `scripts/gguf_to_folder.py` a folder of a real one. Exits 1 if any model fails; the others still run.

Columns: seconds until ready, at the first and the second start; resident memory when ready and at its highest in MiB
(maps of the file that the kernel may drop count); tokens a second of a first prompt and of an answer, one stream;
seconds of each step; the plain score, so that two containers of the same weights can be compared.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import time
import urllib.error
import urllib.request

from conditions import memory_mib
from served import Failed, Served

READY = 1800  # seconds
ANSWER = 1800
DOSE = 0.4
# One long enough for a rate, whatever the tokenizer makes of it.
QUESTION = "Tell me how a small boat is kept dry in winter, what it costs, and who can help with the ropes. " * 2
CHOICES = [" Yes, gladly.", " No, never."]
COLUMNS = ["model", "file MiB", "ready s", "again s", "ready MiB", "peak MiB", "prompt", "prefill/s", "decode/s", "chat s",
           "vector s", "steered s", "score s", "persona s", "after s", "score nat"]


class Server(Served):
    def __init__(self, binary, model, quantize, data, threads, log):
        command = [binary, "serve", "--model", str(model), "--port", "0", "--data-dir", data, "--threads", str(threads)]
        # The first steered request of a model waits for the norms that doses are measured by.
        command += ["--extract-wait", str(ANSWER)]
        command += ["--quantize", quantize] if quantize else []
        super().__init__(command, log, READY)

    def memory(self, name):
        """`VmRSS` or `VmHWM` in MiB."""
        return int(memory_mib(self.process.pid, name))

    def ask(self, path, body=None, wanted=200):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode("utf-8", "replace")
        if status != wanted:
            raise Failed(f"{path} answered {status}, {wanted} expected: {text[:500]}")
        return json.loads(text)


def direction(length, block):
    """Numbers of about unit size that are the same in every run."""
    numbers = []
    while len(numbers) < length:
        digest = hashlib.sha256(f"{block}/{len(numbers)}".encode()).digest()
        numbers += [(byte - 127.5) / 74 for byte in digest]
    return numbers[:length]


def chat(server, tokens, **more):
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": tokens, "temperature": 0, "seed": 1,
            "ignore_eos": True, "logprobs": True}
    return server.ask("/v1/chat/completions", body | more)


def said(answer):
    """What must be the same in every run: text and each token's log-probability."""
    return json.dumps(answer["choices"], sort_keys=True)


def score(server, **more):
    body = {"messages": [{"role": "user", "content": QUESTION}], "choices": CHOICES}
    choices = server.ask("/v1/score", body | more)["choices"]
    for choice in choices:
        if abs(sum(choice["logprobs"]) - choice["sum"]) > 1e-3 or not choice["sum"] < 0:
            raise Failed(f"score {choice}")
    return [choice["sum"] for choice in choices]


def steps(server, tokens, row):
    """Everything up to the restart; gives the persona's answer."""

    def timed(column, do, *arguments, **more):
        begin = time.monotonic()
        result = do(*arguments, **more)
        row[column] = f"{time.monotonic() - begin:.1f}"
        return result

    row["ready MiB"] = server.memory("VmRSS")
    meta = server.ask("/v1/models")["data"][0]["meta"]
    plain = timed("chat s", chat, server, tokens)
    timings = plain["timings"]
    row["prompt"] = timings["prompt_n"]
    row["prefill/s"], row["decode/s"] = f"{timings['prompt_per_second']:.1f}", f"{timings['predicted_per_second']:.2f}"
    if timings["predicted_n"] != tokens:
        raise Failed(f"{timings['predicted_n']} tokens, {tokens} expected")
    # Between one and two thirds of the way through any of these models.
    vector = {"name": "random", "directions": {str(block): direction(meta["n_embd"], block) for block in (6, 8, 10)}}
    timed("vector s", server.ask, "/v1/vectors", vector, wanted=201)
    steering = [{"vector": "random", "coefficient": DOSE, "unit": "dose"}]
    steered = timed("steered s", chat, server, tokens, steering=steering)
    if said(steered) == said(plain):
        raise Failed("the steered answer is the plain one")
    if said(chat(server, tokens)) != said(plain):
        raise Failed("the plain answer is another one the second time")
    first = timed("score s", score, server)
    if first == score(server, steering=steering):
        raise Failed("the steered score is the plain one")
    row["score nat"] = f"{first[0]:.3f}"
    persona = {"name": "ada", "system": "You are Ada, a sailor.", "steering": steering}
    timed("persona s", server.ask, "/v1/personas", persona, wanted=201)
    answer = chat(server, tokens, persona="ada")
    if said(answer) in (said(plain), said(steered)):
        raise Failed("the persona answers as the plain or the steered model")
    row["peak MiB"] = server.memory("VmHWM")
    return answer


def walk(arguments, model, quantize, folder):
    path = pathlib.Path(model)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    row = {"model": path.name + (f" {quantize}" if quantize else "")}
    row["file MiB"] = sum(file.stat().st_size for file in files) >> 20
    options = (arguments.binary, path, quantize, os.path.join(folder, "data"), arguments.threads, os.path.join(folder, "log"))
    server = Server(*options)
    try:
        row["ready s"] = f"{server.ready_seconds:.1f}"
        before = steps(server, arguments.tokens, row)
    finally:
        server.stop()
    server = Server(*options)
    try:
        row["again s"] = f"{server.ready_seconds:.1f}"
        begin = time.monotonic()
        after = chat(server, arguments.tokens, persona="ada")
        row["after s"] = f"{time.monotonic() - begin:.1f}"
        if said(after) != said(before):
            raise Failed(f"the persona's bytes changed with the restart: {said(before)[:300]} then {said(after)[:300]}")
        if after["system_fingerprint"] != before["system_fingerprint"]:
            raise Failed("the fingerprint changed with the restart")
    finally:
        server.stop()
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("models", nargs="+", metavar="MODEL[:q8|:q4]")
    parser.add_argument("--tokens", type=int, default=24, help="of each answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    print("|", " | ".join(COLUMNS), "|\n|" + "---|" * len(COLUMNS), flush=True)
    failed = 0
    for name in arguments.models:
        model, _, quantize = name.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = walk(arguments, model, quantize, folder)
                print("|", " | ".join(str(row[column]) for column in COLUMNS), "|", flush=True)
            except Failed as failure:
                failed += 1
                print(f"FAILED {name}: {failure}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
