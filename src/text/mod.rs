//! Text to tokens and back: tokenizer, chat template, stream decoding, stop strings. No tensors.
//!
//! A client's words never become control tokens: the template's own do, whatever the messages say (`added::Guard`).
//! Not here: what a message may hold (`server`), how many tokens fit (`engine`).

mod added;
mod bpe;
mod bytes;
mod calls;
mod capped;
mod chat;
mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod folder;
mod from_gguf;
mod functions;
mod hash;
mod json;
mod methods;
mod pre;
mod roles;
mod source;
mod stop;
mod stream;
mod strict;
mod template;
mod thinking;
mod tokenizer;
mod value;
mod vocabulary;
mod words;

pub use calls::{CallReader, CallSyntax, Told};
pub use chat::{ChatOptions, Encoded, Message, Rendered, Role, Text};
pub use error::TextError;
pub use functions::civil;
pub use source::{SpacePrefix, Strip, TokenizerSource, kind};
pub use stop::{StopStrings, Stopped};
pub use stream::StreamDecoder;
pub use strict::{StrictError, read_strict};
pub use template::{Template, TemplateKind};
pub use thinking::{Thinking, ThinkingTags, Thought};
pub use tokenizer::{Specials, Tokenizer};
pub use value::{json_kind, shown};
