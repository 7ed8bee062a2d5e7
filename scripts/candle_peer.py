# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""candle's own quantised model and `demeanor bench` on the same GGUF, in alternating runs.

    RUSTFLAGS="-C target-cpu=native" cargo build --release --manifest-path benches/candle/Cargo.toml \\
        --target-dir target/candle
    python scripts/candle_peer.py --demeanor target/release/demeanor --candle target/candle/release/candle-peer \\
        --model A.gguf --model B.gguf --json candle.json

One pair = each program started once; the order turns with every pair. Both measure without HTTP and without drafts:
    prefill   tokens of a prompt from an empty cache over the time until the next token is known (`--prompt`)
    decode    tokens after the first of one stream (`--tokens`) over the time since the first, after a prompt of 16
The peer is built without MKL, as by default, and warms up with a whole run; `demeanor bench` warms up with a short stream
only. The peer takes the likeliest token, demeanor draws with temperature .8 and top-p .95. Figures are medians of `--repeats`
within a run and then over the pairs; ratios are demeanor's figure over candle's within a pair: median, smallest and largest.
A table goes to stdout, with --json also what the programs said. Exits 1 when one fails, an architecture that the peer does
not measure included.

candle's threads wait for each other in loops, so another load on the machine costs it many times its share.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys

import conditions
from served import Failed

THEIRS, OURS = "candle", "demeanor"
# Where each program's JSON holds a figure.
FIGURES = {
    "prefill": {THEIRS: lambda said: said["prefill_tokens_per_second"], OURS: lambda said: said["speed"]["prefill"]["median"]},
    "decode": {THEIRS: lambda said: said["decode_tokens_per_second"], OURS: lambda said: said["speed"]["decode"]["median"]},
}


def command_of(arguments, model, name):
    flags = ["--prompt", str(arguments.prompt), "--tokens", str(arguments.tokens), "--repeats", str(arguments.repeats)]
    if name == THEIRS:
        return [arguments.candle, model, *flags]
    # One stream is measured anyway; `bench` wants at least one batch.
    return [arguments.demeanor, "bench", "-m", model, "-t", str(arguments.threads), "--batches", "1", "--pairs", "0", "--json", *flags]


def run(arguments, model, name):
    """What a program says, as JSON."""
    threads = str(arguments.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": threads, "CANDLE_NUM_THREADS": threads, "RUST_BACKTRACE": "0"}
    ended = subprocess.run(command_of(arguments, model, name), env=environment, capture_output=True, text=True)
    if ended.returncode != 0:
        raise Failed(f"{name} ended with {ended.returncode}: {ended.stderr.strip()[-600:]}")
    said = json.loads(ended.stdout)
    if said["threads"] != arguments.threads:
        raise Failed(f"{name} ran with {said['threads']} threads, {arguments.threads} expected")
    return said


def figures_of(name, said):
    return {figure: value_of[name](said) for figure, value_of in FIGURES.items()}


def compare(arguments, model):
    """Runs all pairs on one model."""
    runs = []
    for pair in range(arguments.pairs):
        runs.append({})
        for name in (THEIRS, OURS) if pair % 2 == 0 else (OURS, THEIRS):
            runs[-1][name] = run(arguments, model, name)
            shown = {figure: round(value, 1) for figure, value in figures_of(name, runs[-1][name]).items()}
            print(f"{os.path.basename(model)}, pair {pair + 1}, {name}: {shown}", file=sys.stderr, flush=True)
    return runs


def summary(runs):
    """Per figure: the medians of both, and the ratios within a pair."""
    out = {}
    pairs = [{name: figures_of(name, said) for name, said in pair.items()} for pair in runs]
    for figure in FIGURES:
        ratios = [pair[OURS][figure] / pair[THEIRS][figure] for pair in pairs]
        entry = {name: round(statistics.median(pair[name][figure] for pair in pairs), 2) for name in (THEIRS, OURS)}
        entry["ratio"] = round(statistics.median(ratios), 3)
        out[figure] = entry | {"ratio_least": round(min(ratios), 3), "ratio_most": round(max(ratios), 3)}
    return out


def table(results):
    print(f"| file | figure, tok/s | {THEIRS} | {OURS} | ratio | smallest | largest |\n|{'---|' * 7}")
    for result in results:
        for figure, entry in result["summary"].items():
            cells = [f"{entry[name]:.4g}" for name in (THEIRS, OURS)]
            cells += [f"{entry[key]:.2f}" for key in ("ratio", "ratio_least", "ratio_most")]
            print(f"| {result['model']['file']} | {figure} | {' | '.join(cells)} |")


def measured_on(arguments, candle):
    """The conditions that are kept beside the figures; `candle` is what the peer said in one run."""
    kept = conditions.processor() | {key: getattr(arguments, key) for key in ("threads", "pairs", "repeats", "prompt", "tokens")}
    kept["commit"] = conditions.commit()
    kept["demeanor"] = conditions.version(arguments.demeanor)
    return kept | {"candle": candle["candle"], "candle_target_features": candle["target_features"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demeanor", required=True, help="the program `demeanor`")
    parser.add_argument("--candle", required=True, help="the program `candle-peer` of benches/candle")
    parser.add_argument("--model", required=True, action="append", help="a GGUF; repeatable")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the long prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a stream")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="OUT", help="a file for conditions, summary and what the programs said")
    arguments = parser.parse_args()
    # So that an ended script ends its program too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missing = [model for model in arguments.model if not os.path.isfile(model)]
    missing += [program for program in (arguments.demeanor, arguments.candle) if not shutil.which(program)]
    if missing:
        parser.error(f"there is no file or program {missing[0]}")
    if min(arguments.pairs, arguments.repeats, arguments.prompt, arguments.threads) < 1 or arguments.tokens < 2:
        parser.error("--pairs, --repeats, --prompt and --threads: at least 1; --tokens: at least 2")
    results = []
    try:
        for model in arguments.model:
            runs = compare(arguments, model)
            named = {"file": os.path.basename(model), "bytes": os.path.getsize(model)}
            results.append({"model": named, "summary": summary(runs), "runs": runs})
        if arguments.json:
            kept = {"conditions": measured_on(arguments, results[0]["runs"][0][THEIRS]), "results": results}
            with open(arguments.json, "w", encoding="utf-8") as handle:
                json.dump(kept, handle, indent=1)
                handle.write("\n")
    except (Failed, OSError, ValueError) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    table(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
