//! Every bound of the system with its reason. A file that needs a bound takes it from here.

// ---- HTTP ----
/// Largest JSON body: a prompt of a full 128k-token context fits.
pub const JSON_BODY_BYTES_MAX: usize = 1 << 20;
/// Largest JSON form of an upload: a direction for each of 30 blocks of d_model 4096. Parsed JSON takes some ten times
/// its text; larger vectors come as files.
pub const JSON_UPLOAD_BYTES_MAX: usize = 2 << 20;
/// Uploads read and checked at once; each holds its file once or twice.
pub const UPLOADS_AT_ONCE_MAX: usize = 2;
/// Largest uploaded vector file: 64 blocks of d_model 16,384 in f32, times four.
pub const UPLOAD_BYTES_MAX: usize = 16 << 20;
/// Largest request head; more is 431.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Most header lines of a request; more is 431.
pub const HEADER_LINES_MAX: usize = 64;
/// A client that has not sent its head by then is closed (slowloris).
pub const HEADER_READ_SECONDS_MAX: u64 = 10;
/// A kept-alive connection without a request is closed after so long.
pub const IDLE_SECONDS_MAX: u64 = 75;
/// A body that has not arrived by then is a 408.
pub const BODY_READ_SECONDS_MAX: u64 = 30;
/// A refused body is read and dropped up to this size and time: a client that is cut off while it sends never reads why.
pub const REFUSED_BODY_BYTES_MAX: usize = 4 << 20;
pub const REFUSED_BODY_SECONDS_MAX: u64 = 2;
/// A stream whose reader takes nothing for so long is closed.
pub const WRITE_STALL_SECONDS_MAX: u64 = 30;
/// Send buffer that the kernel keeps for a connection (it doubles the number): some thousand tokens.
pub const SEND_BUFFER_BYTES: u32 = 64 << 10;
/// Open connections; more wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 1024;
/// Comment line that keeps proxies from closing a quiet stream.
pub const PING_SECONDS: u64 = 15;
/// Running streams get so long to finish after a shutdown signal.
pub const DRAIN_SECONDS_MAX: u64 = 30;
/// Requests with a wrong key from one address and minute that get a 401; further ones get a 429.
pub const FAILED_KEYS_PER_MINUTE_MAX: u32 = 10;
/// Addresses whose failed keys are counted; when so many fail at once, further ones get a 429.
pub const FAILED_KEY_ADDRESSES_MAX: usize = 4096;
/// Time within which a client that closed its sending side must have sent its whole body.
pub const BODY_AFTER_END_SECONDS_MAX: u64 = 1;
/// Nesting of a JSON body; serde_json stops at 128 by itself.
pub const JSON_DEPTH_MAX: usize = 64;

// ---- requests ----
pub const MESSAGES_MAX: usize = 1024;
pub const STOP_STRINGS_MAX: usize = 64;
pub const STOP_STRING_BYTES_MAX: usize = 256;
/// Stop tokens of a request beside the model's own; each drawn token is compared with all.
pub const STOP_TOKENS_MAX: usize = 64;
/// Biased tokens, those that texts stand for included.
pub const LOGIT_BIAS_MAX: usize = 300;
/// Bytes of one biased text: a word or a phrase.
pub const LOGIT_BIAS_TEXT_BYTES_MAX: usize = 256;
/// Characters of a client's input that a message may show.
pub const SHOWN_CHARS_MAX: usize = 200;
/// Characters of a message as a whole.
pub const MESSAGE_CHARS_MAX: usize = 600;
/// Tokens that are answered with their texts: twice the default context. Each takes some 200 bytes until it is sent.
pub const PIECES_MAX: usize = 16_384;
/// Choices of one prompt.
pub const CHOICES_MAX: usize = 8;
/// Prompts of one completions request.
pub const PROMPTS_MAX: usize = 128;
/// Continuations of one score request.
pub const SCORE_CHOICES_MAX: usize = 128;
/// Continuations of one score that run at once: enough rows for products to run at their full speed, and no more pages
/// (one each, beside the prompt's) than a long prompt takes.
pub const SCORE_LANES_MAX: usize = 32;
/// `top_logprobs` of a chat (OpenAI's bound) and `logprobs` of a completion.
pub const CHAT_TOP_LOGPROBS_MAX: usize = 20;
pub const COMPLETION_LOGPROBS_MAX: usize = 100;
/// Log-probabilities of one completions request, the most probable ones beside each token included; each takes some 100
/// bytes until it is sent. A body of token ids (at most 150,000 of five digits) with `logprobs` 1 needs 300,000.
pub const COMPLETION_TOP_ENTRIES_MAX: u64 = 1_000_000;
/// Interventions of one request; each costs one addition per row and block.
pub const INTERVENTIONS_MAX: usize = 8;
/// Characters of a steering expression.
pub const EXPRESSION_BYTES_MAX: usize = 1024;
/// Rows of a soft prompt.
pub const SOFT_ROWS_MAX: usize = 64;

