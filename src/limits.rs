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
/// Pairs of a response's `metadata`, which its answer repeats: OpenAI's own limit.
pub const METADATA_PAIRS_MAX: usize = 16;
/// Bytes of one of their values: OpenAI's own limit.
pub const METADATA_VALUE_BYTES_MAX: usize = 512;
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
/// Numbers that one request may read out of the residual stream: 16 MiB, of which a full batch holds sixteen.
pub const CAPTURED_VALUES_MAX: usize = 4 << 20;
/// Vectors that one request may project on.
pub const PROJECTIONS_MAX: usize = 16;
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
/// System text of a persona: a character card with its scenario and examples.
pub const PERSONA_SYSTEM_BYTES_MAX: usize = 64 << 10;
pub const PERSONA_DESCRIPTION_BYTES_MAX: usize = 4 << 10;
/// JSON body of a persona: a card and what stands beside it.
pub const PERSONA_BODY_BYTES_MAX: usize = 2 << 20;
/// Personas of one page of a listing, when nothing else is asked for.
pub const PERSONAS_PAGE: usize = 100;
/// Names that `GET /v1/models` lists for personas unless asked for more: clients show them in a menu.
pub const PERSONA_MODELS_LISTED: usize = 200;
/// Rows of a soft prompt.
pub const SOFT_ROWS_MAX: usize = 64;
/// Named soft prompts of one model; listing them stays quick.
pub const SOFT_PROMPTS_MAX: usize = 1024;
/// Bytes of a soft prompt's file: 64 rows of the widest model in f32, and a header.
pub const SOFT_PROMPT_FILE_BYTES_MAX: usize = 16 << 20;
/// Tensors that are listed before a file of more than one is refused.
pub const SOFT_PROMPT_TENSORS_MAX: usize = 16;
/// Bytes of an `adapter_config.json`; PEFT writes some 700.
pub const ADAPTER_CONFIG_BYTES_MAX: usize = 64 << 10;
/// Length of a soft row over the median length of a token's row. Trained prompts lie between; far shorter or longer rows
/// drown in the first norm or shout down the context.
pub const SOFT_ROW_NORM_MIN: f32 = 0.1;
pub const SOFT_ROW_NORM_MAX: f32 = 4.0;
/// A row this near to a control token's would be one.
pub const CONTROL_COSINE_MAX: f32 = 0.999;
/// Control tokens that rows are compared with; those of templates have low ids, gemma has thousands of unused ones.
pub const CONTROL_ROWS_MAX: usize = 1024;
/// Rows whose lengths are measured at load; their median is that of the table to a percent.
pub const EMBEDDING_NORMS_MAX: usize = 8192;

// ---- character cards ----
/// A file that holds a card: most of it is a picture.
pub const CARD_FILE_BYTES_MAX: usize = UPLOAD_BYTES_MAX;
/// The card itself as JSON: a lorebook of a thousand entries. Every version of a persona keeps its card.
pub const CARD_BYTES_MAX: usize = 1 << 20;
/// Files in a CHARX archive; honest ones have a card and some pictures.
pub const CARD_ZIP_ENTRIES_MAX: usize = 4096;
/// Notes of one import; each is a line for a person.
pub const CARD_NOTES_MAX: usize = 32;
/// Characters of a user's name that may stand in a persona's text.
pub const CARD_USER_NAME_CHARS_MAX: usize = 64;
/// Entries of a lorebook that could ever be used.
pub const LORE_ENTRIES_MAX: usize = 4096;
/// Keys of a lorebook, all entries together; each is looked for in the scanned text of each request.
pub const LORE_KEYS_MAX: usize = 8192;
/// Bytes of one key: a name or a phrase, or a pattern.
pub const LORE_KEY_BYTES_MAX: usize = 512;
/// Patterns of a lorebook, and bytes that one may take when compiled: a few Unicode classes. A search takes time in
/// proportion to this times the scanned text.
pub const LORE_PATTERNS_MAX: usize = 128;
pub const LORE_PATTERN_BYTES_MAX: usize = 128 << 10;
/// Nesting of a pattern; deeper ones take stack in the compiler.
pub const LORE_PATTERN_DEPTH_MAX: u32 = 32;
/// Messages that keys are looked for in, where the card says nothing, and at most.
pub const LORE_SCAN_DEPTH: u32 = 4;
pub const LORE_SCAN_DEPTH_MAX: u32 = 100;
/// Bytes at the end of those messages that are looked at; 8192 keys take some 100 ms there.
pub const LORE_SCANNED_BYTES_MAX: usize = 32 << 10;
/// Rounds in which entries may bring in further entries.
pub const LORE_ROUNDS_MAX: usize = 4;
/// Tokens of all entries of one request, where the card says nothing, and at most: half of a small model's context.
pub const LORE_TOKENS: u32 = 1024;
pub const LORE_TOKENS_MAX: u32 = 4096;

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

