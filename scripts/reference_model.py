"""Load a GGUF through `transformers` in float32 and prove that the conversion kept its meaning.

Imported by the `reference_*.py` scripts, which carry the dependencies in their headers.
"""

import hashlib
import json
import math
import os

import numpy as np
import torch
from gguf import GGUFReader, dequantize

EMBEDDING_CHECK_ROWS = 4096  # rows of the token embedding compared; the whole is 0.7 GB for a large vocabulary

# GGUF name of a block's tensor -> its name in transformers (llama and gemma3).
BLOCK_TENSORS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def load(path, threads):
    """(model in float32, tokenizer, reader) of the GGUF at `path`."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    return model, tokenizer, GGUFReader(path)


def field(reader, key):
    entry = reader.fields.get(key)
    return None if entry is None else entry.contents()


def half_split(weight, n_heads):
    """Undo the interleaved order in which GGUF stores llama's Q and K rows: `[n_heads * d_head, d_model]`."""
    rows, width = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def interleaved(weight, n_heads):
    """The order in which GGUF stores llama's Q and K rows: the inverse of `half_split`."""
    rows, width = weight.shape
    return weight.reshape(n_heads, 2, rows // n_heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def checks(path, model, reader):
    """Compare the converted model with the file; raises on the first difference that matters."""
    architecture = field(reader, "general.architecture")
    config, facts = model.config, {"architecture": architecture}

    def same(name, ours, file):
        if file is None or not math.isclose(ours, file, rel_tol=1e-7):
            raise SystemExit(f"{path}: {name}: transformers has {ours}, the file {file}")
        facts[name] = ours

    key = lambda name: field(reader, f"{architecture}.{name}")  # noqa: E731
    same("n_blocks", config.num_hidden_layers, key("block_count"))
    same("d_model", config.hidden_size, key("embedding_length"))
    same("n_heads", config.num_attention_heads, key("attention.head_count"))
    same("n_kv_heads", config.num_key_value_heads, key("attention.head_count_kv"))
    same("epsilon", config.rms_norm_eps, key("attention.layer_norm_rms_epsilon"))
    rope = config.rope_parameters
    if architecture == "gemma3":
        same("rope_base_global", rope["full_attention"]["rope_theta"], key("rope.freq_base"))
        same("sliding_window", config.sliding_window, key("attention.sliding_window"))
        same("d_head", config.head_dim, key("attention.key_length"))
        # Not in the file: what the architecture fixes.
        same("rope_base_local", rope["sliding_attention"]["rope_theta"], 10000.0)
        kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(config.num_hidden_layers)]
        if list(config.layer_types) != kinds:
            raise SystemExit(f"{path}: blocks are {config.layer_types}, expected every sixth global")
        facts["global_blocks"] = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        same("query_scale", config.query_pre_attn_scalar ** -0.5, config.head_dim ** -0.5)
        same("embedding_scale", float(model.model.embed_tokens.embed_scale), float(np.float32(math.sqrt(config.hidden_size))))
        if config.attn_logit_softcapping is not None or config.final_logit_softcapping is not None:
            raise SystemExit(f"{path}: gemma3 has no soft caps, transformers set one")
        base = [model.model.rotary_emb.full_attention_inv_freq, model.model.rotary_emb.sliding_attention_inv_freq]
        for name, frequencies, theta in zip(("global", "local"), base, (rope["full_attention"], rope["sliding_attention"])):
            same(f"rope_second_frequency_{name}", float(frequencies[1]), float(np.float32(theta["rope_theta"] ** (-2 / config.head_dim))))
    else:
        same("rope_base", rope["rope_theta"], key("rope.freq_base"))
        d_head = config.hidden_size // config.num_attention_heads
        same("d_head", d_head, key("rope.dimension_count"))
        same("rope_second_frequency", float(model.model.rotary_emb.inv_freq[1]), float(np.float32(rope["rope_theta"] ** (-2 / d_head))))
    has_head = any(tensor.name == "output.weight" for tensor in reader.tensors)
    tied = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    if tied == has_head:
        raise SystemExit(f"{path}: output.weight present: {has_head}, head tied: {tied}")
    facts["head_tied"] = tied
    facts["weights"] = weight_check(path, model, reader, architecture)
    return facts


