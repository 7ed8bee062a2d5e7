//! Thinking is told apart from the answer, over HTTP: whole, in streams, in counts.
//!
//! The model is a small file whose weights say one thing only: which token follows which.

use crate::harness::{Server, Setup, TestModel, folder, start, with};
use demeanor::weights::GgufWriter;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// Tokens in the order in which they follow one another; `|` tokens are control tokens. The template writes the first,
/// the one before the thought, or the one before the answer last.
const TOKENS: [&str; 12] = [
    "<|assistant|>",
    "<th",
    "ink>",
    "Ċplan",
    "Ġit",
    "Ċ</",
    "think>",
    "ĊĊYes",
    "!",
    "<|end|>",
    "<|open|>",
    "<|skip|>",
];
const WIDTH: usize = 64;
const ROWS: usize = 32;

/// Bytes by themselves have no token, so only control tokens are left of a prompt.
pub const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content }}{{ m.reasoning_content }}\
<|end|>{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\
{% if mode == 'open' %}<|open|><think>\n{% elif mode == 'skip' %}<|skip|><think>\n\n</think>\n\n{% endif %}{% endif %}";

fn next(token: usize) -> usize {
    let place = |text: &str| TOKENS.iter().position(|token| *token == text).expect("a token");
    match TOKENS.get(token) {
        Some(&"<|open|>") => place("Ċplan"),
        Some(&"<|skip|>") => place("ĊĊYes"),
        Some(&"<|end|>") | None => place("<|end|>"),
        Some(_) => token + 1,
    }
}

/// A model of these weights whose chats are written by `template`.
pub fn chain_model(template: &str) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", "llama").string("general.name", "chain");
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 512),
        ("embedding_length", WIDTH as u32),
        ("feed_forward_length", WIDTH as u32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 32),
    ] {
        writer.u32(&format!("llama.{key}"), value);
    }
    writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-5).f32("llama.rope.freq_base", 10_000.0);
    let padded = (TOKENS.len()..ROWS).map(|id| format!("[PAD{id}]"));
    let tokens: Vec<String> = TOKENS.iter().map(|token| token.to_string()).chain(padded).collect();
    let kinds: Vec<i32> = tokens.iter().map(|token| if token.starts_with("<|") { 3 } else { 1 }).collect();
    writer.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "gpt-2");
    writer.string_array("tokenizer.ggml.tokens", &tokens).i32_array("tokenizer.ggml.token_type", &kinds);
    writer.string_array::<&str>("tokenizer.ggml.merges", &[]);
    writer.u32("tokenizer.ggml.eos_token_id", 9).string("tokenizer.chat_template", template);
    let (mut embedding, mut head) = (vec![0.0; ROWS * WIDTH], vec![0.0; ROWS * WIDTH]);
    for token in 0..ROWS {
        embedding[token * WIDTH + token] = 1.0;
        head[next(token) * WIDTH + token] = 4.0;
    }
    writer.tensor_f32("token_embd.weight", &[ROWS, WIDTH], &embedding);
    writer.tensor_f32("output.weight", &[ROWS, WIDTH], &head);
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        writer.tensor_f32(&format!("{name}.weight"), &[WIDTH], &[1.0; WIDTH]);
    }
    let zeros = vec![0.0; WIDTH * WIDTH];
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        writer.tensor_f32(&format!("blk.0.{name}.weight"), &[WIDTH, WIDTH], &zeros);
    }
    writer.to_bytes().expect("it is written")
}

fn chain() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| chain_server("chain", TEMPLATE))
}

/// A server of [`chain_model`].
pub fn chain_server(name: &str, template: &str) -> Server {
    let path = folder("thinking").join(format!("{name}.gguf"));
    std::fs::write(&path, chain_model(template)).expect("the file is written");
    let mut settings = Setup::exact(TestModel::SmolLm2).settings();
    settings.model = path.display().to_string();
    settings.context = Some(256);
    settings.kv_bytes = 8 << 20;
    start(&settings)
}

fn body(more: Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": "q"}], "temperature": 0}), more)
}

fn mode(mode: &str) -> Value {
    json!({"chat_template_kwargs": {"mode": mode}})
}

#[test]
fn an_answer_is_split() {
    // Fields, reasoning, content, reasoning tokens, all tokens, finish.
    let cases = [
        (json!({}), Some("plan it"), "Yes!", 6, 9, "stop"),
        (mode("open"), Some("plan it"), "Yes!", 4, 7, "stop"),
        // Nothing was thought here: the text is left as it comes.
        (mode("skip"), None, "\n\nYes!", 0, 3, "stop"),
        (json!({"max_tokens": 4}), Some("plan it"), "", 4, 4, "length"),
        (json!({"max_tokens": 5}), Some("plan it\n</"), "", 5, 5, "length"),
        (json!({"max_tokens": 2}), None, "", 2, 2, "length"),
        (json!({"reasoning_format": "none"}), None, "<think>\nplan it\n</think>\n\nYes!", 0, 9, "stop"),
        (json!({"stop": ["it"]}), Some("plan"), "", 4, 4, "stop"),
    ];
    for (fields, reasoning, content, thought, all, finish) in cases {
        let answer = chain().post("/v1/chat/completions", &body(fields.clone())).ok();
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], content, "{fields}");
        assert_eq!(message.get("reasoning_content").and_then(Value::as_str), reasoning, "{fields}");
        assert_eq!(answer["choices"][0]["finish_reason"], finish, "{fields}");
        assert_eq!(answer["usage"]["completion_tokens"], all, "{fields}");
        assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], thought, "{fields}");

        let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
        let chunks = chain().post("/v1/chat/completions", &body(with(fields.clone(), stream))).chunks();
        let joined = |name: &str| -> String {
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect()
        };
        assert_eq!(joined("content"), content, "{fields}");
        assert_eq!(joined("reasoning_content"), reasoning.unwrap_or_default(), "{fields}");
        let usage = &chunks.last().expect("chunks")["usage"];
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], thought, "{fields}");
    }
}

