//! Objects and texts that stand inside fields, by name: a field's type names one of them by a word with a capital.

use super::fields::{Field, may, must};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub enum Component {
    /// A text of this pattern.
    Text(&'static str),
    /// One of these types.
    Kind(&'static str),
    /// A value that means *off* where something else is expected.
    Off,
    /// In a body: `null` stands for a field that is left out, and fields that are not listed are ignored.
    Given(&'static [Field]),
    /// The same, but fields that are not listed are refused.
    Closed(&'static [Field]),
    /// In an answer.
    Told(&'static [Field]),
}

use Component::{Closed, Given, Kind, Off, Text, Told};

pub const COMPONENTS: &[(&str, Component)] = &[
    ("Name", Text("^[a-z0-9][a-z0-9._-]{0,63}$")),
    ("Off", Off),
    ("UserId", Text("^[A-Za-z0-9][A-Za-z0-9._@:|+-]{0,127}$")),
    (
        "Message",
        Given(&[
            must("role", "'system'|'developer'|'user'|'assistant'|'tool'", ""),
            may("content", "string|[Piece]", "Needed but where an assistant only calls"),
            may("name", "string", ""),
            may("reasoning_content", "string", "What an assistant thought"),
            may("tool_calls", "[Call]", "Functions that an assistant called"),
        ]),
    ),
    ("Piece", Kind("string|Part")),
    (
        "Part",
        Given(&[
            must("type", "'text'|'input_text'|'output_text'", "Only text is taken"),
            must("text", "string", ""),
        ]),
    ),
    ("Call", Given(&[must("function", "CalledFunction", "")])),
    (
        "CalledFunction",
        Given(&[must("name", "string", ""), may("arguments", "any", "An object, or its JSON as a text")]),
    ),
    ("Tool", Given(&[must("type", "'function'", ""), must("function", "Function", "")])),
    (
        "Function",
        Given(&[
            must("name", "FunctionName", ""),
            may("description", "string", ""),
            may("parameters", "object", "JSON schema of the arguments"),
        ]),
    ),
    ("FunctionName", Text("^[a-zA-Z0-9_.-]{1,64}$")),
    (
        "Intervention",
        Closed(&[
            may("vector", "Name", "A stored vector or a pole of a trait"),
            may("directions", "object", "Or directions by block"),
            may("heads", "object", "Or directions of heads' outputs by `block.head`"),
            may("coefficient", "number", "Default 1"),
            may("unit", "'calibrated'|'dose'|'raw'", "Default calibrated"),
            may("operation", "'add'", ""),
            may("blocks", "[integer(0..)]", "Default: all that the vector has"),
            may("positions", "string", "Default all"),
        ]),
    ),
    (
        "HistoryItem",
        Closed(&[
            must("text", "string(1..)", "What was said, written, read or done"),
            may("input", "string", "What it answers"),
            may("time", "string|number", "ISO 8601, or Unix seconds"),
            may("weight", "number(-1..1)", "How far it speaks for the person; default 1"),
            may("kind", "'said'|'message'|'wrote'|'read'|'answered'|'observed'", "Default said"),
            may("dwell", "number(0..86400)", "Seconds spent on it"),
            may("session", "string", ""),
            may("source", "string", ""),
        ]),
    ),
    (
        "SamplingDefaults",
        Closed(&[
            may("temperature", "number(0..2)", ""),
            may("top_p", "number(0..1)", "Above 0"),
            may("top_k", "integer(-1..)", ""),
            may("min_p", "number(0..1)", ""),
            may("typical_p", "number(0..1)", "Above 0"),
            may("repetition_penalty", "number(0.01..100)", ""),
            may("presence_penalty", "number(-2..2)", ""),
            may("frequency_penalty", "number(-2..2)", ""),
            may("max_tokens", "integer(-1..)", ""),
            may("seed", "integer", ""),
            may("stop", "string|[string]", ""),
        ]),
    ),
    (
        "Usage",
        Told(&[
            must("prompt_tokens", "integer(0..)", ""),
            must("completion_tokens", "integer(0..)", ""),
            must("total_tokens", "integer(0..)", ""),
            may("prompt_tokens_details", "object", "`cached_tokens`"),
            may("completion_tokens_details", "object", "`reasoning_tokens`"),
        ]),
    ),
    (
        "ResponseUsage",
        Told(&[
            must("input_tokens", "integer(0..)", ""),
            must("output_tokens", "integer(0..)", ""),
            must("total_tokens", "integer(0..)", ""),
        ]),
    ),
    (
        "Timings",
        Told(&[
            must("cache_n", "integer(0..)", "Tokens of prompts from the cache"),
            must("prompt_n", "integer(0..)", "And those computed"),
            must("prompt_ms", "number(0..)", ""),
            must("predicted_n", "integer(0..)", "Tokens drawn"),
            must("predicted_ms", "number(0..)", ""),
            must("predicted_per_second", "number(0..)", ""),
        ]),
    ),
    (
        "Applied",
        Told(&[
            must("persona", "string|null", "With its version"),
            must("probe", "string|null", "What the safety probe says of it"),
            must("steering", "any", "What was applied, in canonical form"),
            must("vectors", "[object]", "Each with its dose"),
            must("soft_prompt", "string|null", ""),
            must("soft_prompt_rows", "integer(0..)", ""),
            must("seed", "integer(0..)|null", "Which repeats the answer"),
            must("warnings", "[string]", ""),
            must("fingerprint", "string", "Names the function from messages to distributions"),
            must("condition", "string", "Covers the draw too"),
        ]),
    ),
    (
        "ChatChoice",
        Told(&[
            must("index", "integer(0..)", ""),
            must("message", "object", "`role`, `content`, `reasoning_content`, `tool_calls`"),
            must("logprobs", "object|null", ""),
            must("finish_reason", "'stop'|'length'|'tool_calls'", ""),
            may("twin_of", "integer(0..)", "The choice that this one repeats without steering"),
        ]),
    ),
    (
        "TextChoice",
        Told(&[
            must("index", "integer(0..)", ""),
            must("text", "string", ""),
            must("logprobs", "object|null", ""),
            must("finish_reason", "'stop'|'length'", ""),
            may("twin_of", "integer(0..)", "The choice that this one repeats without steering"),
        ]),
    ),
    (
        "Scored",
        Told(&[
            must("text", "string", ""),
            must("token_ids", "[integer(0..)]", ""),
            must("logprobs", "[number]", "Of each token"),
            must("sum", "number", "Of them"),
            must("bytes", "integer(1..)", "Of the text"),
        ]),
    ),
    (
        "Embedding",
        Told(&[
            must("object", "'embedding'", ""),
            must("index", "integer(0..)", ""),
            must("embedding", "[number]|string", ""),
        ]),
    ),
    (
        "Model",
        Told(&[
            must("id", "string", ""),
            must("object", "'model'", ""),
            must("created", "integer", "Unix seconds"),
            must("owned_by", "string", ""),
            must("max_model_len", "integer(1..)", ""),
        ]),
    ),
    (
        "Persona",
        Told(&[
            must("object", "'persona'", ""),
            must("name", "Name", ""),
            must("version", "integer(1..)", ""),
            must("model", "string", "The name under which it is chatted with"),
            must("digest", "string|null", "What a report binds to"),
            must("probe", "object", "`status`, and `reasons` where there are any"),
            must("system", "string", ""),
            must("card", "string|null", "Digest of its character card"),
        ]),
    ),
    (
        "User",
        Told(&[
            must("object", "'user'", ""),
            must("id", "UserId", ""),
            must("created", "integer", "Unix seconds"),
            must("items", "integer(0..)", "Of the history"),
            must("version", "integer(0..)", "Of the history"),
        ]),
    ),
    (
        "Job",
        Told(&[
            must("kind", "string", ""),
            must("state", "string", ""),
            may("id", "string", ""),
            may("done", "integer(0..)", "Steps"),
            may("total", "integer(0..)|null", ""),
            may("message", "string", "What is happening, or why it ended"),
        ]),
    ),
    (
        "Vector",
        Told(&[
            must("name", "string", ""),
            must("digest", "string", ""),
            must("width", "integer(1..)", "Values per direction"),
            must("blocks", "[integer(0..)]", ""),
        ]),
    ),
    (
        "SoftPrompt",
        Told(&[
            must("object", "'soft_prompt'", ""),
            must("name", "Name", ""),
            must("version", "integer(1..)", ""),
            must("rows", "integer(1..)", ""),
            must("d_model", "integer(1..)", ""),
            must("digest", "string", ""),
        ]),
    ),
    (
        "Trait",
        Told(&[must("name", "Name", ""), must("opposite", "Name", ""), must("description", "string", "")]),
    ),
    ("Deleted", Told(&[must("deleted", "boolean", "")])),
];

/// A component by its name.
#[cfg(test)]
pub fn find(name: &str) -> Option<&'static Component> {
    COMPONENTS.iter().find(|(known, _)| *known == name).map(|(_, component)| component)
}
