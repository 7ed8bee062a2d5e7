# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Perplexity of a text by demeanor and by llama.cpp over exactly the same tokens; fails above 0.5 % of difference.

    python scripts/perplexity.py --demeanor target/release/demeanor --llama-perplexity llama-perplexity \\
        --model M.gguf --text TEXT [--out perplexity.json]

llama.cpp's way is kept, so that its own program is the reference: the text's tokens (with the special ones in front that
the model's tokenizer adds) are cut into windows of `--context` tokens that know nothing of each other; where the model
wants a beginning-of-sequence token, it takes the place of each window's first; of each window the tokens of the second
half are scored. demeanor scores a window as a prompt of ids that is echoed with log-probabilities. Both programs run with
the same threads, one after the other. `llama-tokenize` is looked for beside `llama-perplexity`: its ids must be
demeanor's. As the perplexity is printed after every window, the windows are compared one by one, too.

Beside the ratio of the two stands the standard error of the text's perplexity itself: a difference far below it says that
the arithmetic agrees, not which is better. Sixteen windows take llama.cpp half a minute on two cores. Any long text will
do, so none is kept here; the cells of one column of a CSV are a text, too, such as those of Synthetic-Persona-Chat's test
conversations: `--text Synthetic-Persona-Chat_test.csv --column "Best Generated Conversation"`.

Both programs round activations in their own ways. Which of two that differ is nearer to the file's weights is seen
with `--llama-model`: `llama-quantize --allow-requantize M.gguf M-F32.gguf F32` writes the same weights out, and
llama.cpp then rounds nothing.

Exits 0 when the ratio is within `--tolerance`, 1 when it is not, or a program fails, or the tokens differ; 2 for wrong
arguments.
"""

import argparse
import csv
import http.client
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import conditions
from completions import ask_json
from served import Failed, Served

START_SECONDS, LLAMA_SECONDS = 600, 1800


def text_of(arguments):
    if not arguments.column:
        return pathlib.Path(arguments.text).read_text(encoding="utf-8")
    with open(arguments.text, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or arguments.column not in rows[0]:
        raise Failed(f"{arguments.text} has no column `{arguments.column}`; it has {', '.join(rows[0]) if rows else 'no rows'}")
    return "\n\n".join(row[arguments.column].strip() for row in rows) + "\n"


def windows(ids, size, most, bos):
    """Whole windows; `bos` in place of the first token where there is one."""
    if len(ids) < 2 * size:
        raise Failed(f"the text has {len(ids)} tokens; needed are 2 windows of {size}")
    starts = range(0, len(ids) // size * size, size)[:most]
    return [([bos] if bos is not None else ids[start:start + 1]) + ids[start + 1:start + size] for start in starts]


def losses(url, window):
    """Negative log-probabilities of the second half's tokens, each under all before it."""
    body = {"prompt": window, "max_tokens": 0, "echo": True, "logprobs": 0, "cache_prompt": False}
    answer = ask_json(url, "/v1/completions", body)
    logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
    if len(logprobs) != len(window):
        raise Failed(f"{len(logprobs)} log-probabilities came for {len(window)} tokens")
    return [-value for value in logprobs[len(window) // 2 + 1:]]


def running(window_losses):
    """Perplexity after each window."""
    total, count, values = 0.0, 0, []
    for values_of_window in window_losses:
        total, count = total + math.fsum(values_of_window), count + len(values_of_window)
        values.append(math.exp(total / count))
    return values


def relative_error(window_losses):
    """Of the perplexity, from the spread of the losses: what another text of this kind would change."""
    flat = [value for values in window_losses for value in values]
    mean = math.fsum(flat) / len(flat)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in flat) / (len(flat) - 1) / len(flat))


def ours(arguments, text, folder):
    """Ids of the text and the losses of each window."""
    command = [arguments.demeanor, "serve", "-m", arguments.model, "--port", "0", "-t", str(arguments.threads),
               "--data-dir", folder, *arguments.demeanor_flag]
    server = Served(command, os.path.join(folder, "log"), START_SECONDS)
    try:
        def tokens(content):
            body = {"content": content, "add_special": True, "parse_special": False}
            return ask_json(server.url, "/tokenize", body)["tokens"]
        ids, special = tokens(text), tokens("")
        if len(special) > 1:
            raise Failed(f"the tokenizer adds {len(special)} special tokens; windows are known for none or one in front")
        cut = windows(ids, arguments.context, arguments.chunks, special[0] if special else None)
        return ids, [losses(server.url, window) for window in cut]
    finally:
        server.stop()


def said(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=LLAMA_SECONDS)
    if done.returncode != 0:
        raise Failed(f"{os.path.basename(command[0])} ended with {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
    return done.stdout + done.stderr


def their_ids(arguments, path):
    program = pathlib.Path(shutil.which(arguments.llama_perplexity)).resolve().parent / "llama-tokenize"
    if not program.is_file():
        print("note: no llama-tokenize beside llama-perplexity; its ids were not compared", file=sys.stderr)
        return None
    out = said([str(program), "-m", arguments.model, "-f", path, "--ids", "--no-parse-special", "--log-disable"])
    return json.loads(out[out.index("["):out.index("]") + 1])


def theirs(arguments, path):
    """Perplexity after each window."""
    size = str(arguments.context)
    command = [arguments.llama_perplexity, "-m", arguments.llama_model or arguments.model, "-f", path, "-c", size, "-b", size,
               "--chunks", str(arguments.chunks), "-t", str(arguments.threads), *arguments.llama_flag]
    out = said(command)
    found = re.findall(r"\[(\d+)\](\d+\.\d+),", out)
    if not found or [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        raise Failed(f"llama-perplexity printed no perplexities: {out[-600:]}")
    return [float(value) for _, value in found]


def compared(arguments):
    text = text_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text")
        pathlib.Path(path).write_text(text, encoding="utf-8")
        ids, window_losses = ours(arguments, text, folder)
        expected = their_ids(arguments, path)
        if expected not in (None, ids):
            pairs = enumerate(zip(ids, expected))
            at = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(expected)))
            raise Failed(f"the tokens differ from token {at} on: demeanor {ids[at:at + 6]}, "
                         f"llama.cpp {expected[at:at + 6]}")
        reference = theirs(arguments, path)
    values = running(window_losses)
    if len(values) != len(reference):
        raise Failed(f"demeanor scored {len(values)} windows, llama.cpp {len(reference)}")
    return {
        "windows": len(values), "scored_tokens": sum(len(values) for values in window_losses),
        "tokens_compared": expected is not None,
        "demeanor": round(values[-1], 4), "llama.cpp": reference[-1],
        "ratio": round(values[-1] / reference[-1], 6),
        "relative_standard_error": round(relative_error(window_losses), 5),
        "running": {"demeanor": [round(value, 4) for value in values], "llama.cpp": reference},
    }


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demeanor", required=True, help="the program `demeanor`")
    parser.add_argument("--llama-perplexity", required=True, help="llama.cpp's program")
    parser.add_argument("--model", required=True)
    parser.add_argument("--llama-model", help="what llama.cpp runs instead, such as the same weights written out in F32")
    parser.add_argument("--text", required=True, help="a file, plain text in UTF-8, or a CSV with --column")
    parser.add_argument("--column", help="the column of a CSV whose cells are the text")
    parser.add_argument("--context", type=int, default=512, help="tokens of a window")
    parser.add_argument("--chunks", type=int, default=16, help="most windows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=0.005, help="largest |ratio - 1|")
    parser.add_argument("--label", help="what the peer is called beside the figures")
    parser.add_argument("--demeanor-flag", action="append", default=[], help="one more argument for demeanor serve; repeatable")
    parser.add_argument("--llama-flag", action="append", default=[], help="one more argument for llama-perplexity; repeatable")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    for program in (arguments.demeanor, arguments.llama_perplexity):
        if not shutil.which(program):
            parser.error(f"there is no program {program}")
    for path in (arguments.model, arguments.text, arguments.llama_model):
        if path and not os.path.isfile(path):
            parser.error(f"there is no file {path}")
    if arguments.context < 8 or arguments.chunks < 1:
        parser.error("--context: at least 8; --chunks: at least 1")
    return arguments


def main():
    arguments = parsed()
    try:
        figures = compared(arguments)
    except (Failed, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1
    if arguments.out:
        kept = conditions.processor() | {"commit": conditions.commit()}
        kept |= {"threads": arguments.threads, "context": arguments.context}
        kept["model"] = {"file": os.path.basename(arguments.model), "bytes": os.path.getsize(arguments.model)}
        kept["text"] = {"file": os.path.basename(arguments.text), "column": arguments.column}
        kept["peer"] = {"label": arguments.label, "flags": arguments.llama_flag}
        if arguments.llama_model:
            kept["peer"]["model"] = os.path.basename(arguments.llama_model)
        with open(arguments.out, "w", encoding="utf-8") as handle:
            json.dump({"conditions": kept, "perplexity": figures}, handle, indent=1)
            handle.write("\n")
    print(f"{os.path.basename(arguments.model)}: demeanor {figures['demeanor']}, llama.cpp {figures['llama.cpp']}, "
          f"ratio {figures['ratio']} ({figures['windows']} windows, {figures['scored_tokens']} tokens, "
          f"standard error {100 * figures['relative_standard_error']:.2f} %)")
    if abs(figures["ratio"] - 1) > arguments.tolerance:
        print(f"FAILED the ratio is farther from 1 than {arguments.tolerance}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
