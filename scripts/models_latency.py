# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""How long `GET /v1/models` takes while sixteen streams run: LibreChat gives it five seconds. Exits 1 above a second.

    python scripts/models_latency.py http://127.0.0.1:8080 [--streams 16] [--asks 50]

Each stream decodes to the end of the run, every other one steered; a stream that ends early fails the run. Beside the
list `/health`, `/metrics` and `/tokenize` are timed.
"""

import argparse
import json
import statistics
import sys
import threading
import time
import urllib.request

LIMIT = 1.0  # seconds
ROUTES = ["/v1/models", "/health", "/metrics", "/tokenize"]


def request(base_url, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.urlopen(
        urllib.request.Request(base_url + path, data=data, headers={"Content-Type": "application/json"}), timeout=300)


class Stream(threading.Thread):
    def __init__(self, base_url, number, n_embd):
        super().__init__(daemon=True)
        self.base_url, self.chunks, self.stopped, self.error = base_url, 0, False, None
        self.body = {"messages": [{"role": "user", "content": f"Count from {number} on, in words."}], "stream": True,
                     "max_tokens": 4000, "ignore_eos": True, "seed": number, "temperature": 1}
        if number % 2:
            direction = [((7 * number + i) % 13 - 6) / 6 for i in range(n_embd)]
            self.body["steering"] = [{"directions": {"6": direction}, "coefficient": 0.2, "unit": "dose"}]

    def run(self):
        try:
            with request(self.base_url, "/v1/chat/completions", self.body) as answer:
                for line in answer:
                    self.chunks += line.startswith(b"data:")
                    if b'"error"' in line:
                        self.error = line[:300]
                    if self.stopped:
                        return
        except OSError as error:
            self.error = error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="without /v1")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--asks", type=int, default=50)
    arguments = parser.parse_args()
    base_url = arguments.base_url.rstrip("/")
    with request(base_url, "/v1/models") as answer:
        n_embd = json.load(answer)["data"][0]["meta"]["n_embd"]
    streams = [Stream(base_url, number, n_embd) for number in range(arguments.streams)]
    for stream in streams:
        stream.start()
    while any(stream.chunks < 3 for stream in streams):
        if wrong := [stream.error or "the stream ended" for stream in streams if stream.error or not stream.is_alive()]:
            print(f"FAILED a stream: {wrong[0]}")
            return 1
        time.sleep(0.05)
    begin, before = time.monotonic(), sum(stream.chunks for stream in streams)
    seconds = {route: [] for route in ROUTES}
    for _ in range(arguments.asks):
        for route in ROUTES:
            start = time.monotonic()
            with request(base_url, route, {"content": "one two three"} if route == "/tokenize" else None) as answer:
                answer.read()
            seconds[route].append(time.monotonic() - start)
        time.sleep(0.1)
    rate = (sum(stream.chunks for stream in streams) - before) / (time.monotonic() - begin)
    ended = [stream for stream in streams if not stream.is_alive()]
    for stream in streams:
        stream.stopped = True
    if ended:
        print(f"FAILED {len(ended)} streams ended before the last request: {ended[0].error}")
        return 1
    print(f"{arguments.asks} requests each while {arguments.streams} streams decoded {rate:.0f} tokens/s")
    print("| route | median ms | p99 ms | max ms |\n|---|---|---|---|")
    for route, values in seconds.items():
        ordered = sorted(values)
        ninety_nine = ordered[max(0, -(-99 * len(ordered) // 100) - 1)]
        print(f"| {route} | {statistics.median(values) * 1e3:.1f} | {ninety_nine * 1e3:.1f} | {max(values) * 1e3:.1f} |")
    if max(seconds["/v1/models"]) >= LIMIT:
        print(f"FAILED `/v1/models` took {max(seconds['/v1/models']):.2f} s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
