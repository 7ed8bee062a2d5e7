# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*", "accelerate==1.15.*", "sentencepiece", "protobuf", "jinja2"]
# ///
"""Outputs of single heads, and what moving one does to a model's log-probabilities, by `transformers` with hooks.

    python scripts/reference_heads.py --model M.gguf --out tests/fixtures/heads_M.json

`head[l][h]` is what head h of block l gives to the output projection: columns `h * d_head ..` of the input of `o_proj`.
`heads` is a list of `[l, h]`; `deltas` has a seeded Gaussian direction `[d_head]` for each, of SIZE times the mean norm
of that head's outputs. Of every prompt: `ids`, `outputs` (`[heads][d_head]`, at the last position), `top` (the plain model's
top 20 ids after the last position), their log-probabilities `plain`, and `moved` (`[heads][20]`, each delta added to its
head's output at every position).
"""

import argparse

import numpy as np
import torch

import reference_model as reference

SCRIPT = "reference_heads.py"
SEED = 21
SIZE = 4.0
PROMPTS, TOP = 4, 20


class Heads:
    """Sees, and moves by `delta`, the input of one block's output projection while it is entered."""

    def __init__(self, model, block, head=None, delta=None):
        attention = model.model.layers[block].self_attn
        self.module, self.d_head = attention.o_proj, attention.head_dim
        self.head, self.delta, self.seen = head, delta, None

    def __enter__(self):
        self.handle = self.module.register_forward_pre_hook(self.hook)
        return self

    def hook(self, _module, inputs):
        self.seen = inputs[0].unflatten(-1, (-1, self.d_head))
        if self.delta is None:
            return None
        moved = self.seen.clone()
        moved[..., self.head, :] += self.delta
        return (moved.flatten(-2),)

    def __exit__(self, *_):
        self.handle.remove()


def last_row(model, ids):
    return reference.log_probabilities(model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    model, tokenizer, reader = reference.load(arguments.model, arguments.threads)
    texts = reference.texts_of(tokenizer, tokenizer.chat_template is not None)[1 : 1 + PROMPTS]
    n_blocks, n_heads = model.config.num_hidden_layers, model.config.num_attention_heads
    heads = [(0, 0), (n_blocks // 3, n_heads - 1), (n_blocks // 2, n_heads // 2), (n_blocks - 1, 1)]
    generator = np.random.Generator(np.random.PCG64(SEED))

    outputs, deltas = np.zeros((len(texts), len(heads), 0)).tolist(), []
    for l, h in heads:
        norms = []
        for prompt, text in enumerate(texts):
            with Heads(model, l) as block:
                last_row(model, text["ids"])
            norms.append(block.seen[0, :, h].norm(dim=-1).mean().item())
            outputs[prompt].append([reference.round_digits(v) for v in block.seen[0, -1, h].tolist()])
        delta = generator.standard_normal(len(outputs[0][-1])).astype(np.float32)
        deltas.append(delta * np.float32(SIZE * np.mean(norms) / np.linalg.norm(delta)))
    deltas = [[reference.round_digits(v) for v in delta.tolist()] for delta in deltas]

    prompts = []
    for text, output in zip(texts, outputs):
        plain = last_row(model, text["ids"])
        top = reference.top(plain, TOP)
        values = lambda row: [reference.round_digits(v) for v in row[top].tolist()]  # noqa: E731
        moved = []
        for (l, h), delta in zip(heads, deltas):
            with Heads(model, l, h, torch.tensor(delta)):
                moved.append(values(last_row(model, text["ids"])))
        prompts.append({"ids": text["ids"], "outputs": output, "top": top, "plain": values(plain), "moved": moved})
    change = np.mean([np.abs(np.array(p["moved"]) - np.array(p["plain"])) for p in prompts], axis=(0, 2))
    print("mean |change| by head, nat:", change)
    head = reference.header(arguments.model, model, reader, SCRIPT) | {"heads": heads, "deltas": deltas}
    reference.write(arguments.out, head, "prompts", prompts)


if __name__ == "__main__":
    main()