#[test]
fn streams_think_before_they_say() {
    let chunks =
        chain().post("/v1/chat/completions", &body(json!({"stream": true, "logprobs": true}))).chunks();
    let deltas: Vec<(&str, &str)> = chunks
        .iter()
        .filter_map(|chunk| {
            let delta = &chunk["choices"][0]["delta"];
            let of = |name| delta[name].as_str().filter(|text| !text.is_empty());
            of("reasoning_content").map(|text| ("r", text)).or(of("content").map(|text| ("c", text)))
        })
        .collect();
    assert_eq!(deltas, [("r", "plan"), ("r", " it"), ("c", "Yes"), ("c", "!")]);
    // Each token but the last has its log-probabilities once, wherever its text went.
    let listed = |chunk: &Value| chunk["choices"][0]["logprobs"]["content"].as_array().map_or(0, Vec::len);
    assert_eq!(chunks.iter().map(listed).sum::<usize>(), 8);
}

#[test]
fn the_format_is_checked() {
    let answer = chain().post("/v1/chat/completions", &body(json!({"reasoning_format": "wild"})));
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "reasoning_format");
    assert_eq!(
        error["message"],
        "`reasoning_format`: `wild` is not known; allowed are auto, deepseek and none"
    );
    let answer = chain().post("/v1/chat/completions", &body(json!({"documents": ["x"]})));
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("documents[0]")));
    let answer = chain().post("/v1/chat/completions", &body(json!({"documents": [{"title": "x"}]}))).ok();
    assert!(answer["demeanor"]["warnings"].to_string().contains("`documents` are ignored"), "{answer}");
}

/// What was thought earlier reaches the template, the client's words stay words.
#[test]
fn earlier_thoughts_reach_the_template() {
    let messages = json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "said", "reasoning_content": "thought<|end|>"},
        {"role": "user", "content": "r"},
    ]);
    let answer = chain().post("/apply-template", &json!({"messages": messages})).ok();
    let prompt = answer["prompt"].as_str().expect("a prompt");
    assert!(prompt.contains("<|assistant|>saidthought<|end|><|end|>"), "{prompt}");
    let answer = chain().post("/tokenize", &json!({"messages": messages})).ok();
    // assistant, end, assistant: the one in the thought is text, of which no byte has a token.
    assert_eq!(answer["tokens"], json!([0, 9, 0]));
}

/// A response has an item for what was thought, before the one for what was said.
#[test]
fn a_response_thinks_in_an_item_of_its_own() {
    let respond =
        |more: Value| chain().post("/v1/responses", &with(json!({"input": "q", "temperature": 0}), more));
    let texts = |output: &Value| -> Vec<(String, String)> {
        let text = |item: &Value| {
            let kind = item["type"].as_str().expect("a type");
            (kind.to_owned(), item["content"][0]["text"].as_str().expect("text").to_owned())
        };
        output.as_array().expect("items").iter().map(text).collect()
    };
    let pair = |kind: &str, text: &str| (kind.to_owned(), text.to_owned());
    for (fields, wanted, thought) in [
        (json!({}), vec![pair("reasoning", "plan it"), pair("message", "Yes!")], 6),
        (mode("skip"), vec![pair("message", "\n\nYes!")], 0),
        (json!({"max_output_tokens": 4}), vec![pair("reasoning", "plan it"), pair("message", "")], 4),
        (json!({"reasoning_format": "none"}), vec![pair("message", "<think>\nplan it\n</think>\n\nYes!")], 0),
    ] {
        let answer = respond(fields.clone()).ok();
        assert_eq!(texts(&answer["output"]), wanted, "{fields}");
        assert_eq!(answer["usage"]["output_tokens_details"]["reasoning_tokens"], thought, "{fields}");

        let stream = respond(with(fields.clone(), json!({"stream": true, "top_logprobs": 1})));
        let events: Vec<Value> =
            stream.events().iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
        let joined = |kind: &str| -> String {
            events
                .iter()
                .filter(|event| event["type"] == kind)
                .filter_map(|event| event["delta"].as_str())
                .collect()
        };
        let of = |kind: &str| wanted.iter().find(|(item, _)| item == kind).map_or("", |(_, text)| text);
        assert_eq!(joined("response.reasoning_text.delta"), of("reasoning"), "{fields}");
        assert_eq!(joined("response.output_text.delta"), of("message"), "{fields}");
        let last = &events.last().expect("events")["response"];
        assert_eq!(texts(&last["output"]), wanted, "{fields}");
        // Tokens of the thinking are none of the message.
        let message = last["output"].as_array().and_then(|items| items.last()).expect("a message");
        let listed: String = (message["content"][0]["logprobs"].as_array().expect("a list").iter())
            .filter_map(|one| one["token"].as_str())
            .collect();
        let thinks = ["plan", "think"].iter().any(|word| listed.contains(word));
        assert!(!thinks || of("reasoning").is_empty(), "{fields}: {listed}");
    }
    // What was thought goes back with what was said, as in a chat.
    let answer = respond(json!({})).ok();
    let mut input = vec![json!({"role": "user", "content": "q"})];
    input.extend(answer["output"].as_array().expect("items").iter().cloned());
    input.push(json!({"role": "user", "content": "r"}));
    let next = respond(json!({"input": input})).ok();
    let messages = json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "Yes!", "reasoning_content": "plan it"},
        {"role": "user", "content": "r"},
    ]);
    let chat = chain().post("/v1/chat/completions", &body(json!({"messages": messages}))).ok();
    assert_eq!(next["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
}
