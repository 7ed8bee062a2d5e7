# /// script
# requires-python = ">=3.11"
# dependencies = ["litellm==1.110.2"]
# ///
"""The LiteLLM SDK against a running server: exits 1 at the first thing that does not work.

    python scripts/clients/litellm_check.py http://127.0.0.1:8080/v1 --model NAME [--steering "0.8 warm"]

Without `--steering` the steered calls carry a coefficient of 0. Both ways of LiteLLM are run: `openai/`, which goes
through the official client, and `hosted_vllm/`, which has its own.
"""

import argparse
import sys

import litellm

MESSAGES = [{"role": "user", "content": "Say hello to the reader in one sentence."}]


def need(condition, message):
    if not condition:
        raise AssertionError(message)


def check(arguments, provider):
    """What was exercised, by name."""

    def ask(**more):
        return litellm.completion(**({
            "model": f"{provider}/{arguments.model}", "api_base": arguments.base_url, "api_key": arguments.api_key,
            "messages": MESSAGES, "max_tokens": 12, "temperature": 0, "num_retries": 0,
        } | more))

    plain = ask()
    text = plain.choices[0].message.content
    need(text and plain.usage.total_tokens > 0, f"answer {plain}")
    need((plain.system_fingerprint or "").startswith("fp_"), f"system_fingerprint {plain.system_fingerprint}")
    yield "completion"
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    need(streamed == text, f"streamed {streamed!r}, at once {text!r}")
    yield "stream"
    expression = arguments.steering or "0 warm"
    steered = ask(steering=expression, min_p=0.1)
    by_name = ask(model=f"{provider}/{arguments.model}@({expression})", min_p=0.1)
    need(steered.choices[0].message.content == by_name.choices[0].message.content, "field and model name differ")
    extra = getattr(steered, "demeanor", None)
    need(extra and extra["steering_from"] == "body", f"`demeanor` is {extra}")
    yield "steering as a keyword and in the model name; `demeanor` is kept"
    both = ask(steering=expression, compare=True)
    need(len(both.choices) == 2 and both.choices[1].message.content == text, f"compare gave {both.choices}")
    yield "compare"
    # `user` is dropped by LiteLLM for models it does not know; this one passes.
    ask(safety_identifier="u1")
    try:
        ask(temperature=-1)
    except litellm.BadRequestError as error:
        need("temperature" in str(error), f"error {error}")
        yield "a refusal names its field"
        return
    raise AssertionError("temperature -1 was answered")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--steering")
    parser.add_argument("--api-key", default="none")
    arguments = parser.parse_args()
    count = 0
    for provider in ("openai", "hosted_vllm"):
        try:
            for name in check(arguments, provider):
                print(f"ok     {provider}: {name}")
                count += 1
        except Exception as error:
            print(f"FAILED {provider} after {count} checks: {type(error).__name__}: {error}")
            return 1
    print(f"{count} checks passed on `{arguments.model}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
