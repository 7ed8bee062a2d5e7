# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Time between tokens of running streams while a long prompt is prefilled, beside the same streams without it.

    python scripts/prefill_interference.py --demeanor target/release/demeanor --model M.gguf --out interference.json
    python scripts/prefill_interference.py --server http://127.0.0.1:8080 [--pid PID] --out interference.json

Four streams decode to the end of the run (`--streams`). In turn nothing else happens for some seconds, and one prompt of
4,000 token ids is prefilled with no cache (`--prompt`), `--repeats` times. The time from each piece of a stream to its
next counts as `prefill` when a prefill overlaps it, else as `quiet`: median, 95th percentile, largest. A server sends
one piece a token except where a character spans several; `pieces_per_token` says so. Before the streams start, the CPU
seconds of the idle server over ten seconds are taken as a share of one core; for a server given by its address that
needs `--pid`. Any server with `/v1/completions` over token ids can be given; llama-server then needs a slot more than
there are streams, and a context that has room for all. Timing on a shared machine is noisy: read the repeats too.

JSON goes to `--out`, a table to stdout. Exits 1 when a stream ends early or a request fails, and when the 95th
percentile of `prefill` is above `--limit-ms` where that is given; 2 for wrong arguments.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time

import conditions
from completions import ask, body_of, chunks, prompts, whole
from served import Failed, Served

IDLE_SECONDS, START_SECONDS, SETTLED_PIECES = 10, 600, 8


class Stream(threading.Thread):
    """One completion that runs until it is stopped."""

    def __init__(self, url, ids, tokens):
        super().__init__(daemon=True)
        self.url, self.body = url, body_of(ids, tokens, True)
        self.times, self.tokens, self.stopped, self.error = [], None, False, None

    def run(self):
        try:
            with ask(self.url, "/v1/completions", self.body) as answer:
                for chunk in chunks(answer):
                    if chunk.get("choices"):
                        self.times.append(time.monotonic())
                    if "error" in chunk:
                        self.error = chunk["error"]
                    # The count of tokens comes with the last chunk, so only a stream that ended has it.
                    self.tokens = (chunk.get("usage") or {}).get("completion_tokens", self.tokens)
                    if self.stopped:
                        return
        except (Failed, OSError, http.client.HTTPException) as error:
            self.error = error


def check_running(streams):
    for stream in streams:
        if stream.error or not stream.is_alive():
            raise Failed(f"a stream ended after {len(stream.times)} pieces: {stream.error or 'its tokens were used up'}")


