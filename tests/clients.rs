//! Dialects beside OpenAI's chats and completions, and what this server adds to them: llama.cpp's `/completion` and
//! `/props`, `/v1/responses`, `compare`, `return_progress`.

use crate::harness::{Response, chat, content, default_server, with};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const PROMPT: &str = "One, two, three,";

/// A short greedy body of `/completion`.
fn llama(more: Value) -> Value {
    with(json!({"prompt": PROMPT, "n_predict": 8, "temperature": 0}), more)
}

/// A short greedy body of `/v1/responses`.
fn response(more: Value) -> Value {
    with(json!({"input": "Name three colours.", "max_output_tokens": 12, "temperature": 0}), more)
}

/// The `data:` payloads of a stream as JSON.
fn events(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.headers["content-type"], "text/event-stream");
    response.events().iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

#[test]
fn llamas_completion_is_the_completion_under_other_names() {
    let server = default_server();
    let plain = server.post(COMPLETIONS, &json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0})).ok();
    let answer = server.post("/completion", &llama(json!({"n_probs": 2, "return_tokens": true}))).ok();
    assert_eq!(answer["content"], plain["choices"][0]["text"]);
    assert_eq!((&answer["stop"], &answer["stop_type"]), (&json!(true), &json!("limit")));
    assert_eq!(answer["tokens_predicted"], plain["usage"]["completion_tokens"]);
    assert_eq!(answer["tokens_evaluated"], plain["usage"]["prompt_tokens"]);
    assert_eq!(answer["prompt"], PROMPT);
    assert_eq!(answer["generation_settings"]["n_predict"], 8);
    assert_eq!(answer["demeanor"]["fingerprint"], answer["system_fingerprint"]);
    let tokens = answer["tokens"].as_array().expect("ids");
    let listed = answer["completion_probabilities"].as_array().expect("a list");
    assert_eq!(tokens.len(), listed.len());
    for (id, token) in tokens.iter().zip(listed) {
        assert_eq!(&token["id"], id);
        assert_eq!(token["top_logprobs"].as_array().map(Vec::len), Some(2));
        // Greedy: the drawn token is the most probable one.
        assert_eq!(token["top_logprobs"][0]["id"], *id);
    }
    let text = server.post("/detokenize", &json!({"tokens": tokens})).ok();
    assert_eq!(text["content"], answer["content"]);
}

#[test]
fn llamas_stream_ends_with_its_last_chunk() {
    let server = default_server();
    let plain = server.post("/v1/completion", &llama(json!({}))).ok();
    let stream = server.post("/completion", &llama(json!({"stream": true, "timings_per_token": true})));
    let chunks = events(&stream);
    let (last, before) = chunks.split_last().expect("chunks");
    assert!(before.iter().all(|chunk| chunk["stop"] == false && chunk["timings"]["predicted_n"].is_u64()));
    let text: String = chunks.iter().filter_map(|chunk| chunk["content"].as_str()).collect();
    assert_eq!(plain["content"], text);
    assert_eq!((&last["stop"], &last["content"]), (&json!(true), &json!("")));
    for field in ["stop_type", "tokens_predicted", "tokens_evaluated", "generation_settings"] {
        assert_eq!(
            with(last.clone(), json!({"generation_settings": null}))[field].is_null(),
            field == "generation_settings"
        );
    }
    assert_eq!(last["tokens_predicted"], plain["tokens_predicted"]);
}

#[test]
fn llamas_answers_say_what_ended_them() {
    let server = default_server();
    let whole = server.post("/completion", &llama(json!({}))).ok();
    let text = whole["content"].as_str().expect("a text");
    let stop = text.split_whitespace().nth(1).expect("two words");
    let cut = server.post("/completion", &llama(json!({"stop": ["\nnever", stop]}))).ok();
    assert_eq!((&cut["stop_type"], &cut["stopping_word"]), (&json!("word"), &json!(stop)));
    assert_eq!(cut["content"], text[..text.find(stop).expect("there")]);
    let turn = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.";
    let ended = server.post("/completion", &llama(json!({"prompt": turn, "n_predict": 64}))).ok();
    assert_eq!(ended["stop_type"], "eos", "{ended}");
    let several = server.post("/completion", &llama(json!({"prompt": [PROMPT, "Red, green,"]}))).ok();
    let several = several.as_array().expect("one answer for each prompt");
    assert_eq!((several.len(), &several[0]["content"]), (2, &whole["content"]));
    assert_eq!(several[1]["index"], 1);
}

#[test]
fn props_say_what_front_ends_look_up() {
    let server = default_server();
    let props = server.get("/props").ok();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
    assert_eq!(props["total_slots"], 16);
    assert_eq!(props["chat_template"], server.get("/tokenizer_info").ok()["chat_template"]);
    assert!(props["default_generation_settings"]["params"]["temperature"].is_number());
    // Nothing of the file system is told.
    assert!(!props["model_path"].as_str().expect("a name").contains('/'));
}