// ---- alignment ----
/// Answers of use below which a person is not told from others; the published search has no use for the middle of the scale.
pub const USABLE_ANSWERS_MIN: usize = 40;
/// Weights of a model that is aligned: its gradients need them in f32, 12 GB at this size.
pub const ALIGNMENT_PARAMETERS_MAX: u64 = 3_000_000_000;
/// Body of an alignment without its inventory: a map of 1000 answers and a system text that is escaped throughout.
pub const ALIGN_BODY_BYTES_MAX: usize = 512 << 10;
/// Measurements of one model and inventory: the gradients of 1000 items of a model of this size take 1.4 GB.
pub const ALIGNMENT_FILE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of an inventory file: the longest form in use, 300 items with norms, takes 45 KiB.
pub const INVENTORY_BYTES_MAX: usize = 1 << 20;
/// Items of an inventory; each costs a forward and a backward pass once per model.
pub const INVENTORY_ITEMS_MAX: usize = 1000;
/// Bytes of one item's statement: a short sentence.
pub const INVENTORY_TEXT_BYTES_MAX: usize = 512;
/// Bytes of an inventory's title, source and other one-line fields, and of a facet's name.
pub const INVENTORY_LABEL_BYTES_MAX: usize = 256;
/// One file of the PAPI folder: the answers of 150 people take 500 KB, of all 1,000 some 4 MB.
pub const PAPI_FILE_BYTES_MAX: u64 = 16 << 20;
/// Fewer answers say nothing: at ten, two a domain, the standard error of a domain's mean (.8) is above the spread of such
/// means between people (.55 to .75).
pub const ANSWERS_MIN: usize = 10;
/// Answered items that a domain's score needs: its standard error (answers of a domain spread by about 1.1) stays below
/// half a step of the scale.
pub const DOMAIN_ANSWERS_MIN: usize = 6;
/// Answered items that a facet's score needs; facets of short forms have four.
pub const FACET_ANSWERS_MIN: usize = 2;
/// Careless answering: each bound is beyond what 99 of 100 published respondents do. Longest run of one answer: 11 in 300
/// items, 10 in 120.
pub const LONG_RUN_MAX: usize = 12;
/// Share of the most frequent answer: .66 at the 99th percentile.
pub const ONE_ANSWER_SHARE_MAX: f64 = 0.75;
/// Standard deviation of the raw answers over items: .58 at the 1st percentile.
pub const ANSWER_SPREAD_MIN: f64 = 0.5;
/// Mean over facets of the gap between forward and reverse items, both keyed: .74 at the 99th percentile with ten items a
/// facet, .82 with four. Random answers give .75 and 1.25, one answer everywhere (but the middle) 2 and more.
pub const FACET_GAP_MAX: f64 = 0.85;

