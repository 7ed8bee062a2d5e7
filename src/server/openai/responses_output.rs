//! The items of a response as they grow (what is thought, said and called) with the events that tell of their growth.

use crate::server::random_u64;
use serde_json::{Value, json};

/// Type of an event and its fields.
pub type Event = (&'static str, Value);

/// The items so far; the last one grows until another begins.
pub struct Output {
    /// What ids of items have in common.
    id: String,
    items: Vec<Item>,
    /// Whether the last item may still grow.
    is_open: bool,
}

enum Item {
    Reasoning { text: String },
    Message { text: String, logprobs: Vec<Value> },
    Call { call_id: String, name: String, arguments: String },
}

impl Output {
    /// `id` is that of the response, without what its kind of ids begins with.
    pub fn new(id: &str) -> Output {
        Output { id: id.to_owned(), items: Vec::new(), is_open: false }
    }

    /// Whether a function is called.
    pub fn has_calls(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Call { .. }))
    }

    pub fn think(&mut self, more: &str, events: &mut Vec<Event>) {
        if !matches!(self.growing(), Some(Item::Reasoning { .. })) {
            self.begin(Item::Reasoning { text: String::new() }, events);
        }
        if let Some(Item::Reasoning { text }) = self.growing() {
            text.push_str(more);
        }
        events.push(("response.reasoning_text.delta", self.inside(json!({"delta": more}))));
    }

    /// `more` may be empty: then a message is begun. Log-probabilities of tokens without text come in a delta too.
    pub fn say(&mut self, more: &str, more_logprobs: Vec<Value>, events: &mut Vec<Event>) {
        if !matches!(self.growing(), Some(Item::Message { .. })) {
            self.begin(Item::Message { text: String::new(), logprobs: Vec::new() }, events);
        }
        if !more.is_empty() || !more_logprobs.is_empty() {
            let fields = json!({"delta": more, "logprobs": more_logprobs});
            events.push(("response.output_text.delta", self.inside(fields)));
        }
        if let Some(Item::Message { text, logprobs }) = self.growing() {
            text.push_str(more);
            logprobs.extend(more_logprobs);
        }
    }

    pub fn call(&mut self, name: String, events: &mut Vec<Event>) {
        let call_id = format!("call_{:016x}", random_u64());
        self.begin(Item::Call { call_id, name, arguments: String::new() }, events);
    }

    /// More of the arguments of the call that was begun last.
    pub fn argue(&mut self, more: &str, events: &mut Vec<Event>) {
        if let Some(Item::Call { arguments, .. }) = self.growing() {
            arguments.push_str(more);
            events.push(("response.function_call_arguments.delta", self.placed(json!({"delta": more}))));
        }
    }

    /// Ends the last item; an answer of nothing is an empty message.
    pub fn end(&mut self, status: &str, events: &mut Vec<Event>) {
        if !self.items.iter().any(|item| matches!(item, Item::Message { .. } | Item::Call { .. })) {
            self.say("", Vec::new(), events);
        }
        self.close(status, events);
    }

    /// All items; `status` is that of the last.
    pub fn items(&self, status: &str) -> Vec<Value> {
        let last = self.items.len().saturating_sub(1);
        let status = |index| if index == last { status } else { "completed" };
        (0..self.items.len()).map(|index| self.shown(index, status(index))).collect()
    }

    fn growing(&mut self) -> Option<&mut Item> {
        if self.is_open { self.items.last_mut() } else { None }
    }

    fn begin(&mut self, item: Item, events: &mut Vec<Event>) {
        self.close("completed", events);
        let part = item.part();
        self.items.push(item);
        self.is_open = true;
        let index = self.items.len().saturating_sub(1);
        let mut shown = self.shown(index, "in_progress");
        if part.is_some() {
            shown["content"] = json!([]);
        }
        events.push(("response.output_item.added", json!({"output_index": index, "item": shown})));
        if let Some(part) = part {
            events.push(("response.content_part.added", self.inside(json!({"part": part}))));
        }
    }

    fn close(&mut self, status: &str, events: &mut Vec<Event>) {
        let Some(item) = self.growing() else { return };
        let part = item.part();
        let (kind, fields) = match item {
            Item::Reasoning { text } => ("response.reasoning_text.done", json!({"text": text})),
            Item::Message { text, logprobs } => {
                ("response.output_text.done", json!({"text": text, "logprobs": logprobs}))
            }
            Item::Call { name, arguments, .. } => {
                ("response.function_call_arguments.done", json!({"name": name, "arguments": arguments}))
            }
        };
        match part {
            Some(part) => {
                events.push((kind, self.inside(fields)));
                events.push(("response.content_part.done", self.inside(json!({"part": part}))));
            }
            None => events.push((kind, self.placed(fields))),
        }
        let index = self.items.len().saturating_sub(1);
        let item = self.shown(index, status);
        events.push(("response.output_item.done", json!({"output_index": index, "item": item})));
        self.is_open = false;
    }

    /// Fields of an event about the last item.
    fn placed(&self, fields: Value) -> Value {
        let index = self.items.len().saturating_sub(1);
        joined(json!({"item_id": self.item_id(index), "output_index": index}), fields)
    }

    /// The same inside its one content part.
    fn inside(&self, fields: Value) -> Value {
        self.placed(joined(json!({"content_index": 0}), fields))
    }

    fn item_id(&self, index: usize) -> String {
        let kind = match self.items.get(index) {
            Some(Item::Reasoning { .. }) => "rs",
            Some(Item::Call { .. }) => "fc",
            _ => "msg",
        };
        match index {
            0 => format!("{kind}_{}", self.id),
            _ => format!("{kind}_{}_{index}", self.id),
        }
    }

    fn shown(&self, index: usize, status: &str) -> Value {
        let Some(item) = self.items.get(index) else { return Value::Null };
        let id = self.item_id(index);
        match item {
            Item::Reasoning { .. } => {
                let content: Vec<Value> = item.part().into_iter().collect();
                json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
            }
            Item::Message { .. } => {
                let content: Vec<Value> = item.part().into_iter().collect();
                json!({
                    "id": id, "type": "message", "status": status, "role": "assistant", "content": content,
                })
            }
            Item::Call { call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": arguments,
            }),
        }
    }
}

