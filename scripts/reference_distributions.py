# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*", "accelerate==1.15.*", "sentencepiece", "protobuf", "jinja2"]
# ///
"""Teacher-forced next-token distributions of a GGUF run by `transformers` in float32, cut to their largest entries.

    python scripts/reference_distributions.py --model M.gguf --out tests/fixtures/distributions_M.json

The fixture: `texts` = `[{"ids", "from"}]`; scored are the positions `from ..= len(ids) - 1` of each text, a position's
distribution being that of the token after it; `top` has one row `{"ids", "nll"}` per scored position, texts in order,
positions ascending, 16 to 56 ids of it: as many as leave less than 0.004 to the others, where 56 suffice. `nll` is -log p in units of 1e-5 nat, rounded, ascending.

KL is taken over the stored ids plus one bucket for all others:
    KL = sum_i p_i ln(p_i / q_i) + r ln(r / s),   r = 1 - sum p_i,   s = 1 - sum q_i   (a term with p or r <= 0 is 0)
Merging ids can only lower KL. `--rehearse` (always run when making the fixture) says by how much: it runs the model with every product's input rounded to
int8, one scale per 32 values, as the server's default mode does, and compares both forms; `rehearsal` in the fixture.
"""

import argparse

import numpy as np
import torch

import reference_model as reference

SCRIPT = "reference_distributions.py"
TOP_MIN, TOP_MAX = 16, 56  # ids stored per position: so many that the rest is below REST, within these bounds
REST = 0.004
SCORED_MAX = 32  # positions per text, its last ones
SCORED_LONG = 72  # of the one long prompt: beyond a window of 512
SURE = 0.5  # nat between first and second: "sure" positions


def sequences(tokenizer, chat):
    """The texts as ids with the first scored position."""
    import reference_texts

    out = [prompt["ids"] for prompt in reference.texts_of(tokenizer, chat)]
    out += [tokenizer(text)["input_ids"] for text in reference_texts.EXTRA]
    for messages in reference_texts.EXTRA_CHATS:
        if chat:
            out.append(reference.rendered(tokenizer, messages, False)["ids"])
        else:
            plain = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages)
            out.append(tokenizer(plain)["input_ids"])
    scored = [SCORED_LONG if len(ids) > 512 else SCORED_MAX for ids in out]
    # The first three positions of a text say little and are left out.
    return [{"ids": ids, "from": max(3, len(ids) - count)} for ids, count in zip(out, scored)]


def rows_of(model, text):
    """Log-probabilities `[scored, vocab_size]` in float64."""
    keep = len(text["ids"]) - text["from"]
    return reference.log_probabilities(model(torch.tensor([text["ids"]]), logits_to_keep=keep).logits[0])


def kl_full(p, q):
    return float(np.sum(np.exp(p) * (p - q)))


def kl_stored(top, q):
    """The formula of the header for one stored row and log-probabilities `[vocab_size]`."""
    p = np.exp(-1e-5 * np.array(top["nll"]))
    q = np.exp(q[top["ids"]])
    rest, other = 1 - p.sum(), max(1 - q.sum(), 1e-12)
    return float(np.sum(p * np.log(p / q)) + (rest * np.log(rest / other) if rest > 0 else 0))


def rehearse(model, texts, rows, tops):
    reference.use_int8_activations(model)
    full, stored, same, sure_same = [], [], [], []
    at = 0
    for text, reference_rows in zip(texts, rows):
        for p, q in zip(reference_rows, rows_of(model, text)):
            full.append(kl_full(p, q))
            stored.append(kl_stored(tops[at], q))
            same.append(int(np.argmax(q)) == tops[at]["ids"][0])
            if tops[at]["nll"][1] - tops[at]["nll"][0] > SURE * 1e5:
                sure_same.append(same[-1])
            at += 1
    figures = {
        "what": "every product's input rounded to int8, one scale per 32 values, all else float32",
        "kl_mean": np.mean(full),
        "kl_p99": np.quantile(full, 0.99),
        "kl_mean_as_stored": np.mean(stored),
        "kl_p99_as_stored": np.quantile(stored, 0.99),
        "kl_lowered_max": np.max(np.array(full) - np.array(stored)),
        "top1": np.mean(same),
        "top1_sure": np.mean(sure_same),
        "sure": len(sure_same),
    }
    return {k: v if isinstance(v, (str, int)) else reference.round_digits(v, 4) for k, v in figures.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    model, tokenizer, reader = reference.load(arguments.model, arguments.threads)
    texts = sequences(tokenizer, tokenizer.chat_template is not None)
    rows = [rows_of(model, text) for text in texts]
    tops = []
    for row in (row for text_rows in rows for row in text_rows):
        ids = reference.top(row, TOP_MAX)
        ids = ids[: max(TOP_MIN, int(np.searchsorted(np.cumsum(np.exp(row[ids])), 1 - REST)) + 1)]
        tops.append({"ids": ids, "nll": [int(round(-row[i] * 1e5)) for i in ids]})
    rest = [1 - np.exp(-1e-5 * np.array(top["nll"])).sum() for top in tops]
    print(f"stored ids: {sum(len(top['ids']) for top in tops) / len(tops):.1f} on average")
    head = reference.header(arguments.model, model, reader, SCRIPT) | {
        "positions": len(tops),
        "rest_mean": reference.round_digits(np.mean(rest), 3),
        "rehearsal": rehearse(model, texts, rows, tops),
        "texts": texts,
    }
    print({k: head[k] for k in ("positions", "rest_mean", "rehearsal")})
    reference.write(arguments.out, head, "top", tops)


if __name__ == "__main__":
    main()
