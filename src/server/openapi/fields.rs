//! Fields of bodies and answers, in groups that several routes share.

/// One field: name, type in the notation of `schema`, meaning.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: &'static str,
    pub about: &'static str,
    pub required: bool,
}

pub const fn must(name: &'static str, kind: &'static str, about: &'static str) -> Field {
    Field { name, kind, about, required: true }
}

pub const fn may(name: &'static str, kind: &'static str, about: &'static str) -> Field {
    Field { name, kind, about, required: false }
}

pub const MODEL: &[Field] = &[may(
    "model",
    "string",
    "The loaded model, `model@persona` or `model@(expression)`; absent: the loaded model",
)];

/// Who asks, and what is applied.
pub const CONDITION: &[Field] = &[
    may("persona", "Name", "A stored persona, as `model@persona`"),
    may(
        "steering",
        "string|[Intervention]",
        "An expression such as `0.8 warm - 0.3 formal`, or a list of interventions",
    ),
    may("soft_prompt", "string|boolean", "A named soft prompt; false turns the user's and the persona's off"),
    may("user", "string", "A user whom the server knows gets their soft prompt"),
    may("safety_identifier", "string", "The same as `user`"),
];

/// For routes that look at nothing else of a condition.
pub const PERSONA_CHOICE: &[Field] =
    &[may("persona", "Name", "A stored persona, whose texts are put around the chat")];

pub const MESSAGES: &[Field] = &[must("messages", "[Message](1..)", "What was said so far")];

/// What a chat template is given.
pub const TEMPLATE: &[Field] = &[
    may("add_generation_prompt", "boolean", "Whether the assistant's turn is opened; default true"),
    may("continue_final_message", "boolean", "Continue the last message, which must be the assistant's"),
    may("chat_template_kwargs", "object", "Variables for the chat template"),
    may("enable_thinking", "boolean", "Short for a variable of the chat template"),
    may("reasoning_effort", "string", "Short for a variable of the chat template"),
    may("documents", "[object]", "Texts that the chat template may show"),
];

/// How tokens are drawn, when an answer ends, how it is sent.
pub const GENERATION: &[Field] = &[
    may("max_tokens", "integer(-1..)", "Most tokens of the answer; -1: until the context ends"),
    may("max_completion_tokens", "integer(-1..)", "The same as `max_tokens`"),
    may("temperature", "number(0..2)", "0 takes the most probable token; default 1"),
    may("top_p", "number(0..1)", "Above 0; 1 is off"),
    may("top_k", "integer(-1..)", "0 and -1 are off"),
    may("min_p", "number(0..1)", "0 is off"),
    may("typical_p", "number(0..1)", "Above 0; 1 is off"),
    may("repetition_penalty", "number(0.01..100)", "1 is off; also `repeat_penalty`"),
    may(
        "repeat_last_n",
        "integer(-1..)",
        "Tokens looked back for it; 0 is off, -1 the whole context; default 64",
    ),
    may("presence_penalty", "number(-2..2)", "Subtracted once for a token that occurred"),
    may("frequency_penalty", "number(-2..2)", "Subtracted each time that a token occurred"),
    may("logit_bias", "object|[any]", "Added to logits, by token id or text; false bans"),
    may("seed", "integer", "Negative or absent: a random one, which the answer names"),
    may("stop", "string|[string]", "Up to 64 texts of 256 bytes that end the answer"),
    may("stop_token_ids", "[integer(0..)]", "Tokens that end the answer"),
    may("ignore_eos", "boolean", "Go on past the model's own end"),
    may("response_format", "object", "`text`, `json_object` or `json_schema`"),
    may("grammar", "string|Off", "What the answer must be, as a grammar"),
    may("guided_json", "object|string|Off", "The same as a JSON schema"),
    may("guided_regex", "string|Off", "The same as a regular expression"),
    may("guided_choice", "[string](1..)|Off", "One of these"),
    may("structured_outputs", "object|Off", "The same under vLLM's newer name"),
    may("n", "integer(1..8)", "Choices; default 1"),
    may(
        "compare",
        "boolean",
        "Each choice a second time without steering and soft prompt, same seed, same batch",
    ),
    may("stream", "boolean", "Server-sent events"),
    may("stream_options", "object", "`include_usage`: a last chunk with `usage`"),
    may("return_progress", "boolean", "In a stream: how far a long prompt is"),
    may("cache_prompt", "boolean", "Whether the prefix cache may be used; default true"),
    may("cache_salt", "string", "Narrows the prefix cache to requests with the same salt"),
];