// ---- gate ----
/// Bytes of a thresholds file; the shipped ones have some hundred.
pub const GATE_FILE_BYTES_MAX: usize = 64 << 10;
/// Rules of a thresholds file: each aspect against both references.
pub const GATE_RULES_MAX: usize = 64;
/// Largest change that a rule may name, in its aspect's unit: no aspect measured so far changes by more than some nat.
pub const GATE_CHANGE_MAX: f64 = 100.0;
/// Fewest items that a rule may ask for: below, an interval says little, and a pass nothing.
pub const GATE_ITEMS_MIN: u64 = 10;
pub const GATE_ITEMS_MAX: u64 = 1_000_000;
/// Share of items without a valid number up to which an aspect is judged.
pub const GATE_INVALID_SHARE_MAX: f64 = 0.1;
/// Aspects of one report that are looked at.
pub const PROBE_ASPECTS_MAX: usize = 64;
/// Bytes of one kept report; figures, arms and limits take some 30 KB, items are kept in files of their own.
pub const GATE_REPORT_BYTES_MAX: usize = 1 << 20;
/// Persona digests whose newest report is at hand for requests, some KB each; older ones must be probed again.
pub const GATE_REPORTS_IN_MEMORY_MAX: usize = 16_384;

// ---- users ----
/// Users or items on one page of a listing.
pub const USERS_PAGE_MAX: usize = 1000;
pub const HISTORY_PAGE_MAX: usize = 1000;
/// Body of one addition to a history; parsed JSON takes up to thirty times its text. A larger history comes in parts:
/// each part is one transaction.
pub const HISTORY_BODY_BYTES_MAX: usize = 2 << 20;
/// Items of one addition; the transaction takes well under a second.
pub const HISTORY_ITEMS_AT_ONCE_MAX: usize = 10_000;
/// Text or input of one item: a long letter. The encoder sees its beginning.
pub const HISTORY_TEXT_BYTES_MAX: usize = 64 << 10;
/// Session or source of an item.
pub const HISTORY_LABEL_BYTES_MAX: usize = 256;
/// Characters of an item's input that the encoder sees before the text; the encoder reads some thousand in all.
pub const HISTORY_INPUT_CHARS_EMBEDDED: usize = 300;
/// Bytes of the texts of one user: an export holds them all in memory.
pub const HISTORY_BYTES_MAX: u64 = 64 << 20;
/// Items that an addition embeds before it answers: some hundred milliseconds. More are embedded in the background.
pub const HISTORY_EMBEDDED_INLINE_MAX: usize = 64;
/// Items read from the store at once to be embedded, and the wait after a failure.
pub const EMBEDDING_ITEMS_READ: usize = 1024;
pub const EMBEDDING_RETRY_SECONDS: u64 = 60;
/// Texts of one call of the encoder in the background; requests in between wait no longer than that.
pub const EMBEDDING_BATCH: usize = 16;
/// Soft prompts of users kept in memory: 4 rows of 576 take 9 KiB, so all of a small server's users; of projectors that
/// look at the request the embeddings of the items, 1.5 KiB each.
pub const USER_PROMPTS_IN_MEMORY_BYTES_MAX: usize = 128 << 20;

// ---- store ----
/// Writes that wait for the store's thread; further ones wait outside.
pub const STORE_WRITES_WAITING_MAX: usize = 1024;
/// Writes of one transaction: a sync of the disk is shared, and a group is undone within milliseconds.
pub const STORE_GROUP_MAX: usize = 256;
/// Connections that read; each holds a cache of 2 MB.
pub const STORE_READERS: usize = 4;
/// How long a connection waits for another process, a backup for instance.
pub const STORE_BUSY_MS_MAX: u64 = 5000;
/// The log's file is cut back to this when it was emptied.
pub const STORE_LOG_BYTES_MAX: i64 = 64 << 20;
/// One blob: four times the largest vector file.
pub const BLOB_BYTES_MAX: u64 = 4 * UPLOAD_BYTES_MAX as u64;
pub const STORE_PERSONAS_MAX: u64 = 1000;
/// Versions of one persona; each change makes one and none is forgotten.
pub const STORE_PERSONA_VERSIONS_MAX: u64 = 10_000;
pub const STORE_USERS_MAX: u64 = 100_000;
/// Items of one history: their embeddings take 77 MB, and aggregating them some milliseconds.
pub const STORE_HISTORY_ITEMS_MAX: u64 = 50_000;
/// Reports of one kind and subject; the newest are kept.
pub const STORE_REPORTS_KEPT: i64 = 32;
/// Finished jobs that can still be asked for.
pub const STORE_JOBS_KEPT: i64 = 256;
/// Jobs that wait for their turn; each takes seconds to hours.
pub const JOBS_WAITING_MAX: usize = 32;

