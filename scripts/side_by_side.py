# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""`llama-server` and `demeanor serve` on the same GGUF, in alternating runs, driven by the same client.

    python scripts/side_by_side.py --model M.gguf --demeanor target/release/demeanor --llama llama-server --out speed.json

One pair = each server started with one slot and again with 16 (demeanor has no slots: the same flags both times), warmed
up, measured and ended; the order turns with every pair. Measured over HTTP at
`/v1/completions` with token ids as prompt and no cache:
    prefill   tokens of a prompt over the time until its one token is back (512 tokens, max_tokens 1)
    decode    (128 - 1) tokens over the time from the first streamed piece to the last, after a short prompt
              (`--demeanor-flag=--draft-max=0`: without n-gram drafts, which llama-server does not make by default)
    parallel  16 streams at once, 128 tokens each after different short prompts: all tokens over the time from the
              first piece of any to the last piece of all
    idle      CPU seconds (all threads) of the server over 10 s without requests, as a share of one core
Speeds are the best of `--repeats` within a run, for a machine that is shared, and then the median over the pairs;
`spread` is (largest - smallest) / median over the pairs. Ratios are medians of the ratio within a pair.
The servers that were started are ended by their process handles, nothing else is touched.
"""

import argparse
import http.client
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PREFILL, DECODE, PARALLEL, IDLE_SECONDS = 512, 128, 16, 10
START_SECONDS = 180
THEIRS, OURS = "llama-server", "demeanor"
FIGURES = ("prefill", "decode", "parallel", "idle", "rss_mib")
UNITS = {"prefill": "tok/s", "decode": "tok/s", "parallel": "tok/s", "idle": "% of a core", "rss_mib": "MiB"}


class Server:
    """A started server; `with` ends it."""

    def __init__(self, name, command, port, log):
        self.name, self.port, self.log = name, port, log
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self):
        try:
            self.wait_until_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_healthy(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.process.returncode}; its output is in {self.log.name}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise SystemExit(f"{self.name} was not healthy after {START_SECONDS} s; its output is in {self.log.name}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as handle:
            fields = handle.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as handle:
            return next(int(line.split()[1]) for line in handle if line.startswith("VmRSS")) / 1024

    def complete(self, ids, tokens, stream):
        """Time stamps of the pieces of one completion (of the whole answer when not streamed), and its token count."""
        body = {"prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{self.name} answered {answer.status}: {answer.read(500)!r}")
        if not stream:
            usage = json.loads(answer.read())["usage"]
            if usage["prompt_tokens"] != len(ids):
                raise SystemExit(f"{self.name} read {usage['prompt_tokens']} of {len(ids)} prompt tokens")
            return [time.monotonic()], usage["completion_tokens"]
        times, count = [], 0
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            count = (chunk.get("usage") or {}).get("completion_tokens", count)
            if chunk.get("choices"):
                times.append(time.monotonic())
        if count != tokens:
            raise SystemExit(f"{self.name} made {count} tokens of {tokens} asked for")
        return times, count


def prompts(count, length, vocabulary, seed):
    """Different prompts of ordinary ids; the ids at the start of a vocabulary are control tokens."""
    generator = random.Random(seed)
    return [[generator.randrange(300, vocabulary) for _ in range(length)] for _ in range(count)]


def prefill(server, vocabulary, seed):
    begin = time.monotonic()
    times, _ = server.complete(prompts(1, PREFILL, vocabulary, seed)[0], 1, False)
    return PREFILL / (times[-1] - begin)


def decode(server, vocabulary, seed):
    times, count = server.complete(prompts(1, 8, vocabulary, seed)[0], DECODE, True)
    return (count - 1) / (times[-1] - times[0])


def parallel(server, vocabulary, seed):
    results, threads = [None] * PARALLEL, []

    def one(index, ids):
        results[index] = server.complete(ids, DECODE, True)

    for index, ids in enumerate(prompts(PARALLEL, 8, vocabulary, seed)):
        threads.append(threading.Thread(target=one, args=(index, ids)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in results:
        raise SystemExit(f"{server.name}: a stream of {PARALLEL} failed")
    begin, end = min(times[0] for times, _ in results), max(times[-1] for times, _ in results)
    return sum(count for _, count in results) / (end - begin)


def idle(server):
    before, begin = server.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return 100 * (server.cpu_seconds() - before) / (time.monotonic() - begin)


def best(test, server, arguments, seed):
    return max(test(server, arguments.vocabulary, seed + i) for i in range(arguments.repeats))


def measure_one(server, arguments, seed):
    """The figures of a server with one slot."""
    server.complete(prompts(1, 32, arguments.vocabulary, 0)[0], 4, False)
    figures = {"idle": idle(server)}
    figures |= {test.__name__: best(test, server, arguments, seed) for test in (prefill, decode)}
    return figures | {"rss_mib": server.rss_mib()}


def measure_parallel(server, arguments, seed):
    """The figures of a server with 16 slots."""
    server.complete(prompts(1, 32, arguments.vocabulary, 0)[0], 4, False)
    return {"parallel": best(parallel, server, arguments, seed)}


RUNS = ((1, measure_one), (PARALLEL, measure_parallel))


def command_of(arguments, name, slots):
    threads, port = str(arguments.threads), str(arguments.port)
    if name == THEIRS:
        # Its context is shared out among the slots; the prompt and what follows must fit in one share.
        context = slots * (PREFILL + 2 * DECODE)
        flags = ["-t", threads, "-tb", threads, "-c", str(context), "--parallel", str(slots), "--no-webui", "--offline"]
        return [arguments.llama, "-m", arguments.model, "--host", "127.0.0.1", "--port", port, *flags, *arguments.llama_flag]
    flags = ["-t", threads, "--max-batch", str(PARALLEL)]
    return [arguments.demeanor, "serve", "-m", arguments.model, "--host", "127.0.0.1", "--port", port, *flags, *arguments.demeanor_flag]


def run(arguments, name, seed):
    """All figures of one server program: started once with one slot and once with 16."""
    figures = {}
    for slots, measure in RUNS:
        with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".log", delete=False) as log:
            with Server(name, command_of(arguments, name, slots), arguments.port, log) as server:
                figures |= measure(server, arguments, seed)
        os.unlink(log.name)
    return figures


def summary(runs, names):
    """Per figure: medians and spreads of the servers and the median ratio of ours to theirs."""
    out = {}
    for figure in FIGURES:
        entry = {"unit": UNITS[figure]}
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


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        return next((line.partition(":")[2].strip() for line in handle if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--demeanor", help="the program `demeanor`")
    parser.add_argument("--llama", help="the program `llama-server`")
    parser.add_argument("--out", required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
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
    runs = []
    for pair in range(arguments.pairs):
        runs.append({})
        for name in names if pair % 2 == 0 else names[::-1]:
            runs[-1][name] = run(arguments, name, 1000 * pair + 1)
            print(f"pair {pair + 1}, {name}: { {k: round(v, 2) for k, v in runs[-1][name].items()} }", file=sys.stderr, flush=True)
    result = summary(runs, names)
    shown = {name: [os.path.basename(part) for part in command_of(arguments, name, PARALLEL)] for name in names}
    conditions = {"processor": processor(), "threads": arguments.threads, "pairs": arguments.pairs, "commands": shown}
    with open(arguments.out, "w", encoding="utf-8") as handle:
        json.dump({"conditions": conditions, "summary": result, "runs": runs}, handle, indent=1)
        handle.write("\n")
    table(result, names)


if __name__ == "__main__":
    main()
