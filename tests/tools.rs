//! Calls of functions over HTTP: forced ones have the arguments that their schema asks for, streamed or not, steered or
//! not; results come back in; a model that is free may call or talk.

use crate::harness::{content, default_server, hard_direction, with};
use crate::thinking::chain_server;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn tools() -> Value {
    let weather = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"$ref": "#/$defs/unit"}},
        "required": ["city", "unit"],
        "additionalProperties": false,
        "$defs": {"unit": {"enum": ["°C", "°F"]}},
    });
    let add = json!({
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": false,
    });
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": weather}},
        {"type": "function", "function": {"name": "add", "parameters": add}},
    ])
}

fn ask(more: Value) -> Value {
    let body = json!({
        "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
        "tools": tools(), "max_tokens": 100, "temperature": 1, "seed": 7,
    });
    with(body, more)
}

/// The calls of a message, each with arguments that fit its schema.
fn calls(message: &Value) -> Vec<String> {
    let calls = message["tool_calls"].as_array().unwrap_or_else(|| panic!("calls: {message}"));
    let checked = |call: &Value| {
        assert!(call["id"].as_str().is_some_and(|id| id.starts_with("call_")), "{call}");
        assert_eq!(call["type"], "function");
        let text = call["function"]["arguments"].as_str().expect("text");
        let arguments: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let fits = match call["function"]["name"].as_str() {
            Some("get_weather") => {
                let city = arguments["city"].as_str().is_some_and(|city| city.chars().count() <= 12);
                city && [json!("°C"), json!("°F")].contains(&arguments["unit"])
            }
            Some("add") => arguments["a"].as_i64().is_some_and(|a| (0..=99).contains(&a)),
            _ => false,
        };
        assert!(fits, "{call}");
        call["function"]["name"].as_str().unwrap_or_default().to_owned()
    };
    calls.iter().map(checked).collect()
}

/// The message that the deltas of a stream make.
fn assembled(chunks: &[Value]) -> Value {
    let mut message = json!({"tool_calls": []});
    for delta in chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]) {
        for part in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = part["index"].as_u64().expect("an index") as usize;
            let list = message["tool_calls"].as_array_mut().expect("a list");
            if part.get("id").is_some() {
                assert_eq!(index, list.len());
                list.push(part.clone());
            } else {
                let before = list[index]["function"]["arguments"].as_str().unwrap_or_default();
                let more = part["function"]["arguments"].as_str().expect("text");
                list[index]["function"]["arguments"] = format!("{before}{more}").into();
            }
        }
    }
    message
}

#[test]
fn forced_calls_fit_their_schema() {
    let server = default_server();
    let hard = json!([{"directions": {"15": hard_direction()}, "coefficient": 0.9, "unit": "raw"}]);
    for seed in 0..3 {
        for more in [json!({}), json!({"steering": hard}), json!({"temperature": 0})] {
            let body = with(ask(json!({"tool_choice": "required", "seed": seed})), more);
            let answer = server.post(CHAT, &body).ok();
            assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
            let message = &answer["choices"][0]["message"];
            assert!(message["content"].is_null(), "{message}");
            assert_eq!(calls(message).len(), 1);
        }
    }
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "add"}}});
    let answer = server.post(CHAT, &ask(named)).ok();
    assert_eq!(calls(&answer["choices"][0]["message"]), ["add"]);
}