// ---- projectors ----
/// Largest projector file: one layer of 8 rows of d_model 4096 from an embedding of 1024, in half floats, twice.
pub const PROJECTOR_BYTES_MAX: usize = 128 << 20;
/// Header of a projector file: eight tensors and seventeen labels take some 2 KiB.
pub const PROJECTOR_HEADER_BYTES_MAX: u64 = 64 << 10;
/// Tensors of a projector file: two layers with bias, query, constant and two means.
pub const PROJECTOR_TENSORS_MAX: usize = 8;
/// Width of a projector's hidden layer.
pub const PROJECTOR_HIDDEN_MAX: usize = 4096;
/// Size of a file of training people: a thousand people with a hundred items and a hundred targets each take some 40 MB.
pub const PEOPLE_BYTES_MAX: u64 = 512 << 20;
/// Bytes of one text of training people.
pub const PEOPLE_TEXT_BYTES_MAX: usize = 16 << 10;
/// Distinct questions of training people; each needs a backward pass for a first-order start.
pub const PEOPLE_ITEMS_MAX: usize = 4096;
/// Tokens of one training sequence: a batch of sixteen must fit beside the weights.
pub const TRAINING_TOKENS_MAX: usize = 512;
/// Tensors of a training checkpoint: at most seven trained ones, each with two moments and its best values.
pub const CHECKPOINT_TENSORS_MAX: usize = 64;
/// Width of a sentence embedding; common encoders have 384 to 4096.
pub const EMBEDDING_WIDTH_MAX: usize = 8192;

// ---- probe ----
/// Bytes of an item set; the largest that ships has 12 KiB.
pub const PROBE_SET_BYTES_MAX: usize = 1 << 20;
/// Wordings of a set, and variants of one; both together make the items.
pub const PROBE_WORDINGS_MAX: usize = 512;
/// Continuations of one kind after one prompt; each takes a lane of a score.
pub const PROBE_CHOICES_MAX: usize = 32;
/// Bytes of one text of a set: a few sentences.
pub const PROBE_TEXT_BYTES_MAX: usize = 2048;
/// Arms whose values are kept between runs, so that plain and neutral ones are asked once; 4 KiB each.
pub const PROBE_ARMS_KEPT_MAX: usize = 64;
/// Resamples of the probe's intervals and drawn signs of its tests.
pub const PROBE_ROUNDS: usize = 10_000;
/// Items of an aspect that a report shows as its worst.
pub const PROBE_WORST_SHOWN: usize = 10;
/// Bytes of one file of a benchmark's folder; the largest of BBQ has some 20 MB.
pub const BENCHMARK_FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a report that is read from a file; a full one has some 200 KiB.
pub const PROBE_REPORT_BYTES_MAX: u64 = 8 << 20;

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
/// Files of one repository that are looked at; the largest have some thousand.
pub const REPOSITORY_FILES_MAX: usize = 10_000;
/// Folders, snapshots or files of one folder of a model cache that are looked at, and models that `ls` tells of.
pub const CACHE_ENTRIES_MAX: usize = 4096;
pub const LISTED_MODELS_MAX: usize = 512;
/// Bytes of a manifest of Ollama's; ordinary ones have one or two thousand.
pub const OLLAMA_MANIFEST_BYTES_MAX: u64 = 256 << 10;
/// A source must answer its first connection by then, or the next one is tried.
pub const REACH_SECONDS_MAX: u64 = 3;
/// A download that brings nothing for so long is ended; the next pull continues it.
pub const DOWNLOAD_STALL_SECONDS_MAX: u64 = 30;
/// Header of one safetensors shard and its tensors: a header of 90 MB costs the reader 1.3 GB.
pub const SHARD_HEADER_BYTES_MAX: u64 = 8 << 20;
pub const SHARD_TENSORS_MAX: usize = 65_536;
/// Shards of one model; the largest open ones have some 200.
pub const SHARDS_MAX: usize = 1024;
/// Bytes of `model.safetensors.index.json`: a name and a file for each of 65,536 tensors.
pub const SHARD_INDEX_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a model folder's `config.json` and `generation_config.json`; some kilobytes are usual.
pub const MODEL_CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Tokens that may end an answer.
pub const END_TOKENS_MAX: usize = 64;
pub const BLOCKS_MAX: u32 = 1024;
pub const WIDTH_MAX: u32 = 1 << 17;
pub const VOCABULARY_MAX: u32 = 1 << 21;