/// One object with the fields of both.
fn joined(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        first.extend(second);
    }
    first
}

impl Item {
    /// The one content part, of items that have content.
    fn part(&self) -> Option<Value> {
        match self {
            Item::Reasoning { text } => Some(json!({"type": "reasoning_text", "text": text})),
            Item::Message { text, logprobs } => {
                Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}))
            }
            Item::Call { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds of events, without what they all begin with, and the index of their item.
    fn kinds(events: &[Event]) -> Vec<String> {
        let short = |kind: &str| kind.trim_start_matches("response.").to_owned();
        events.iter().map(|(kind, fields)| format!("{} {}", short(kind), fields["output_index"])).collect()
    }

    #[test]
    fn items_begin_grow_and_end_one_after_another() {
        let mut output = Output::new("7");
        let mut events = Vec::new();
        output.think("Let me ", &mut events);
        output.think("see.", &mut events);
        output.say("I ask.", vec![json!(1)], &mut events);
        output.call("f".into(), &mut events);
        output.argue("{\"a\":", &mut events);
        output.argue("1}", &mut events);
        output.end("completed", &mut events);
        assert_eq!(
            kinds(&events),
            [
                "output_item.added 0",
                "content_part.added 0",
                "reasoning_text.delta 0",
                "reasoning_text.delta 0",
                "reasoning_text.done 0",
                "content_part.done 0",
                "output_item.done 0",
                "output_item.added 1",
                "content_part.added 1",
                "output_text.delta 1",
                "output_text.done 1",
                "content_part.done 1",
                "output_item.done 1",
                "output_item.added 2",
                "function_call_arguments.delta 2",
                "function_call_arguments.delta 2",
                "function_call_arguments.done 2",
                "output_item.done 2",
            ]
        );
        let items = output.items("completed");
        assert_eq!(items[0]["content"], json!([{"type": "reasoning_text", "text": "Let me see."}]));
        assert_eq!(items[1]["content"][0]["text"], "I ask.");
        assert_eq!((&items[2]["name"], &items[2]["arguments"]), (&json!("f"), &json!("{\"a\":1}")));
        let ids: Vec<&Value> = items.iter().map(|item| &item["id"]).collect();
        assert_eq!(ids, ["rs_7", "msg_7_1", "fc_7_2"]);
        assert!(output.has_calls());
        // What an event says of a finished item is what the response says of it.
        let done = events.iter().filter(|(kind, _)| *kind == "response.output_item.done");
        assert_eq!(done.map(|(_, fields)| fields["item"].clone()).collect::<Vec<_>>(), items);
        let added = &events[0].1["item"];
        assert_eq!((&added["status"], &added["content"]), (&json!("in_progress"), &json!([])));
    }

    #[test]
    fn an_answer_of_nothing_is_an_empty_message() {
        let mut output = Output::new("7");
        output.think("Hm.", &mut Vec::new());
        output.end("incomplete", &mut Vec::new());
        let items = output.items("incomplete");
        assert_eq!((&items[0]["status"], &items[1]["status"]), (&json!("completed"), &json!("incomplete")));
        assert_eq!((&items[1]["type"], &items[1]["content"][0]["text"]), (&json!("message"), &json!("")));
    }
}