pub const CHAT: &[Field] = &[
    may("logprobs", "boolean", "Log-probabilities of the drawn tokens"),
    may("top_logprobs", "integer(0..20)", "And of so many of the most probable ones; needs `logprobs`"),
    may(
        "reasoning_format",
        "string",
        "`none` leaves what is thought in the content; auto, deepseek: told apart",
    ),
];

/// Functions that a model is told of.
pub const TOOLS: &[Field] = &[
    may("tools", "[Tool]", "Functions that the answer may call"),
    may("tool_choice", "string|object", "none, auto, required, or one function"),
    may("parallel_tool_calls", "boolean", "Whether an answer that must call may call several times"),
];

pub const COMPLETION: &[Field] = &[
    must("prompt", "string|[string]|[integer(0..)]|[[integer(0..)]]", "Text, token ids, or several of them"),
    may("logprobs", "integer(0..100)|boolean", "Log-probabilities with so many of the most probable tokens"),
    may("echo", "boolean", "The answer begins with the prompt"),
];

pub const LLAMA: &[Field] = &[
    must("prompt", "string|[string]|[integer(0..)]|[[integer(0..)]]", "Text, token ids, or several of them"),
    may("n_predict", "integer(-1..)", "The same as `max_tokens`"),
    may("n_probs", "integer(0..100)", "Log-probabilities with so many of the most probable tokens; 0 is off"),
    may("return_tokens", "boolean", "Ids of the drawn tokens beside their text"),
    may("timings_per_token", "boolean", "`timings` in every chunk"),
];

pub const RESPONSES: &[Field] = &[
    must(
        "input",
        "string|[object](1..)",
        "A text of the user, or a list of messages, calls and their results",
    ),
    may("instructions", "string", "System text before the input"),
    may("max_output_tokens", "integer(-1..)", "Most tokens of the answer"),
    may("temperature", "number(0..2)", "0 takes the most probable token; default 1"),
    may("top_p", "number(0..1)", "Above 0; 1 is off"),
    may("top_logprobs", "integer(0..20)", "Log-probabilities of the most probable tokens"),
    may("stream", "boolean", "Typed events from `response.created` to `response.completed`"),
    may("metadata", "object", "Up to 16 texts by name, which the answer repeats"),
    may("text", "object", "`format` of the answer"),
    may("reasoning", "object", "`effort` is given to the chat template"),
    may("include", "[string]", "`message.output_text.logprobs`"),
    may(
        "tools",
        "[object]",
        "Functions that the answer may call: `type`, `name`, `description`, `parameters`",
    ),
    may("tool_choice", "string|object", "none, auto, required, or one function"),
    may("parallel_tool_calls", "boolean", "Whether one answer may make several forced calls"),
];

pub const EMBEDDINGS: &[Field] = &[
    must("input", "string(1..)|[string(1..)](1..256)", "Texts"),
    may("model", "string", "The encoder's name"),
    may("encoding_format", "'float'|'base64'", "base64: little-endian f32"),
    may("dimensions", "integer(1..)", "The encoder's own width is the only one"),
];

pub const SCORE: &[Field] = &[
    may("messages", "[Message](1..)", "A chat before the choices"),
    may("prompt", "string", "Or a text before them"),
    must("choices", "[string(1..)](1..)", "Continuations, each tokenised by itself"),
    may("cache_prompt", "boolean", "Whether the prefix cache may be used; default true"),
];

pub const ACTIVATIONS: &[Field] = &[
    may("messages", "[Message](1..)", "A chat"),
    may("prompt", "string", "Or a text"),
    may("blocks", "[integer(0..)](1..)", "Blocks whose residual norms are wanted"),
    may("vectors", "[Name]", "Vectors to project on"),
    may("from", "integer(0..)", "First token that counts"),
    may("cache_prompt", "boolean", "Whether the prefix cache may be used; default true"),
];