/// Bytes of a `tokenizer.json`: gemma's takes 33 MB.
pub const TOKENIZER_FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a `tokenizer_config.json`, which lists thousands of added tokens again: gemma's takes 1.2 MB.
pub const TOKENIZER_CONFIG_BYTES_MAX: u64 = 16 << 20;
/// JSON values of one component of a tokenizer; the largest in use, a template with all its tokens, has some hundred.
pub const TOKENIZER_COMPONENT_VALUES_MAX: usize = 10_000;
/// Merges of a tokenizer: gemma's 262,144 tokens have 514,906.
pub const TOKENIZER_MERGES_MAX: usize = 1 << 21;
/// Ids below the highest that no token has: o200k leaves some twenty. Each gets a token, so a small file could ask for
/// millions.
pub const TOKENIZER_GAPS_MAX: usize = 4096;

// ---- check of a stranger's model ----
/// Memory of the process that checks one: gemma's vocabulary takes 94 MB, a `tokenizer.json` of the largest size several
/// times its 64 MB, and a template has a stack of 64 MB.
pub const VERIFY_MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Address space beside that memory and the mapped files: the program itself, what threads reserve and do not use.
pub const VERIFY_SPACE_BYTES: u64 = 512 << 20;
/// Seconds of the processor that it may take; gemma's vocabulary takes about one.
pub const VERIFY_CPU_SECONDS_MAX: u64 = 20;
/// Bytes of its report that are read; a full one has some 20 KiB.
pub const VERIFY_OUTPUT_BYTES_MAX: u64 = 256 << 10;
/// Findings of one report.
pub const VERIFY_FINDINGS_MAX: usize = 32;

// ---- sentence encoder ----
/// Texts of one embeddings request: some 10 seconds of work for two cores when all are long.
pub const EMBEDDING_TEXTS_MAX: usize = 256;
/// How long an embeddings request waits for those before it; then it is answered 503.
pub const EMBEDDING_WAIT_SECONDS_MAX: u64 = 30;
/// Bytes of one text that are read; 256 tokens of ordinary text end far before.
pub const ENCODER_TEXT_BYTES_MAX: usize = 32 << 10;
/// Header of an encoder's safetensors file: 24 layers take 50 KiB.
pub const ENCODER_HEADER_BYTES_MAX: u64 = 8 << 20;
/// Tensors of an encoder's file: 24 layers have some 400.
pub const ENCODER_TENSORS_MAX: usize = 4096;
/// Bytes of an encoder's weights: large BERTs in f32 have 1.4 GB.
pub const ENCODER_FILE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of its tokenizer and of its other JSON files.
pub const ENCODER_TOKENIZER_BYTES_MAX: u64 = 16 << 20;
pub const ENCODER_CONFIG_BYTES_MAX: u64 = 64 << 10;
/// Layers, widths and positions of the BERT family in use stay far below these.
pub const ENCODER_LAYERS_MAX: usize = 64;
pub const ENCODER_WIDTH_MAX: usize = 8192;
pub const ENCODER_POSITIONS_MAX: usize = 8192;
/// A load that failed is tried again by the first request after so long.
pub const ENCODER_RETRY_SECONDS: u64 = 30;

