#!/usr/bin/env python3
# /// script
# dependencies = ["torch", "transformers", "gguf", "numpy"]
# ///
"""Computes the letters' log-probabilities of `demeanor eval bbq` again, from the logits of `transformers` in float32.

    demeanor eval bbq --data BBQ_FOLDER --limit 50 --activations f32 --out bbq
    python3 scripts/reference_bbq.py MODEL.gguf BBQ_FOLDER bbq/answers.jsonl

The prompts are made anew from the files of the folder and the model's own chat template; only which rows were asked and
what came out is taken from `answers.jsonl`. Ends with status 1 when a log-probability differs by more than 0.01.
"""

import glob
import json
import os
import sys

import torch

import reference_model

LETTERS = ["A", "B", "C", " A", " B", " C"]
TOLERANCE = 0.01


def rows_of(folder):
    rows = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.jsonl"))):
        with open(path, encoding="utf-8") as handle:
            for line in handle:
                row = json.loads(line)
                rows[row["category"], row["example_id"]] = row
    return rows


def user_text(row, rotation):
    answers = [row[f"ans{(letter + rotation) % 3}"] for letter in range(3)]
    lines = [f"{name}: {answer}" for name, answer in zip("ABC", answers)]
    return "\n".join([row["context"], row["question"], *lines, "Answer with one letter."])


def main(model_path, folder, answers_path):
    model, tokenizer, _ = reference_model.load(model_path, threads=2)
    rows = rows_of(folder)
    with open(answers_path, encoding="utf-8") as handle:
        lines = [json.loads(line) for line in handle]
    lines = [line for line in lines if line["condition"] == "plain"]
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in LETTERS]
    assert all(len(ids) == 1 for ids in letters), letters
    worst = 0.0
    for line in lines:
        text = user_text(rows[line["category"], line["id"]], line["rotation"])
        assert text == line["user"], (text, line["user"])
        messages = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        logprobs = torch.log_softmax(model(ids).logits[0, -1].float(), dim=-1)
        for found, (token,) in zip(line["logprobs"], letters):
            worst = max(worst, abs(found - float(logprobs[token])))
    questions = len({(line["category"], line["id"]) for line in lines})
    print(f"{questions} questions, {len(lines)} prompts: largest difference of a log-probability {worst:.2e} nat")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