pub const TOKENIZE: &[Field] = &[
    may("content", "string", "Text; no special tokens are added unless asked"),
    may("prompt", "string", "Text; special tokens are added unless `add_special_tokens` is false"),
    may("messages", "[Message](1..)", "A chat"),
    may("add_special", "boolean", "Also `add_special_tokens`"),
    may("add_special_tokens", "boolean", "The same as `add_special`"),
    may("parse_special", "boolean", "Whether special tokens written in the text count; default true"),
    may("with_pieces", "boolean", "Each token with its text"),
    may("return_token_strs", "boolean", "A list of texts beside"),
    may("model", "string", "Not looked at"),
];

pub const DETOKENIZE: &[Field] =
    &[must("tokens", "[integer(0..)]", "Token ids"), may("model", "string", "Not looked at")];

pub const PERSONA_NAME: &[Field] = &[must("name", "Name", "Under which it is asked for")];

/// In a new version the name is in the path.
pub const PERSONA_AGAIN: &[Field] = &[may("name", "Name", "The name in the path")];

pub const PERSONA: &[Field] = &[
    may("system", "string", "Text that stands before the request's own system text"),
    may("steering", "string|[Intervention]", "Added to the request's own"),
    may("soft_prompt", "Name", "A named soft prompt"),
    may("user", "UserId", "Or a user's"),
    may("sampling", "SamplingDefaults", "Defaults where a request says nothing"),
    may("description", "string", "For people"),
    may("card", "object|string", "A character card, or the digest of the one it has"),
];

pub const ALIGN: &[Field] = &[
    must("name", "Name", "Of the persona to be made"),
    must("answers", "[integer]|object", "What was ticked, by item"),
    may("inventory", "string|object", "Default `ipip-neo-300`"),
    may("algorithm", "'ridge'|'pas'", "Default ridge"),
    may("protocol", "'honest'|'paper'", "Default honest"),
    may("system", "string", "System text of the persona"),
];

pub const PROBE: &[Field] = &[
    must("persona", "Name", "A stored persona"),
    may("suite", "'smoke'|'quick'|'full'", "Default quick"),
    may("seed", "integer(0..)", "Default 1"),
    may("attribution", "boolean", "Also what each part of the persona does"),
];

pub const VECTOR: &[Field] = &[
    must("name", "Name", "Of the vector"),
    may("directions", "object", "By block, each an array of numbers"),
    may(
        "pairs",
        "[[string](2..3)](1..)",
        "Or pairs of texts to extract from, each with a prompt behind if wanted",
    ),
    may("replace", "boolean", "Whether a vector of this name may be replaced"),
    may("any_weights", "boolean", "Take a file that was made for other weights"),
];

pub const SOFT_PROMPT: &[Field] = &[
    must("name", "Name", "Of the soft prompt"),
    must("rows", "[[number](1..)](1..64)", "Rows of input embeddings"),
    may("replace", "boolean", "Whether one of this name may be replaced"),
];

pub const USER: &[Field] = &[must("id", "UserId", "Of the user")];

pub const HISTORY: &[Field] = &[must("items", "[HistoryItem](1..)", "All are taken, or none")];

/// Parts of forms.
pub const CARD_PARTS: &[Field] = &[
    must("file", "string", "A character card as JSON, PNG or CHARX, or a Modelfile"),
    may("name", "Name", "Default: made of the character's"),
    may("replace", "'true'|'false'", "Whether a persona of this name may get a new version"),
];
pub const VECTOR_PARTS: &[Field] = &[
    must("file", "string", "safetensors, GGUF or JSON"),
    must("name", "Name", "Of the vector"),
    may("replace", "'true'|'false'", "Whether a vector of this name may be replaced"),
    may("any_weights", "'true'|'false'", "Take a file that was made for other weights"),
];
pub const SOFT_PROMPT_PARTS: &[Field] = &[
    must("file", "string", "safetensors"),
    must("name", "Name", "Of the soft prompt"),
    may("replace", "'true'|'false'", "Whether one of this name may be replaced"),
    may("config", "string", "adapter_config.json of a PEFT adapter"),
];

