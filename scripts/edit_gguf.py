# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Copy a GGUF with one planted bug, by patching bytes in place: proof that a check would notice.

    python scripts/edit_gguf.py --model M.gguf --out EDITED.gguf --epsilon 1e-3
    python scripts/edit_gguf.py --model M.gguf --out EDITED.gguf --rope-base 50000
    python scripts/edit_gguf.py --model M.gguf --out EDITED.gguf --flip-sign blk.5.attn_q.weight --row 7

`--epsilon` and `--rope-base` overwrite the f32 value of `<arch>.attention.layer_norm_rms_epsilon` and
`<arch>.rope.freq_base`. `--flip-sign` negates one row of a tensor: rows are stored one after the other, each as
d_in / block elements blocks, and negating a row is flipping the top bit of each little-endian float that scales a
block (SCALES below: the offsets of the floats' high bytes): `d`, and `m` or `dmin` where the type has one.
"""

import argparse
import mmap
import shutil
import struct

# type id: (name, elements per block, bytes per block, offsets of the bytes whose top bit is a sign)
SCALES = {
    0: ("F32", 1, 4, (3,)),
    1: ("F16", 1, 2, (1,)),
    2: ("Q4_0", 32, 18, (1,)),
    3: ("Q4_1", 32, 20, (1, 3)),
    6: ("Q5_0", 32, 22, (1,)),
    7: ("Q5_1", 32, 24, (1, 3)),
    8: ("Q8_0", 32, 34, (1,)),
    12: ("Q4_K", 256, 144, (1, 3)),
    13: ("Q5_K", 256, 176, (1, 3)),
    14: ("Q6_K", 256, 210, (209,)),
    30: ("BF16", 1, 2, (1,)),
}
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
F32, STRING, ARRAY, U32 = 6, 8, 9, 4


class Header:
    """Where the metadata values and tensors of a GGUF lie: byte offsets in the file."""

    def __init__(self, data):
        self.data, self.at = data, 4
        if data[:4] != b"GGUF":
            raise SystemExit("not a GGUF file")
        version, tensors, pairs = self.number("<I"), self.number("<Q"), self.number("<Q")
        if version not in (2, 3):
            raise SystemExit(f"GGUF version {version}; 2 and 3 are known")
        self.values, self.tensors = {}, {}
        for _ in range(pairs):
            key = self.string()
            kind = self.number("<I")
            self.values[key] = (kind, self.at)
            self.skip(kind)
        for _ in range(tensors):
            name = self.string()
            shape = [self.number("<Q") for _ in range(self.number("<I"))]
            self.tensors[name] = (shape, self.number("<I"), self.number("<Q"))
        alignment = 32
        if "general.alignment" in self.values:
            alignment = struct.unpack_from("<I", data, self.values["general.alignment"][1])[0]
        self.start = -(-self.at // alignment) * alignment

    def number(self, form):
        value = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def string(self):
        size = self.number("<Q")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def skip(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in WIDTHS:
                self.at += WIDTHS[inner] * count
            else:
                for _ in range(count):
                    self.skip(inner)
        else:
            self.at += WIDTHS[kind]

    def architecture(self):
        at = self.values["general.architecture"][1]
        return self.data[at + 8 : at + 8 + struct.unpack_from("<Q", self.data, at)[0]].decode()


def set_float(header, key, value):
    kind, at = header.values.get(key, (None, 0))
    if kind != F32:
        raise SystemExit(f"`{key}` is not an f32 in this file")
    before = struct.unpack_from("<f", header.data, at)[0]
    struct.pack_into("<f", header.data, at, value)
    return f"{key}: {before:g} -> {value:g} (4 bytes at {at})"


def flip_row(header, name, row):
    if name not in header.tensors:
        raise SystemExit(f"no tensor `{name}` in this file")
    shape, kind, offset = header.tensors[name]
    if kind not in SCALES:
        raise SystemExit(f"`{name}` has type {kind}; known: {[v[0] for v in SCALES.values()]}")
    type_name, elements, size, signs = SCALES[kind]
    rows = shape[1] if len(shape) > 1 else 1
    if not 0 <= row < rows:
        raise SystemExit(f"`{name}` has rows 0 to {rows - 1}, not {row}")
    row_bytes = shape[0] // elements * size
    begin = header.start + offset + row * row_bytes
    for block in range(begin, begin + row_bytes, size):
        for sign in signs:
            header.data[block + sign] ^= 0x80
    return f"{name} row {row} ({type_name}): sign flipped in {row_bytes // size} blocks at {begin}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    change = parser.add_mutually_exclusive_group(required=True)
    change.add_argument("--epsilon", type=float)
    change.add_argument("--rope-base", type=float)
    change.add_argument("--flip-sign", metavar="TENSOR")
    parser.add_argument("--row", type=int, default=0)
    arguments = parser.parse_args()
    shutil.copyfile(arguments.model, arguments.out)
    with open(arguments.out, "r+b") as handle, mmap.mmap(handle.fileno(), 0) as data:
        header = Header(data)
        architecture = header.architecture()
        if arguments.epsilon is not None:
            done = set_float(header, f"{architecture}.attention.layer_norm_rms_epsilon", arguments.epsilon)
        elif arguments.rope_base is not None:
            done = set_float(header, f"{architecture}.rope.freq_base", arguments.rope_base)
        else:
            done = flip_row(header, arguments.flip_sign, arguments.row)
    print(f"{arguments.out}: {done}")


if __name__ == "__main__":
    main()
