# /// script
# requires-python = ">=3.9"
# dependencies = ["torch>=2.6", "numpy"]
# ///
"""Converts a steering vector saved with torch (.pt) to the safetensors file that `demeanor vectors import` reads.

The server reads no pickles; this script does, with torch's `weights_only` loader, and writes plain numbers.

Known layouts:
  a tensor (blocks, d)        --rows blocks:      row i is added to the output of 0-based block i
  a tensor (blocks + 1, d)    --rows embeddings:  row 0 belongs to the embeddings and is left out, row i + 1 to block i
  a tensor (d,)               --block N
  a dict {block: tensor (d,)} keys are 0-based blocks, or names that end in one ("layer_12", "model.layers.12")

One block off is invisible in the text, so a two-dimensional tensor needs --rows: nothing is guessed.

  python convert_pt_vector.py warm.pt --rows embeddings --blocks 13-19 --out warm.safetensors
  demeanor vectors import warm.safetensors --name my-warm
"""

import argparse
import json
import re
import struct
import sys
from pathlib import Path


def fail(message):
    print(f"convert_pt_vector: {message}", file=sys.stderr)
    raise SystemExit(65)


def block_of(key):
    """The 0-based block that a dict's key names."""
    if isinstance(key, int) and not isinstance(key, bool):
        return key
    match = re.search(r"(\d+)$", str(key))
    if not match:
        fail(f"the key {key!r} names no block; expected a number or a name that ends in one")
    return int(match.group(1))


def directions_of(content, rows, block):
    """{block: tensor} from what the file holds."""
    import torch

    if isinstance(content, dict):
        found = {}
        for key, value in content.items():
            if block_of(key) in found:
                fail(f"block {block_of(key)} is given twice")
            found[block_of(key)] = value
        return found
    if not isinstance(content, torch.Tensor):
        fail(f"the file holds a {type(content).__name__}; expected a tensor or a dict of tensors")
    if content.dim() == 1:
        if block is None:
            fail(f"a tensor of shape {tuple(content.shape)} needs --block N")
        return {block: content}
    if content.dim() == 2:
        if rows is None:
            fail(f"a tensor of shape {tuple(content.shape)} needs --rows blocks or --rows embeddings")
        first = 1 if rows == "embeddings" else 0
        return {row - first: content[row] for row in range(first, content.shape[0])}
    fail(f"a tensor of shape {tuple(content.shape)}; expected one or two dimensions")


def checked(found, wanted):
    """Rows as float32 lists: one width, finite; rows of zeros are left out and named."""
    import torch

    rows, width = {}, None
    for block, tensor in sorted(found.items()):
        if wanted is not None and block not in wanted:
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 1 or not tensor.is_floating_point():
            fail(f"block {block}: expected a float tensor of one dimension")
        width = width or tensor.shape[0]
        if tensor.shape[0] != width:
            fail(f"block {block} has {tensor.shape[0]} values and another block has {width}")
        row = tensor.detach().to(torch.float32)
        if not bool(torch.isfinite(row).all()):
            fail(f"block {block} has values that are not finite (as 32-bit floats)")
        if float(row.norm()) < 1e-12:
            print(f"block {block} is all zeros; left out", file=sys.stderr)
            continue
        rows[block] = row.tolist()
    if not rows:
        fail("no direction is left")
    return rows, width


def write(path, rows, width, source):
    """The safetensors layout: length, JSON header, data."""
    header, end = {"__metadata__": {"converted_from": source}}, 0
    for block in sorted(rows):
        header[f"resid.{block}"] = {"dtype": "F32", "shape": [width], "data_offsets": [end, end + 4 * width]}
        end += 4 * width
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for block in sorted(rows):
            file.write(struct.pack(f"<{width}f", *rows[block]))


def block_range(text):
    first, _, last = text.partition("-")
    return set(range(int(first), int(last or first) + 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", choices=["blocks", "embeddings"], help="what row 0 of a two-dimensional tensor is")
    parser.add_argument("--block", type=int, help="the 0-based block of a one-dimensional tensor")
    parser.add_argument("--blocks", type=block_range, help="take these blocks only, for example 13-19")
    args = parser.parse_args()

    import torch

    try:
        content = torch.load(args.file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; each means that the file is not plain tensors
        fail(f"{args.file} is no file of plain tensors: {error}")
    rows, width = checked(directions_of(content, args.rows, args.block), args.blocks)
    write(args.out, rows, width, args.file.name)
    blocks = sorted(rows)
    print(f"{args.out}: {len(rows)} directions of {width} values, blocks {blocks[0]} to {blocks[-1]} (0-based); "
          "each is added to the output of its block")


if __name__ == "__main__":
    main()
