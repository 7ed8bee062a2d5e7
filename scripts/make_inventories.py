"""Writes the shipped inventories from the public answers to the IPIP-NEO-300.

    python3 scripts/make_inventories.py DIR [OUT]        OUT: default models/inventories

DIR holds `items_300.csv` (item, text, facet, domain, key, split), `mpi_120.csv` (the short form, in its order of asking, worded
in the second person) and `subjects_001_150.json` (a list of people with answers `i1` to `i300`, 0 for a missing one). Those
answers are stored keyed; norms are of what people ticked: 6 - answer where an item's key is -1. Norms are of people 61 to 150 in
the file's order, so that people 1 to 60 stay unseen. Running it again writes the same bytes. No dependencies.
"""

import csv
import difflib
import json
import math
import sys
from pathlib import Path

NORM_PEOPLE = slice(60, 150)
NORMS = "90 people (61 to 150 in file order) of the PAPI test set, drawn from the public IPIP-NEO data repository"
SECOND_TO_FIRST = {"yourself": "myself", "your": "my", "you": "me", "are": "am"}


def norm(people, item):
    """Mean and sample standard deviation of the raw answers, those that are missing left out."""
    stored = [person[f"i{item['item']}"] for person in people[NORM_PEOPLE]]
    raw = [6 - s if item["key"] == "-1" else s for s in stored if s != 0]
    mean = sum(raw) / len(raw)
    sd = math.sqrt(sum((answer - mean) ** 2 for answer in raw) / (len(raw) - 1))
    return {"mean": round(mean, 4), "sd": round(sd, 4)}


def entry(people, item):
    text = item["text"].strip()
    text = text[:-1] if text.endswith(".") else text
    return {
        "text": text,
        "domain": item["domain"],
        "facet": item["facet"],
        "key": int(item["key"]),
        "norm": norm(people, item),
        "known": item["split"] == "train",
    }


def short_form(items, form):
    """The items of the short form, in its order: each is the known item of the long form that reads nearest to it."""
    known = [item for item in items if item["split"] == "train"]
    found = []
    for row in form:
        words = row["text"].strip().rstrip(".").split()
        wanted = " ".join(SECOND_TO_FIRST.get(word.lower(), word) for word in words).lower()
        likeness = lambda item: difflib.SequenceMatcher(None, wanted, item["text"].lower()).ratio()
        best = max(known, key=likeness)
        assert likeness(best) > 0.8 and best["domain"] == row["label_ocean"], (wanted, best)
        assert best["key"] == row["key"], (wanted, best)
        found.append(best)
    assert len({item["item"] for item in found}) == len(form) == 120
    return found


def write(path, name, title, people, items):
    head = {
        "schema": "demeanor.inventory/1",
        "name": name,
        "title": title,
        "source": "International Personality Item Pool (ipip.ori.org), form of J. A. Johnson",
        "licence": "public domain",
        "norms": NORMS,
    }
    lines = [json.dumps(entry(people, item), ensure_ascii=True) for item in items]
    text = json.dumps(head, indent=1)[:-2] + ',\n "items": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    json.loads(text)
    path.joinpath(f"{name}.json").write_text(text)


def main():
    folder = Path(sys.argv[1])
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "models/inventories")
    with open(folder / "items_300.csv", newline="", encoding="utf-8") as file:
        items = sorted(csv.DictReader(file), key=lambda item: int(item["item"]))
    with open(folder / "mpi_120.csv", newline="", encoding="utf-8") as file:
        form = list(csv.DictReader(file))
    people = json.loads((folder / "subjects_001_150.json").read_text())
    assert [item["item"] for item in items] == [str(number) for number in range(1, 301)] and len(people) == 150
    assert all(item["domain"] == "NEOAC"[i % 5] for i, item in enumerate(items))
    write(out, "ipip-neo-300", "IPIP-NEO-300", people, items)
    write(out, "ipip-neo-120", "IPIP-NEO-120 (short form)", people, short_form(items, form))


if __name__ == "__main__":
    main()
