# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""`llama-server` and `demeanor serve` on the same GGUF, in alternating runs, driven by the same client.

    python scripts/side_by_side.py --model M.gguf --demeanor target/release/demeanor --llama llama-server --out speed.json
    python scripts/side_by_side.py --model A.gguf --model B.gguf ... --label "llama.cpp b11434, AMX" --out "speed-{model}.json"

One pair = each server started with one slot and again with 16 (demeanor has no slots: the same flags both times), warmed
up, measured and ended; the order turns with every pair. Measured over HTTP at
`/v1/completions` with token ids as prompt and no cache:
    prefill   tokens of a prompt over the time until its one token is back (512 tokens, max_tokens 1)
    decode    (128 - 1) tokens (`--tokens`) over the time from the first streamed piece to the last, after a short prompt
              (`--demeanor-flag=--draft-max=0`: without n-gram drafts, which llama-server does not make by default)
    parallel  16 streams at once, 128 tokens each after different short prompts: all tokens over the time from the
              first piece of any to the last piece of all
    idle      CPU seconds (all threads) of the server over 10 s (`--idle-seconds`) without requests, as a share of one core
    start     seconds from the start of the program until `/health` answers 200, the model's file in the page cache
    rss_loaded_mib, rss_mib   resident memory when the server is healthy, and after the figures of one slot
    rss_parallel_mib          and after those of 16
Speeds are the best of `--repeats` within a run, for a machine that is shared, and then the median over the pairs;
`spread` is (largest - smallest) / median over the pairs. Ratios are medians of the ratio within a pair.
Several models are measured one after the other, each into a file of its own: `{model}` in --out is the model's name.
The servers that were started are ended by their process handles, nothing else is touched. Exits 1 when a server fails.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import conditions
from completions import prompts, recorded, stamps, streamed, whole
from served import Failed

PREFILL, PARALLEL = 512, 16
START_SECONDS = 180
THEIRS, OURS = "llama-server", "demeanor"
UNITS = {"prefill": "tok/s", "decode": "tok/s", "parallel": "tok/s", "idle": "% of a core", "start": "s",
         "rss_loaded_mib": "MiB", "rss_mib": "MiB", "rss_parallel_mib": "MiB"}


