# /// script
# requires-python = ">=3.11"
# dependencies = ["litellm[proxy]==1.106.12"]
# ///
"""openai-python through a LiteLLM proxy of our own to a running server: exits 1 at the first thing that does not work.

    python scripts/clients/litellm_proxy_check.py http://127.0.0.1:8080/v1 --model NAME [--steering "0.8 warm"] [--embeddings]

Starts the proxy that is installed beside this Python with a configuration of three lines a model, nothing patched, and
ends it. Each answer through the proxy is compared with the server's own. What has to pass is checked; what LiteLLM
drops is listed at the end as it was found, so that a newer version shows what changed. `--embeddings` needs the
sentence encoder on the server.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import openai

KEY = "sk-proxy-check-3f9a61c07d"
MESSAGES = [{"role": "user", "content": "Say hello to the reader in one sentence."}]
STARTED = 300  # seconds; the proxy imports much
EXTRAS = ("demeanor", "timings")


def need(condition, message):
    if not condition:
        raise AssertionError(message)


def configuration(arguments, forward_headers):
    """YAML, written as JSON, which is YAML too."""
    def named(name, model):
        reached = {"model": f"openai/{model}", "api_base": arguments.base_url, "api_key": "none"}
        return {"model_name": name, "litellm_params": reached}

    expression = arguments.steering or "0 warm"
    return {
        "model_list": [named("plain", arguments.model), named("steered", f"{arguments.model}@({expression})"),
                       named("encoder", "all-minilm-l6-v2"), named("*", "*")],
        "general_settings": {"master_key": KEY, "forward_client_headers_to_llm_api": forward_headers},
        # By default a 404, an unknown persona of one client, keeps the model from every client for seconds.
        "router_settings": {"disable_cooldowns": True},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }


class Proxy:
    def __init__(self, arguments, folder, forward_headers=False):
        config = pathlib.Path(folder) / "config.yaml"
        config.write_text(json.dumps(configuration(arguments, forward_headers)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [str(pathlib.Path(sys.executable).with_name("litellm")), "--config", str(config), "--host", "127.0.0.1",
                   "--port", str(self.port), "--telemetry", "False"]
        self.log = open(pathlib.Path(folder) / "proxy.log", "w+", encoding="utf-8")
        # Its price list would come from the network.
        environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=self.log, stderr=subprocess.STDOUT)
        self.wait()
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}", api_key=KEY, max_retries=0, timeout=300)

    def wait(self):
        begin = time.monotonic()
        while time.monotonic() - begin < STARTED:
            need(self.process.poll() is None, f"the proxy ended: {self.tail()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/liveliness", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise AssertionError(f"the proxy is not up after {STARTED} s: {self.tail()}")

    def tail(self):
        self.log.seek(0)
        return self.log.read()[-1500:]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def chat(client, model, **more):
    return client.chat.completions.create(**({"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0} | more))


def text(answer):
    return answer.choices[0].message.content


class Check:
    """The checks, with what was found about fields on the way."""

    def __init__(self, arguments, proxy):
        self.expression = arguments.steering or "0 warm"
        self.model, self.arguments = arguments.model, arguments
        self.client = proxy.client
        self.direct = openai.OpenAI(base_url=arguments.base_url, api_key="none", max_retries=0, timeout=300)
        self.found = {}

    def kept(self, where, answer):
        extra = answer.model_extra or {}
        for name in EXTRAS:
            self.found[f"{where}: `{name}`"] = name in extra
        return extra

    def chat(self):
        plain = chat(self.direct, self.model)
        through = chat(self.client, "plain")
        need(text(through) == text(plain), f"through the proxy {text(through)!r}, directly {text(plain)!r}")
        need(through.usage.total_tokens == plain.usage.total_tokens, f"usage {through.usage}")
        self.kept("chat", through)
        self.found["chat: `system_fingerprint`"] = through.system_fingerprint == plain.system_fingerprint
        self.found["chat: `model` as resolved"] = through.model == plain.model
        need(through.choices[0].finish_reason == plain.choices[0].finish_reason, "finish_reason")

    def stream(self):
        plain = text(chat(self.direct, self.model))
        chunks = list(chat(self.client, "plain", stream=True, stream_options={"include_usage": True}))
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        need(streamed == plain, f"streamed {streamed!r}, directly {plain!r}")
        need(any(chunk.usage for chunk in chunks), "no usage in the stream")
        for name in EXTRAS:
            self.found[f"stream: `{name}`"] = any(name in (chunk.model_extra or {}) for chunk in chunks)
        fingerprints = {chunk.system_fingerprint for chunk in chunks}
        self.found["stream: `system_fingerprint`"] = any((name or "").startswith("fp_") for name in fingerprints)

    def extra_fields(self):
        """Fields of ours on the way in: seen by what the server says was applied, else by its effect."""
        own = chat(self.direct, self.model, extra_body={"steering": self.expression})
        through = chat(self.client, "plain", extra_body={"steering": self.expression})
        need(text(through) == text(own), f"steered through the proxy {text(through)!r}, directly {text(own)!r}")
        said = self.kept("steered chat", through)
        if "demeanor" in said:
            need(said["demeanor"]["steering_from"] == "body", f"demeanor {said['demeanor']}")
        self.found["request: `steering` in the body"] = True
        named = chat(self.client, "steered")
        need(text(named) == text(own), f"named in the configuration {text(named)!r}, directly {text(own)!r}")
        wild = chat(self.client, f"{self.model}@({self.expression})")
        need(text(wild) == text(own), f"named by the client {text(wild)!r}, directly {text(own)!r}")
        self.found["request: expression in the model name"] = True
        both = chat(self.client, "plain", extra_body={"steering": self.expression, "compare": True})
        need(len(both.choices) == 2 and text(both) == text(own), f"compare gave {both.choices}")
        self.found["request: `compare`"] = True
        self.found["answer: `twin_of` of a choice"] = "twin_of" in (both.choices[1].model_extra or {})
        # A field that reaches the server is refused there; one that is dropped on the way is answered.
        for name, value in (("soft_prompt", "no-such-rows"), ("persona", "no-such-persona"), ("min_p", 7), ("top_k", -7),
                            ("response_format", {"type": "json_schema", "json_schema": {"name": "A", "schema": 7}}),
                            ("guided_regex", "("), ("grammar", "root ::= ("), ("cache_salt", 7), ("safety_identifier", 7),
                            ("user", 7), ("tools", [{"type": "function", "function": {"name": "f", "parameters": 7}}])):
            try:
                chat(self.client, "plain", extra_body={name: value})
                self.found[f"request: `{name}`"] = False
            except (openai.BadRequestError, openai.NotFoundError) as error:
                self.found[f"request: `{name}`"] = name in str(error)
        self.found["request: header `x-demeanor-steering`"] = header_arrives(self.client)

    def completions(self):
        ask = {"prompt": "The sky is", "max_tokens": 6, "temperature": 0}
        plain = self.direct.completions.create(model=self.model, **ask)
        through = self.client.completions.create(model="plain", **ask)
        need(through.choices[0].text == plain.choices[0].text, f"{through.choices} against {plain.choices}")
        self.kept("completions", through)

    def responses(self):
        ask = {"input": MESSAGES, "max_output_tokens": 24, "temperature": 0}
        plain = self.direct.responses.create(model=self.model, **ask)
        through = self.client.responses.create(model="plain", **ask)
        need(through.output_text == plain.output_text, f"{through.output_text!r} against {plain.output_text!r}")
        kinds, streamed = [], ""
        for event in self.client.responses.create(model="plain", stream=True, **ask):
            kinds.append(event.type)
            streamed += event.delta if event.type == "response.output_text.delta" else ""
        need(streamed == plain.output_text, f"streamed {streamed!r}, directly {plain.output_text!r}")
        need(kinds[0] == "response.created", f"events {kinds}")
        own = self.direct.responses.create(model=self.model, extra_body={"steering": self.expression}, **ask)
        steered = self.client.responses.create(model="plain", extra_body={"steering": self.expression}, **ask)
        said = self.kept("responses", steered).get("demeanor") or {}
        self.found["responses, request: `steering` in the body"] = said.get("steering_from") == "body"
        named = self.client.responses.create(model="steered", **ask)
        need(named.output_text == own.output_text, f"named {named.output_text!r}, directly {own.output_text!r}")
        self.found["responses, request: expression in the model name"] = True

    def embeddings(self):
        for encoding in ("float", "base64"):
            plain, through = (
                client.embeddings.create(model=model, input=["hello", "a boat"], encoding_format=encoding)
                for client, model in ((self.direct, "all-minilm-l6-v2"), (self.client, "encoder")))
            need([entry.embedding for entry in plain.data] == [entry.embedding for entry in through.data], f"{encoding} differs")
            need([entry.index for entry in through.data] == [0, 1], f"indices {through.data}")

    def refusals(self):
        try:
            chat(self.client, "plain", extra_body={"steering": "0.8 ((("})
        except openai.BadRequestError as error:
            need("steering" in str(error), f"error {error}")
            self.found["error: message"] = True
            self.found["error: `param`"] = error.param == "steering"
            self.found["error: `code`"] = bool(error.code) and error.code != "400"
        else:
            raise AssertionError("a broken expression was answered")
        try:
            chat(self.client, "no-such-model")
        except openai.APIStatusError as error:
            need(error.status_code == 404, f"an unknown model is a {error.status_code}: {error}")
        else:
            raise AssertionError("an unknown model was answered")


def header_arrives(client):
    """A broken expression is refused where it arrives."""
    try:
        chat(client, "plain", extra_headers={"x-demeanor-steering": "0.8 ((("}, max_tokens=1)
    except openai.BadRequestError as error:
        return "steering" in str(error)
    return False


def forwarded_headers(arguments):
    """Whether the header arrives where the operator of the proxy forwards headers."""
    with tempfile.TemporaryDirectory() as folder:
        proxy = Proxy(arguments, folder, forward_headers=True)
        try:
            return header_arrives(proxy.client)
        finally:
            proxy.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--steering")
    parser.add_argument("--embeddings", action="store_true")
    arguments = parser.parse_args()
    names = ["chat", "stream", "extra_fields", "completions", "responses", "refusals"]
    names += ["embeddings"] if arguments.embeddings else []
    with tempfile.TemporaryDirectory() as folder:
        proxy = Proxy(arguments, folder)
        try:
            check = Check(arguments, proxy)
            for name in names:
                try:
                    getattr(check, name)()
                except (AssertionError, openai.OpenAIError, AttributeError, KeyError, TypeError, IndexError) as error:
                    print(f"FAILED {name}: {type(error).__name__}: {error}")
                    return 1
                print(f"ok     {name}", flush=True)
        finally:
            proxy.stop()
    check.found["request: header `x-demeanor-steering`, forward_client_headers_to_llm_api"] = forwarded_headers(arguments)
    for what, survives in check.found.items():
        print(f"{'kept   ' if survives else 'dropped'} {what}")
    print(f"{len(names)} of {len(names)} checks passed through the proxy on `{arguments.model}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
