#!/usr/bin/env python3
"""Does a persona aligned to an extreme person answer unseen items that person's way? Against a running server.

  pip install (nothing)
  extreme_person.py --server http://127.0.0.1:8080 [--inventory models/inventories/ipip-neo-300.json] [--out FILE.json]

For each domain two people: all of its known items at one pole or at the other, the known items of other domains at 3. Each
is aligned over `POST /v1/align`; then every unseen item of the inventory is put to the persona over `POST /v1/score`, as
the result says the model is asked. Reported per domain: the keyed score of its unseen items, pole minus the other pole,
the same for other domains, how far the mean of all raw answers moves (unseen items are keyed evenly, so nobody's content
moves it), and seconds per person. Exit status 1 where fewer than four domains move by 0.05, or a raw mean by more than 0.15.
"""
import argparse
import json
import sys
import time
import urllib.request

FORMS = {
    "true-false": ("Personality questionnaire.\nStatement: I %s.\nTrue or false:", [" True", " False"]),
    "true-false-lower-case": ("Personality questionnaire.\nStatement: I %s.\nTrue or false:", [" true", " false"]),
    "agree-disagree": ("Statement: I %s.\nDo you agree or disagree? I", [" agree", " disagree"]),
}


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if method == "DELETE" and error.code == 404:
                return None
            sys.exit(f"{method} {path}: {error.read().decode()}")

    def align(self, body):
        self.call("DELETE", f"/v1/personas/{body['name']}")
        begun = time.time()
        job = self.call("POST", "/v1/align", body)["job"]
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = self.call("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "done":
            sys.exit(f"{body['name']}: {job}")
        return job["result"], time.time() - begun


def low(text):
    text = text.strip().rstrip(".")
    return text[0].lower() + text[1:]


def extreme(items, domain, pole):
    """What an extreme person answers to known items: those of the domain at the pole, all others 3."""
    own = [3 + 2 * pole * item["key"] if item["domain"] == domain else 3 for item in items]
    return [answer if item.get("known", True) else 0 for answer, item in zip(own, items)]


def answers(server, persona, items, readout):
    """Raw answers, up to a constant that is the same for all personas."""
    if readout["form"] not in FORMS:
        sys.exit(f"the form `{readout['form']}` is not asked here")
    prompt, options = FORMS[readout["form"]]
    found = []
    for item in items:
        body = {"prompt": prompt % low(item["text"]), "choices": options}
        if persona:
            body["persona"] = persona
        sums = [choice["sum"] for choice in server.call("POST", "/v1/score", body)["choices"]]
        found.append(readout["slope"] * (sums[0] - sums[1]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--inventory", default="models/inventories/ipip-neo-300.json")
    parser.add_argument("--out")
    args = parser.parse_args()
    server = Server(args.server)
    inventory = json.load(open(args.inventory))
    items = inventory["items"]
    unseen = [i for i, item in enumerate(items) if not item.get("known", True)]
    rows, plain, times = {}, None, []
    for domain in "OCEAN":
        shifts = []
        for pole in (1, -1):
            given = extreme(items, domain, pole)
            name = f"extreme-{domain.lower()}-{'high' if pole > 0 else 'low'}"
            result, seconds = server.align({"name": name, "inventory": inventory["name"], "answers": given})
            times.append((result["seconds"]["once"], result["seconds"]["person"], seconds))
            if result["algorithm"] != "ridge":
                sys.exit(f"{name}: {result['warnings']}")
            if plain is None:
                plain = answers(server, None, [items[i] for i in unseen], result["readout"])
            found = answers(server, name, [items[i] for i in unseen], result["readout"])
            shifts.append([a - b for a, b in zip(found, plain)])
            print(f"{name}: {seconds:.1f} s", file=sys.stderr)
        def keyed(of):
            own = [(high - low) * items[i]["key"] for i, high, low in zip(unseen, *shifts) if items[i]["domain"] == of]
            return sum(own) / len(own)

        rows[domain] = {
            "keyed": {of: round(keyed(of), 3) for of in "OCEAN"},
            "raw_mean_moved": [round(sum(shift) / len(shift), 3) for shift in shifts],
        }
    right = sum(row["keyed"][domain] >= 0.05 for domain, row in rows.items())
    kept = all(abs(moved) <= 0.15 for row in rows.values() for moved in row["raw_mean_moved"])
    once, following = times[0][0], sorted(times[1:], key=lambda one: one[1])
    print("pole against pole, keyed scores of unseen items")
    print("domain " + " ".join(f"{of:>7}" for of in "OCEAN") + "   raw mean moved (high, low)")
    for domain, row in rows.items():
        moved = " ".join(f"{value:+.3f}" for value in row["raw_mean_moved"])
        print(f"{domain:6} " + " ".join(f"{row['keyed'][of]:+7.3f}" for of in "OCEAN") + f"   {moved}")
    print(f"once {once:.1f} s; following people {following[len(following) // 2][1]:.1f} s (median of the job)")
    print(f"{right} of 5 domains move by at least 0.05; raw means {'kept' if kept else 'NOT kept'} within 0.15")
    if args.out:
        json.dump({"rows": rows, "seconds": times}, open(args.out, "w"), indent=1)
    sys.exit(0 if right >= 4 and kept else 1)


if __name__ == "__main__":
    main()