// ---- steering ----
/// From this dose on an answer carries a warning (steering.md: 0.7 is far past collapse).
pub const DOSE_WARN: f32 = 0.5;
/// Above this dose a request is refused unless `--max-dose` says otherwise.
pub const DOSE_MAX: f32 = 1.0;
/// The doses of the parts of a plan may sum up to so many times the limit: parts that cancel are no way around it.
pub const DOSE_PARTS_FACTOR: f32 = 4.0;
/// Header of a vector's safetensors file: 256 tensors take 25 KiB.
pub const VECTOR_HEADER_BYTES_MAX: u64 = 64 << 10;
/// Tensors of a vector file: more blocks than any model to be served.
pub const VECTOR_TENSORS_MAX: usize = 256;
/// Vectors that wait to be extracted; each takes seconds to minutes.
pub const EXTRACTIONS_WAITING_MAX: usize = 32;
/// Pairs of an uploaded contrast set, and bytes of one reply.
pub const CONTRAST_PAIRS_MAX: usize = 512;
pub const CONTRAST_TEXT_BYTES_MAX: usize = 4096;
/// Stored vectors of one model; listing them stays quick.
pub const VECTORS_MAX: usize = 1024;

// ---- model files ----
pub const GGUF_TENSORS_MAX: u64 = 65_536;
pub const GGUF_METADATA_ENTRIES_MAX: u64 = 65_536;
/// Metadata bytes, tokenizer included: gemma's 262k-token vocabulary takes 8 MiB.
pub const GGUF_METADATA_BYTES_MAX: u64 = 64 << 20;
pub const GGUF_ARRAY_ITEMS_MAX: u64 = 1 << 20;
pub const GGUF_DIMENSIONS_MAX: u32 = 4;
/// Arrays inside arrays; no file in use nests them at all.
pub const GGUF_ARRAY_DEPTH_MAX: u32 = 4;
/// Bytes of a metadata key, as the format has it.
pub const GGUF_KEY_BYTES_MAX: u64 = 65_535;
/// Bytes of a tensor's name; the format has 64, files of other tools a little more.
pub const GGUF_TENSOR_NAME_BYTES_MAX: u64 = 256;
/// Alignment of tensor data: a power of two between these; 32 where the file says nothing.
pub const GGUF_ALIGNMENT_MIN: u32 = 8;
pub const GGUF_ALIGNMENT_MAX: u32 = 65_536;
/// Bytes of one downloaded file: the largest open models in one piece; keeps a wrong size header from filling the disk.
pub const DOWNLOAD_BYTES_MAX: u64 = 1 << 40;
/// Bytes of a hub's answer to "which files are there".
pub const HUB_LISTING_BYTES_MAX: u64 = 16 << 20;
/// A source must answer its first connection by then, or the next one is tried.
pub const REACH_SECONDS_MAX: u64 = 3;
/// A download that brings nothing for so long is ended; the next pull continues it.
pub const DOWNLOAD_STALL_SECONDS_MAX: u64 = 30;
pub const BLOCKS_MAX: u32 = 1024;
pub const WIDTH_MAX: u32 = 1 << 17;
pub const VOCABULARY_MAX: u32 = 1 << 21;

// ---- templates ----
/// Instructions a chat template may run; an ordinary one needs a few thousand.
pub const TEMPLATE_FUEL: u64 = 500_000;
pub const TEMPLATE_RECURSION_MAX: usize = 64;
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;
/// Stack of a rendering: values nested as deep as the fuel pays for need 16 MiB. Touched only as far as used.
pub const TEMPLATE_STACK_BYTES: usize = 64 << 20;
/// Longest rendered chat and longest text that is tokenised: a body's worth of messages and what a template adds.
pub const ENCODE_BYTES_MAX: usize = JSON_BODY_BYTES_MAX + TEMPLATE_BYTES_MAX;

// ---- engine ----
/// Requests waiting for a slot; more are answered 429.
pub const QUEUE_MAX: usize = 64;
/// Sequences that jobs may have in the engine; an extraction submits some two hundred.
pub const QUEUED_JOBS_MAX: u64 = 4096;
/// Owners that the engine remembers as forgotten, for requests of theirs that are on their way meanwhile: seconds, so some
/// thousand deletions are plenty.
pub const FORGOTTEN_OWNERS_MAX: usize = 4096;
/// Positions of one page of the KV cache; also the tile of attention, counted from position 0.
pub const PAGE_POSITIONS: usize = 64;
