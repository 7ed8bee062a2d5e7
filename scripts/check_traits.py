#!/usr/bin/env python3
"""Checks the trait files and the neutral texts that ship under models/ against models/traits/README.md.

Usage: python3 scripts/check_traits.py [MODELS_FOLDER]
Needs the standard library only. Prints one line per trait and one per text, then every fault; ends with status 1 if
there is one.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

SCHEMA = "demeanor.trait/1"
TOPIC = "{topic}"
POLES = ("positive", "negative")
KEYS = {"schema", "name", "opposite", "description", "system", "prompts", "topics", "train", "held_out"}
# The pole that stands for harm, in traits that are there to be recognised.
OPTIONAL_KEYS = {"harmful"}
HELD_OUT_KEYS = {"prompts", "topics", "pairs"}

TRAIN_PAIRS_MIN, HELD_OUT_PAIRS_MIN = 40, 20
PROMPTS_MIN, TRAIN_TOPICS_MIN, HELD_OUT_TOPICS_MIN = 6, 24, 20
WORDS = {"positive": (8, 30), "negative": (8, 30)}
# The trait whose content is length itself.
WORDS_BY_TRAIT = {"concise": {"positive": (3, 8), "negative": (25, 40)}}
BYTES_RATIO_MAX = 1.6  # log-odds per byte compare the poles of a pair
OPENING_WORDS, OPENING_REPEATS_MAX = 4, 2
LABEL_PAIRS_MAX = 2  # pairs that may use the trait's own names
NGRAM = 4
# Mean share of a held-out reply's content words that the same trait's training replies hold too.
CONTENT_SHARED_MAX = 0.25

NEUTRAL = {"neutral.txt": (1000, 1300), "neutral_held_out.txt": (650, 900)}
NEUTRAL_NGRAM = 6

PRINTABLE = re.compile(r"[ -~]*")
WORD = re.compile(r"\{topic\}|[a-z0-9]+(?:'[a-z]+)*")
FUNCTION_WORDS = set(
    """a about above across after again against ah alike all almost alone along already also although always am among an
    and another any anybody anyone anything are aren't around as at away back be because become becomes been before
    being below beside between beyond both but by came can can't cannot come comes could couldn't did didn't do does
    doesn't doing don't done down during each either else enough even ever every everybody everyone everything
    everywhere few fewer first for from further gave get gets give gives go goes going gone got had has have having he
    her here here's him himself his how i i'd i'll i'm i've if in indeed inside into is isn't it it's its itself just
    keep keeps kept last least less let let's like made make makes making many may me might mine more most much must my
    myself near never next no nobody none nor not nothing now of off on once one ones only onto or other others our out
    outside over own per quite rather really right same say see she should shouldn't since so some somebody somehow
    someone something soon still such take takes tell tells than that that's the their them then there there's therefore
    these they thing things this those though through to together too toward towards two under unless until up upon us
    very want was way we well went were what what's whatever when whenever where wherever whether which while who who's
    whole whom whose why will with within without would wouldn't yes yet you you'd you'll you're you've your yourself
    {topic}""".split()
)


def words(text):
    return WORD.findall(text.lower())


def content_words(text):
    return {word for word in words(text) if word not in FUNCTION_WORDS}


def ngrams(text, size):
    found = words(text)
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


def render(template, topic):
    """The rule of models/traits/README.md: put the topic in, capitalise the first letter."""
    text = template.replace(TOPIC, topic)
    return text[:1].upper() + text[1:]


class Checker:
    def __init__(self):
        self.faults = []

    def fault(self, where, what):
        self.faults.append(f"{where}: {what}")

    def text(self, where, value, placeholder):
        """One non-empty line of printable ASCII; the placeholder is required, allowed or forbidden."""
        if not isinstance(value, str) or not value:
            self.fault(where, "is not a non-empty string")
            return False
        if not PRINTABLE.fullmatch(value):
            self.fault(where, "holds a character outside printable ASCII")
        if value != value.strip() or "  " in value:
            self.fault(where, "has spaces at an end or two in a row")
        rest = value.replace(TOPIC, "")
        if "{" in rest or "}" in rest:
            self.fault(where, f"holds a brace outside `{TOPIC}`")
        if placeholder == "required" and value.count(TOPIC) != 1:
            self.fault(where, f"must hold `{TOPIC}` exactly once")
        if placeholder == "forbidden" and TOPIC in value:
            self.fault(where, f"must not hold `{TOPIC}`")
        return True

    def texts(self, where, values, least, placeholder):
        if not isinstance(values, list) or len(values) < least:
            self.fault(where, f"is not a list of at least {least}")
            return []
        good = [v for i, v in enumerate(values) if self.text(f"{where}[{i}]", v, placeholder)]
        for value, count in Counter(v.lower() for v in good).items():
            if count > 1:
                self.fault(where, f"holds {value!r} {count} times")
        return good

    def pairs(self, where, values, least):
        if not isinstance(values, list) or len(values) < least:
            self.fault(where, f"is not a list of at least {least}")
            return []
        good = []
        for i, pair in enumerate(values):
            if not isinstance(pair, dict) or set(pair) != set(POLES):
                self.fault(f"{where}[{i}]", f"does not have exactly the keys {', '.join(POLES)}")
            elif all([self.text(f"{where}[{i}].{pole}", pair[pole], "allowed") for pole in POLES]):
                good.append(pair)
        return good

    def lengths(self, where, name, pairs, topics):
        limits = WORDS_BY_TRAIT.get(name, WORDS)
        for i, pair in enumerate(pairs):
            rendered = {pole: render(pair[pole], topics[i % len(topics)]) for pole in POLES}
            for pole, text in rendered.items():
                count, (least, most) = len(text.split()), limits[pole]
                if not least <= count <= most:
                    self.fault(f"{where}[{i}].{pole}", f"has {count} words, allowed {least} to {most}: {text}")
                if not text[0].isupper():
                    self.fault(f"{where}[{i}].{pole}", f"does not begin with a capital letter: {text}")
                if text[-1] not in ".!?":
                    self.fault(f"{where}[{i}].{pole}", f"does not end with a full stop: {text}")
            sizes = sorted(len(text) for text in rendered.values())
            if name not in WORDS_BY_TRAIT and sizes[1] > BYTES_RATIO_MAX * sizes[0]:
                self.fault(f"{where}[{i}]", f"poles of {sizes[0]} and {sizes[1]} bytes, allowed ratio {BYTES_RATIO_MAX}")

    def wording(self, where, trait, train, held_out):
        """Openings, duplicates, labels and what the two sets share."""
        for pole in POLES:
            for label, pairs in (("train", train), ("held_out", held_out)):
                openings = Counter(tuple(words(p[pole])[:OPENING_WORDS]) for p in pairs)
                for opening, count in openings.items():
                    if count > OPENING_REPEATS_MAX:
                        self.fault(f"{where}.{label}", f"{count} {pole} replies begin with {' '.join(opening)!r}")
        replies = Counter(p[pole].lower() for p in train + held_out for pole in POLES)
        for reply, count in replies.items():
            if count > 1:
                self.fault(where, f"{count} replies are equal: {reply}")
        names = re.compile(rf"\b({trait['name']}|{trait['opposite']})", re.IGNORECASE)
        labelled = [p for p in train + held_out if names.search(p["positive"] + " " + p["negative"])]
        if len(labelled) > LABEL_PAIRS_MAX:
            self.fault(where, f"{len(labelled)} pairs use the trait's own names, allowed {LABEL_PAIRS_MAX}")
        learned = set().union(*(ngrams(p[pole], NGRAM) for p in train for pole in POLES))
        learned |= set().union(*(ngrams(text, NGRAM) for text in trait["prompts"]))
        tested = [(f"pairs[{i}].{pole}", p[pole]) for i, p in enumerate(held_out) for pole in POLES]
        tested += [(f"prompts[{i}]", text) for i, text in enumerate(trait["held_out"]["prompts"])]
        for place, text in tested:
            for gram in sorted(ngrams(text, NGRAM) & learned):
                self.fault(f"{where}.held_out.{place}", f"shares {' '.join(gram)!r} with the training set")

    def content_shared(self, where, train, held_out):
        """Mean over held-out replies, both poles, of the share of content words that occur in training."""
        learned = set().union(*(content_words(p[pole]) for p in train for pole in POLES))
        shares = []
        for pair in held_out:
            for pole in POLES:
                found = content_words(pair[pole])
                shares.append(len(found & learned) / max(1, len(found)))
        mean = sum(shares) / max(1, len(shares))
        if mean > CONTENT_SHARED_MAX:
            self.fault(where, f"held-out replies share {mean:.2f} of their content words with training, allowed {CONTENT_SHARED_MAX}")
        return mean

    def trait(self, path):
        """Checks one file; returns it, or nothing where its shape is wrong."""
        where = path.name
        try:
            trait = json.loads(path.read_text(encoding="ascii"))
        except ValueError as error:
            return self.fault(where, f"is not ASCII JSON: {error}")
        shape = [isinstance(trait, dict) and set(trait) - OPTIONAL_KEYS == KEYS]
        shape.append(shape[0] and isinstance(trait["held_out"], dict) and set(trait["held_out"]) == HELD_OUT_KEYS)
        shape.append(shape[0] and isinstance(trait["system"], dict) and set(trait["system"]) == set(POLES))
        if not all(shape):
            return self.fault(where, "has missing or unknown keys")
        if trait["schema"] != SCHEMA:
            self.fault(where, f"schema is {trait['schema']!r}, allowed {SCHEMA!r}")
        if trait["name"] != path.stem:
            self.fault(where, f"name {trait['name']!r} is not the file's")
        for key in ("name", "opposite", "description"):
            self.text(f"{where}.{key}", trait[key], "forbidden")
        if trait.get("harmful", trait["name"]) not in (trait["name"], trait["opposite"]):
            self.fault(where, f"harmful is {trait['harmful']!r}, which is no pole")
        for pole in POLES:
            self.text(f"{where}.system.{pole}", trait["system"][pole], "forbidden")

        before = len(self.faults)
        held = trait["held_out"]
        self.texts(f"{where}.prompts", trait["prompts"], PROMPTS_MIN, "required")
        self.texts(f"{where}.topics", trait["topics"], TRAIN_TOPICS_MIN, "forbidden")
        self.texts(f"{where}.held_out.prompts", held["prompts"], PROMPTS_MIN, "required")
        self.texts(f"{where}.held_out.topics", held["topics"], HELD_OUT_TOPICS_MIN, "forbidden")
        train = self.pairs(f"{where}.train", trait["train"], TRAIN_PAIRS_MIN)
        held_out = self.pairs(f"{where}.held_out.pairs", held["pairs"], HELD_OUT_PAIRS_MIN)
        if len(self.faults) > before:
            return None
        self.lengths(f"{where}.train", trait["name"], train, trait["topics"])
        self.lengths(f"{where}.held_out.pairs", trait["name"], held_out, held["topics"])
        self.wording(where, trait, train, held_out)
        shared = self.content_shared(where, train, held_out)
        sizes = [sum(len(p[pole]) for p in train) / len(train) for pole in POLES]
        print(
            f"{trait['name']:<11} {trait['opposite']:<12} train {len(train):>3}  held out {len(held_out):>3}  "
            f"bytes {sizes[0]:.0f}/{sizes[1]:.0f}  content words shared {shared:.2f}"
        )
        return trait

    def across(self, traits):
        """No topic is trained on in one trait and tested in another; no name and no reply occurs twice."""
        trained = {topic for t in traits for topic in t["topics"]}
        for t in traits:
            for topic in sorted(trained & set(t["held_out"]["topics"])):
                self.fault(f"{t['name']}.held_out.topics", f"{topic!r} is a training topic of some trait")
        names = Counter(t[key] for t in traits for key in ("name", "opposite"))
        replies = Counter(p[pole] for t in traits for p in t["train"] + t["held_out"]["pairs"] for pole in POLES)
        for value, count in (names + replies).items():
            if count > 1:
                self.fault("traits", f"{value!r} occurs {count} times")

    def neutral(self, folder):
        texts = {}
        for name, (least, most) in NEUTRAL.items():
            try:
                text = texts[name] = (folder / name).read_text(encoding="ascii")
            except (OSError, ValueError) as error:
                self.fault(name, f"cannot be read as ASCII: {error}")
                continue
            count = len(text.split())
            print(f"{name:<24} {count} words, {text.count(chr(10) + chr(10)) + 1} paragraphs")
            if not least <= count <= most:
                self.fault(name, f"has {count} words, allowed {least} to {most}")
            if '"' in text:
                self.fault(name, "holds a quotation; it should be plain prose")
            if not all(PRINTABLE.fullmatch(line) for line in text.split("\n")):
                self.fault(name, "holds a character outside printable ASCII and line feed")
        shared = set.intersection(*(ngrams(t, NEUTRAL_NGRAM) for t in texts.values())) if len(texts) > 1 else set()
        for gram in sorted(shared):
            self.fault("neutral texts", f"share {' '.join(gram)!r}")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "models"
    checker = Checker()
    files = sorted((folder / "traits").glob("*.json"))
    if not files:
        checker.fault(str(folder / "traits"), "holds no trait file")
    traits = [trait for trait in map(checker.trait, files) if trait]
    checker.across(traits)
    checker.neutral(folder)
    for fault in checker.faults:
        print(fault, file=sys.stderr)
    print(f"{len(traits)} traits, {len(checker.faults)} faults")
    return 1 if checker.faults else 0


if __name__ == "__main__":
    sys.exit(main())
