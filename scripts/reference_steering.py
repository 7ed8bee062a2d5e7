# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*", "accelerate==1.15.*", "sentencepiece", "protobuf", "jinja2"]
# ///
"""A random GGUF control vector and what it does to a model's log-probabilities, by `transformers` with hooks.

    python scripts/reference_steering.py --model M.gguf --vector tests/fixtures/control_M.gguf --out tests/fixtures/steering_M.json

`direction.N` (F32 `[d_model]`, seeded Gaussian) is added, times the coefficient, to the output of the 0-based block N
at every position, the first included: that is what llama.cpp does. The vector is scaled so that at coefficient 1 the
mean |change| of the top-20 log-probabilities is TARGET nat.

Of every prompt: `ids` (the prompt and three greedy ids of the plain model), `prompt_ids` (count), and for the last
prompt position and the three after it `top` (the plain model's top 20 ids) and their log-probabilities: `plain`,
`steered[coefficient]`, and as negatives `shifted[coefficient]` (direction.N applied one block late, at N + 1); half
strength is the coefficient 0.5 held against 1, and 1 against 2. Shapes: `[4][20]`.
`figures` holds, for each coefficient c: `change_mean` (nat), and cosine and slope against the truth of each negative and
of a rehearsal of the server's default mode (every product's input rounded to int8, one scale per 32 values). With x the
true change and y the other's, over all prompts, positions and ids: cosine x.y / (|x||y|), slope x.y / (x.x).
"""

import argparse

import gguf
import numpy as np
import torch

import reference_model as reference

SCRIPT = "reference_steering.py"
SEED = 20
TARGET = 1.3  # nat
FOLLOWING, TOP = 3, 20
COEFFICIENTS = (0.5, 1.0, 2.0)
DEPTH = (0.40, 0.60)  # of the blocks


class Steer:
    """Adds `coefficient * direction[N]` to the output of block N + `late` while it is entered."""

    def __init__(self, model, directions, coefficient, late=0):
        self.parts = [(model.model.layers[n + late], torch.from_numpy(d) * coefficient) for n, d in directions.items()]

    def __enter__(self):
        self.handles = [block.register_forward_hook(self.hook(delta)) for block, delta in self.parts]

    def hook(self, delta):
        def add(_module, _inputs, output):
            if isinstance(output, tuple):
                return (output[0] + delta, *output[1:])
            return output + delta

        return add

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def rows_of(model, prompt):
    """Log-probabilities `[4, vocab_size]` of the last prompt position and the three after it."""
    return reference.log_probabilities(model(torch.tensor([prompt["ids"]]), logits_to_keep=FOLLOWING + 1).logits[0])


def plain(model, prompt):
    """The prompt with its three greedy ids, and its plain top 20."""
    ids = list(prompt["ids"])
    for _ in range(FOLLOWING):
        logits = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        ids.append(reference.top(reference.log_probabilities(logits), 1)[0])
    out = {"text": prompt["text"], "prompt_ids": len(prompt["ids"]), "ids": ids}
    rows = rows_of(model, out)
    out["top"] = [reference.top(row, TOP) for row in rows]
    out["plain"] = at_top(rows, out)
    return out


def at_top(rows, prompt):
    return [[float(row[i]) for i in top] for row, top in zip(rows, prompt["top"])]


def run(model, prompts, directions, coefficient, late=0):
    """Log-probabilities of the plain top 20 of every prompt under the vector: `[prompts, 4, 20]`."""
    with Steer(model, directions, coefficient, late):
        return np.array([at_top(rows_of(model, prompt), prompt) for prompt in prompts])


def scaled(model, prompts, directions, base):
    """Bisect the vector's size until the mean |change| at coefficient 1 is TARGET; `base` is plain, `[prompts, 4, 20]`."""
    change = lambda size: np.mean(np.abs(run(model, prompts, directions, size) - base))  # noqa: E731
    low, high = 0.0, 1.0
    while change(high) < TARGET:
        low, high = high, high * 2
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (middle, high) if change(middle) < TARGET else (low, middle)
    return {n: (d * np.float32(high)).astype(np.float32) for n, d in directions.items()}, high


def write_vector(path, architecture, directions):
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", architecture)
    writer.add_uint32("controlvector.layer_count", len(directions))
    for block, direction in directions.items():
        writer.add_tensor(f"direction.{block}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(true, other):
    """(cosine, slope) of `other` against `true`, two arrays of changes."""
    x, y = true.ravel(), other.ravel()
    return {"cosine": reference.round_digits(x @ y / np.sqrt((x @ x) * (y @ y)), 4), "slope": reference.round_digits(x @ y / (x @ x), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--vector", required=True, help="the GGUF control vector to write")
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    model, tokenizer, reader = reference.load(arguments.model, arguments.threads)
    # All but the long prompt. With ten of them int8 noise alone moves the slope by 3 %.
    chosen = reference.texts_of(tokenizer, tokenizer.chat_template is not None)[1:]
    prompts = [plain(model, prompt) for prompt in chosen]
    base = np.array([prompt["plain"] for prompt in prompts])

    n_blocks, d_model = model.config.num_hidden_layers, model.config.hidden_size
    blocks = range(round(DEPTH[0] * n_blocks), round(DEPTH[1] * n_blocks))
    generator = np.random.Generator(np.random.PCG64(SEED))
    unit = {n: generator.standard_normal(d_model).astype(np.float32) for n in blocks}
    directions, size = scaled(model, prompts, unit, base)

    steered = {c: run(model, prompts, directions, c) for c in COEFFICIENTS}
    shifted = {c: run(model, prompts, directions, c, late=1) for c in COEFFICIENTS[1:]}
    reference.use_int8_activations(model)
    rounded_base = run(model, prompts, {}, 0)
    rounded = {c: run(model, prompts, directions, c) - rounded_base for c in COEFFICIENTS[1:]}
    figures = {}
    for c in COEFFICIENTS[1:]:
        true = steered[c] - base
        figures[f"{c:g}"] = {
            "change_mean": reference.round_digits(np.mean(np.abs(true)), 4),
            "int8_rehearsal": compare(true, rounded[c]),
            "one_block_late": compare(true, shifted[c] - base),
            "half_strength": compare(true, steered[c / 2] - base),
        }
        if np.mean(np.abs(true)) < 1.0:
            raise SystemExit(f"mean change {np.mean(np.abs(true)):.3f} nat at coefficient {c}: below 1")
    print(figures)

    lists = lambda array: [[reference.round_digits(v) for v in row] for row in array]  # noqa: E731
    for i, prompt in enumerate(prompts):
        prompt["plain"] = lists(prompt["plain"])
        prompt["steered"] = {f"{c:g}": lists(steered[c][i]) for c in COEFFICIENTS}
        prompt["shifted"] = {f"{c:g}": lists(shifted[c][i]) for c in shifted}
    write_vector(arguments.vector, reference.field(reader, "general.architecture"), directions)
    head = reference.header(arguments.model, model, reader, SCRIPT) | {
        "vector": {"seed": SEED, "generator": "numpy PCG64 standard_normal, blocks ascending", "scale": size, "blocks": list(blocks), "sha256": reference.sha256_of(arguments.vector)},
        "figures": figures,
    }
    reference.write(arguments.out, head, "prompts", prompts)


if __name__ == "__main__":
    main()
