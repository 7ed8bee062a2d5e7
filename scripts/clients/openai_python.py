# /// script
# requires-python = ">=3.11"
# dependencies = ["openai==3.57.0"]
# ///
"""The official Python client against a running server: exits 1 at the first thing that does not work.

    python scripts/clients/openai_python.py http://127.0.0.1:8080/v1 [--steering "0.8 warm"]

Without `--steering` the steered calls carry a coefficient of 0, which needs no vector but still goes the whole way.
"""

import argparse
import json
import sys

import openai

MESSAGES = [{"role": "user", "content": "Say hello to the reader in one sentence."}]
PROMPT = "The three primary colours of paint are red, yellow and"


class Failed(Exception):
    """What was expected and what came instead."""


def need(condition, message):
    if not condition:
        raise Failed(message)


def chat(client, model, **more):
    return client.chat.completions.create(**({"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0} | more))


def completion(client, model, **more):
    return client.completions.create(**({"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | more))


def models(client, model, _steering):
    listed = [entry.id for entry in client.models.list()]
    need(model in listed, f"`{model}` is not in the list {listed}")
    one = client.models.retrieve(model)
    need(one.id == model and one.object == "model", f"retrieve answered {one}")
    need(isinstance(one.created, int) and one.owned_by, f"`created` and `owned_by` must be filled: {one}")


def plain_chat(client, model, _steering):
    answer = chat(client, model)
    choice = answer.choices[0]
    need(answer.object == "chat.completion", f"object is {answer.object}")
    need(choice.message.role == "assistant" and choice.message.content, f"message is {choice.message}")
    need(choice.finish_reason in ("stop", "length"), f"finish_reason is {choice.finish_reason}")
    usage = answer.usage
    need(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, f"usage does not add up: {usage}")
    need(0 < usage.completion_tokens <= 12, f"12 tokens asked, usage says {usage}")
    need((answer.system_fingerprint or "").startswith("fp_"), f"system_fingerprint is {answer.system_fingerprint}")
    need("demeanor" in (answer.model_extra or {}), "the answer has no field `demeanor`")


def streamed_chat(client, model, _steering):
    text, finish, usage, first, extra = "", None, None, None, 0
    for chunk in chat(client, model, stream=True, stream_options={"include_usage": True}):
        extra += "demeanor" in (chunk.model_extra or {})
        if chunk.usage is not None:
            usage = chunk.usage
        for choice in chunk.choices:
            first = first or choice.delta
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    need(first is not None and first.role == "assistant", f"the first delta is {first}")
    whole = chat(client, model).choices[0]
    need(text == whole.message.content, f"streamed {text!r}, at once {whole.message.content!r}")
    need(finish == whole.finish_reason, f"streamed finish_reason {finish}, at once {whole.finish_reason}")
    need(usage is not None and usage.completion_tokens > 0, f"usage asked for in the stream, got {usage}")
    need(extra >= 2, f"`demeanor` came in {extra} chunks; the finish chunk and the usage chunk carry it")


def several_choices(client, model, _steering):
    answer = chat(client, model, n=2, temperature=1, seed=3)
    need([choice.index for choice in answer.choices] == [0, 1], f"n=2 gave {[c.index for c in answer.choices]}")
    again = chat(client, model, n=2, temperature=1, seed=3)
    texts = [[choice.message.content for choice in a.choices] for a in (answer, again)]
    need(texts[0] == texts[1], f"the same seed gave {texts[0]} and {texts[1]}")


def chat_logprobs(client, model, _steering):
    content = chat(client, model, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    need(content, "logprobs asked, none came")
    for entry in content:
        need(entry.logprob <= 0 and len(entry.top_logprobs) == 3, f"entry {entry}")
        need(entry.top_logprobs[0].logprob >= entry.logprob, f"the first of the top is not the largest: {entry}")
        need(entry.top_logprobs[0].token == entry.token, f"greedy did not take the first of the top: {entry}")
        need(bytes(entry.bytes).decode("utf-8", "replace") == entry.token, f"bytes and token differ: {entry}")


def stop_strings(client, model, _steering):
    whole = chat(client, model, max_tokens=24).choices[0].message.content
    stop = whole.strip().split()[-2]
    cut = chat(client, model, max_tokens=24, stop=[stop]).choices[0]
    need(cut.finish_reason == "stop", f"stop {stop!r} gave finish_reason {cut.finish_reason}")
    need(cut.message.content == whole[: whole.index(stop)], f"stop {stop!r} in {whole!r} gave {cut.message.content!r}")


def seeds(client, model, _steering):
    one, same, other = (chat(client, model, temperature=1, seed=seed, max_tokens=24).choices[0].message.content for seed in (5, 5, 6))
    need(one == same, f"seed 5 gave {one!r} and {same!r}")
    need(one != other, f"seeds 5 and 6 both gave {one!r}")
    drawn = chat(client, model, temperature=1).model_extra["demeanor"]["seed"]
    need(isinstance(drawn, int), f"the drawn seed is {drawn!r}")


def completions(client, model, _steering):
    answer = completion(client, model, echo=True, logprobs=2, max_tokens=3)
    choice = answer.choices[0]
    need(answer.object == "text_completion", f"object is {answer.object}")
    need(choice.text.startswith(PROMPT), f"echo gave {choice.text!r}")
    values = choice.logprobs.token_logprobs
    need(values[0] is None and all(value <= 0 for value in values[1:]), f"token_logprobs {values}")
    need(len(values) == answer.usage.prompt_tokens + answer.usage.completion_tokens, f"{len(values)} values, usage {answer.usage}")
    need(len(choice.logprobs.tokens) == len(values) == len(choice.logprobs.top_logprobs), "the lists differ in length")
    several = completion(client, model, prompt=[PROMPT, "One, two,"], n=2)
    need([c.index for c in several.choices] == [0, 1, 2, 3], f"two prompts of two gave {[c.index for c in several.choices]}")
    pieces = [chunk.choices[0].text for chunk in completion(client, model, stream=True) if chunk.choices]
    whole = completion(client, model).choices[0].text
    need("".join(pieces) == whole, f"streamed {pieces}, at once {whole!r}")


def steered(client, model, steering):
    expression = steering or "0 warm"
    for call, text_of in ((chat, lambda c: c.message.content), (completion, lambda c: c.text)):
        answer = call(client, model, extra_body={"steering": expression})
        extra = answer.model_extra["demeanor"]
        need(extra["steering_from"] == "body", f"steering_from is {extra['steering_from']}")
        plain, changed = text_of(call(client, model).choices[0]), text_of(answer.choices[0])
        if steering is None:
            need(plain == changed, f"a coefficient of 0 changed {plain!r} into {changed!r}")
        else:
            need(extra["vectors"], f"no vector in {extra}")
            by_name = call(client, f"{model}@({expression})")
            need(text_of(by_name.choices[0]) == changed, "steering in the model name gave another text")
            need(by_name.model_extra["demeanor"]["steering_from"] != "body", "steering_from of the model name")
    listed = chat(client, model, extra_body={"steering": [{"vector": "warm", "coefficient": 0}]})
    need(listed.choices[0].message.content == chat(client, model).choices[0].message.content, "list form at 0")


def compared(client, model, steering):
    expression = steering or "0 warm"
    answer = chat(client, model, extra_body={"steering": expression, "compare": True})
    texts = [choice.message.content for choice in answer.choices]
    need(len(texts) == 2 and answer.choices[1].model_extra.get("twin_of") == 0, f"choices {answer.choices}")
    alone = chat(client, model, extra_body={"steering": expression}).choices[0].message.content
    plain = chat(client, model).choices[0].message.content
    need(texts == [alone, plain], f"together {texts}, alone {[alone, plain]}")


def responses(client, model, steering):
    ask = {"model": model, "input": MESSAGES, "max_output_tokens": 12, "temperature": 0}
    whole = client.responses.create(**ask)
    need(whole.object == "response" and whole.output_text, f"response {whole}")
    need(whole.output_text == chat(client, model).choices[0].message.content, "the chat says something else")
    need(whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens, f"usage {whole.usage}")
    need(whole.status == "completed" or whole.incomplete_details.reason == "max_output_tokens", f"status {whole.status}")
    kinds, text, last = [], "", None
    for event in client.responses.create(stream=True, **ask):
        kinds.append(event.type)
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    need(text == whole.output_text, f"streamed {text!r}, at once {whole.output_text!r}")
    need(kinds[0] == "response.created" and kinds[-1] == f"response.{whole.status}", f"events {kinds}")
    need(last.response.output_text == text, f"the last event has {last.response.output_text!r}")
    # The helper knows no other end than a complete answer.
    with client.responses.stream(**(ask | {"max_output_tokens": 400})) as stream:
        need(stream.get_final_response().output_text.startswith(text), "the stream helper gives another text")
    told = client.responses.create(instructions="Answer in French.", extra_body={"steering": steering or "0 warm"}, **ask)
    need(told.model_extra["demeanor"]["steering_from"] == "body", f"demeanor is {told.model_extra['demeanor']}")
    try:
        client.responses.create(previous_response_id="resp_1", **ask)
    except openai.BadRequestError as error:
        need(error.body.get("param") == "previous_response_id", f"param is {error.body.get('param')!r}")
        return
    raise Failed("a response after another one was answered")


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def response_tools(client, model, _steering):
    question = {"role": "user", "content": "What is the weather in Rome?"}
    ask = {"model": model, "tools": [WEATHER], "max_output_tokens": 60, "temperature": 0}
    whole = client.responses.create(input=[question], tool_choice="required", **ask)
    (call,) = whole.output
    need(call.type == "function_call" and call.name == "get_weather" and call.call_id, f"item {call}")
    need("city" in json.loads(call.arguments), f"arguments {call.arguments!r}")
    need(whole.tools[0].name == "get_weather" and whole.tool_choice == "required", f"repeated {whole.tools}")
    with client.responses.stream(input=[question], tool_choice="required", **ask) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.function_call_arguments.delta")
        final = stream.get_final_response().output[0]
    need(text == call.arguments == final.arguments, f"streamed {text!r}, at once {call.arguments!r}")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees, sunny"}
    told = client.responses.create(input=[question, call.to_dict(), result], tool_choice="none", **ask)
    need(told.output_text, f"no text after a result: {told.output}")


def refused(client, model, _steering):
    def expect(kind, status, param, **more):
        try:
            chat(client, **({"model": model} | more))
        except kind as error:
            need(error.status_code == status, f"{more}: status {error.status_code}, expected {status}")
            need(error.body and error.body.get("message"), f"{more}: no error.message in {error.body}")
            need(param is None or error.body.get("param") == param, f"{more}: param is {error.body.get('param')!r}, expected {param!r}")
        else:
            raise Failed(f"{more}: accepted, expected {status}")

    expect(openai.NotFoundError, 404, None, model="no-such-model")
    expect(openai.BadRequestError, 400, "temperature", temperature=-1)
    expect(openai.BadRequestError, 400, "temperature", extra_body={"temperature": "warm"})
    expect(openai.BadRequestError, 400, "messages", messages=[])
    expect(openai.BadRequestError, 400, "steering", extra_body={"steering": "0.8 ((("})
    try:
        client.models.retrieve("no-such-model")
    except openai.NotFoundError:
        return
    raise Failed("retrieve of an unknown model was answered")


CHECKS = (models, plain_chat, streamed_chat, several_choices, chat_logprobs, stop_strings, seeds, completions, steered, compared, responses, response_tools, refused)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", metavar="BASE_URL", help="with /v1")
    parser.add_argument("--model", help="default: the first of the list")
    parser.add_argument("--steering", help="an expression that is ready on the server, such as '0.8 warm'")
    parser.add_argument("--api-key", default="none")
    arguments = parser.parse_args()
    client = openai.OpenAI(base_url=arguments.base_url, api_key=arguments.api_key, max_retries=0, timeout=120)
    model = arguments.model or next(iter(client.models.list())).id
    for check in CHECKS:
        try:
            check(client, model, arguments.steering)
        except (Failed, openai.OpenAIError, AttributeError, KeyError, TypeError, IndexError) as error:
            print(f"FAILED {check.__name__}: {type(error).__name__}: {error}")
            return 1
        print(f"ok     {check.__name__}")
    print(f"{len(CHECKS)} of {len(CHECKS)} checks passed with openai {openai.__version__} on `{model}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
