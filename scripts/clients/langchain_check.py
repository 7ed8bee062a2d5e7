# /// script
# requires-python = ">=3.11"
# dependencies = ["langchain-openai==1.7.4"]
# ///
"""LangChain's ChatOpenAI and OpenAIEmbeddings against a running server: exits 1 at the first thing that does not work.

    python scripts/clients/langchain_check.py http://127.0.0.1:8080/v1 [--model NAME] [--steering "0.8 warm"]

Without `--steering` the steered calls carry a coefficient of 0. `--embeddings` also asks for embeddings, which needs the
sentence encoder on the server.
"""

import argparse
import sys

import openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION = "Say hello to the reader in one sentence."


def need(condition, message):
    if not condition:
        raise AssertionError(message)


def check(arguments):
    """What was exercised, by name."""
    expression = arguments.steering or "0 warm"
    common = {"base_url": arguments.base_url, "api_key": arguments.api_key, "max_retries": 0, "temperature": 0, "max_tokens": 12}
    plain = ChatOpenAI(model=arguments.model, **common)
    answer = plain.invoke(QUESTION)
    need(answer.content, f"invoke gave {answer}")
    meta = answer.response_metadata
    need(meta["system_fingerprint"].startswith("fp_"), f"response_metadata is {meta}")
    need(answer.usage_metadata["total_tokens"] > 0, f"usage_metadata is {answer.usage_metadata}")
    yield "invoke"
    streamed = "".join(chunk.content for chunk in plain.stream(QUESTION))
    need(streamed == answer.content, f"streamed {streamed!r}, at once {answer.content!r}")
    yield "stream"
    both = plain.batch([QUESTION, QUESTION])
    need([one.content for one in both] == [answer.content] * 2, f"batch gave {both}")
    yield "batch"
    by_field = ChatOpenAI(model=arguments.model, extra_body={"steering": expression}, **common).invoke(QUESTION)
    by_name = ChatOpenAI(model=f"{arguments.model}@({expression})", **common).invoke(QUESTION)
    need(by_field.content == by_name.content, f"field {by_field.content!r}, name {by_name.content!r}")
    # Of the answer's own fields this client keeps none but these.
    same = by_field.response_metadata["system_fingerprint"] == by_name.response_metadata["system_fingerprint"]
    need(same, "the two fingerprints differ")
    if arguments.steering:
        need(by_field.response_metadata["system_fingerprint"] != meta["system_fingerprint"], "steering left the fingerprint")
        need("@(" in by_name.response_metadata["model_name"], f"model_name {by_name.response_metadata}")
    yield "steering by extra_body and by model name"
    responses = ChatOpenAI(model=arguments.model, use_responses_api=True, **common).invoke(QUESTION)
    need(responses.text == answer.content, f"responses gave {responses}")
    yield "use_responses_api"
    if arguments.embeddings:
        embedder = OpenAIEmbeddings(
            model=arguments.embeddings, base_url=arguments.base_url, api_key=arguments.api_key,
            check_embedding_ctx_length=False,
        )
        rows = embedder.embed_documents(["a lighthouse", "a tower by the sea"])
        need(len(rows) == 2 and len(rows[0]) == 384, f"{len(rows)} rows of {len(rows[0])}")
        yield "embeddings with check_embedding_ctx_length=False"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model", help="default: the first of the list")
    parser.add_argument("--steering")
    parser.add_argument("--embeddings", metavar="ENCODER", nargs="?", const="all-minilm-l6-v2")
    parser.add_argument("--api-key", default="none")
    arguments = parser.parse_args()
    listed = openai.OpenAI(base_url=arguments.base_url, api_key=arguments.api_key).models.list()
    arguments.model = arguments.model or next(iter(listed)).id
    done = []
    try:
        for name in check(arguments):
            print(f"ok     {name}")
            done.append(name)
    except (AssertionError, openai.OpenAIError, AttributeError, KeyError, TypeError) as error:
        print(f"FAILED after {done[-1:]}: {type(error).__name__}: {error}")
        return 1
    print(f"{len(done)} checks passed on `{arguments.model}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
