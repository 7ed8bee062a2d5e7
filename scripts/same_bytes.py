# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""The same requests to two builds of the program on one model: do they answer with the same bytes?

    python scripts/same_bytes.py BINARY_A BINARY_B MODEL [--threads 2] [--keep FOLDER]

Requests: greedy and seeded, chat and completion, plain, steered by a direction, log-probabilities, echo, a soft prompt
where both builds have them, scores, and sixteen differently steered ones at once. What has to be another one each time
(ids, times, fingerprints, timings) and what a later build may add is left out: compared are choices, scores, token ids
and usage. A request that one build refuses and the other answers is listed as such, not as a difference. Exits 1 if
bytes differ. `--keep` writes both answers of each request that differs.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import re
import struct
import sys
import tempfile
import urllib.error
import urllib.request

from served import Failed, Served

READY = 600  # seconds
LONG = "The boat left the harbour before dawn, and nobody on the pier said a word about the cargo. " * 12
COMPARED = ("index", "text", "message", "finish_reason", "logprobs", "token_ids", "sum", "bytes")


class Server(Served):
    def __init__(self, binary, model, folder, threads):
        # Builds before the data folder was an option keep it where the environment says.
        environment = os.environ | {"XDG_DATA_HOME": folder}
        command = [binary, "serve", "--model", model, "--port", "0", "--threads", str(threads), "--extract-wait", str(READY)]
        try:
            super().__init__(command, os.path.join(folder, "log"), READY, environment)
        except Failed as failure:
            raise SystemExit(f"{binary} does not come up: {failure}") from failure

    def send(self, path, body, content_type="application/json"):
        """(status, JSON)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {"refused": error.read().decode("utf-8", "replace")[:300]}


def direction(length, number):
    return [math.sin(1.7 * number + 0.37 * i * (number + 1)) for i in range(length)]


def steered(length, number):
    """Inline and raw: needs no calibration, whose figures an older build may have reckoned in another way."""
    return [{"directions": {str(6 + number % 4): direction(length, number)}, "coefficient": 0.05 * (1 + number % 5), "unit": "raw"}]


def rows(length, norm):
    """A safetensors file with four rows of a soft prompt, each of this length."""
    values = [value * norm / math.hypot(*row) for row in (direction(length, number) for number in range(4)) for value in row]
    data = struct.pack(f"<{len(values)}f", *values)
    header = json.dumps({"prompt_embeddings": {"dtype": "F32", "shape": [4, length], "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def upload_rows(server, length):
    """Rows near the length of the model's embeddings, which a refusal tells: a tenth to four times the median."""
    boundary = "same-bytes"
    norm = 1.0
    for _ in range(2):
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nfour\r\n'.encode(),
                 f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="four.safetensors"\r\n\r\n'.encode(),
                 rows(length, norm), f"\r\n--{boundary}--\r\n".encode()]
        status, said = server.send("/v1/soft_prompts", b"".join(parts), f"multipart/form-data; boundary={boundary}")
        allowed = re.search(r"allow ([0-9.]+) to", said.get("refused", ""))
        if not allowed:
            break
        norm = 10 * float(allowed[1])
    return status, {} if status < 300 else said