def quiet(streams, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        check_running(streams)


def nearest_rank(ordered, percent):
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def described(seconds):
    """In milliseconds; of fewer than twenty the 95th percentile is the largest."""
    if not seconds:
        raise Failed("no time between tokens was seen; a longer --prompt or more --seconds are needed")
    ordered = sorted(1e3 * value for value in seconds)
    figures = {"median": statistics.median(ordered), "p95": nearest_rank(ordered, 95), "max": ordered[-1]}
    return {"count": len(ordered)} | {name: round(value, 2) for name, value in figures.items()}


def sorted_gaps(streams, spans):
    """Times between pieces: those that no prefill overlaps, and for each prefill those that it overlaps."""
    calm, busy = [], [[] for _ in spans]
    for stream in streams:
        for before, after in zip(stream.times[SETTLED_PIECES:], stream.times[SETTLED_PIECES + 1:]):
            over = [index for index, (begin, end) in enumerate(spans) if after > begin and before < end]
            calm.append(after - before) if not over else busy[over[0]].append(after - before)
    return calm, busy


def measure(arguments, url):
    ids = prompts(arguments.streams, 8, arguments.vocabulary, 1)
    streams = [Stream(url, one, arguments.tokens) for one in ids]
    for stream in streams:
        stream.start()
    try:
        while any(len(stream.times) <= SETTLED_PIECES for stream in streams):
            quiet(streams, 0.05)
        spans = []
        for long in prompts(arguments.repeats, arguments.prompt, arguments.vocabulary, 2):
            quiet(streams, arguments.seconds)
            begin = time.monotonic()
            whole(url, long, 1)
            spans.append((begin, time.monotonic()))
            check_running(streams)
        quiet(streams, arguments.seconds)
    finally:
        for stream in streams:
            stream.stopped = True
    for stream in streams:
        stream.join(60)
    calm, busy = sorted_gaps(streams, spans)
    return {
        "quiet": described(calm),
        "prefill": described([value for values in busy for value in values]),
        "repeats": [{"prefill_seconds": round(end - begin, 3)} | described(values)
                    for (begin, end), values in zip(spans, busy)],
    }


def idle_percent(pid):
    before, begin = conditions.cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return round(100 * (conditions.cpu_seconds(pid) - before) / (time.monotonic() - begin), 3)


def pieces_per_token(arguments, url):
    """Of one short stream to its end."""
    stream = Stream(url, prompts(1, 8, arguments.vocabulary, 3)[0], 64)
    stream.run()
    if stream.error or not stream.tokens:
        raise Failed(f"the first stream failed: {stream.error or 'no count of tokens came'}")
    return round(len(stream.times) / stream.tokens, 3)


def all_figures(arguments, url, pid):
    """The server has served once when its idle time is taken."""
    figures = {"pieces_per_token": pieces_per_token(arguments, url)}
    figures["idle_percent_of_a_core"] = idle_percent(pid) if pid else None
    long = prompts(1, arguments.prompt, arguments.vocabulary, 4)[0]
    figures["prefill_alone_seconds"] = round(whole(url, long, 1), 3)
    return figures | measure(arguments, url)


def table(figures):
    print("| times between tokens | number | median ms | p95 ms | max ms |\n|---|---|---|---|---|")
    for name in ("quiet", "prefill"):
        row = figures[name]
        print(f"| {name} | {row['count']} | {row['median']} | {row['p95']} | {row['max']} |")
    seconds = statistics.median(repeat["prefill_seconds"] for repeat in figures["repeats"])
    print(f"prefill of the prompt: {seconds} s (median), {figures['prefill_alone_seconds']} s without streams; "
          f"idle: {figures['idle_percent_of_a_core']} % of a core")


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", help="address of a running server, without /v1")
    parser.add_argument("--pid", type=int, help="process of --server, for its idle CPU time")
    parser.add_argument("--demeanor", help="the program `demeanor`, to be started with --model")
    parser.add_argument("--model")
    parser.add_argument("--demeanor-flag", action="append", default=[], help="one more argument for demeanor serve; repeatable")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4000, help="most tokens of a stream; it must last to the end of the run")
    parser.add_argument("--prompt", type=int, default=4000, help="tokens of the long prompt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of quiet before and after each prefill")
    parser.add_argument("--vocabulary", type=int, default=40000, help="prompt ids are drawn below this")
    parser.add_argument("--limit-ms", type=float)
    parser.add_argument("--label", help="what the server is called beside the figures")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    if (arguments.server is None) == (arguments.demeanor is None) or (arguments.demeanor is None) != (arguments.model is None):
        parser.error("give --server, or --demeanor with --model")
    if min(arguments.streams, arguments.prompt, arguments.repeats) < 1:
        parser.error("--streams, --prompt and --repeats: at least 1")
    return arguments


def run(arguments):
    if arguments.server:
        return all_figures(arguments, arguments.server.rstrip("/"), arguments.pid)
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.demeanor, "serve", "-m", arguments.model, "--port", "0", "-t", str(arguments.threads),
                   "--data-dir", folder, *arguments.demeanor_flag]
        server = Served(command, os.path.join(folder, "log"), START_SECONDS)
        try:
            return all_figures(arguments, server.url, server.process.pid)
        finally:
            server.stop()


def main():
    arguments = parsed()
    try:
        figures = run(arguments)
    except (Failed, OSError, http.client.HTTPException) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    kept = conditions.processor() | {"commit": conditions.commit(), "label": arguments.label}
    kept |= {name: getattr(arguments, name) for name in ("streams", "prompt")}
    if arguments.model:
        kept["threads"] = arguments.threads
        kept["model"] = {"file": os.path.basename(arguments.model), "bytes": os.path.getsize(arguments.model)}
    with open(arguments.out, "w", encoding="utf-8") as handle:
        json.dump({"conditions": kept, "interference": figures}, handle, indent=1)
        handle.write("\n")
    table(figures)
    if arguments.limit_ms and figures["prefill"]["p95"] > arguments.limit_ms:
        print(f"FAILED p95 {figures['prefill']['p95']} ms while a prompt is prefilled; allowed {arguments.limit_ms}",
              file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
