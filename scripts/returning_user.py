#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
# ///
"""Time to first token of a returning user against no user at all, on a running server.

    demeanor serve --port 8080 &
    python3 scripts/returning_user.py --url http://127.0.0.1:8080 --pairs 60

Both ask a new question each time, after one system text that the cache holds (and after none: --system 0). A pair is one
request with and one without the user, in alternating order; the figure is the median of each side and of the paired
ratios, with a bootstrap interval over pairs. Reported beside it: the user's first visit (nothing cached), and how many
prompt tokens came from the cache. The user and their history are made for the run and deleted after it.
"""

import argparse
import http.client
import json
import random
import statistics
import time
import urllib.parse

HISTORY = [
    "I grow tomatoes on a balcony and talk about little else in summer.",
    "I prefer short answers.",
    "My brother and I repair old radios.",
    "I don't like crowds, and I avoid the city on Saturdays.",
    "I read about the history of bridges.",
    "I walk to work along the river.",
]
SENTENCE = "You answer in plain words, name what you do not know, and never invent a source. "
PLACES = ["harbour", "library", "orchard", "station", "market", "quarry", "bakery", "museum", "meadow", "tunnel"]
WORDS = ["quiet", "early", "crowded", "cold", "bright", "distant", "old", "narrow", "dusty", "green"]


class Server:
    def __init__(self, url):
        parts = urllib.parse.urlparse(url)
        self.host, self.port = parts.hostname, parts.port or 80

    def send(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {text.decode()}")
        return json.loads(text)

    def first_token(self, body):
        """Seconds until the first piece of text, cached and all prompt tokens, rows of the soft prompt."""
        body = dict(body, stream=True, stream_options={"include_usage": True})
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        connection.connect()
        data = json.dumps(body)
        start = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
        response = connection.getresponse()
        first, usage, rows = None, {}, 0
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(str(event["error"]))
            for choice in event.get("choices", []):
                if first is None and choice.get("delta", {}).get("content"):
                    first = time.perf_counter() - start
            usage = event.get("usage") or usage
            rows = event.get("demeanor", {}).get("soft_prompt_rows") or rows
        connection.close()
        details = usage.get("prompt_tokens_details", {})
        return first, details.get("cached_tokens", 0), usage.get("prompt_tokens", 0), rows


def interval(values, draws=2000, seed=1):
    generator = random.Random(seed)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(draws * 0.025)], medians[int(draws * 0.975)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--system", type=int, nargs="*", default=[0, 4, 24], help="sentences of the system text")
    parser.add_argument("--user", default="returning-user-benchmark")
    arguments = parser.parse_args()
    server, user = Server(arguments.url), arguments.user
    path = "/v1/users/" + urllib.parse.quote(user)
    server.send("POST", "/v1/users", {"id": user})
    try:
        server.send("POST", path + "/history", {"items": [{"text": text} for text in HISTORY]})
        while server.send("GET", path)["embedded"] < len(HISTORY):
            time.sleep(0.2)
        print(json.dumps(server.send("GET", path)["soft_prompt"]))
        print(f"{'prompt':>7} {'cached':>15} {'first visit':>12} {'no user':>9} {'user':>9} {'ratio':>6}  95 % interval")
        for sentences in arguments.system:
            measure(server, user, sentences, arguments.pairs)
    finally:
        server.send("DELETE", path)


def measure(server, user, sentences, pairs):
    generator = random.Random(sentences)
    system = [{"role": "system", "content": SENTENCE * sentences}] if sentences else []

    def ask(with_user):
        question = " ".join(generator.choice(WORDS) for _ in range(8)) + " " + generator.choice(PLACES)
        content = f"Describe in one sentence this {question} number {generator.randrange(10**6):06}."
        body = {"messages": system + [{"role": "user", "content": content}], "max_tokens": 2, "temperature": 0}
        return server.first_token(dict(body, user=user) if with_user else body)

    visit = ask(True)
    if not visit[3]:
        raise SystemExit("the user has no soft prompt on this server: nothing to measure")
    ask(False)
    ask(True)
    times = {False: [], True: []}
    cached = {False: [], True: []}
    for pair in range(pairs):
        for with_user in ((False, True) if pair % 2 else (True, False)):
            seconds, hit, prompt, _ = ask(with_user)
            times[with_user].append(seconds)
            cached[with_user].append(hit)
    ratios = [user / plain for user, plain in zip(times[True], times[False])]
    low, high = interval(ratios)
    hits = f"{statistics.median(cached[False]):.0f} / {statistics.median(cached[True]):.0f}"
    plain, known = statistics.median(times[False]), statistics.median(times[True])
    print(
        f"{prompt:>7} {hits:>15} {visit[0] * 1e3:>9.2f} ms {plain * 1e3:>6.2f} ms {known * 1e3:>6.2f} ms "
        f"{statistics.median(ratios):>6.3f}  [{low:.3f}, {high:.3f}]"
    )


if __name__ == "__main__":
    main()
