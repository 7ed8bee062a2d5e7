//! Calls of functions in one choice of a chat, as OpenAI has them.

use super::choice::Finish;
use crate::text::{CallReader, Told};
use serde_json::{Value, json};
use std::sync::Arc;

/// What more text of an answer says and calls; without a reader all of it is said.
pub fn told(reader: &mut Option<CallReader>, text: String, is_last: bool) -> Vec<Told> {
    let Some(reader) = reader else { return vec![Told::Content(text)] };
    let mut told = reader.push(&text);
    if is_last {
        told.extend(reader.finish());
    }
    told
}

/// What a choice says, told apart: content and calls.
pub struct Calls {
    /// `None`: nothing can be called, all text is content.
    reader: Option<CallReader>,
    /// The calls so far, complete objects of a message's `tool_calls`.
    made: Vec<Value>,
    content: String,
}

impl Calls {
    /// `names`: the functions that may be called.
    pub fn new(names: Option<&Arc<[String]>>) -> Calls {
        Calls {
            reader: names.map(|names| CallReader::new(names.clone())),
            made: Vec::new(),
            content: String::new(),
        }
    }

    /// What more text adds to the message, as deltas of a stream. With the last text comes why the choice ended; where a
    /// call was made, that is said instead.
    pub fn take(&mut self, text: String, finish: &mut Option<Finish>) -> Vec<Value> {
        let told = told(&mut self.reader, text, finish.is_some());
        let deltas = told.into_iter().filter_map(|one| self.delta(one)).collect();
        if *finish == Some(Finish::Stop) && !self.made.is_empty() {
            *finish = Some(Finish::ToolCalls);
        }
        deltas
    }

    fn delta(&mut self, told: Told) -> Option<Value> {
        match told {
            Told::Content(text) if text.is_empty() => None,
            Told::Content(text) => {
                self.content += &text;
                Some(json!({"content": text}))
            }
            Told::Call { index, name } => {
                let id = format!("call_{:016x}", crate::server::random_u64());
                let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": ""}});
                let mut delta = call.clone();
                delta["index"] = index.into();
                self.made.push(call);
                Some(json!({"tool_calls": [delta]}))
            }
            Told::Arguments { index, text } => {
                let call = self.made.get_mut(index as usize);
                if let Some(Value::String(arguments)) = call.map(|call| &mut call["function"]["arguments"]) {
                    arguments.push_str(&text);
                }
                Some(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}))
            }
        }
    }

    /// The message that all pieces make.
    pub fn message(self) -> Value {
        if self.made.is_empty() {
            return json!({"role": "assistant", "content": self.content, "refusal": null});
        }
        let content = (!self.content.is_empty()).then_some(self.content);
        json!({"role": "assistant", "content": content, "refusal": null, "tool_calls": self.made})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_in_pieces() {
        let names: Arc<[String]> = Arc::from(["f".to_owned()]);
        let mut calls = Calls::new(Some(&names));
        let mut deltas = Vec::new();
        for text in ["Well. <tool", "_call>{\"name\": \"f\", \"arguments\": {\"a\"", ": 1}}</tool_call>"] {
            deltas.extend(calls.take(text.to_owned(), &mut None));
        }
        let mut finish = Some(Finish::Stop);
        deltas.extend(calls.take(String::new(), &mut finish));
        assert_eq!(finish, Some(Finish::ToolCalls));
        let kinds: Vec<String> = deltas
            .iter()
            .map(|delta| match delta["tool_calls"][0].get("id") {
                Some(_) => delta["tool_calls"][0]["function"]["name"].to_string(),
                None => delta["content"]
                    .as_str()
                    .map(str::to_owned)
                    .unwrap_or_else(|| delta["tool_calls"][0]["function"]["arguments"].to_string()),
            })
            .collect();
        assert_eq!(kinds, ["Well.", "\"f\"", "\"{\\\"a\\\"\"", "\": 1}\""]);
        let message = calls.message();
        assert_eq!(message["content"], "Well.");
        assert_eq!(message["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{\"a\": 1}"}));
    }

    #[test]
    fn without_functions_text_is_content() {
        let mut calls = Calls::new(None);
        let text = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
        let mut finish = Some(Finish::Stop);
        assert_eq!(calls.take(text.to_owned(), &mut finish), [json!({"content": text})]);
        assert_eq!(finish, Some(Finish::Stop));
        assert_eq!(calls.message()["content"], text);
    }
}
