#!/usr/bin/env python3
"""Does alignment show in free text? Personas aligned to the poles of each domain answer open prompts; a blind judge reads them.

  pip install (nothing)
  free_text.py --server http://127.0.0.1:8080 [--stage control|all] [--seeds 2] [--across] [--out FILE.json]
               [--table FILE.md] [--work FILE.jsonl] [--inventory models/inventories/ipip-neo-300.json]

The server needs `--gate off`. Answers and their scores go to `--work` as they come, so an interrupted run goes on.

Who answers, twenty prompts with fixed seeds (temperature 0.8):
  plain      the model as it is
  vector     for each domain two personas, aligned over `POST /v1/align` to all known items of the domain at one pole (the
             known items of other domains at 3)
  shuffled   the same two vectors with drawn signs of their coordinates, the same signs in all blocks and for both poles: as
             large in every coordinate, as far from each other, and meaning nothing
  prompt     a system prompt of two known self-descriptions of the pole instead of a vector: the positive control
  items      no model: two known self-descriptions of the pole stand where the answer would, drawn anew for every prompt: a
             control of the judge

The judge is the plain model. It sees the prompt and the answer, never who gave it, and then rates self-descriptions of the
poles that no persona was aligned to (items of the inventory that are not known, of both keys, spread over facets):
log-odds = mean log-probability per unit of those keyed +1, minus that of those keyed -1. What the judge thinks of an item by
itself cancels in every difference. Effect of a pair: answers of the upper pole minus answers of the lower, to the same
prompt with the same seed. Standardised: divided by the standard deviation among plain answers.

Whether the score counts per byte or per token is chosen by `prompt` and `items` alone, by `--stage control`, which makes no
vector's answers: see UNIT. The rule of the verdict was written down with it: a domain
shows when the effect of its vectors on its own log-odds is positive, with p < .05 by sign flips over prompts after Holm over
five domains, and exceeds the mean of its shuffled pairs with an interval of 95 % above zero. Alignment shows in free text
when the mean of the five standardised effects, less that of shuffled pairs, has such an interval and three domains show.
Intervals: bootstrap over prompts, 2,000 resamples, the same for all rows.
"""
import argparse
import concurrent.futures
import itertools
import json
import math
import random
import struct
import sys
import time
import urllib.request
from pathlib import Path

from extreme_person import Server, extreme, low

DOMAINS = "OCEAN"
POLES = {1: "high", -1: "low"}
RESAMPLES, FLIPS = 2000, 20000
TEMPERATURE = 0.8
WORDING = "Someone was asked: {prompt}\nThey answered: {answer}\nThey also say about themselves: I"
# On the first eight prompts `items` move the log-odds by 1.70 standard deviations per byte and by 1.63 per token.
UNIT = "byte"
PROMPTS = [
    "How do you like to spend a free weekend?",
    "A friend invites you to a big party tonight. What do you do?",
    "Your plan for the day just fell through. How do you react?",
    "How would you go about planning a trip abroad?",
    "You and a colleague disagree about how to do a job. What happens next?",
    "What is your desk or your room like?",
    "Tell me about a time when you made a mistake.",
    "A stranger asks you for money on the street. What do you do?",
    "You have an important deadline next week. How do you work towards it?",
    "What do you think about when you cannot sleep?",
    "You walk into a room full of people you do not know. What now?",
    "What kind of books, films or music do you enjoy, and why?",
    "Somebody criticises your work in front of others. How do you take it?",
    "You have won a large sum of money. What will you do with it?",
    "How do you feel about trying food you have never had before?",
    "A neighbour is loud late at night. What do you do?",
    "What would your friends say about you?",
    "You have to move to a new city alone. How is that for you?",
    "Tell me how you usually make a decision.",
    "What was the last thing that moved you, and how did it feel?",
]


# ---- who answers ----


def picked(items, domain, key, known, count):
    """Items of one pole, one of each facet in turn, in the inventory's order."""
    facets = {}
    for item in items:
        if item["domain"] == domain and item["key"] == key and item.get("known", True) == known:
            facets.setdefault(item["facet"], []).append(item["text"])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*facets.values()))
    return [text for text in turns if text][:count]


def said(texts):
    return " ".join(f"I {low(text)}." for text in texts)


