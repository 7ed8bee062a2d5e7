"""Completions of token ids over HTTP with the time of every piece, for scripts that measure servers."""

import http.client
import json
import random
import time
import urllib.parse

from served import Failed


def ask(url, path, body=None, timeout=600):
    """The answer of a POST, or of a GET without a body; the connection closes with it."""
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    headers = {"Content-Type": "application/json"}
    connection.request(*("GET", path) if body is None else ("POST", path, json.dumps(body), headers))
    answer = connection.getresponse()
    if answer.status != 200:
        raise Failed(f"{url}{path} answered {answer.status}: {answer.read(500)!r}")
    return answer


def ask_json(url, path, body=None):
    with ask(url, path, body) as answer:
        return json.load(answer)


def body_of(ids, tokens, stream):
    """Greedy, to the last token asked for, and without a cache of earlier prompts."""
    body = {"prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream": stream}
    return body | ({"stream_options": {"include_usage": True}} if stream else {})


def whole(url, ids, tokens):
    """Seconds of a completion that is not streamed."""
    begin = time.monotonic()
    usage = ask_json(url, "/v1/completions", body_of(ids, tokens, False))["usage"]
    seconds = time.monotonic() - begin
    if (usage["prompt_tokens"], usage["completion_tokens"]) != (len(ids), tokens):
        raise Failed(f"{url} read {usage['prompt_tokens']} of {len(ids)} prompt tokens and made "
                     f"{usage['completion_tokens']} of {tokens} asked for")
    return seconds


def chunks(lines):
    """The chunks in the lines of a streamed answer."""
    for line in lines:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def recorded(url, ids, tokens):
    """The bytes of a streamed completion with their times, as they came: a client that reads them on the way takes processor
    time from a server beside it."""
    pieces = []
    with ask(url, "/v1/completions", body_of(ids, tokens, True)) as answer:
        while piece := answer.read1(1 << 16):
            pieces.append((time.monotonic(), piece))
    return pieces


def stamps(url, pieces, tokens):
    """The times of the chunks of a completion recorded from `url`."""
    times, count, rest = [], 0, b""
    for at, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for chunk in chunks(lines):
            count = (chunk.get("usage") or {}).get("completion_tokens", count)
            if chunk.get("choices"):
                times.append(at)
    if count != tokens:
        raise Failed(f"{url} made {count} tokens of {tokens} asked for")
    return times


def streamed(url, ids, tokens):
    """Time stamps of the pieces of a streamed completion."""
    return stamps(url, recorded(url, ids, tokens), tokens)


def prompts(count, length, vocabulary, seed):
    """Different prompts of ordinary ids; the ids at the start of a vocabulary are control tokens."""
    generator = random.Random(seed)
    return [[generator.randrange(300, vocabulary) for _ in range(length)] for _ in range(count)]
