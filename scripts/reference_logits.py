# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*", "accelerate==1.15.*", "sentencepiece", "protobuf", "jinja2"]
# ///
"""Greedy continuations and top-20 log-probabilities of a GGUF run by `transformers` in float32.

    python scripts/reference_logits.py --model M.gguf --out tests/fixtures/reference_M.json
    python scripts/reference_logits.py --model EDITED.gguf --check tests/fixtures/reference_M.json

The second form runs another file over the fixture's ids and says how far it is away: that is how a planted bug
(scripts/edit_gguf.py, or --gap below) is shown to be larger than the tolerance.

Of every prompt: `text`, `ids` (BOS included where the model wants one), `messages` if it is a rendered chat, `greedy`
(at most 32 ids; ends with an end token if one came), `ended`, `margin_min` (nat, smallest distance of first to second on
the way) and `steps`: for each greedy id the distribution it was chosen from, `ids` and `logprobs` of the top 20.
"""

import argparse
import json

import numpy as np
import torch

import reference_model as reference

SCRIPT = "reference_logits.py"
GREEDY, TOP = 32, 20
TOLERANCE = 2e-4  # nat; two independent float32 forms differ by 5e-5


def greedy(model, ids, end):
    """(greedy ids, their rows of log-probabilities as [steps, vocab_size])."""
    out, rows, cache, feed = [], [], None, torch.tensor([ids])
    while len(out) < GREEDY:
        answer = model(feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = answer.past_key_values
        row = reference.log_probabilities(answer.logits[0, -1])
        best = reference.top(row, 1)[0]
        out.append(best)
        rows.append(row)
        if best == end:
            break
        feed = torch.tensor([[best]])
    return out, rows


def rows_forced(model, ids, greedy_ids, gap):
    """The same rows in one pass over prompt and greedy ids; `gap` shifts the positions of the second half."""
    sequence = ids + greedy_ids[:-1]
    positions = torch.arange(len(sequence))[None]
    positions[:, len(ids) // 2 :] += gap
    logits = model(torch.tensor([sequence]), position_ids=positions, logits_to_keep=len(greedy_ids)).logits[0]
    return reference.log_probabilities(logits)


def difference(prompt, rows):
    """Largest |change| over the stored top 20, and the number of steps whose first id changed."""
    worst = max(np.max(np.abs(row[step["ids"]] - np.array(step["logprobs"]))) for row, step in zip(rows, prompt["steps"]))
    changed = sum(reference.top(row, 1)[0] != step["ids"][0] for row, step in zip(rows, prompt["steps"]))
    return float(worst), changed


def make(model, tokenizer, reader, arguments):
    chat = tokenizer.chat_template is not None
    prompts = reference.texts_of(tokenizer, chat)
    end = reference.field(reader, "tokenizer.ggml.eos_token_id")
    out = []
    for number, prompt in enumerate(prompts):
        ids, rows = greedy(model, prompt["ids"], end)
        tops = [reference.top(row, TOP) for row in rows]
        margin = min(row[ids[0]] - row[ids[1]] for row, ids in zip(rows, tops))
        steps = [{"ids": t, "logprobs": [reference.round_digits(row[i]) for i in t]} for row, t in zip(rows, tops)]
        out.append(prompt | {"greedy": ids, "ended": ids[-1] == end, "margin_min": reference.round_digits(margin, 3), "steps": steps})
        forced, _ = difference(out[-1], rows_forced(model, prompt["ids"], ids, 0))
        print(f"{number:2} {len(prompt['ids']):4} ids, {len(ids):2} greedy, margin {margin:.4f}, one pass differs by {forced:.1e}: {tokenizer.decode(ids)!r}", flush=True)
    assert max(len(p["ids"]) for p in out) > 600 and len(out) == 20
    head = reference.header(arguments.model, model, reader, SCRIPT) | {"end_id": end, "tolerance": TOLERANCE}
    reference.write(arguments.out, head, "prompts", out)
    if arguments.float64:
        check(model.double(), out, 0)


def check(model, prompts, gap):
    differences = [difference(p, rows_forced(model, p["ids"], p["greedy"], gap)) for p in prompts]
    worst = max(d for d, _ in differences)
    at = [d for d, _ in differences].index(worst)
    over = sum(d > TOLERANCE for d, _ in differences)
    changed = sum(c for _, c in differences)
    steps = sum(len(p["steps"]) for p in prompts)
    print(f"largest difference {worst:.3g} nat (prompt {at}); over {TOLERANCE}: {over} of {len(prompts)} prompts; first id changed in {changed} of {steps} steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out")
    parser.add_argument("--check", metavar="FIXTURE")
    parser.add_argument("--gap", type=int, default=0, help="with --check: add this to the positions of each prompt's second half")
    parser.add_argument("--float64", action="store_true", help="also say how far float32 is from float64")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    model, tokenizer, reader = reference.load(arguments.model, arguments.threads)
    if arguments.check:
        with open(arguments.check, encoding="utf-8") as handle:
            prompts = json.load(handle)["prompts"]
        check(model.double() if arguments.float64 else model, prompts, arguments.gap)
    elif arguments.out:
        make(model, tokenizer, reader, arguments)
    else:
        parser.error("one of --out and --check is needed")


if __name__ == "__main__":
    main()