class Server:
    """A started server; `with` ends it."""

    def __init__(self, name, command, port, log):
        self.name, self.port, self.log = name, port, log
        self.url, self.started = f"http://127.0.0.1:{port}", time.monotonic()
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self):
        try:
            self.wait_until_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_healthy(self):
        while time.monotonic() - self.started < START_SECONDS:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}; its output is in {self.log.name}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    self.start_seconds = time.monotonic() - self.started
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        raise Failed(f"{self.name} was not healthy after {START_SECONDS} s; its output is in {self.log.name}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu_seconds(self):
        return conditions.cpu_seconds(self.process.pid)

    def rss_mib(self):
        return conditions.memory_mib(self.process.pid)


def prefill(server, arguments, seed):
    return PREFILL / whole(server.url, prompts(1, PREFILL, arguments.vocabulary, seed)[0], 1)


def decode(server, arguments, seed):
    times = streamed(server.url, prompts(1, 8, arguments.vocabulary, seed)[0], arguments.tokens)
    return (arguments.tokens - 1) / (times[-1] - times[0])


def parallel(server, arguments, seed):
    results, threads = [None] * PARALLEL, []

    def one(index, ids):
        results[index] = recorded(server.url, ids, arguments.tokens)

    for index, ids in enumerate(prompts(PARALLEL, 8, arguments.vocabulary, seed)):
        threads.append(threading.Thread(target=one, args=(index, ids)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in results:
        raise Failed(f"{server.name}: a stream of {PARALLEL} failed")
    results = [stamps(server.url, pieces, arguments.tokens) for pieces in results]
    begin, end = min(times[0] for times in results), max(times[-1] for times in results)
    return PARALLEL * arguments.tokens / (end - begin)


def idle(server, seconds):
    before, begin = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return 100 * (server.cpu_seconds() - before) / (time.monotonic() - begin)


def best(test, server, arguments, seed):
    return max(test(server, arguments, seed + i) for i in range(arguments.repeats))


def warm_up(server, arguments):
    whole(server.url, prompts(1, 32, arguments.vocabulary, 0)[0], 4)


def measure_one(server, arguments, seed):
    """The figures of a server with one slot."""
    figures = {"start": server.start_seconds, "rss_loaded_mib": server.rss_mib()}
    warm_up(server, arguments)
    figures |= {"idle": idle(server, arguments.idle_seconds)}
    figures |= {test.__name__: best(test, server, arguments, seed) for test in (prefill, decode)}
    return figures | {"rss_mib": server.rss_mib()}


def measure_parallel(server, arguments, seed):
    """The figures of a server with 16 slots."""
    warm_up(server, arguments)
    return {"parallel": best(parallel, server, arguments, seed), "rss_parallel_mib": server.rss_mib()}


RUNS = ((1, measure_one), (PARALLEL, measure_parallel))


def command_of(arguments, model, name, slots):
    threads, port = str(arguments.threads), str(arguments.port)
    if name == THEIRS:
        # Its context is shared out among the slots; the prompt and what follows must fit in one share.
        context = slots * (PREFILL + 2 * arguments.tokens)
        flags = ["-t", threads, "-tb", threads, "-c", str(context), "--parallel", str(slots), "--no-webui", "--offline"]
        return [arguments.llama, "-m", model, "--host", "127.0.0.1", "--port", port, *flags, *arguments.llama_flag]
    flags = ["-t", threads, "--max-batch", str(PARALLEL)]
    return [arguments.demeanor, "serve", "-m", model, "--host", "127.0.0.1", "--port", port, *flags, *arguments.demeanor_flag]


def run(arguments, model, name, seed):
    """All figures of one server program: started once with one slot and once with 16."""
    figures = {}
    for slots, measure in RUNS:
        conditions.warm(model)
        with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".log", delete=False) as log:
            with Server(name, command_of(arguments, model, name, slots), arguments.port, log) as server:
                figures |= measure(server, arguments, seed)
        os.unlink(log.name)
    return figures


def summary(runs, names):
    """Per figure: medians and spreads of the servers and the median ratio of ours to theirs."""
    out = {}
    for figure, unit in UNITS.items():
        entry = {"unit": unit}
        for name in names:
            values = [pair[name][figure] for pair in runs]
            middle = statistics.median(values)
            spread = (max(values) - min(values)) / middle if middle else 0.0
            entry[name] = {"median": round(middle, 3), "spread": round(spread, 3)}
        ratios = [pair[OURS][figure] / pair[THEIRS][figure] for pair in runs if len(names) == 2 and pair[THEIRS][figure]]
        entry["ratio"] = round(statistics.median(ratios), 3) if ratios else None
        out[figure] = entry
    return out


def table(result, names):
    print(f"| figure | {' | '.join(names)} | ratio |\n|{'---|' * (len(names) + 2)}")
    for figure, entry in result.items():
        cells = [f"{entry[name]['median']:.4g} ({100 * entry[name]['spread']:.0f} %)" for name in names]
        print(f"| {figure}, {entry['unit']} | {' | '.join(cells)} | {entry['ratio'] if entry['ratio'] is not None else '-'} |")


def measured_on(arguments, model, names):
    """The conditions that are kept beside the figures."""
    shown = {name: [os.path.basename(part) for part in command_of(arguments, model, name, PARALLEL)] for name in names}
    kept = conditions.processor() | {"threads": arguments.threads, "pairs": arguments.pairs, "repeats": arguments.repeats,
                                      "tokens": arguments.tokens, "commands": shown}
    kept["model"] = {"file": os.path.basename(model), "bytes": os.path.getsize(model)}
    kept["commit"] = conditions.commit()
    if arguments.demeanor:
        kept["demeanor"] = conditions.version(arguments.demeanor)
    if arguments.llama:
        said = conditions.version(arguments.llama)
        kept["peer"] = {"label": arguments.label or f"llama.cpp, {said}", "version": said}
    return kept


def compare(arguments, model, names):
    """Runs all pairs on one model and keeps them."""
    runs = []
    for pair in range(arguments.pairs):
        runs.append({})
        for name in names if pair % 2 == 0 else names[::-1]:
            runs[-1][name] = run(arguments, model, name, 1000 * pair + 1)
            shown = {figure: round(value, 2) for figure, value in runs[-1][name].items()}
            print(f"pair {pair + 1}, {name}: {shown}", file=sys.stderr, flush=True)
    result = summary(runs, names)
    with open(out_of(arguments, model), "w", encoding="utf-8") as handle:
        json.dump({"conditions": measured_on(arguments, model, names), "summary": result, "runs": runs}, handle, indent=1)
        handle.write("\n")
    print(f"\n{os.path.basename(model)}\n")
    table(result, names)


def out_of(arguments, model):
    return arguments.out.replace("{model}", os.path.basename(model).removesuffix(".gguf"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, action="append", help="a GGUF; repeatable")
    parser.add_argument("--demeanor", help="the program `demeanor`")
    parser.add_argument("--llama", help="the program `llama-server`")
    parser.add_argument("--label", help="what the peer is called beside the figures, such as: llama.cpp b11434, AMX")
    parser.add_argument("--out", required=True, help="`{model}` in it is the name of the model")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a stream")
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--vocabulary", type=int, default=40000, help="prompt ids are drawn below this")
    parser.add_argument("--llama-flag", action="append", default=[], help="one more argument for llama-server; repeatable")
    parser.add_argument("--demeanor-flag", action="append", default=[], help="one more argument for demeanor serve; repeatable")
    arguments = parser.parse_args()
    # So that an ended script ends its server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [name for name, program in ((THEIRS, arguments.llama), (OURS, arguments.demeanor)) if program]
    if not names:
        parser.error("one of --llama and --demeanor is needed, both for ratios")
    missing = [model for model in arguments.model if not os.path.isfile(model)]
    missing += [program for program in (arguments.demeanor, arguments.llama) if program and not shutil.which(program)]
    if missing:
        parser.error(f"there is no file or program {missing[0]}")
    if len({out_of(arguments, model) for model in arguments.model}) < len(arguments.model):
        parser.error("--out: several models need `{model}` in it, and names that differ")
    if arguments.pairs < 1 or arguments.repeats < 1 or arguments.tokens < 2 or arguments.idle_seconds <= 0:
        parser.error("--pairs and --repeats: at least 1; --tokens: at least 2; --idle-seconds: above 0")
    try:
        for model in arguments.model:
            compare(arguments, model, names)
    except (Failed, OSError) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
