//! What each route takes and gives: one exhaustive `match`, so that a route without a description does not compile.

use super::fields::{self, Field};
use crate::server::Route;

#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// In lower case, as OpenAPI has it.
    pub method: &'static str,
    pub about: &'static str,
    /// Parameters behind the `?`.
    pub query: &'static [Field],
    pub body: Body,
    /// One of these fields of the body is needed.
    pub one_of: &'static [&'static str],
    /// A body, as JSON; empty where the route takes none.
    pub example: &'static str,
    /// Each with its status; errors have one form everywhere.
    pub answers: &'static [(u16, Content)],
}

#[derive(Clone, Copy, Debug)]
pub enum Body {
    None,
    /// Fields that are not listed are ignored, as OpenAI's clients expect.
    Open(&'static [&'static [Field]]),
    /// Fields that are not listed are refused.
    Closed(&'static [&'static [Field]]),
    /// The same, or a form with these parts.
    Upload(&'static [&'static [Field]], &'static [Field]),
    /// Fields that are not listed are refused; or one such item a line.
    Lines(&'static [&'static [Field]]),
}

#[derive(Clone, Copy, Debug)]
pub enum Content {
    Object(&'static [Field]),
    /// A component.
    Is(&'static str),
    /// The same, or events where the body asks for a stream.
    ObjectOrEvents(&'static [Field]),
    Events,
    Text,
    Page,
    File,
}

impl Operation {
    const fn query(self, query: &'static [Field]) -> Operation {
        Operation { query, ..self }
    }

    const fn body(self, body: Body) -> Operation {
        Operation { body, ..self }
    }

    const fn one_of(self, one_of: &'static [&'static str]) -> Operation {
        Operation { one_of, ..self }
    }

    const fn example(self, example: &'static str) -> Operation {
        Operation { example, ..self }
    }

    const fn answers(self, answers: &'static [(u16, Content)]) -> Operation {
        Operation { answers, ..self }
    }
}

const fn operation(method: &'static str, about: &'static str) -> Operation {
    Operation {
        method,
        about,
        query: &[],
        body: Body::None,
        one_of: &[],
        example: "",
        answers: &[(200, Content::Object(fields::OPEN))],
    }
}

const fn get(about: &'static str) -> Operation {
    operation("get", about)
}

const fn post(about: &'static str) -> Operation {
    operation("post", about)
}

const DELETED: &[(u16, Content)] = &[(200, Content::Is("Deleted"))];
const ACCEPTED: &[(u16, Content)] = &[(202, Content::Object(fields::JOB))];
const STATUS: &[(u16, Content)] = &[(200, Content::Object(fields::STATUS))];
const JOB: &[(u16, Content)] = &[(200, Content::Is("Job"))];
const FILE: &[(u16, Content)] = &[(200, Content::File)];

/// The operations of a route.
pub(super) fn operations(route: Route) -> &'static [Operation] {
    match route {
        Route::Root => const { &[get("What this is and where to go on").answers(&[(200, Content::Text)])] },
        Route::Metrics => const { &[get("Counters for Prometheus").answers(&[(200, Content::Text)])] },
        Route::OpenApi => const { &[get("This description")] },
        Route::Docs => const { &[get("This description as a page").answers(&[(200, Content::Page)])] },
        Route::Chat => {
            const {
                &[post("Answer a chat")
                    .body(Body::Open(&[
                        fields::MESSAGES,
                        fields::MODEL,
                        fields::CONDITION,
                        fields::GENERATION,
                        fields::CHAT,
                        fields::TOOLS,
                        fields::TEMPLATE,
                    ]))
                    .example(
                        r#"{"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 8, "seed": 7, "steering": "0.5 warm"}"#,
                    )
                    .answers(&[(200, Content::ObjectOrEvents(fields::CHOICES))])]
            }
        }
        Route::Completions => {
            const {
                &[post("Continue texts")
                    .body(Body::Open(&[
                        fields::COMPLETION,
                        fields::MODEL,
                        fields::CONDITION,
                        fields::GENERATION,
                    ]))
                    .example(r#"{"prompt": "The sky is", "max_tokens": 4, "temperature": 0}"#)
                    .answers(&[(200, Content::ObjectOrEvents(fields::TEXT_CHOICES))])]
            }
        }
        Route::LlamaCompletion => {
            const {
                &[post("Continue a text, in llama.cpp's dialect; one object for each of several")
                    .body(Body::Open(&[fields::LLAMA, fields::MODEL, fields::CONDITION, fields::GENERATION]))
                    .example(r#"{"prompt": "The sky is", "n_predict": 4}"#)
                    .answers(&[(200, Content::ObjectOrEvents(fields::OPEN))])]
            }
        }
        Route::Responses => {
            const {
                &[post("Answer a chat in the form of OpenAI's responses; nothing is kept")
                    .body(Body::Open(&[fields::RESPONSES, fields::MODEL, fields::CONDITION]))
                    .example(r#"{"input": "Name a colour.", "max_output_tokens": 8}"#)
                    .answers(&[(200, Content::ObjectOrEvents(fields::RESPONSE))])]
            }
        }
        Route::Embeddings => {
            const {
                &[post("Embed texts with the sentence encoder")
                    .body(Body::Open(&[fields::EMBEDDINGS]))
                    .example(r#"{"input": ["A warm day", "A cold day"]}"#)
                    .answers(&[(200, Content::Object(fields::DATA))])]
            }
        }
        Route::Models => {
            const {
                &[get("The model, its aliases and personas")
                    .query(fields::LIMIT)
                    .answers(&[(200, Content::Object(fields::MODELS))])]
            }
        }
        Route::Model => const { &[get("One of them").answers(&[(200, Content::Is("Model"))])] },
        Route::Props => const { &[get("llama.cpp's properties of a server")] },
        Route::Personas => {
            const {
                &[
                    get("The personas")
                        .query(fields::PAGE)
                        .answers(&[(200, Content::Object(fields::PERSONAS))]),
                    post("Store a persona, or import a character card as `file`")
                        .body(Body::Upload(&[fields::PERSONA_NAME, fields::PERSONA], fields::CARD_PARTS))
                        .example(r#"{"name": "gardener", "system": "You keep a garden.", "sampling": {"temperature": 0.7}}"#)
                        .answers(&[(200, Content::Is("Persona")), (201, Content::Is("Persona"))]),
                ]
            }
        }
        Route::Persona => {
            const {
                &[
                    get("A persona").query(fields::VERSION).answers(&[(200, Content::Is("Persona"))]),
                    operation("put", "A new version of a persona")
                        .body(Body::Closed(&[fields::PERSONA_AGAIN, fields::PERSONA]))
                        .example(r#"{"system": "You keep a garden.", "sampling": {"temperature": 0.5}}"#)
                        .answers(&[(200, Content::Is("Persona")), (201, Content::Is("Persona"))]),
                    operation("delete", "Delete a persona with all its versions").answers(DELETED),
                ]
            }
        }
        Route::PersonaCard => const { &[get("A persona as a character card").query(fields::CARD_FORMAT)] },
        Route::Align => {
            const {
                &[post("Make a persona of a person's answers to a questionnaire")
                    .body(Body::Closed(&[fields::ALIGN]))
                    .answers(ACCEPTED)]
            }
        }
        Route::Probe => {
            const {
                &[post("Run the safety probe on a persona")
                    .body(Body::Closed(&[fields::PROBE]))
                    .example(r#"{"persona": "gardener", "suite": "smoke"}"#)
                    .answers(ACCEPTED)]
            }
        }
        Route::ProbeReport => const { &[get("The newest report on a persona as it is now")] },
        Route::Score => {
            const {
                &[post("Log-probabilities of given continuations")
                    .body(Body::Closed(&[fields::SCORE, fields::MODEL, fields::CONDITION, fields::TEMPLATE]))
                    .one_of(&["messages", "prompt"])
                    .example(r#"{"prompt": "The sky is", "choices": [" blue", " green"]}"#)
                    .answers(&[(200, Content::Object(fields::SCORES))])]
            }
        }
        Route::Activations => {
            const {
                &[post("Residual norms and projections on vectors")
                    .body(Body::Closed(&[
                        fields::ACTIVATIONS,
                        fields::MODEL,
                        fields::CONDITION,
                        fields::TEMPLATE,
                    ]))
                    .one_of(&["messages", "prompt"])
                    .example(r#"{"prompt": "The sky is", "blocks": [1]}"#)
                    .answers(&[(200, Content::Object(fields::READINGS))])]
            }
        }
        Route::Vectors => {
            const {
                &[
                    get("The stored vectors").answers(&[(200, Content::Object(fields::VECTORS))]),
                    post("Store a vector, or extract one from pairs of texts")
                        .body(Body::Upload(&[fields::VECTOR], fields::VECTOR_PARTS))
                        .one_of(&["directions", "pairs"])
                        .example(
                            r#"{"name": "sailor", "pairs": [["Ahoy, mate!", "Good day."], ["Aye, that be so.", "Yes, it is."]]}"#,
                        )
                        .answers(&[
                            (201, Content::Is("Vector")),
                            (202, Content::Object(fields::JOB)),
                        ]),
                ]
            }
        }
        Route::Vector => {
            const {
                &[
                    get("A vector").answers(&[(200, Content::Is("Vector"))]),
                    operation("delete", "Delete a vector").answers(DELETED),
                ]
            }
        }
        Route::VectorFile => const { &[get("A vector as a file").query(fields::FORMAT).answers(FILE)] },
        Route::SoftPrompts => {
            const {
                &[
                    get("The named soft prompts").answers(&[(200, Content::Object(fields::SOFT_PROMPTS))]),
                    post("Store a soft prompt")
                        .body(Body::Upload(&[fields::SOFT_PROMPT], fields::SOFT_PROMPT_PARTS))
                        .answers(&[(201, Content::Is("SoftPrompt"))]),
                ]
            }
        }
        Route::SoftPrompt => {
            const {
                &[
                    get("A soft prompt").answers(&[(200, Content::Is("SoftPrompt"))]),
                    operation("delete", "Delete a soft prompt").answers(DELETED),
                ]
            }
        }
        Route::SoftPromptFile => {
            const { &[get("A soft prompt as a file").query(fields::FORMAT).answers(FILE)] }
        }
        Route::Users => {
            const {
                &[
                    get("The users").query(fields::PAGE).answers(&[(200, Content::Object(fields::USERS))]),
                    post("Make a user")
                        .body(Body::Closed(&[fields::USER]))
                        .example(r#"{"id": "ada"}"#)
                        .answers(&[(201, Content::Is("User"))]),
                ]
            }
        }
        Route::User => {
            const {
                &[
                    get("A user").answers(&[(200, Content::Is("User"))]),
                    operation("delete", "Delete a user and all that was derived from their data")
                        .answers(DELETED),
                ]
            }
        }
        Route::History => {
            const {
                &[
                    get("A user's history")
                        .query(fields::PAGE)
                        .answers(&[(200, Content::Object(fields::LIST))]),
                    post("Add to a user's history")
                        .body(Body::Lines(&[fields::HISTORY]))
                        .example(r#"{"items": [{"text": "I keep bees.", "kind": "said"}]}"#)
                        .answers(&[(200, Content::Object(fields::ADDED))]),
                ]
            }
        }
        Route::HistoryItem => {
            const { &[operation("delete", "Delete an item and all that was derived from it").answers(DELETED)] }
        }
        Route::UserExport => const { &[get("All that is stored of a user").answers(FILE)] },
        Route::Jobs => {
            const { &[get("Long work, newest first").answers(&[(200, Content::Object(fields::JOBS))])] }
        }
        Route::Job => {
            const { &[get("A job").answers(JOB), operation("delete", "Ask a job to end").answers(JOB)] }
        }
        Route::JobEvents => {
            const { &[get("A job now and at each change").answers(&[(200, Content::Events)])] }
        }
        Route::Traits => const { &[get("The traits").answers(&[(200, Content::Object(fields::TRAITS))])] },
        Route::Trait => {
            const { &[get("A trait and its contrast sets").answers(&[(200, Content::Is("Trait"))])] }
        }
        Route::Tokenize => {
            const {
                &[post("Token ids of a text or chat, in two dialects")
                    .body(Body::Closed(&[fields::TOKENIZE, fields::TEMPLATE, fields::TOOLS]))
                    .one_of(&["content", "prompt", "messages"])
                    .example(r#"{"content": "Hello there"}"#)
                    .answers(&[(200, Content::Object(fields::TOKENS))])]
            }
        }
        Route::Detokenize => {
            const {
                &[post("The text of token ids")
                    .body(Body::Closed(&[fields::DETOKENIZE]))
                    .example(r#"{"tokens": [1, 2, 3]}"#)
                    .answers(&[(200, Content::Object(fields::TEXT))])]
            }
        }
        Route::ApplyTemplate => {
            const {
                &[post("A chat as the model reads it")
                    .body(Body::Closed(&[
                        fields::MESSAGES,
                        fields::MODEL,
                        fields::PERSONA_CHOICE,
                        fields::TEMPLATE,
                        fields::TOOLS,
                    ]))
                    .example(r#"{"messages": [{"role": "user", "content": "Hello"}]}"#)
                    .answers(&[(200, Content::Object(fields::RENDERED))])]
            }
        }
        Route::TokenizerInfo => const { &[get("The tokenizer's special tokens and the chat template")] },
        Route::Health => const { &[get("200 once the model is loaded").answers(STATUS)] },
        Route::Ready => const { &[get("200 while more work may be sent here").answers(STATUS)] },
        Route::Live => const { &[get("200 while the process answers").answers(STATUS)] },
    }
}