def requests(length):
    """(name, path, body) one after the other."""
    chat, text, score = "/v1/chat/completions", "/v1/completions", "/v1/score"
    messages = [{"role": "user", "content": "How do I cook rice? Answer in two sentences."}]
    history = [{"role": "system", "content": "You are brief."}, *messages, {"role": "assistant", "content": "In water."},
               {"role": "user", "content": "How long?"}]
    greedy = {"max_tokens": 32, "temperature": 0}
    seeded = {"max_tokens": 32, "temperature": 0.9, "top_p": 0.95, "seed": 11}
    yield "chat, greedy", chat, {"messages": messages} | greedy
    yield "chat, greedy, from the prefix cache", chat, {"messages": messages} | greedy
    yield "chat, several turns", chat, {"messages": history} | greedy
    yield "chat, seeded", chat, {"messages": messages} | seeded
    yield "chat, seeded, three choices", chat, {"messages": messages, "n": 3} | seeded
    yield "chat, penalties and bias", chat, {"messages": messages, "presence_penalty": 0.5, "frequency_penalty": 0.3,
                                             "logit_bias": {"260": -2}, "top_k": 40, "min_p": 0.02} | seeded
    yield "chat, log-probabilities", chat, {"messages": messages, "logprobs": True, "top_logprobs": 5} | greedy
    yield "chat, steered", chat, {"messages": messages, "steering": steered(length, 1), "logprobs": True} | greedy
    yield "chat, steered and seeded", chat, {"messages": messages, "steering": steered(length, 2)} | seeded
    yield "completion, greedy", text, {"prompt": "One, two, three,"} | greedy
    yield "completion, a long prompt", text, {"prompt": LONG, "logprobs": 3} | greedy
    yield "completion, echo", text, {"prompt": LONG, "logprobs": 2, "echo": True, "max_tokens": 1, "temperature": 0}
    yield "completion, several prompts", text, {"prompt": ["One, two,", "The sky is", LONG], "n": 2} | seeded
    yield "completion, token ids", text, {"prompt": [[504, 300, 282, 28], [253, 281, 260]], "logprobs": 1} | greedy
    yield "completion, steered from the answer on", text, {
        "prompt": LONG, "steering": [steered(length, 3)[0] | {"positions": "response"}]} | greedy
    yield "score", score, {"messages": messages, "choices": ["Boil it in water.", "Never.", " Yes"]}
    yield "score, steered", score, {"prompt": LONG, "choices": [" The", " Nobody knew."], "steering": steered(length, 4)}
    yield "chat, a soft prompt", chat, {"messages": messages, "soft_prompt": "four", "logprobs": True} | greedy
    yield "score, a soft prompt", score, {"messages": messages, "choices": ["Boil it in water."], "soft_prompt": "four"}


def batch(length):
    """Sixteen at once, no two alike."""
    for number in range(16):
        body = {"messages": [{"role": "user", "content": f"Tell me {number + 2} things about the sea." + " Please." * (9 * number)}],
                "max_tokens": 24, "temperature": 0.8 if number % 3 else 0, "seed": number, "logprobs": True}
        if number % 2:
            body["steering"] = steered(length, number)
        yield f"one of sixteen, {number}", "/v1/chat/completions", body


def essence(answer):
    if "refused" in answer:
        return answer
    choices = [{name: choice[name] for name in COMPARED if name in choice} for choice in answer["choices"]]
    for choice in choices:
        if message := choice.get("message"):
            choice["message"] = {name: message.get(name) for name in ("role", "content")}
    usage = {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens") if name in answer["usage"]}
    return {"choices": choices, "usage": usage}


def answers(binary, model, threads):
    """Status and essence by name."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, model, folder, threads)
        try:
            length = server.send("/v1/models", None)[1]["data"][0]["meta"]["n_embd"]
            found = {"the rows of a soft prompt": upload_rows(server, length)}
            for name, path, body in requests(length):
                status, answer = server.send(path, body)
                found[name] = status, essence(answer)
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                sent = {name: pool.submit(server.send, path, body) for name, path, body in batch(length)}
                for name, future in sent.items():
                    status, answer = future.result()
                    found[name] = status, essence(answer)
            return found
        finally:
            server.stop()


def first_difference(one, other, path=""):
    """Where two JSON values differ first, and how."""
    if type(one) is type(other) and isinstance(one, dict):
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                return first_difference(one.get(name), other.get(name), f"{path}.{name}")
    if type(one) is type(other) and isinstance(one, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other)):
            if pair[0] != pair[1]:
                return first_difference(*pair, f"{path}[{index}]")
    return f"{path}: {json.dumps(one)[:160]} and {json.dumps(other)[:160]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", metavar="BINARY_A")
    parser.add_argument("b", metavar="BINARY_B")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    one, other = (answers(binary, arguments.model, arguments.threads) for binary in (arguments.a, arguments.b))
    same, different, refused = 0, 0, 0
    for name, (status, answer) in one.items():
        status_b, answer_b = other[name]
        if status >= 300 or status_b >= 300:
            refused += 1
            print(f"refused   {name}: {status} and {status_b}: {answer.get('refused')} / {answer_b.get('refused')}")
        elif answer == answer_b:
            same += 1
        else:
            different += 1
            print(f"DIFFERENT {name}: {first_difference(answer, answer_b)}")
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                both = json.dumps({"a": answer, "b": answer_b}, indent=1)
                (arguments.keep / f"{name.replace(' ', '_')}.json").write_text(both)
    print(f"{same} answers have the same bytes, {different} differ, {refused} refused by one or both")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