def transformers_name(name, architecture):
    """Name of a GGUF tensor in the state dictionary."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output.weight":
        return "lm_head.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, block, part, _ = name.split(".")
    return f"model.layers.{block}.{(BLOCK_TENSORS | NORMS[architecture])[part]}.weight"


def weight_check(path, model, reader, architecture):
    """Every tensor bit by bit against gguf-py's dequantisation; gemma's norms to the rounding of (w - 1) + 1."""
    state, equal, norm_difference = model.state_dict(), 0, 0.0
    for tensor in reader.tensors:
        rows = EMBEDDING_CHECK_ROWS if tensor.name == "token_embd.weight" else None
        file = dequantize(tensor.data[:rows], tensor.tensor_type).astype(np.float32)
        if architecture == "llama" and tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = model.config.num_attention_heads if "attn_q" in tensor.name else model.config.num_key_value_heads
            file = half_split(file, heads)
        ours = state[transformers_name(tensor.name, architecture)][:rows].numpy()
        if architecture == "gemma3" and "norm" in tensor.name:
            difference = float(np.max(np.abs((ours + np.float32(1)) - file) / np.maximum(np.abs(file), 1e-6)))
            norm_difference = max(norm_difference, difference)
            if difference > 2e-6:
                raise SystemExit(f"{path}: {tensor.name} differs by {difference} relative")
        elif not np.array_equal(ours, file):
            raise SystemExit(f"{path}: {tensor.name} is not bitwise equal after conversion")
        else:
            equal += 1
    result = {"tensors_bitwise_equal": equal, "tensors": len(reader.tensors)}
    if architecture == "gemma3":
        result["norm_relative_difference_max"] = round_digits(norm_difference)
    return result


def log_probabilities(logits):
    """log-softmax in float64 of float32 logits, last axis."""
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def top(row, count):
    """The `count` most likely ids, most likely first, ties to the lower id."""
    candidates = np.argpartition(-row, count)[: count + 8]
    order = candidates[np.lexsort((candidates, -row[candidates]))]
    return [int(i) for i in order[:count]]


def round_digits(value, digits=7):
    return float(f"{value:.{digits}g}")


def texts_of(tokenizer, chat):
    """Prompts for this model: dictionaries with `text`, `ids`, and `messages` for rendered chats."""
    import reference_texts

    prompts = []
    raw = reference_texts.RAW[:12] if chat else reference_texts.RAW
    for text in raw:
        prompts.append({"text": text, "ids": tokenizer(text)["input_ids"]})
    for messages in reference_texts.CHATS if chat else []:
        prompts.append(rendered(tokenizer, messages, True))
    return prompts


def rendered(tokenizer, messages, add_generation_prompt):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    return {"messages": messages, "text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]}


def round_to_int8(value):
    """Round `[.., k]` to int8 with one scale per 32 values and back."""
    groups = value.unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    whole = torch.where(scale > 0, torch.round(groups / scale.clamp_min(1e-30)), 0)
    return (whole * scale).flatten(-2)


def use_int8_activations(model):
    """From here on every product of `model` (the head too) reads rounded inputs, as the server's default mode does."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: (round_to_int8(inputs[0]),))


def header(path, model, reader, script):
    """What a fixture says about where it comes from."""
    import transformers

    return {
        "made_by": f"scripts/{script}",
        "model": field(reader, "general.name"),
        "sha256": sha256_of(path),
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "numpy": np.__version__},
        "checks": checks(path, model, reader),
    }


def write(path, head, rows_key, rows):
    """JSON with one line per row, so that a change shows as a change of lines."""
    compact = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))  # noqa: E731
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("{\n")
        for key, value in head.items():
            handle.write(f"{compact(key)}:{compact(value)},\n")
        handle.write(f"{compact(rows_key)}:[\n" + ",\n".join(compact(row) for row in rows) + "\n]}\n")
    print(f"{path}: {os.path.getsize(path)} bytes")
