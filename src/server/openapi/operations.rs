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
    /// The same, or a form with the parts `name` and `file`.
    Upload(&'static [&'static [Field]]),
}

#[derive(Clone, Copy, Debug)]
pub enum Content {
    Object(&'static [Field]),
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
        answers: &[(200, Content::Object(fields::OPEN))],
    }
}

const fn get(about: &'static str) -> Operation {
    operation("get", about)
}

const fn post(about: &'static str) -> Operation {
    operation("post", about)
}

const LIST: &[(u16, Content)] = &[(200, Content::Object(fields::LIST))];
const CREATED: &[(u16, Content)] = &[(201, Content::Object(fields::OPEN))];
const PUT: &[(u16, Content)] = &[(200, Content::Object(fields::OPEN)), (201, Content::Object(fields::OPEN))];
const ACCEPTED: &[(u16, Content)] = &[(202, Content::Object(fields::JOB))];
const STATUS: &[(u16, Content)] = &[(200, Content::Object(fields::STATUS))];
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
                    .answers(&[(200, Content::ObjectOrEvents(fields::CHOICES))])]
            }
        }
        Route::LlamaCompletion => {
            const {
                &[post("Continue a text, in llama.cpp's dialect; one object for each of several")
                    .body(Body::Open(&[fields::LLAMA, fields::MODEL, fields::CONDITION, fields::GENERATION]))
                    .answers(&[(200, Content::ObjectOrEvents(fields::OPEN))])]
            }
        }
        Route::Responses => {
            const {
                &[post("Answer a chat in the form of OpenAI's responses; nothing is kept")
                    .body(Body::Open(&[fields::RESPONSES, fields::MODEL, fields::CONDITION]))
                    .answers(&[(200, Content::ObjectOrEvents(fields::RESPONSE))])]
            }
        }
        Route::Embeddings => {
            const {
                &[post("Embed texts with the sentence encoder")
                    .body(Body::Open(&[fields::EMBEDDINGS]))
                    .answers(LIST)]
            }
        }
        Route::Models => {
            const { &[get("The model, its aliases and personas").query(fields::LIMIT).answers(LIST)] }
        }
        Route::Model => const { &[get("One of them")] },
        Route::Props => const { &[get("llama.cpp's properties of a server")] },
        Route::Personas => {
            const {
                &[
                    get("The personas").query(fields::PAGE).answers(LIST),
                    post("Store a persona, or import a character card as `file`")
                        .body(Body::Upload(&[fields::PERSONA_NAME, fields::PERSONA]))
                        .answers(CREATED),
                ]
            }
        }
        Route::Persona => {
            const {
                &[
                    get("A persona").query(fields::VERSION),
                    operation("put", "A new version of a persona")
                        .body(Body::Closed(&[fields::PERSONA_AGAIN, fields::PERSONA]))
                        .answers(PUT),
                    operation("delete", "Delete a persona with all its versions"),
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
                    .answers(ACCEPTED)]
            }
        }
        Route::ProbeReport => const { &[get("The newest report on a persona as it is now")] },
        Route::Score => {
            const {
                &[post("Log-probabilities of given continuations")
                    .body(Body::Closed(&[fields::SCORE, fields::MODEL, fields::CONDITION, fields::TEMPLATE]))
                    .answers(&[(200, Content::Object(fields::SCORES))])]
            }
        }
        Route::Activations => {
            const {
                &[post("Residual norms and projections on vectors").body(Body::Closed(&[
                    fields::ACTIVATIONS,
                    fields::MODEL,
                    fields::CONDITION,
                    fields::TEMPLATE,
                ]))]
            }
        }
        Route::Vectors => {
            const {
                &[
                    get("The stored vectors").answers(LIST),
                    post("Store a vector, or extract one from pairs of texts")
                        .body(Body::Upload(&[fields::VECTOR]))
                        .answers(&[
                            (201, Content::Object(fields::OPEN)),
                            (202, Content::Object(fields::JOB)),
                        ]),
                ]
            }
        }
        Route::Vector => const { &[get("A vector"), operation("delete", "Delete a vector")] },
        Route::VectorFile => const { &[get("A vector as a file").query(fields::FORMAT).answers(FILE)] },
        Route::SoftPrompts => {
            const {
                &[
                    get("The named soft prompts").answers(LIST),
                    post("Store a soft prompt").body(Body::Upload(&[fields::SOFT_PROMPT])).answers(CREATED),
                ]
            }
        }
        Route::SoftPrompt => const { &[get("A soft prompt"), operation("delete", "Delete a soft prompt")] },
        Route::SoftPromptFile => {
            const { &[get("A soft prompt as a file").query(fields::FORMAT).answers(FILE)] }
        }
        Route::Users => {
            const {
                &[
                    get("The users").query(fields::PAGE).answers(LIST),
                    post("Make a user").body(Body::Closed(&[fields::USER])).answers(CREATED),
                ]
            }
        }
        Route::User => {
            const {
                &[
                    get("A user"),
                    operation("delete", "Delete a user and all that was derived from their data"),
                ]
            }
        }
        Route::History => {
            const {
                &[
                    get("A user's history").query(fields::PAGE).answers(LIST),
                    post("Add to a user's history").body(Body::Closed(&[fields::HISTORY])),
                ]
            }
        }
        Route::HistoryItem => {
            const { &[operation("delete", "Delete an item and all that was derived from it")] }
        }
        Route::UserExport => const { &[get("All that is stored of a user")] },
        Route::Jobs => const { &[get("Long work, newest first").answers(LIST)] },
        Route::Job => const { &[get("A job"), operation("delete", "Ask a job to end")] },
        Route::JobEvents => {
            const { &[get("A job now and at each change").answers(&[(200, Content::Events)])] }
        }
        Route::Traits => const { &[get("The traits").answers(LIST)] },
        Route::Trait => const { &[get("A trait and its contrast sets")] },
        Route::Tokenize => {
            const {
                &[post("Token ids of a text or chat, in two dialects")
                    .body(Body::Closed(&[fields::TOKENIZE, fields::TEMPLATE, fields::TOOLS]))
                    .answers(&[(200, Content::Object(fields::TOKENS))])]
            }
        }
        Route::Detokenize => {
            const {
                &[post("The text of token ids")
                    .body(Body::Closed(&[fields::DETOKENIZE]))
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
                    .answers(&[(200, Content::Object(fields::RENDERED))])]
            }
        }
        Route::TokenizerInfo => const { &[get("The tokenizer's special tokens and the chat template")] },
        Route::Health => const { &[get("200 once the model is loaded").answers(STATUS)] },
        Route::Ready => const { &[get("200 while more work may be sent here").answers(STATUS)] },
        Route::Live => const { &[get("200 while the process answers").answers(STATUS)] },
    }
}
