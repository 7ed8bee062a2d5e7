# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf==0.19.*", "numpy==2.4.*"]
# ///
"""Writes a GGUF of a published shape with random valid blocks, so that speed on real shapes is measured without weights.

    python scripts/random_gguf.py --shape llama-3.2-1b --type Q4_K_M --out F.gguf

Each tensor has the type that `llama-quantize` gives it in that mix (no importance matrix): the K mixes with M keep
`attn_v` and `ffn_down` of the outer blocks and of every third between them in Q6_K, a head tied to the embeddings is
Q6_K unless all is Q8_0. Scales are such that weights have mean 0 and deviation 1/sqrt(k): logits are finite, what the
model says means nothing. The tokenizer is a tiny one of the family out of tests/fixtures/tokenizers, filled up with
unused words to the shape's vocabulary, as llama-server wants it; both servers load the file. Writing 1 GB takes seconds.
Exits 0 when the file is written, 2 for a wrong argument.
"""

import argparse
import pathlib
import re
import sys
import time

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Kind
from model_shapes import SHAPES, save_gguf

TYPES = {
    "Q4_0": Kind.Q4_0, "Q4_1": Kind.Q4_1, "Q5_0": Kind.Q5_0, "Q5_1": Kind.Q5_1, "Q8_0": Kind.Q8_0, "Q6_K": Kind.Q6_K,
    "Q4_K_S": Kind.Q4_K, "Q4_K_M": Kind.Q4_K, "Q5_K_S": Kind.Q5_K, "Q5_K_M": Kind.Q5_K,
}
# What a width that is no multiple of 256 is kept in instead.
NARROW = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}


def more_bits(block, blocks):
    """The outer eighths and every third block between them."""
    return block < blocks // 8 or block >= 7 * blocks // 8 or (block - blocks // 8) % 3 == 2


def mixed(mix, name, blocks):
    """The type of a matrix before its width is looked at."""
    base = TYPES[mix]
    if name == "token_embd":  # tied to the head in every shape here
        return base if base == Kind.Q8_0 else Kind.Q6_K
    block, part = re.fullmatch(r"blk\.(\d+)\.(\w+)", name).groups()
    block = int(block)
    if mix.endswith("_M") and part in ("attn_v", "ffn_down") and more_bits(block, blocks):
        return Kind.Q6_K
    if mix.endswith("_M") and part == "attn_qkv":
        return Kind.Q5_K if base == Kind.Q4_K else Kind.Q6_K
    if mix == "Q4_K_S" and (part == "attn_v" and block < 4 or part == "ffn_down" and block < blocks // 8):
        return Kind.Q5_K
    return base


def kind_of(mix, blocks):
    def kind(name, shape):
        wanted = mixed(mix, name, blocks)
        return NARROW[wanted] if shape[1] % GGML_QUANT_SIZES[wanted][0] else wanted
    return kind


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", required=True, choices=SHAPES)
    parser.add_argument("--type", required=True, choices=TYPES)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    if not arguments.out.parent.is_dir():
        parser.error(f"--out: there is no folder {arguments.out.parent}")
    begin, shape = time.monotonic(), SHAPES[arguments.shape]
    config = shape["config"]
    tokenizer = shape.get("gguf_tokenizer", shape["tokenizer"])
    file_type = LlamaFileType[f"MOSTLY_{arguments.type}"]
    kinds = kind_of(arguments.type, config["num_hidden_layers"])
    save_gguf(config, tokenizer, arguments.out, kinds, file_type, full_vocabulary=True)
    print(f"{arguments.out}: {arguments.shape} {arguments.type}, {arguments.out.stat().st_size / 1e6:.0f} MB, "
          f"{time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