#[test]
fn a_twin_is_the_plain_answer_to_the_same_seed() {
    let server = default_server();
    let ask =
        |more: Value| server.post(CHAT, &chat(with(json!({"temperature": 1, "seed": 5, "n": 2}), more)));
    let texts = |answer: &Value| -> Vec<Value> {
        let choices = answer["choices"].as_array().expect("choices");
        choices.iter().map(|choice| choice["message"]["content"].clone()).collect()
    };
    let steered = json!({"steering": "2.5 warm"});
    let both = ask(with(steered.clone(), json!({"compare": true}))).ok();
    let marks: Vec<&Value> =
        both["choices"].as_array().expect("choices").iter().map(|choice| &choice["twin_of"]).collect();
    assert_eq!(json!(marks), json!([null, null, 0, 1]));
    let (plain, alone) = (ask(json!({})).ok(), ask(steered.clone()).ok());
    assert_eq!(texts(&both)[..2], texts(&alone)[..]);
    assert_eq!(texts(&both)[2..], texts(&plain)[..]);
    assert_ne!(texts(&alone), texts(&plain));
    assert_eq!(both["demeanor"]["compare"]["choices"], 2);
    assert_eq!(both["demeanor"]["compare"]["fingerprint"], plain["demeanor"]["fingerprint"]);
    let mut streamed = vec![String::new(); 4];
    for chunk in ask(with(steered, json!({"compare": true, "stream": true}))).chunks() {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().expect("an index") as usize;
        assert_eq!(choice["twin_of"].as_u64(), (index > 1).then(|| index as u64 - 2));
        streamed[index] += choice["delta"]["content"].as_str().unwrap_or_default();
    }
    assert_eq!(json!(streamed), json!(texts(&both)));
}

#[test]
fn completions_have_twins_prompt_by_prompt() {
    let server = default_server();
    let body = json!({"prompt": [PROMPT, "Red, green,"], "max_tokens": 6, "temperature": 0});
    let texts = |answer: Value| -> Vec<Value> {
        answer["choices"].as_array().expect("choices").iter().map(|choice| choice["text"].clone()).collect()
    };
    let plain = texts(server.post(COMPLETIONS, &body).ok());
    let steered = with(body, json!({"steering": "2.5 warm"}));
    let alone = texts(server.post(COMPLETIONS, &steered).ok());
    let both = texts(server.post(COMPLETIONS, &with(steered, json!({"compare": true}))).ok());
    assert_eq!(both, [&alone[0], &plain[0], &alone[1], &plain[1]].map(Value::clone));
}

#[test]
fn a_comparison_of_nothing_is_said() {
    let answer = default_server().post(CHAT, &chat(json!({"compare": true}))).ok();
    assert!(answer["demeanor"]["warnings"].to_string().contains("compare"), "{answer}");
    assert_eq!(content(&answer), answer["choices"][1]["message"]["content"]);
    let answer = default_server().post(CHAT, &chat(json!({}))).ok();
    assert!(answer["demeanor"].get("compare").is_none() && answer["choices"][0].get("twin_of").is_none());
}

#[test]
fn a_long_prompt_tells_how_far_it_is() {
    let server = default_server();
    let text = "The lighthouse stands on a rock. ".repeat(250);
    let more = json!({"stream": true, "return_progress": true, "cache_prompt": false});
    let chat = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 2});
    let completion = json!({"prompt": text, "max_tokens": 2});
    for (path, body) in [(CHAT, &chat), (COMPLETIONS, &completion), ("/completion", &completion)] {
        let stream = server.post(path, &with(body.clone(), more.clone()));
        let payloads = stream.events();
        let chunks: Vec<Value> = payloads.iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
        let told: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["prompt_progress"]).filter(|one| one.is_object()).collect();
        let number = |one: &Value, field: &str| one[field].as_u64().expect("a number");
        assert!(told.len() > 1, "{path}: {} parts", told.len());
        for pair in told.windows(2) {
            assert!(number(pair[0], "processed") < number(pair[1], "processed"), "{path}: {pair:?}");
            assert!(number(pair[0], "time_ms") <= number(pair[1], "time_ms"), "{path}: {pair:?}");
        }
        let last = told.last().expect("parts");
        assert_eq!(number(last, "processed"), number(last, "total"), "{path}");
        // Those that did not ask are not told.
        let quiet = server.post(path, &with(body.clone(), json!({"stream": true})));
        assert!(!quiet.text().contains("prompt_progress"), "{path}");
    }
}

