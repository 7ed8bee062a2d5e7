#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizers/: tiny tokenizers of each family, in both containers, and what they make of hard strings.

    python3 -m pip install "tokenizers==0.23.3" "transformers==5.24.0" "gguf==0.19.0" jinja2
    python3 scripts/make_tiny_tokenizers.py

A family's own pipeline (normalizer, pre-tokenizer, decoder, post-processor, added tokens) is put around a vocabulary of
some hundred tokens trained on the texts below. The expected ids are those of transformers' `PreTrainedTokenizerFast` on
the written folder, without special tokens put first. Per family:

* FAMILY/tokenizer.json, tokenizer_config.json: the folder's files.
* FAMILY.gguf: the same vocabulary as a GGUF file without tensors, where GGUF can say it.
* FAMILY.json: {"bos": whether a prompt begins with BOS, "shared": [ids of each text of strings.json],
  "strings": [[text, ids] or [text, parse ids, text ids]]}, the latter with added tokens; see make_text_fixtures.py.

Only templates written for this test are in the configs; no vendor's.
"""

import json
import random
import sys
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_text_fixtures import CODE, TEXTS, random_texts, runs  # noqa: E402

SEED = 20240911
STRINGS = 180
SPACE = "\u2581"

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ANY = r"[^\r\n\p{L}\p{N}]?"
PATTERNS = {
    "llama-bpe": CONTRACTION + "|" + ANY + r"\p{L}+|\p{N}{1,3}|" + REST,
    "qwen2": CONTRACTION + "|" + ANY + r"\p{L}+|\p{N}|" + REST,
    "tekken": f"{ANY}{UPPER}*{LOWER}+|{ANY}{UPPER}+{LOWER}*" + r"|\p{N}|" + REST_SLASH,
    "gpt-4o": f"{ANY}{UPPER}*{LOWER}+{CONTRACTION}?|{ANY}{UPPER}+{LOWER}*{CONTRACTION}?" + r"|\p{N}{1,3}|" + REST_SLASH,
}

HARD = [
    "It's IT'S we'LL they'Ve I'm I'D 'tis 'S 'ſ don'T", "HTTPServer XMLHttpRequest aBcDeF ǅungla İstanbul", "path/to//file/\n/x",
    "e\u0301a\u0308 \u1100\u1161 \u212b \ufb01 A\u030a", "1234567 12 3 ١٢٣٤ ½Ⅷ", " \n \n\n x", "x \n", "\n\n\nx\r\n \r\ny", "\t\tx\t\n", "  \u3000 x",
    "...\n\n!!!\r\n  ??", "a  b   c    d", " leading", "  two leading", "trailing ", "trailing  ", "\u2581 \u2581x", "()\n{}\n  //x\n",
    "\u00a0\u00a0x\u00a0", "ªº ʰ ᵃ ·", "\u0345\u0301x", "𝒜𝒷 ꭓ Ꭓ", "नमस्ते दुनिया", "กำลัง", "😀😀 👩‍👩‍👧 ❤️", "\u200bzero\u200b", "naïve café ñ",
]


def training_texts():
    return TEXTS + CODE + HARD + [text.lower() for text in TEXTS]


def byte_level(pre, size, added, *, nfc=False, digits=False, whole_words=False, begins=None):
    model = models.BPE(ignore_merges=whole_words)
    tokenizer = Tokenizer(model)
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    if pre in PATTERNS:
        steps = [pre_tokenizers.Split(Regex(PATTERNS[pre]), behavior="isolated", invert=False),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif pre == "default":
        steps = [pre_tokenizers.Split(Regex(r"[\p{P}\$\+<=>\^~\|]+"), behavior="isolated"),
                 pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"), behavior="isolated"),
                 pre_tokenizers.Split(Regex(r"\p{N}+"), behavior="isolated"),
                 pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), behavior="isolated"),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif digits:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(training_texts(), trainer)
    if whole_words:
        # A token that no merge makes: only `ignore_merges` finds it.
        state = json.loads(tokenizer.to_str())
        state["model"]["vocab"]["Ġhidden"] = len(state["model"]["vocab"])
        tokenizer = Tokenizer.from_str(json.dumps(state))
    add_tokens(tokenizer, added)
    post_process(tokenizer, begins)
    return tokenizer


def pieces(size, added, *, prefix, fallback=True, begins=None, end_strips=False):
    """SentencePiece style. `prefix`: legacy (Prepend), first, always or never."""
    train = Tokenizer(models.BPE())
    train.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    # Words as SentencePiece trains them: a visible space begins each.
    train.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[], show_progress=False, limit_alphabet=90)
    train.train_from_iterator(training_texts(), trainer)
    state = json.loads(train.to_str())
    head = ["<unk>", "<s>", "</s>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if fallback else [])
    # Characters come last, as in SentencePiece's files.
    merged = [token for token in state["model"]["vocab"] if len(token) > 1]
    single = [token for token in state["model"]["vocab"] if len(token) == 1]
    vocab = {token: at for at, token in enumerate(head + merged + single)}
    merges = [tuple(pair) for pair in state["model"]["merges"]]
    # As the slow-to-fast conversion lists them: every cut of a piece, by the piece's rank.
    rank = {token: at for at, token in enumerate(merged)}
    merges = []
    for token in merged:
        cuts = [(token[:at], token[at:]) for at in range(1, len(token)) if token[:at] in vocab and token[at:] in vocab]
        merges += sorted(cuts, key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
    assert list(rank) == merged
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    strip = []
    if prefix == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        strip = [decoders.Strip(" ", 1, 0)]
    elif prefix == "replace":
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prefix, split=False)
        strip = [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()] + strip)
    add_tokens(tokenizer, special("<unk>", "<s>") + special("</s>", rstrip=end_strips) + added)
    post_process(tokenizer, begins)
    return tokenizer


def add_tokens(tokenizer, added):
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])


def post_process(tokenizer, begins):
    if begins:
        token = (begins, tokenizer.token_to_id(begins))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begins} $A", pair=f"{begins} $A {begins} $B", special_tokens=[token])
    elif isinstance(tokenizer.decoder, decoders.ByteLevel):
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)


def special(*texts, **options):
    return [AddedToken(text, normalized=False, special=True, **options) for text in texts]


def plain(*texts, **options):
    return [AddedToken(text, normalized=False, special=False, **options) for text in texts]


# Turns as most families write them.
TEMPLATE = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"

# Name -> (tokenizer, names of tokens, `tokenizer.ggml.pre` or None, its GGUF model or None).
FAMILIES = {
    "llama3": lambda: (byte_level("llama-bpe", 340, special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), whole_words=True, begins="<|begin_of_text|>"),
                       {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, "llama-bpe", "gpt2"),
    "qwen": lambda: (byte_level("qwen2", 340, special("<|endoftext|>", "<|im_start|>", "<|im_end|>") + plain("<think>", "</think>", "<tool_call>"), nfc=True),
                     {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}, "qwen2", "gpt2"),
    "nemo": lambda: (byte_level("tekken", 340, special("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), whole_words=True, begins="<s>"),
                     {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, "tekken", "gpt2"),
    "phi4": lambda: (byte_level("gpt-4o", 340, special("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>") + special("<|strip|>", lstrip=True, rstrip=True)),
                     {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "add_bos_token": False}, None, None),
    "gpt2": lambda: (byte_level("gpt-2", 320, special("<|endoftext|>")), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, "gpt-2", None),
    "default": lambda: (byte_level("default", 320, special("<|endoftext|>")), {"eos_token": "<|endoftext|>"}, "default", "gpt2"),
    "llama2": lambda: (pieces(300, [], prefix="legacy", begins="<s>"), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, None, "llama"),
    "mistral": lambda: (pieces(300, special("[INST]", "[/INST]"), prefix="first", begins="<s>"),
                        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}, None, None),
    "phi3": lambda: (pieces(300, special("<|endoftext|>") + special("<|user|>", "<|assistant|>", "<|end|>", rstrip=True), prefix="legacy", end_strips=True),
                     {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>", "add_bos_token": False}, None, "llama"),
    "gemma": lambda: (pieces(300, special("<start_of_turn>", "<end_of_turn>") + plain("\n", "\n\n", "<h1>"), prefix="replace", begins="<s>"),
                      {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, None, "llama"),
    "nobytes": lambda: (pieces(300, [], prefix="always", fallback=False), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, None, None),
}


def shared_strings():
    source = random.Random(SEED)
    drawn = [text for text in [*random_texts(source), *runs(source)] if len(text) <= 40]
    source.shuffle(drawn)
    fixed = [text for text in HARD + ["", " hidden hidden"] + TEXTS if len(text) <= 80]
    return list(dict.fromkeys(fixed + drawn))[:STRINGS]


def added_strings(tokenizer):
    source = random.Random(SEED)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    mixed = []
    for text in added:
        mixed += [text, f"a{text}b", f" {text} ", text + text, text[:-1], f"\n {text}\n x", f"x  {text}  y"]
    for _ in range(40):
        mixed.append("".join(source.choice(added + ["hi", " ", "\n", "<", "é", "it's "]) for _ in range(source.randint(2, 8))))
    return list(dict.fromkeys(mixed))


def write_gguf(path, tokenizer, names, pre, model, add_bos):
    state = json.loads(tokenizer.to_str())
    added = {token["id"]: token for token in state["added_tokens"]}
    texts = [tokenizer.id_to_token(at) for at in range(tokenizer.get_vocab_size())]
    kinds = []
    for at, text in enumerate(texts):
        if at in added:
            kind = gguf.TokenType.CONTROL if added[at]["special"] else gguf.TokenType.USER_DEFINED
            kinds.append(gguf.TokenType.UNKNOWN if text == "<unk>" and model == "llama" else kind)
        else:
            kinds.append(gguf.TokenType.BYTE if model == "llama" and text.startswith("<0x") else gguf.TokenType.NORMAL)
    writer = gguf.GGUFWriter(path, "phi3" if path.stem == "phi3" else "llama")
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    if model == "llama":
        writer.add_token_scores([-float(at) for at in range(len(texts))])
        if state["normalizer"]["type"] == "Replace":
            writer.add_add_space_prefix(False)
    else:
        writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    for key, add in (("bos_token", writer.add_bos_token_id), ("eos_token", writer.add_eos_token_id), ("unk_token", writer.add_unk_token_id)):
        if key in names:
            add(tokenizer.token_to_id(names[key]))
    # Llama 3's and Nemo's files leave it out.
    if pre not in ("llama-bpe", "tekken"):
        writer.add_add_bos_token(add_bos)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main():
    root = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "tokenizers"
    root.mkdir(parents=True, exist_ok=True)
    shared = shared_strings()
    (root / "strings.json").write_text("[\n" + ",\n".join(compact(text) for text in shared) + "\n]\n")
    total = (root / "strings.json").stat().st_size
    for name, make in FAMILIES.items():
        tokenizer, names, pre, model = make()
        folder = root / name
        folder.mkdir(exist_ok=True)
        if name != "default":
            # No folder's pipeline is like GGUF's `default`.
            (folder / "tokenizer.json").write_text(compact(json.loads(tokenizer.to_str())))
            config = {**names, "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        else:
            folder.rmdir()
        reference = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{key: value for key, value in names.items() if key.endswith("_token") and isinstance(value, str)})
        control = {token.content for token in reference.added_tokens_decoder.values() if token.special}
        given = [reference.encode(text, add_special_tokens=False) for text in shared]
        rows = []
        for text in added_strings(tokenizer):
            parsed = reference.encode(text, add_special_tokens=False)
            asked = reference.encode(text, add_special_tokens=False, split_special_tokens=True)
            assert not any(reference.convert_ids_to_tokens(at) in control - {"<unk>"} for at in asked), text
            rows.append([text, parsed] if parsed == asked else [text, parsed, asked])
        begins = reference.encode("x")[:1] == [reference.bos_token_id]
        lines, own = (",\n".join(compact(row) for row in part) for part in (given, rows))
        (root / f"{name}.json").write_text(f'{{"bos":{json.dumps(begins)},"shared":[\n{lines}\n],\n"strings":[\n{own}\n]}}\n')
        if model:
            write_gguf(root / f"{name}.gguf", tokenizer, names, pre, model, begins)
        size = sum(path.stat().st_size for path in [*folder.glob("*"), *root.glob(f"{name}.*")])
        total += size
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(given)} + {len(rows)} strings, {size} bytes")
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
