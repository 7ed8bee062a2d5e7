# /// script
# dependencies = ["gguf==0.19.0", "numpy"]
# ///
"""Writes tests/fixtures/quant_blocks.bin: blocks of random bytes for every format, and the values gguf-py gives them.

For each format: GGUF type id, number of values, number of bytes (u32 little-endian), the bytes, the values (f32).
The scales (half floats) are random finite ones, and the extremes: 0, -0, the smallest subnormal, the largest.
Run from the repository root: python scripts/make_quant_fixtures.py
"""

import struct

import gguf
import numpy as np

# name: bytes of a block, offsets of its half-float scales
FORMATS = {
    "F32": (4, []),
    "F16": (2, [0]),
    "BF16": (2, []),
    "Q4_0": (18, [0]),
    "Q4_1": (20, [0, 2]),
    "Q5_0": (22, [0]),
    "Q5_1": (24, [0, 2]),
    "Q8_0": (34, [0]),
    "Q2_K": (84, [80, 82]),
    "Q3_K": (110, [108]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}
EXTREMES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]
VALUES = 2560

rng = np.random.default_rng(7)


def half_floats(count):
    values = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    values = np.where((values & 0x7C00) == 0x7C00, values & 0xBFFF, values)
    values[: len(EXTREMES)] = EXTREMES
    return values


with open("tests/fixtures/quant_blocks.bin", "wb") as file:
    for name, (block_bytes, scales) in FORMATS.items():
        kind = gguf.GGMLQuantizationType[name]
        blocks = VALUES // gguf.GGML_QUANT_SIZES[kind][0]
        data = rng.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
        for place, offset in enumerate(scales):
            data[:, offset : offset + 2] = np.roll(half_floats(blocks), 3 * place)[:, None].view(np.uint8)
        if name == "F32":
            data = rng.standard_normal(blocks).astype(np.float32).view(np.uint8).reshape(blocks, 4)
        if name == "BF16":
            data[:, 1] &= 0xBF  # finite
        values = gguf.dequantize(data.reshape(-1), kind).astype(np.float32)
        assert values.size == VALUES and np.isfinite(values).all(), name
        file.write(struct.pack("<III", int(kind), VALUES, data.size))
        file.write(data.tobytes())
        file.write(values.astype("<f4").tobytes())