#[test]
fn a_streamed_call_comes_in_pieces() {
    let server = default_server();
    let body = ask(json!({"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}));
    let whole = server.post(CHAT, &body).ok();
    let chunks = server.post(CHAT, &with(body, json!({"stream": true}))).chunks();
    let message = assembled(&chunks);
    assert_eq!(calls(&message), ["get_weather"]);
    let arguments = |message: &Value| message["tool_calls"][0]["function"]["arguments"].clone();
    assert_eq!(arguments(&message), arguments(&whole["choices"][0]["message"]));
    let finish = chunks.iter().find_map(|chunk| chunk["choices"][0]["finish_reason"].as_str());
    assert_eq!(finish, Some("tool_calls"));
    let pieces = chunks.iter().filter(|chunk| chunk["choices"][0]["delta"].get("tool_calls").is_some());
    assert!(pieces.count() > 3, "arguments come as they are drawn");
}

#[test]
fn results_come_back_in_and_a_free_model_may_talk() {
    let server = default_server();
    let messages = json!([
        {"role": "user", "content": "What is the weather in Rome?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\", \"unit\": \"°C\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 °C, sunny"},
    ]);
    let prompt = server.post("/apply-template", &json!({"messages": messages})).ok().to_string();
    assert!(prompt.contains("<tool_call>") && prompt.contains("21 °C"), "{prompt}");
    let talk = with(ask(json!({"messages": messages, "tool_choice": "none"})), json!({"max_tokens": 12}));
    let answer = server.post(CHAT, &talk).ok();
    assert!(answer["choices"][0]["message"].get("tool_calls").is_none());
    assert!(!content(&answer).is_empty());
    let free = server.post(CHAT, &ask(json!({"tool_choice": "auto", "max_tokens": 20}))).ok();
    let message = &free["choices"][0]["message"];
    assert!(message["content"].is_string() || message["tool_calls"].is_array(), "{free}");
    assert!(
        free["usage"]["prompt_tokens"].as_u64() > answer["usage"]["prompt_tokens"].as_u64(),
        "tools are told"
    );
}

/// The same request in the form of a response: functions stand flat.
fn as_response(body: &Value) -> Value {
    let flat = |tool: &Value| with(json!({"type": "function"}), tool["function"].clone());
    let tools: Vec<Value> = body["tools"].as_array().expect("tools").iter().map(flat).collect();
    let choice = match &body["tool_choice"]["function"] {
        Value::Null => body["tool_choice"].clone(),
        function => with(json!({"type": "function"}), function.clone()),
    };
    json!({
        "input": body["messages"], "tools": tools, "tool_choice": choice, "max_output_tokens": body["max_tokens"],
        "temperature": body["temperature"], "seed": body["seed"],
    })
}

#[test]
fn a_response_calls_as_the_chat_does() {
    let server = default_server();
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "add"}})] {
        let body = ask(json!({"tool_choice": choice}));
        let chat = server.post(CHAT, &body).ok();
        let called = &chat["choices"][0]["message"]["tool_calls"][0]["function"];
        let asked = as_response(&body);
        let answer = server.post("/v1/responses", &asked).ok();
        let output = answer["output"].as_array().expect("items");
        assert_eq!(output.len(), 1, "{answer}");
        assert_eq!((&output[0]["type"], &answer["status"]), (&json!("function_call"), &json!("completed")));
        assert_eq!((&output[0]["name"], &output[0]["arguments"]), (&called["name"], &called["arguments"]));
        assert!(output[0]["call_id"].as_str().is_some_and(|id| id.starts_with("call_")), "{answer}");
        assert_eq!((&answer["tools"], &answer["tool_choice"]), (&asked["tools"], &asked["tool_choice"]));
        assert_eq!(answer["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);

        let stream = server.post("/v1/responses", &with(asked, json!({"stream": true})));
        let events: Vec<Value> =
            stream.events().iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
        let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
        let deltas = of("response.function_call_arguments.delta");
        let joined: String = deltas.clone().filter_map(|event| event["delta"].as_str()).collect();
        assert_eq!(joined, called["arguments"].as_str().expect("text"));
        assert!(deltas.clone().count() > 2, "arguments come as they are drawn");
        let done = of("response.function_call_arguments.done").next().expect("an end");
        assert_eq!((&done["arguments"], &done["name"]), (&called["arguments"], &called["name"]));
        let item = &of("response.output_item.done").next().expect("an item")["item"];
        let last = &events.last().expect("events")["response"];
        assert_eq!((&last["output"][0], &last["status"]), (item, &json!("completed")));
        assert!(deltas.clone().all(|event| event["item_id"] == item["id"]));
    }
}

#[test]
fn results_come_back_into_a_response() {
    let server = default_server();
    let arguments = "{\"city\": \"Rome\", \"unit\": \"°C\"}";
    let question = json!({"role": "user", "content": "What is the weather in Rome?"});
    let messages = json!([
        question,
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 °C, sunny"},
    ]);
    let body = with(
        ask(json!({"messages": messages, "tool_choice": "auto"})),
        json!({"max_tokens": 12, "temperature": 0}),
    );
    let chat = server.post(CHAT, &body).ok();
    let items = json!([
        question,
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": arguments},
        {"type": "function_call_output", "call_id": "call_1", "output": "21 °C, sunny"},
    ]);
    let answer = server.post("/v1/responses", &with(as_response(&body), json!({"input": items}))).ok();
    assert_eq!(answer["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    assert_eq!(answer["output"][0]["content"][0]["text"], content(&chat));
    let wrong = json!({"input": "x", "tools": [{"type": "function", "name": "a b"}]});
    let refused = server.post("/v1/responses", &wrong);
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools[0].name")));
    let other = json!({"input": "x", "tools": [{"type": "web_search"}]});
    let refused = server.post("/v1/responses", &other);
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools[0].type")));
}

/// A forced call reads as the text that a model would have written.
#[test]
fn several_calls_where_they_are_allowed() {
    let body = ask(json!({"tool_choice": "required", "parallel_tool_calls": true, "max_tokens": 400}));
    let answer = default_server().post(CHAT, &body).ok();
    let finish = answer["choices"][0]["finish_reason"].as_str();
    assert!(matches!(finish, Some("tool_calls" | "length")), "{answer}");
    if finish == Some("tool_calls") {
        assert!(!calls(&answer["choices"][0]["message"]).is_empty());
    }
}

/// Every route that reads a chat spells an earlier call as the model does. The template knows that spelling, and writes a
/// token for it and for the description of a function.
#[test]
fn all_routes_spell_an_earlier_call_as_the_model_does() {
    let template = r#"{# ipython #}{% for m in messages %}{% if '{"name": "f", "parameters": {"a": 1}}' in m.content %}<|skip|>{% endif %}\
        {% endfor %}{% if tools %}<|open|><|open|>{% endif %}<|assistant|>"#;
    let server = chain_server("bare", template);
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    let messages = json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "user", "content": "q"},
    ]);
    let chat = json!({"messages": messages, "max_tokens": 1});
    let chat = server.post(CHAT, &chat).ok()["usage"]["prompt_tokens"].as_u64().expect("a count");
    let rendered = server.post("/apply-template", &json!({"messages": messages})).ok();
    assert_eq!(rendered["prompt"].as_str().map(|prompt| prompt.matches("<|skip|>").count()), Some(1));
    let count = |path: &str, body: Value, place: &str| {
        let answer = server.post(path, &body).ok();
        assert_eq!(answer.pointer(place), Some(&json!(chat)), "{path}: {answer}");
    };
    count("/tokenize", json!({"messages": messages}), "/count");
    count("/v1/score", json!({"messages": messages, "choices": ["<th"]}), "/usage/prompt_tokens");
    count("/v1/activations", json!({"messages": messages}), "/usage/prompt_tokens");
    count("/v1/responses", json!({"input": messages, "max_output_tokens": 1}), "/usage/input_tokens");
    // Functions are told where a chat would tell them.
    let told = json!({"messages": messages, "tools": tools()});
    let rendered = server.post("/apply-template", &told).ok();
    assert!(rendered["prompt"].as_str().is_some_and(|prompt| prompt.contains("<|open|>")), "{rendered}");
    assert_eq!(server.post("/tokenize", &told).ok()["count"], chat + 2);
    let silent = with(told, json!({"tool_choice": "none"}));
    assert_eq!(server.post("/tokenize", &silent).ok()["count"], chat);
}
