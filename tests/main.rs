//! Everything that needs a whole server or a whole model.
//!
//! | module | proves |
//! |---|---|
//! | `exact` | exact mode equals `transformers` in float32; planted bugs are caught |
//! | `distributions` | the default mode stays near that reference |
//! | `candle` | the decoder on candle tensors: equal distributions, gradients |
//! | `steering` | a control vector moves log-probabilities as the reference says |
//! | `encoder` | embeddings equal sentence-transformers, alone and in company; `/v1/embeddings` |
//! | `hooks` | heads equal `transformers` with hooks; activations over HTTP |
//! | `soft_prompts` | PEFT adapters give PEFT's logits; named soft prompts in, served and out |
//! | `sharing` | sequences of one batch do not touch each other: bytes equal solo runs |
//! | `http` | the HTTP surface: shapes, streams, disconnects, names, keys, recorded client requests |
//! | `shapes` | answers fit what they must be, steered hard, streamed and in company; neighbours keep their bytes |
//! | `tools` | forced calls have the arguments that their schema asks for; calls come apart from the text, in streams too |
//! | `hostile` | the list of hostile inputs on sockets, routes and files; the server answers as before and has not grown |
//! | `bad_requests` | every bad request of a table gets its status and message |
//! | `personas` | stored personas: versions, digests, what adds up, restarts |
//! | `cards` | character cards: imported, in chats, exported, hostile files refused |
//! | `probe` | the safety probe: reports bind to the persona, equal runs, controls, refusals; bias benchmarks' bad inputs |
//! | `gate` | what is served under each mode, one byte changed, what a request brings beside, thresholds files |
//! | `align` | answers to an inventory become a persona, or are refused |
//! | `embed` | projectors are trained, resumed and evaluated from the command line |
//! | `papi` | the benchmark of alignment: a folder is checked, bad ones are refused |
//! | `users` | history, soft prompts made of it, export, and deletion that leaves nothing |
//! | `text` | token ids and rendered chats equal `transformers` |
//! | `thinking` | what a model thinks is told apart from what it says, whole and streamed |
//! | `readme` | the README's examples work as they stand |
//! | `clients` | dialects beside OpenAI's chats: llama.cpp's routes, responses, twins, progress |
//! | `cli` | the binary: verbs, exit statuses, terminal chat, orderly end |
//! | `fuzz` | outside data of every kind, changed at random, keeps what its readers promise |
//! | `verify` | model files are checked in a process of its own; what harms that one harms no other |
//! | `operating` | the description of all routes, metrics, the log, variables, completions, manual pages |
//! | `jobs` | an extraction is told of, streamed, cancelled |
//! | `kill_store` | kill -9 at random moments: nothing acknowledged is missing |
//! | `repository` | ranks, dependencies, documents |
//!
//! `harness` starts servers and speaks HTTP; `run` drives an engine and reads fixtures.

mod align;
mod bad_requests;
mod candle;
mod cards;
mod cli;
mod clients;
mod distributions;
mod embed;
mod encoder;
mod exact;
mod fuzz;
mod gate;
mod harness;
mod hooks;
mod hostile;
mod http;
mod jobs;
mod kill_store;
mod operating;
mod papi;
mod personas;
mod probe;
mod readme;
mod repository;
mod run;
mod shapes;
mod sharing;
mod soft_prompts;
mod steering;
mod text;
mod thinking;
mod tools;
mod users;
mod verify;