/// Answers.
pub const LIST: &[Field] = &[must("data", "[any]", "The entries")];
pub const OPEN: &[Field] = &[];
pub const ADDED: &[Field] = &[
    must("added", "integer(0..)", "Items"),
    must("duplicates", "integer(0..)", "Those that were there"),
    must("total", "integer(0..)", "Items of the history"),
];
pub const JOB: &[Field] = &[must("job", "Job", "Look it up at `/v1/jobs/{id}`")];
pub const CHOICES: &[Field] = &[
    must("id", "string", ""),
    must("object", "string", ""),
    must("created", "integer(0..)", "Unix seconds"),
    must("model", "string", "The name that was resolved"),
    must("system_fingerprint", "string", "Build, weights and condition"),
    must("choices", "[ChatChoice]", "With `compare`, the twins are marked by `twin_of`"),
    must("usage", "Usage", ""),
    must("timings", "Timings", ""),
    must("demeanor", "Applied", ""),
];
pub const TEXT_CHOICES: &[Field] = &[
    must("id", "string", ""),
    must("object", "'text_completion'", ""),
    must("created", "integer(0..)", "Unix seconds"),
    must("model", "string", "The name that was resolved"),
    must("system_fingerprint", "string", "Build, weights and condition"),
    must("choices", "[TextChoice]", "Prompt by prompt; with `compare`, the twins are marked by `twin_of`"),
    must("usage", "Usage", ""),
    must("timings", "Timings", ""),
    must("demeanor", "Applied", ""),
];
pub const RESPONSE: &[Field] = &[
    must("id", "string", ""),
    must("object", "'response'", ""),
    must("created_at", "integer(0..)", "Unix seconds"),
    must("status", "'completed'|'incomplete'|'failed'|'in_progress'", ""),
    must("model", "string", "The name that was resolved"),
    must(
        "output",
        "[object]",
        "What was thought, said and called: items of `type` reasoning, message, function_call",
    ),
    must("usage", "ResponseUsage|null", ""),
    must("demeanor", "Applied", ""),
];
pub const SCORES: &[Field] =
    &[must("choices", "[Scored]", ""), must("usage", "Usage", ""), must("demeanor", "Applied", "")];
pub const READINGS: &[Field] = &[
    must("tokens", "[object]", "Those that count, with id and text"),
    must("blocks", "[integer(0..)]", ""),
    must("norms", "[[number]]", "By token and block"),
    must("vectors", "[object]", "Projections by token and block"),
    must("usage", "Usage", ""),
    must("demeanor", "Applied", ""),
];
pub const DATA: &[Field] =
    &[must("data", "[Embedding]", ""), must("model", "string", ""), must("usage", "object", "")];
pub const MODELS: &[Field] = &[must("data", "[Model]", "")];
pub const PERSONAS: &[Field] = &[must("data", "[Persona]", ""), must("has_more", "boolean", "")];
pub const VECTORS: &[Field] = &[must("data", "[Vector]", "")];
pub const SOFT_PROMPTS: &[Field] = &[must("data", "[SoftPrompt]", "")];
pub const USERS: &[Field] = &[must("data", "[User]", ""), must("has_more", "boolean", "")];
pub const JOBS: &[Field] = &[must("data", "[Job]", "")];
pub const TRAITS: &[Field] = &[must("data", "[Trait]", "")];
pub const TOKENS: &[Field] = &[
    must("tokens", "[any]", "Ids, or ids with pieces"),
    must("count", "integer(0..)", ""),
    must("max_model_len", "integer(0..)", ""),
];
pub const TEXT: &[Field] = &[must("content", "string", ""), must("prompt", "string", "The same")];
pub const RENDERED: &[Field] = &[must("prompt", "string", ""), must("warnings", "[string]", "")];
pub const STATUS: &[Field] = &[must("status", "string", "")];

/// Parameters of paths and queries.
pub const PAGE: &[Field] =
    &[may("after", "string", "Entries behind this one"), may("limit", "integer(1..)", "Most entries")];
pub const LIMIT: &[Field] = &[may("limit", "integer(0..)", "Most personas")];
pub const VERSION: &[Field] = &[may("version", "integer(1..)", "Instead of the newest")];
pub const CARD_FORMAT: &[Field] =
    &[may("format", "string", "card-v3, card-v2, or given: as it was imported")];
pub const FORMAT: &[Field] = &[may("format", "string", "Of the file")];
