# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf==0.19.*", "numpy==2.4.*"]
# ///
"""Writes models of the shapes that people run, with random weights, in both containers: for memory and seconds.

    python scripts/make_shape_models.py OUT [qwen3-0.6b] [qwen3-1.7b] [llama-3.2-1b] [phi-4-mini]

OUT/NAME is a folder of safetensors in bf16 (shards of at most 2 GB), OUT/NAME.gguf a file in Q4_0 with a head in Q8_0. The
sizes and switches are those of the published config.json; the tokenizer is a tiny one of the family out of
tests/fixtures/tokenizers, so that chats can be encoded. What such a model says means nothing. Weights are one random
block of numbers repeated: what is computed does not depend on them, and a large model is written as fast as the disk is.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy
from gguf import GGMLQuantizationType as Kind
from model_shapes import SHAPES, TOKENIZERS, save_gguf, tensors

SHARD_BYTES = 2_000_000_000
# Numbers that are repeated; a prime, so that rows differ.
BLOCK = 4_194_301


def bfloat16(values):
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def save_folder(config, tokenizer, folder, block):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZERS / tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shards, used = [[]], 0
    for _, name, shape in tensors(config):
        size = 2 * int(numpy.prod(shape))
        if used + size > SHARD_BYTES and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append((f"{name}.weight", shape, size))
        used += size
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    weight_map = {}
    for file, entries in zip(files, shards):
        header, end = {}, 0
        for name, shape, size in entries:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            weight_map[name] = file
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little"))
            out.write(text)
            for _, shape, _ in entries:
                scale = 1.0 if len(shape) == 1 else shape[1] ** -0.5
                values = numpy.ones(shape) if len(shape) == 1 else block * scale
                repeated(out, bfloat16(values).tobytes(), 2 * int(numpy.prod(shape)))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def repeated(out, data, size):
    for start in range(0, size, len(data)):
        out.write(data[: min(len(data), size - start)])


def kind_of(name, _):
    return Kind.Q8_0 if name == "token_embd" else Kind.Q4_0


def main():
    out = Path(sys.argv[1])
    block = numpy.random.default_rng(1).standard_normal(BLOCK, dtype=numpy.float32)
    for name in sys.argv[2:] or SHAPES:
        shape = SHAPES[name]
        config = shape["config"] | {"eos_token_id": None}
        save_folder(config, shape["tokenizer"], out / name, block)
        save_gguf(config, shape.get("gguf_tokenizer", shape["tokenizer"]), out / f"{name}.gguf", kind_of)
        print(name, sum(file.stat().st_size for file in (out / name).iterdir()) >> 20, "MiB,",
              (out / f"{name}.gguf").stat().st_size >> 20, "MiB")


if __name__ == "__main__":
    main()
