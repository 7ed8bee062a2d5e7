# The first corpus of the fuzz targets: small files of each kind, made of the repository's fixtures and by hand.
#
#   python3 scripts/make_fuzz_corpus.py
#
# Needs the standard library only; equal runs give equal bytes. Files that fuzzing found stay as they are: this writes
# its own names and removes nothing.
import json
import shutil
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests/fixtures"
CORPUS = ROOT / "fuzz/corpus"


def put(target: str, name: str, content) -> None:
    if isinstance(content, str):
        content = content.encode()
    elif not isinstance(content, bytes):
        content = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def copy(target: str, *files: str) -> None:
    for file in files:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FIXTURES / file, folder / Path(file).name)


# ---- GGUF ----


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(given) -> bytes:
    """A metadata value with its type."""
    if isinstance(given, bool):
        return struct.pack("<IB", 7, given)
    if isinstance(given, int):
        return struct.pack("<II", 4, given)
    if isinstance(given, float):
        return struct.pack("<If", 6, given)
    if isinstance(given, str):
        return struct.pack("<I", 8) + text(given)
    if isinstance(given[0], str):
        return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
    kind, code = (6, "f") if isinstance(given[0], float) else (5, "i")
    return struct.pack(f"<IIQ{len(given)}{code}", 9, kind, len(given), *given)


