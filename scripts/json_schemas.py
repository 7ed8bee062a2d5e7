# /// script
# requires-python = ">=3.11"
# dependencies = ["jsonschema>=4.20"]
# ///
"""Whether answers under `response_format: json_schema` are valid, by an independent validator, and what it costs.

    demeanor serve --port 8080 &
    python scripts/json_schemas.py --server http://127.0.0.1:8080 [--schemas 300] [--seeds 3] [--steer "2 playful"]

Schemas are drawn from `--seed`: nested objects and arrays, enums, constants, numbers with bounds, patterns, dates,
unions, references, tuples, optional fields, Unicode in names and values. Each is asked once a seed, at temperature 1, as
it is and again with `--steer`. An answer counts as
    valid    complete, JSON, and the validator `jsonschema` (Draft 2020-12, formats checked) finds nothing
    cut      ended by `max_tokens`: not judged, counted apart
    invalid  anything else; the first ones are shown, and the exit status is 1
Speed: rounds of schemas, each round with and without the constraint at the same concurrency, the unconstrained with the
same number of tokens for each (its end token banned), in an order that turns with every round. `tokens/s` is all
generated tokens over the wall time of all rounds.
"""

import argparse
import concurrent.futures
import json
import random
import string
import sys
import time
import urllib.error
import urllib.request

import jsonschema

WORDS = ["red", "blue", "north", "small", "ready", "café", "größe", "日本", "naïve", "Привет", "🙂 ok", 'a "quoted" one', "tab\there"]
NAMES = ["name", "age", "kind", "items", "price", "größe", "名前", "is_ready", "first-name", "x y", "état", "id", "tags", "note"]
PATTERNS = ["^[A-Z]{2}-[0-9]{3}$", "^(ab|cd)+e$", "^[a-zé]{1,8}$", "^\\d{4}$"]