def aligned(server, inventory, domain, pole):
    """The persona of an extreme person, made unless it is there."""
    name = f"free-{domain.lower()}-{POLES[pole]}"
    listed = server.call("GET", "/v1/personas")["data"]
    if name not in [persona["name"] for persona in listed]:
        given = extreme(inventory["items"], domain, pole)
        result, seconds = server.align({"name": name, "inventory": inventory["name"], "answers": given})
        if result["algorithm"] != "ridge":
            sys.exit(f"{name}: {result['warnings']}")
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return server.call("GET", f"/v1/personas/{name}")


def shuffled(server, source, name, seed):
    """A vector of equal size in every coordinate with drawn signs, the same in all blocks and for all of one seed."""
    with urllib.request.urlopen(f"{server.url}/v1/vectors/{source}/file?format=safetensors") as answer:
        file = answer.read()
    size = struct.unpack("<Q", file[:8])[0]
    header, body = json.loads(file[8 : 8 + size]), bytearray(file[8 + size :])
    draw = random.Random(seed)
    signs = []
    for key, tensor in header.items():
        if key == "__metadata__":
            continue
        if tensor["dtype"] != "F32":
            sys.exit(f"{source}: `{key}` is {tensor['dtype']}, not F32")
        begin, end = tensor["data_offsets"]
        width = (end - begin) // 4
        signs += [draw.choice((-1.0, 1.0)) for _ in range(width - len(signs))]
        values = struct.unpack(f"<{width}f", body[begin:end])
        body[begin:end] = struct.pack(f"<{width}f", *(sign * value for sign, value in zip(signs, values)))
    # Where the vector came from is no longer true of it.
    header.pop("__metadata__", None)
    text = json.dumps(header).encode()
    made = struct.pack("<Q", len(text)) + text + bytes(body)
    mark = "free-text-boundary"
    parts = [
        f'--{mark}\r\ncontent-disposition: form-data; name="name"\r\n\r\n{name}\r\n'.encode(),
        f'--{mark}\r\ncontent-disposition: form-data; name="file"; filename="{name}.safetensors"\r\n\r\n'.encode() + made,
        f"\r\n--{mark}--\r\n".encode(),
    ]
    server.call("DELETE", f"/v1/vectors/{name}")
    headers = {"content-type": f"multipart/form-data; boundary={mark}"}
    request = urllib.request.Request(f"{server.url}/v1/vectors", b"".join(parts), headers, method="POST")
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as error:
        sys.exit(f"POST /v1/vectors: {error.read().decode()}")


def conditions(server, inventory, stage, draws):
    """What makes an answer, by (kind, domain, pole): fields of a chat request, or a function to the answer itself."""
    items = inventory["items"]
    made = {("plain", "", 0): {}}
    for domain, pole in itertools.product(DOMAINS, POLES):
        own = {"role": "system", "content": f"You are a person who says: {said(picked(items, domain, pole, True, 2))}"}
        made["prompt", domain, pole] = {"system": own}
        texts = picked(items, domain, pole, True, None)
        made["items", domain, pole] = lambda prompt, seed, texts=texts: said(random.Random(f"{prompt} {seed}").sample(texts, 2))
    for domain, pole in itertools.product(DOMAINS, POLES) if stage == "all" else ():
        persona = aligned(server, inventory, domain, pole)
        made["vector", domain, pole] = {"model": persona["model"]}
        for draw in range(draws):
            steering = []
            for part in persona["steering"]:
                name = f"free-{domain.lower()}-{POLES[pole]}-shuffled-{draw}"
                shuffled(server, part["vector"], name, f"free text {domain} {draw}")
                steering.append({**part, "vector": name})
            made[f"shuffled {draw}", domain, pole] = {"steering": steering}
    return made