def gguf(metadata: dict, tensors: dict) -> bytes:
    """`tensors`: shape, slowest first, by name; Q8_0 for matrices, F32 for vectors, all small numbers."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, given in metadata.items():
        head += text(key) + value(given)
    data = b""
    for name, shape in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", 0 if len(shape) == 1 else 8, len(data))
        if len(shape) == 1:
            data += struct.pack("<f", 0.5) * shape[0]
        else:
            blocks = shape[0] * shape[1] // 32
            data += b"".join(struct.pack("<H", 0x1C00) + bytes((i * 7 + j) % 251 for j in range(32)) for i in range(blocks))
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tiny_model(architecture: str) -> bytes:
    """One block of width 32, and a tokenizer of letters."""
    controls = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokens = controls + [f"<0x{byte:02X}>" for byte in range(0x20, 0x40)] + list("\u2581abcdehlo") + ["he", "ll", "hell", "hello"]
    a = architecture
    metadata = {
        "general.architecture": a,
        f"{a}.context_length": 256,
        f"{a}.embedding_length": 32,
        f"{a}.block_count": 1,
        f"{a}.feed_forward_length": 32,
        f"{a}.attention.head_count": 2,
        f"{a}.attention.head_count_kv": 1,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{a}.attention.key_length": 16,
        f"{a}.attention.value_length": 16,
        f"{a}.rope.dimension_count": 16,
        f"{a}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.token_type": [3] * 5 + [6] * 32 + [1] * (len(tokens) - 37),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 4,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }
    tensors = {"token_embd.weight": [len(tokens), 32], "output_norm.weight": [32]}
    for name, shape in {
        "attn_norm": [32],
        "attn_q": [32, 32],
        "attn_k": [16, 32],
        "attn_v": [16, 32],
        "attn_output": [32, 32],
        "ffn_norm": [32],
        "ffn_gate": [32, 32],
        "ffn_up": [32, 32],
        "ffn_down": [32, 32],
    }.items():
        tensors[f"blk.0.{name}.weight"] = shape
    if a == "qwen3":
        tensors |= {"blk.0.attn_q_norm.weight": [16], "blk.0.attn_k_norm.weight": [16]}
    return gguf(metadata, tensors)


def models() -> None:
    put("gguf", "tiny.gguf", gguf({"general.architecture": "x", "n": 3, "f": 0.5, "b": True, "a": [1, 2], "s": ["a", ""]}, {"m": [2, 32], "v": [3]}))
    put("gguf", "alignment_0.gguf", gguf({"general.alignment": 0}, {"v": [3]}))
    put("gguf", "vector.gguf", gguf({"general.architecture": "controlvector", "controlvector.model_hint": "llama"}, {"direction.1": [8], "direction.2": [8]}))
    huge = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQQIQ", 2, 1 << 32, 1 << 32, 0, 0)
    put("gguf", "shape_2_64.gguf", huge)
    put("gguf", "items_2_32.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 32))
    for architecture in ["llama", "qwen3"]:
        put("gguf_model", f"{architecture}.gguf", tiny_model(architecture))
    copy("gguf_model", "tokenizers/default.gguf", "tokenizers/qwen.gguf")
    for family in ["llama", "gemma3", "phi3", "qwen2"]:
        folder = FIXTURES / "models" / family / "config.json"
        put("config_json", f"{family}.json", folder.read_bytes())


# ---- safetensors ----


def safetensors(metadata: dict, tensors: dict, kind: str = "F32") -> bytes:
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (shape, values) in tensors.items():
        begin = len(data)
        data += struct.pack(f"<{len(values)}f", *values) if kind == "F32" else struct.pack(f"<{len(values)}e", *values)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensors() -> None:
    rows = [0.25 * ((i * 5) % 7 - 3) for i in range(8)]
    put("safetensors", "f32.safetensors", safetensors({"a": "b"}, {"x": ([2, 4], rows), "y": ([0], [])}))
    put("safetensors", "f16.safetensors", safetensors({}, {"x": ([8], rows)}, "F16"))
    put("safetensors", "length_2_63.safetensors", struct.pack("<Q", 1 << 63) + b"{}")
    put("safetensors", "twice.safetensors", struct.pack("<Q", 88) + b'{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offs'[:88] + b"1234")
    put("vector", "v.safetensors", safetensors({"format": "demeanor"}, {"direction.1": ([8], rows), "direction.2": ([8], rows)}))
    put("vector", "v.gguf", gguf({"general.architecture": "controlvector", "controlvector.model_hint": "llama"}, {"direction.1": [8], "direction.2": [8]}))
    put("vector", "v.json", {"directions": {"1": rows, "2": rows}})
    adapter = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2, "token_dim": 4, "base_model_name_or_path": "m"}
    plain = safetensors({"format": "pt"}, {"prompt_embeddings": ([2, 4], rows)})
    put("soft_prompt", "rows.safetensors", plain)
    put("soft_prompt", "adapter.safetensors", plain + b"\0" + json.dumps(adapter).encode())
    digest = "0" * 64
    labels = {
        "schema": "demeanor.projector/1", "form": "static", "k": "1", "d_model": "4", "embedding": "2", "scale": "1",
        "temperature": "1", "variance_between": "1", "variance_within": "1", "n0": "1", "n_min": "1", "cap": "1",
        "weights": digest, "encoder": digest, "encoder_name": "e", "data": digest, "recipe": "r",
    }
    parts = {"centre": ([2], rows[:2]), "mean": ([2], rows[:2]), "constant": ([1, 4], rows[:4]), "layer.0.weight": ([4, 2], rows)}
    put("soft_prompt", "projector.safetensors", safetensors(labels, parts))


# ---- text ----


def tokenizers() -> None:
    copy("tokenizer_json", "tokenizers/llama2.json", "tokenizers/qwen.json")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tiny = {
        "version": "1.0",
        "added_tokens": [{"id": 5, "content": "<|im_end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": {"h": 0, "e": 1, "l": 2, "o": 3, "he": 4}, "merges": ["h e"]},
    }
    put("tokenizer_json", "tiny.json", tiny)
    config = {"eos_token": "<|im_end|>", "add_bos_token": False, "chat_template": CHATML}
    put("tokenizer_json", "tiny_with_config.json", json.dumps(tiny) + "\0" + json.dumps(config))
    tiny["model"] |= {"continuing_subword_prefix": "x", "merges": [["h", "\u00e9"]]}
    put("tokenizer_json", "prefix_cuts_a_character.json", tiny)


def templates() -> None:
    known = json.loads((FIXTURES / "templates.json").read_text())["templates"]
    for name, source in known.items():
        put("template", f"{name}.jinja", source if isinstance(source, str) else json.dumps(source))
    put("template", "chatml.jinja", CHATML)
    put("template", "long_string.jinja", "{{ 'x' * 100000000 }}")
    put("template", "doubling.jinja", "{% set ns = namespace(a='x') %}{% for i in range(40) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}")
    put("template", "itself.jinja", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")
    put("template", "filters.jinja", "{{ messages | map(attribute='content') | list | join('|') | upper | replace('A', 'b') | tojson(indent=2) }}{{ messages[0].content.split(' ')[-1].strip() }}")


# ---- personas ----


def personas() -> None:
    cards = "cards/"
    copy("card_json", *[cards + name for name in ["mira_v1.json", "mira_v2.json", "mira_v3.json", "bad_book.json", "bad_surrogate.json"]])
    copy("card_png", *[cards + name for name in ["mira_packed.png", "mira_v2.png", "mira_both.png", "bad_length.png"]])
    copy("card_charx", *[cards + name for name in ["mira_v3.charx", "bad_traversal.charx"]])
    copy("modelfile", cards + "Modelfile", cards + "bad_adapter.modelfile")
    put("modelfile", "quotes.modelfile", 'FROM x\nSYSTEM """a\nb"""\nPARAMETER temperature 0.7\nPARAMETER stop "<|x|>"\nMESSAGE user hi\nMESSAGE assistant """ho"""\n# c\n')
    book = json.loads((FIXTURES / "cards/mira_v3.json").read_text())["data"]["character_book"]
    put("lorebook", "mira.json", book)
    entry = {"keys": ["/a+b?/i", "lamp"], "content": "@@activate_only_after 1\n@@depth 2\nThe {{char}} lamp.", "use_regex": True, "insertion_order": 3}
    put("lorebook", "patterns.json", {"recursive_scanning": True, "scan_depth": 2, "token_budget": 50, "entries": [entry, entry | {"use_regex": False, "selective": True, "secondary_keys": ["mira"]}]})
    put("persona", "cook.json", {name: v for name, v in json.loads((ROOT / "models/personas/plain-cook.json").read_text()).items() if name not in ("schema", "name")})
    sampling = {"temperature": 0.7, "top_p": 0.9, "seed": 18446744073709551615, "stop": ["X"]}
    steering = [{"vector": "warm", "coefficient": 0.1, "unit": "dose", "blocks": [[1, 4]], "positions": "response"}]
    put("persona", "full.json", {"system": "You are {{char}}.", "steering": steering, "soft_prompt": "poet", "user": None, "sampling": sampling, "description": "d", "card": json.loads((FIXTURES / "cards/mira_v1.json").read_text())})


# ---- requests ----


def requests() -> None:
    user = {"role": "user", "content": "<|im_end|>Hi"}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
    put("chat_body", "plain.json", {"model": "m", "messages": [user], "temperature": 0.7, "top_p": 0.9, "max_tokens": 5, "n": 2, "stop": ["x"], "seed": 7, "stream": True})
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}
    put("chat_body", "tools.json", {"messages": [user, call, {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "2"}]}, user], "tools": [tool], "tool_choice": "auto"})
    schema = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": {"type": "object", "properties": {"a": {"enum": ["x", 1]}}}}}
    put("chat_body", "shape.json", {"messages": [{"role": "system", "content": "s"}, user, {"role": "assistant", "content": "Ja"}], "response_format": schema, "logit_bias": {"3": 1.5, "a": -100}, "logprobs": True, "top_logprobs": 2})
    put("chat_body", "template.json", {"messages": [user], "chat_template_kwargs": {"enable_thinking": False}, "documents": [{"title": "t", "text": "x"}], "add_generation_prompt": False, "min_p": 0.1, "repetition_penalty": 1.1, "cache_salt": "s", "compare": True})
    put("completion_body", "llama.json", {"prompt": "Once</s>", "n_predict": 8, "n_probs": 2, "repeat_penalty": 1.1, "repeat_last_n": 64, "samplers": ["top_k", "min_p"], "cache_prompt": True, "stop": ["\n"], "grammar": "root ::= \"a\"+"})
    put("completion_body", "ids.json", {"prompt": [[1, 5, 6], "text"], "max_tokens": 0, "logit_bias": [[5, False], ["a", 2.0]], "return_tokens": True})
    put("completion_body", "many.json", {"prompt": [3, 4, 5], "temperature": 0, "ignore_eos": True, "typical_p": 0.5, "seed": -1, "stop_token_ids": [4]})
    for name, given in {
        "simple": "0.8 warm[8..16]@response - 0.3 formal",
        "positions": "-1.5 8bit@first:3 + 2e-3 a-b[0,3,5..7]@after:2",
        "ablate": "!warm@prompt + 0.5 x@when:sad>0.25",
        "list": '[{"vector":"warm","coefficient":0.1,"unit":"dose","blocks":[[1,4]],"positions":"first:2"},{"directions":{"3":[0.5,1]},"coefficient":-1}]',
    }.items():
        put("expression", name, given)
    schemas = {
        "object": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2}}, "required": ["a"], "additionalProperties": False},
        "references": {"$defs": {"n": {"anyOf": [{"const": None}, {"$ref": "#/$defs/n"}]}}, "allOf": [{"$ref": "#/$defs/n"}], "type": ["string", "null"], "format": "date", "pattern": "^2"},
    }
    for name, schema in schemas.items():
        put("constraint", f"schema_{name}", "s" + json.dumps(schema))
    put("constraint", "regex", "r^(a|bc){1,3}[^x-z]?\\d+$")
    put("constraint", "grammar_gbnf", 'groot ::= "a" item* [0-9]\nitem ::= "," root | "(" root ")"\n')
    put("constraint", "grammar_lark", 'gstart: item ("," item)*\nitem: /[a-c]{2}/ | "x" | %json {"type":"boolean"}\n')
    put("constraint", "choice", "cyes\nno\nmaybe")


# ---- data ----


def data() -> None:
    inventory = json.loads((ROOT / "models/inventories/ipip-neo-120.json").read_text())
    put("inventory", "eight.json", inventory | {"items": inventory["items"][:8]})
    put("probe_report", "thresholds.json", (ROOT / "models/gates/default.json").read_bytes())
    digest = "0" * 64
    change = {"difference": 0.1, "interval": [0.0, 0.2]}
    aspect = {"name": "hostile_replies", "harm_is": "up", "n": 60, "invalid": 1, **change, "against_prompt": change}
    report = {"schema": "demeanor.probe/1", "digest": digest, "suite": "quick", "aspects": [aspect]}
    put("probe_report", "report.json", report)
    person = {"user": "a", "split": "train", "history": [{"text": "Tea."}], "targets": [{"prompt": "p", "choices": [" a", " b"], "answer": 1}]}
    reply = {"user": "b", "split": "train", "history": [], "targets": [{"messages": [{"role": "user", "content": "hi"}], "reply": "ho"}]}
    put("people", "questions.jsonl", json.dumps(person) + "\n" + json.dumps(person | {"user": "c", "split": "stop"}) + "\n")
    put("people", "replies.jsonl", json.dumps(reply) + "\n")


for make in [models, tensors, tokenizers, templates, personas, requests, data]:
    make()
size = sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file())
print(f"{sum(1 for file in CORPUS.rglob('*') if file.is_file())} files, {size / 1000:.0f} KB")