class Drawer:
    """Draws schemas whose answers stay short: texts and lists are bounded."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def schema(self):
        """An object at the top, as OpenAI wants it; now and then a definition that is referred to."""
        self.definitions, self.open = {}, set()
        top = self.object(depth=0)
        if self.definitions:
            top["$defs"] = self.definitions
        return top

    def object(self, depth):
        draw = self.random
        names = draw.sample(NAMES, draw.randint(1, 4 if depth == 0 else 3))
        properties = {name: self.value(depth + 1) for name in names}
        required = [name for name in names if draw.random() < 0.7]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def value(self, depth):
        draw = self.random
        flat = [self.text, self.text, self.integer, self.number, self.choice, self.constant, self.flag, self.pattern, self.date]
        deep = [self.object, self.list, self.tuple, self.union, self.reference]
        make = draw.choice(flat if depth >= 3 else flat + deep + deep[:2])
        return make(depth) if make in deep else make()

    def text(self):
        low = self.random.choice([0, 0, 1, 3])
        return {"type": "string", "minLength": low, "maxLength": low + self.random.randint(1, 16)}

    def pattern(self):
        return {"type": "string", "pattern": self.random.choice(PATTERNS), "maxLength": 11}

    def date(self):
        return {"type": "string", "format": "date"}

    def integer(self):
        low = self.random.randint(-1000, 1000)
        bounds = {"minimum": low, "maximum": low + self.random.choice([0, 1, 9, 5000])}
        if self.random.random() < 0.2:
            bounds = {"exclusiveMinimum": low, "exclusiveMaximum": low + 7}
        return {"type": "integer", **bounds}

    def number(self):
        low = round(self.random.uniform(-50, 50), 2)
        return {"type": "number", "minimum": low, "maximum": low + self.random.choice([0.5, 10, 1000])}

    def choice(self):
        values = self.random.sample(WORDS, self.random.randint(1, 4))
        if self.random.random() < 0.3:
            values += [self.random.randint(0, 99), None, True]
        return {"enum": values}

    def constant(self):
        return {"const": self.random.choice([*WORDS, 7, -1.5, False, ["a", 1], {"k": "v"}])}

    def flag(self):
        return {"type": self.random.choice(["boolean", "null"])}

    def list(self, depth):
        low = self.random.randint(0, 2)
        return {"type": "array", "items": self.value(depth + 1), "minItems": low, "maxItems": low + self.random.randint(0, 2)}

    def tuple(self, depth):
        items = [self.value(depth + 1) for _ in range(self.random.randint(1, 2))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def union(self, depth):
        return {"anyOf": [self.text(), self.integer(), self.object(depth + 1)][: self.random.randint(2, 3)]}

    def reference(self, depth):
        name = self.random.choice(string.ascii_uppercase)
        if name in self.open:
            return self.flag()  # A definition that needs itself has no finite value.
        if name not in self.definitions:
            self.open.add(name)
            self.definitions[name] = self.object(depth + 1)
            self.open.discard(name)
        return {"$ref": f"#/$defs/{name}"}


def ask(args, body):
    """The answer, its finish reason, its number of tokens."""
    request = urllib.request.Request(
        f"{args.server}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                answer = json.load(response)
            break
        except urllib.error.HTTPError as error:
            # Clients try again on 429 and 503.
            if error.code not in (429, 503):
                message = error.read().decode()[:600]
                raise SystemExit(f"{error.code}: {message}\n{json.dumps(body, ensure_ascii=False)[:2000]}")
            time.sleep(1)
    choice = answer["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], answer["usage"]["completion_tokens"]


def chat(args, schema, seed):
    names = ", ".join(schema["properties"])
    content = f"Make up an example with these fields, as JSON: {names}"
    return {"messages": [{"role": "user", "content": content}], "seed": seed, "temperature": 1, "max_tokens": args.max_tokens}


def formatted(schema):
    return {"type": "json_schema", "json_schema": {"name": "example", "schema": schema, "strict": True}}


def judge(schema, text, finish):
    """`valid`, `cut` or what is wrong."""
    if finish == "length":
        return "cut"
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    error = next(iter(checker.iter_errors(value)), None)
    return "valid" if error is None else f"{error.json_path}: {error.message[:200]}"


def validity(args, pool, schemas, steer):
    asked = [(schema, seed) for schema in schemas for seed in range(1, args.seeds + 1)]

    def one(pair):
        schema, seed = pair
        body = chat(args, schema, seed) | {"response_format": formatted(schema)}
        if steer:
            body["steering"] = steer
        text, finish, tokens = ask(args, body)
        return schema, text, judge(schema, text, finish), tokens

    counts, tokens, shown = {"valid": 0, "cut": 0, "invalid": 0}, 0, 0
    for schema, text, verdict, spent in pool.map(one, asked):
        counts[verdict if verdict in counts else "invalid"] += 1
        tokens += spent
        if verdict not in counts and shown < 5:
            shown += 1
            print(f"INVALID {verdict}\n  schema {json.dumps(schema, ensure_ascii=False)}\n  answer {text}", file=sys.stderr)
    judged = counts["valid"] + counts["invalid"]
    share = 100 * counts["valid"] / max(1, judged)
    print(
        f"{steer or 'not steered':<14} {len(asked)} answers: {counts['valid']} valid, {counts['invalid']} invalid, "
        f"{counts['cut']} cut; {share:.2f} % of the complete ones valid; {tokens / len(asked):.0f} tokens each",
        flush=True,
    )
    return counts["invalid"]


def speed(args, pool, schemas):
    totals = {"constrained": [0, 0.0], "unconstrained": [0, 0.0]}
    for number in range(args.rounds):
        part = schemas[number * args.concurrency * 2 : (number + 1) * args.concurrency * 2]
        if not part:
            break
        # The lengths to ask for, and both prompts in the prefix cache.
        bodies = [chat(args, schema, 11) for schema in part]
        bound = [body | {"response_format": formatted(schema)} for body, schema in zip(bodies, part)]
        lengths = [spent for _, _, spent in pool.map(lambda body: ask(args, body), bound)]
        free = [body | {"max_tokens": length, "ignore_eos": True} for body, length in zip(bodies, lengths)]
        runs = [("constrained", bound), ("unconstrained", free)]
        for name, run in runs if number % 2 == 0 else runs[::-1]:
            begun = time.monotonic()
            spent = sum(spent for _, _, spent in pool.map(lambda body: ask(args, body), run))
            totals[name][0] += spent
            totals[name][1] += time.monotonic() - begun
    rates = {name: tokens / seconds for name, (tokens, seconds) in totals.items() if seconds}
    for name, rate in rates.items():
        print(f"{name:<14} {rate:.1f} tokens/s, {args.concurrency} at once ({totals[name][0]} tokens)")
    print(f"ratio          {rates['constrained'] / rates['unconstrained']:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--schemas", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the schemas")
    parser.add_argument("--steer", default="2 playful", help="an expression; empty for none")
    parser.add_argument("--steered-seeds", type=int, help="seeds of the steered answers, where fewer are wanted")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6, help="of the measurement of speed")
    args = parser.parse_args()
    drawer = Drawer(args.seed)
    schemas = [drawer.schema() for _ in range(args.schemas)]
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)
    with concurrent.futures.ThreadPoolExecutor(args.concurrency) as pool:
        speed(args, pool, schemas)
        invalid = validity(args, pool, schemas, None)
        if args.steer:
            args.seeds = args.steered_seeds or args.seeds
            invalid += validity(args, pool, schemas, args.steer)
    raise SystemExit(1 if invalid else 0)


if __name__ == "__main__":
    main()
