"""Turns answers to the IPIP-NEO-300 into people for `demeanor embed train` and `demeanor eval users`.

    python3 scripts/papi_people.py DIR people.jsonl

DIR holds `items_300.csv` (item, text, facet, domain, key, split) and `subjects_001_150.json` (a list of people with answers
`i1` to `i300`, 0 for a missing one). Those answers are stored keyed; this script goes back to what the person ticked:
6 - answer where an item's key is -1. People 1 to 100 train, 101 to 120 choose when to stop, 121 to 150 are reported on.

A history holds the 120 train items, each the statement with the weight (answer - 3) / 2. Targets are the 180 test items; for
training people the train items too (each left out of its own history). Format: `demeanor.people/1`, see `src/users/people.rs`.
No dependencies.
"""

import csv
import json
import sys
from pathlib import Path


def statement(text):
    return "I " + text[0].lower() + text[1:]


def raw(person, item):
    """What the person ticked, 1 to 5; None where nothing is known."""
    stored = person[f"i{item['item']}"]
    if stored == 0:
        return None
    return 6 - stored if item["key"] == "-1" else stored


def history_item(item, answer):
    return {
        "text": statement(item["text"]),
        "weight": (answer - 3) / 2,
        "item": f"i{item['item']}",
        "group": item["domain"],
        "sign": int(item["key"]),
    }


def target(item, answer):
    return {
        "prompt": f"Statement: {statement(item['text'])}\nTrue or false:",
        "choices": [" True", " False"],
        "answer": answer,
        "item": f"i{item['item']}",
        "group": item["domain"],
        "sign": int(item["key"]),
    }


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    with open(folder / "items_300.csv", newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    people = json.loads((folder / "subjects_001_150.json").read_text())
    with open(out, "w", encoding="utf-8") as file:
        for number, person in enumerate(people, 1):
            split = "train" if number <= 100 else "stop" if number <= 120 else "test"
            answers = [(item, answer) for item in items if (answer := raw(person, item)) is not None]
            asked = [(i, a) for i, a in answers if i["split"] == "test" or split == "train"]
            line = {
                "user": f"p{number}",
                "split": split,
                "history": [history_item(i, a) for i, a in answers if i["split"] == "train"],
                "targets": [target(i, a) for i, a in asked],
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