#[test]
fn a_response_says_what_the_chat_says() {
    let server = default_server();
    let plain = server.post(CHAT, &chat(json!({}))).ok();
    let answer = server.post(RESPONSES, &response(json!({"metadata": {"a": "b"}}))).ok();
    let item = &answer["output"][0];
    assert_eq!((&answer["object"], &item["type"]), (&json!("response"), &json!("message")));
    let part = &item["content"][0];
    assert_eq!((&part["type"], &part["text"]), (&json!("output_text"), &json!(content(&plain))));
    let length = plain["choices"][0]["finish_reason"] == "length";
    assert_eq!(answer["status"], if length { "incomplete" } else { "completed" });
    assert_eq!(answer["incomplete_details"].is_null(), !length);
    assert_eq!(answer["usage"]["input_tokens"], plain["usage"]["prompt_tokens"]);
    assert_eq!(answer["usage"]["output_tokens"], plain["usage"]["completion_tokens"]);
    assert_eq!((&answer["metadata"], &answer["store"]), (&json!({"a": "b"}), &json!(false)));
    assert_eq!(answer["demeanor"]["fingerprint"], plain["demeanor"]["fingerprint"]);
    let told = json!({"instructions": "Be brief.", "input": [{"role": "user", "content": "hi"}]});
    let told = server.post("/responses", &response(told)).ok();
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]);
    let wanted = server.post(CHAT, &chat(json!({"messages": messages}))).ok();
    assert_eq!(told["output"][0]["content"][0]["text"], content(&wanted));
    assert_eq!(told["instructions"], "Be brief.");
}

#[test]
fn a_response_streams_typed_events() {
    let server = default_server();
    let more = json!({"stream": true, "top_logprobs": 2, "steering": "0 warm"});
    let stream = server.post(RESPONSES, &response(more));
    let events = events(&stream);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    let names: Vec<String> =
        stream.text().lines().filter_map(|line| line.strip_prefix("event: ").map(str::to_owned)).collect();
    assert_eq!(kinds, names);
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let plain = server.post(RESPONSES, &response(json!({}))).ok();
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    let text: String = deltas.clone().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(plain["output"][0]["content"][0]["text"], text);
    assert!(
        deltas
            .clone()
            .all(|event| event["logprobs"][0]["top_logprobs"].as_array().is_some_and(|top| top.len() == 2))
    );
    let last = events.last().expect("events");
    assert_eq!(last["type"], format!("response.{}", plain["status"].as_str().expect("a status")));
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], text);
    // Which tokens were cached depends on who asked first.
    for field in ["input_tokens", "output_tokens", "total_tokens"] {
        assert_eq!(last["response"]["usage"][field], plain["usage"][field], "{field}");
    }
    let ids: Vec<&Value> = events.iter().filter_map(|event| event.get("item_id")).collect();
    assert!(ids.iter().all(|id| **id == last["response"]["output"][0]["id"]));
}

/// Log-probabilities of tokens that show no text come in deltas too: all deltas together have what the end has.
#[test]
fn a_response_streams_log_probabilities_of_tokens_without_text() {
    let server = default_server();
    // A control token that ends nothing.
    let ids = server.post("/tokenize", &json!({"content": "<repo_name>"})).ok()["tokens"].clone();
    assert_eq!(ids.as_array().map(Vec::len), Some(1));
    let more = json!({
        "stream": true, "top_logprobs": 1, "max_output_tokens": 3, "logit_bias": {ids[0].to_string(): 100},
    });
    let events = events(&server.post(RESPONSES, &response(more)));
    let of = |kind: &str| -> Vec<Value> {
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        of_kind.flat_map(|event| event["logprobs"].as_array().expect("a list").clone()).collect()
    };
    let told = of("response.output_text.done");
    assert_eq!(told.len(), 3);
    assert_eq!(of("response.output_text.delta"), told);
}

#[test]
fn who_asks_is_taken_from_the_trusted_header_alone() {
    use crate::harness::{Setup, TestModel, start};
    use demeanor::config::Settings;
    let settings =
        Settings { user_header: Some("x-user".into()), ..Setup::new(TestModel::SmolLm2).settings() };
    let server = start(&settings);
    server.post("/v1/users", &json!({"id": "clients-header"})).created();
    let item = json!({"items": [{"text": "I keep bees."}]});
    server.post("/v1/users/clients-header/history", &item).ok();
    let ask = |header: Option<&str>, more: Value| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.map(|value| ("x-user", value)));
        let answer = server.send("POST", CHAT, &headers, chat(more).to_string().as_bytes()).ok();
        // Whether the user was known to the answer: its soft prompt, or why it is not ready.
        !answer["demeanor"]["soft_prompt"].is_null() || answer["demeanor"]["warnings"] != json!([])
    };
    assert!(ask(Some("clients-header"), json!({})));
    assert!(ask(Some("clients-header"), json!({"user": "nobody"})));
    assert!(!ask(None, json!({"user": "clients-header"})));
    assert!(!ask(None, json!({"safety_identifier": "clients-header"})));
    server.delete("/v1/users/clients-header").ok();
}
