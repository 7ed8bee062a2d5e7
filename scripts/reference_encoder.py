# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "sentence-transformers==6.2.*", "numpy==2.4.*"]
# ///
"""Embeddings of 200 texts by `sentence-transformers`, and how fast it is.

    python scripts/reference_encoder.py --encoder FOLDER --out tests/fixtures/encoder_minilm.json [--threads 2]

FOLDER is what `demeanor pull all-minilm-l6-v2` prints. The fixture holds `texts` and `embeddings`: of each text 384
float16 values, little-endian, in base64 (rounding to float16 moves a cosine by less than 1e-6). Printed, not stored:
texts per second of `encode` with batches of 1 and of 32 on the given number of threads.
"""

import argparse
import base64
import hashlib
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

SEED = 7
COUNT = 200

SUBJECTS = ["My sister", "The night train", "A kettle", "Our landlord", "The committee", "Nobody", "An old map"]
VERBS = ["forgot", "repaired", "argued about", "carried", "painted", "refused", "measured", "lost"]
OBJECTS = ["the garden wall", "three boxes of nails", "a letter", "the last loaf", "her piano", "the timetable"]
TAILS = ["before dawn", "without a word", "because it rained", "for the second time", "and laughed", "in 1987"]

FIXED = [
    "",
    " ",
    "\n\t\n",
    ".",
    "?!",
    "a",
    "I",
    "42",
    "-0.5e-3",
    "OK",
    "I worry about things: very accurate",
    "I keep my promises: moderately inaccurate",
    "Héllo, Wörld! Ça va? Ñandú, Øresund, Łódź",
    "Cafe\u0301 with a combining accent, and café without",
    "ＦＵＬＬＷＩＤＴＨ letters and ﬁgatures",
    "今日はとても良い天気ですね。散歩に行きましょう。",
    "我昨天在图书馆读了一整天的书。",
    "오늘은 비가 와서 집에 있었어요.",
    "Привет, как дела? Сегодня холодно.",
    "مرحبا، كيف حالك اليوم؟",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Καλημέρα κόσμε",
    "🙂",
    "I love this 😍😍😍 so much!!! 🎉🎉",
    "family: 👨\u200d👩\u200d👧\u200d👦, flag: 🇫🇷, skin: 👍🏽",
    "zero\u200bwidth\u200bspaces and a\u00a0hard space",
    "tab\tseparated\tvalues\r\nwindows line",
    "control \x01\x02\x7f characters and \ufffd replacement",
    "fn main() { println!(\"{}\", x.iter().map(|v| v * 2).sum::<i32>()); }",
    "for (int i = 0; i < n; ++i) { a[i] ^= b[i] << 3; }",
    "SELECT name, COUNT(*) FROM users WHERE created > '2020-01-01' GROUP BY name;",
    "{\"key\": [1, 2, {\"nested\": null}], \"t\": true}",
    "https://example.org/path?query=a%20b&c=d#fragment",
    "someone@example.com wrote to @somebody about #something",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "text with [MASK] in the middle",
    "##ing ##s un##believable",
    "UPPERCASE SHOUTING ABOUT LOWERCASE",
    "mIxEd CaSe wOrDs",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "word " + "y" * 500 + " word",
    "a-b_c.d,e;f:g!h?i'j\"k(l)m[n]o{p}q/r\\s|t",
    "$1,299.99 - 15% = £1,104.99 (approx. €1,290)",
    "∑ x² ≤ ∫ f(x) dx ≈ π·√2",
    "1\u2044\u20322 ½ ² ³ ™ ® ©",
]


def sentence(draw):
    return f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(TAILS)}."


def texts():
    draw = random.Random(SEED)
    found = list(FIXED)
    # Lengths from one sentence to far beyond 256 tokens.
    while len(found) < COUNT:
        sentences = draw.choice([1, 1, 1, 2, 3, 5, 8, 13, 21, 40])
        found.append(" ".join(sentence(draw) for _ in range(sentences)))
    # Exactly at the edge: words of one token each, markers included.
    for words in (253, 254, 255, 256, 300):
        found[-words % 40 - 1] = " ".join(draw.choice(["red", "green", "blue", "black"]) for _ in range(words))
    assert len(found) == COUNT
    return found


def speed(model, batch, inputs):
    begin = time.perf_counter()
    model.encode(inputs, batch_size=batch)
    return len(inputs) / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = SentenceTransformer(str(arguments.encoder), device="cpu")
    inputs = texts()
    # One at a time: what a text's embedding is without padding beside it.
    embeddings = model.encode(inputs, batch_size=1, normalize_embeddings=True).astype(np.float32)
    lengths = [len(model.tokenizer(text, truncation=True, max_length=256)["input_ids"]) for text in inputs]
    weights = hashlib.sha256((arguments.encoder / "model.safetensors").read_bytes()).hexdigest()
    fixture = {
        "made_by": "scripts/reference_encoder.py",
        "sha256": weights,
        "tokens": lengths,
        "texts": inputs,
        "embeddings": [base64.b64encode(row.astype("<f2").tobytes()).decode() for row in embeddings],
    }
    arguments.out.write_text(json.dumps(fixture, ensure_ascii=True, indent=0) + "\n")
    print(f"{COUNT} texts, {sum(lengths)} tokens, {sum(length == 256 for length in lengths)} of full length")
    for batch in (1, 32):
        print(f"batch {batch}: {speed(model, batch, inputs):.1f} texts/s on {arguments.threads} threads")


if __name__ == "__main__":
    main()