// ---- templates ----
/// Instructions a chat template may run; an ordinary one needs a few thousand.
pub const TEMPLATE_FUEL: u64 = 500_000;
pub const TEMPLATE_RECURSION_MAX: usize = 64;
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;
/// Stack of a rendering: values nested as deep as the fuel pays for need 16 MiB. Touched only as far as used.
pub const TEMPLATE_STACK_BYTES: usize = 64 << 20;
/// Longest rendered chat and longest text that is tokenised: a body's worth of messages and what a template adds.
pub const ENCODE_BYTES_MAX: usize = JSON_BODY_BYTES_MAX + TEMPLATE_BYTES_MAX;

// ---- constraints on answers ----
/// Bytes of a schema, expression or grammar; the schemas of large tools have some 20 KiB.
pub const CONSTRAINT_BYTES_MAX: usize = 64 << 10;
/// Nesting of one: parsers of all kinds recurse over it.
pub const CONSTRAINT_DEPTH_MAX: usize = 128;
/// Texts of a choice.
pub const CONSTRAINT_CHOICES_MAX: usize = 1024;
/// Stack of a compilation. Touched only as far as used.
pub const CONSTRAINT_STACK_BYTES: usize = 64 << 20;
/// A compilation that takes longer is refused; an ordinary one takes some milliseconds.
pub const CONSTRAINT_COMPILE_SECONDS_MAX: u64 = 5;
/// Compilations at once, those left to themselves included.
pub const CONSTRAINT_COMPILES_MAX: usize = 4;
/// Steps for building the expressions of a grammar: some 20 ms.
pub const CONSTRAINT_COMPILE_STEPS_MAX: u64 = 1_000_000;
/// Symbols of a compiled grammar: some MB.
pub const CONSTRAINT_SYMBOLS_MAX: usize = 200_000;
/// Steps of lexer and parser for one mask: some 15 ms and 3 ms.
pub const CONSTRAINT_LEXER_STEPS_MAX: u64 = 200_000;
pub const CONSTRAINT_PARSER_ITEMS_MAX: usize = 50_000;
/// States of one answer's lexer: 1 to 2 KiB each.
pub const CONSTRAINT_LEXER_STATES_MAX: usize = 32_768;

/// Functions that a request may offer; clients with many have some dozens.
pub const TOOLS_MAX: usize = 128;
/// Bytes of a function's name, as OpenAI has it.
pub const TOOL_NAME_BYTES_MAX: usize = 64;
/// Calls that one answer makes when it has to.
pub const TOOL_CALLS_MAX: u32 = 8;

// ---- engine ----
/// Positions of a sequence when nothing else is said: what the model was trained for, but no more than this.
pub const CONTEXT_DEFAULT_MAX: u32 = 8192;
/// Guessed tokens that a step checks: further ones are seldom right and cost a row each.
pub const DRAFT_TOKENS: u8 = 8;
/// The same, by an operator's choice: a machine on which rows cost next to nothing gains from no more.
pub const DRAFT_TOKENS_MAX: u8 = 16;
/// Requests waiting for a slot; more are answered 429.
pub const QUEUE_MAX: usize = 64;
/// Sequences that jobs may have in the engine; an extraction submits some two hundred.
pub const QUEUED_JOBS_MAX: u64 = 4096;
/// Owners that the engine remembers as forgotten, for requests of theirs that are on their way meanwhile: seconds, so some
/// thousand deletions are plenty.
pub const FORGOTTEN_OWNERS_MAX: usize = 4096;
/// Positions of one page of the KV cache; also the tile of attention, counted from position 0.
pub const PAGE_POSITIONS: usize = 64;