def answered(server, condition, prompt, seed, tokens):
    if callable(condition):
        return condition(prompt, seed)
    body = dict(condition)
    messages = [body.pop("system")] if "system" in body else []
    messages.append({"role": "user", "content": PROMPTS[prompt]})
    body.update(messages=messages, temperature=TEMPERATURE, seed=1000 * prompt + seed, max_tokens=tokens)
    text = server.call("POST", "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    return " ".join(text.split())


# ---- the judge ----


class Judge:
    """Log-odds of held-out self-descriptions of the poles, by the plain model."""

    def __init__(self, server, inventory, count):
        self.server = server
        self.held_out = {
            (domain, key): picked(inventory["items"], domain, key, False, count)
            for domain, key in itertools.product(DOMAINS, POLES)
        }

    def scores(self, prompt, answer, domains):
        """By domain and unit; all choices in one request, behind one prefix."""
        asked = [(domain, key, text) for domain in domains for key in POLES for text in self.held_out[domain, key]]
        body = {
            "prompt": WORDING.format(prompt=PROMPTS[prompt], answer=answer),
            "choices": [f" {low(text)}." for _, _, text in asked],
        }
        found = {}
        for (domain, key, _), choice in zip(asked, self.server.call("POST", "/v1/score", body)["choices"]):
            for unit, size in (("byte", choice["bytes"]), ("token", len(choice["token_ids"]))):
                part = key * choice["sum"] / size / len(self.held_out[domain, key])
                found.setdefault(domain, {}).setdefault(unit, 0.0)
                found[domain][unit] += part
        return found


def collected(server, inventory, args):
    """Rows of (kind, domain, pole, prompt, seed), their answers and scores; those of `--work` are not asked again."""
    judge = Judge(server, inventory, args.items)
    made = conditions(server, inventory, args.stage, args.draws)
    rows = {}
    if args.work and args.work.exists():
        for line in args.work.read_text().splitlines():
            row = json.loads(line)
            rows[tuple(row["key"])] = row

    def row_of(key):
        kind, domain, pole, prompt, seed = key
        row = rows.get(key) or {"key": key, "scores": {}}
        if "answer" not in row:
            row["answer"] = answered(server, made[kind, domain, pole], prompt, seed, args.tokens)
        everywhere = kind == "plain" or args.across and not kind.startswith("shuffled")
        missing = [of for of in (DOMAINS if everywhere else domain) if of not in row["scores"]]
        if missing:
            row["scores"].update(judge.scores(prompt, row["answer"], missing))
        return row, bool(missing)

    asked = {kind: args.controls if kind in ("prompt", "items") else len(PROMPTS) for kind, _, _ in made}
    every = itertools.product(range(args.seeds), range(len(PROMPTS)), made)
    keys = [(*who, prompt, seed) for seed, prompt, who in every if prompt < asked[who[0]]]
    begun = time.time()
    with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
        for count, (row, fresh) in enumerate(pool.map(row_of, keys), 1):
            rows[tuple(row["key"])] = row
            if fresh and args.work:
                with args.work.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if count % 50 == 0:
                print(f"{count} of {len(keys)}, {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
    return judge, {key: rows[key] for key in keys}


# ---- numbers ----


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    middle = mean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def by_prompt(rows, kind, domain, of, unit, seeds):
    """Upper pole minus lower pole on the log-odds of `of`: one mean over seeds for each prompt."""

    def value(pole, prompt, seed):
        return rows[kind, domain, pole, prompt, seed]["scores"][of][unit]

    asked = sorted({key[3] for key in rows if key[:2] == (kind, domain)})
    return [mean([value(1, prompt, seed) - value(-1, prompt, seed) for seed in range(seeds)]) for prompt in asked]


def interval(values):
    """Of the mean, over prompts; what is drawn depends on their number alone."""
    draw = random.Random(1)
    means = sorted(mean(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return [means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]]


def flipped(values):
    """Two-sided p of the mean being zero, by flipping signs of prompts."""
    draw = random.Random(2)
    own = abs(sum(values))
    as_large = sum(abs(sum(draw.choice((-1, 1)) * value for value in values)) >= own - 1e-12 for _ in range(FLIPS))
    return (as_large + 1) / (FLIPS + 1)


def holm(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def spread(rows, of, unit, seeds):
    asked = itertools.product(range(len(PROMPTS)), range(seeds))
    return deviation([rows["plain", "", 0, prompt, seed]["scores"][of][unit] for prompt, seed in asked])


def effects(rows, kind, unit, seeds):
    """By domain: effect of the pair on the domain's own log-odds with interval, p and Holm's p."""
    found = {}
    for domain in DOMAINS:
        values = by_prompt(rows, kind, domain, domain, unit, seeds)
        found[domain] = {
            "effect": mean(values),
            "interval": interval(values),
            "standardised": mean(values) / spread(rows, domain, unit, seeds),
            "p": flipped(values),
        }
    for domain, adjusted in zip(DOMAINS, holm([found[domain]["p"] for domain in DOMAINS])):
        found[domain]["p_holm"] = adjusted
    return found


def pooled(rows, kinds, unit, seeds, less=()):
    """Mean over domains of the standardised effect of some kinds, less that of others."""
    parts = []
    for domain in DOMAINS:
        size = spread(rows, domain, unit, seeds) * len(DOMAINS)
        for sign, group in ((1, kinds), (-1, less)):
            for kind in group:
                parts.append([sign * value / size / len(group) for value in by_prompt(rows, kind, domain, domain, unit, seeds)])
    values = [sum(part) for part in zip(*parts)]
    return {"effect": mean(values), "interval": interval(values), "p": flipped(values)}


def matrix(rows, kind, unit, seeds):
    """Standardised effect of the pair of one domain (row) on the log-odds of another (column)."""
    return {
        domain: {of: mean(by_prompt(rows, kind, domain, of, unit, seeds)) / spread(rows, of, unit, seeds) for of in DOMAINS}
        for domain in DOMAINS
    }


def broken(words):
    """Fewer than five words, or four words in a row that come three times."""
    runs = list(zip(*(words[i:] for i in range(4))))
    return len(words) < 5 or any(runs.count(run) >= 3 for run in set(runs))


def surface(rows, chosen):
    """Words, share of them that are distinct, share of broken answers; of the answers whose key is chosen."""
    texts = [row["answer"].lower().split() for key, row in rows.items() if chosen(key)]
    return {
        "answers": len(texts),
        "words": mean([len(words) for words in texts]),
        "distinct": mean([len(set(words)) / max(1, len(words)) for words in texts]),
        "broken": mean([broken(words) for words in texts]),
    }


# ---- report ----


def verdict(rows, report, unit, args):
    """Adds what is decided of vectors to the report."""
    shuffles = [f"shuffled {draw}" for draw in range(args.draws)]
    own, shows = report["effects"]["vector"], []
    for domain in DOMAINS:
        pairs = [by_prompt(rows, kind, domain, domain, unit, args.seeds) for kind in ["vector", *shuffles]]
        beyond = [first - mean(rest) for first, *rest in zip(*pairs)]
        own[domain]["beyond_shuffled"] = {"effect": mean(beyond), "interval": interval(beyond)}
        own[domain]["shows"] = bool(
            own[domain]["effect"] > 0 and own[domain]["p_holm"] < 0.05 and own[domain]["beyond_shuffled"]["interval"][0] > 0
        )
        shows += [domain] if own[domain]["shows"] else []
    beyond = pooled(rows, ["vector"], unit, args.seeds, less=shuffles)
    sizes = [abs(report["effects"][kind][domain]["standardised"]) for kind in shuffles for domain in DOMAINS]
    report["pooled"]["vector less shuffled"] = beyond
    report["size"] = {
        "vector": math.sqrt(mean([own[domain]["standardised"] ** 2 for domain in DOMAINS])),
        "shuffled": math.sqrt(mean([size * size for size in sizes])),
    }
    report["verdict"] = {"domains": shows, "shows": beyond["interval"][0] > 0 and len(shows) >= 3}


def tables(report):
    def numbers(row):
        low_end, high_end = row["interval"]
        return f"{row['effect']:+.4f} [{low_end:+.4f}, {high_end:+.4f}]"

    lines = [f"| pair | domain | effect, nat per {UNIT} | standardised | p | Holm | beyond shuffled | shows |", "|---" * 8 + "|"]
    for kind, found in report["effects"].items():
        for domain, row in found.items():
            beyond = numbers(row["beyond_shuffled"]) if "beyond_shuffled" in row else ""
            shows = {True: "yes", False: "no", None: ""}[row.get("shows")]
            chance = f"{row['p']:.4f} | {row['p_holm']:.4f}"
            lines.append(f"| {kind} | {domain} | {numbers(row)} | {row['standardised']:+.2f} | {chance} | {beyond} | {shows} |")
    lines += ["", "| mean of domains, standardised | effect | p |", "|---|---|---|"]
    lines += [f"| {kind} | {numbers(row)} | {row['p']:.4f} |" for kind, row in report["pooled"].items()]
    for kind, found in report["matrix"].items():
        lines += ["", f"| {kind}: pair on log-odds of | " + " | ".join(DOMAINS) + " |", "|---" * 6 + "|"]
        lines += [f"| {domain} | " + " | ".join(f"{row[of]:+.2f}" for of in DOMAINS) + " |" for domain, row in found.items()]
    lines += ["", "| answers | n | words | distinct | broken |", "|---|---|---|---|---|"]
    for kind, row in report["surface"].items():
        lines.append(f"| {kind} | {row['answers']} | {row['words']:.1f} | {row['distinct']:.3f} | {row['broken']:.3f} |")
    if report["few_prompts"]:
        lines += ["", "Fewer than ten prompts: intervals are too narrow, and no domain can be expected to show."]
    if "verdict" in report:
        size, shown = report["size"], report["verdict"]
        lines += ["", f"Root mean square of standardised effects: vectors {size['vector']:.2f}, shuffled {size['shuffled']:.2f}."]
        lines += [f"Domains that show: {', '.join(shown['domains']) or 'none'}. Shows in free text: {'yes' if shown['shows'] else 'no'}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--stage", choices=["control", "all"], default="all")
    parser.add_argument("--inventory", default=Path("models/inventories/ipip-neo-300.json"), type=Path)
    parser.add_argument("--seeds", type=int, default=2, help="answers of one condition to one prompt")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="only the first so many")
    parser.add_argument("--controls", type=int, default=len(PROMPTS), help="prompts of `prompt` and `items`")
    parser.add_argument("--draws", type=int, default=2, help="shuffled pairs of one domain")
    parser.add_argument("--items", type=int, default=6, help="held-out self-descriptions of one pole")
    parser.add_argument("--tokens", type=int, default=80, help="most tokens of one answer")
    parser.add_argument("--across", action="store_true", help="read answers on the other domains too")
    parser.add_argument("--workers", type=int, default=8, help="requests at once")
    parser.add_argument("--work", type=Path, help="file that keeps answers and scores; of one model, --tokens and --items")
    parser.add_argument("--out", type=Path, help="file for the report as JSON")
    parser.add_argument("--table", type=Path, help="file for the tables; default: stdout")
    args = parser.parse_args()
    del PROMPTS[args.prompts :]
    server = Server(args.server)
    inventory = json.loads(args.inventory.read_text())
    begun = time.time()
    judge, rows = collected(server, inventory, args)
    kinds = sorted({key[0] for key in rows} - {"plain"}, key=lambda kind: (kind.startswith("shuffled"), kind))
    if args.stage == "control":
        for unit in ("byte", "token"):
            for kind in kinds:
                row = pooled(rows, [kind], unit, args.seeds)
                each = [found["standardised"] for found in effects(rows, kind, unit, args.seeds).values()]
                shown = " ".join(f"{domain} {value:+.2f}" for domain, value in zip(DOMAINS, each))
                print(f"{unit}: {kind}: {row['effect']:+.3f}, p {row['p']:.4f}; {shown}")
    report = {
        "schema": "demeanor.evaluation.free_text/1",
        "model": server.call("GET", "/v1/models")["data"][0]["id"],
        "inventory": inventory["name"],
        "prompts": len(PROMPTS),
        "prompts_of_controls": min(args.controls, len(PROMPTS)),
        "few_prompts": min(args.controls, len(PROMPTS)) < 10,
        "seeds": args.seeds,
        "draws": args.draws,
        "tokens": args.tokens,
        "temperature": TEMPERATURE,
        "unit": UNIT,
        "items_per_pole": args.items,
        "resamples": RESAMPLES,
        "flips": FLIPS,
        "spread": {domain: spread(rows, domain, UNIT, args.seeds) for domain in DOMAINS},
        "effects": {kind: effects(rows, kind, UNIT, args.seeds) for kind in kinds},
        "pooled": {kind: pooled(rows, [kind], UNIT, args.seeds) for kind in kinds},
        "matrix": {kind: matrix(rows, kind, UNIT, args.seeds) for kind in kinds if args.across and not kind.startswith("shuffled")},
        "surface": {kind: surface(rows, lambda key: key[0] == kind) for kind in ["plain", *kinds]},
        "held_out": {f"{domain}{'+' if key > 0 else '-'}": texts for (domain, key), texts in judge.held_out.items()},
    }
    if args.stage == "all":
        for domain, pole in itertools.product(DOMAINS, POLES):
            name = f"vector {domain} {POLES[pole]}"
            report["surface"][name] = surface(rows, lambda key: key[:3] == ("vector", domain, pole))
        verdict(rows, report, UNIT, args)
    report["seconds"] = round(time.time() - begun)
    if args.table:
        args.table.write_text(tables(report))
    else:
        print(tables(report))
    if args.out:
        rounded = json.loads(json.dumps(report), parse_float=lambda text: round(float(text), 5))
        args.out.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
