# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf==0.19.*", "numpy==2.4.*"]
# ///
"""Writes models of the shapes that people run, with random weights, in both containers: for memory and seconds.

    python scripts/make_shape_models.py OUT [qwen3-0.6b] [llama-3.2-1b] [phi-4-mini]

OUT/NAME is a folder of safetensors in bf16 (shards of at most 2 GB), OUT/NAME.gguf a file in Q4_0 with a head in Q8_0. The
sizes and switches are those of the published config.json; the tokenizer is a tiny one of the family out of
tests/fixtures/tokenizers, so that chats can be encoded. What such a model says means nothing. Weights are one random
block of numbers repeated: what is computed does not depend on them, and a large model is written as fast as the disk is.
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy

TOKENIZERS = Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizers"
SHARD_BYTES = 2_000_000_000
# Numbers that are repeated; a prime, so that rows differ.
BLOCK = 4_194_301

SHAPES = {
    "qwen3-0.6b": dict(
        tokenizer="qwen",
        config=dict(
            model_type="qwen3",
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            hidden_act="silu",
            max_position_embeddings=40960,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            rope_scaling=None,
            tie_word_embeddings=True,
            vocab_size=151936,
        ),
    ),
    "llama-3.2-1b": dict(
        tokenizer="llama3",
        config=dict(
            model_type="llama",
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=64,
            hidden_act="silu",
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            rope_theta=500000.0,
            rope_scaling=dict(
                rope_type="llama3",
                factor=32.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=8192,
            ),
            tie_word_embeddings=True,
            vocab_size=128256,
        ),
    ),
    # The published factors are measured numbers; these rise as they do.
    "phi-4-mini": dict(
        tokenizer="phi4",
        gguf_tokenizer="qwen",
        config=dict(
            model_type="phi3",
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=32,
            num_attention_heads=24,
            num_key_value_heads=8,
            hidden_act="silu",
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            partial_rotary_factor=0.75,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            rope_scaling=dict(
                type="longrope",
                short_factor=[1.0] * 48,
                long_factor=[1.0 + 47.0 * (i / 47) ** 2 for i in range(48)],
            ),
            sliding_window=262144,
            tie_word_embeddings=True,
            vocab_size=200064,
        ),
    ),
}

# Names of the two containers.
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def tensors(config):
    """(GGUF name, safetensors name, shape) of every tensor."""
    d, ff, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    d_head = config.get("head_dim", d // heads)
    queries, keys = heads * d_head, config["num_key_value_heads"] * d_head
    yield "token_embd", "model.embed_tokens", (config["vocab_size"], d)
    yield "output_norm", "model.norm", (d,)
    for l in range(config["num_hidden_layers"]):
        parts = {"attn_norm": (d,), "ffn_norm": (d,), "attn_output": (d, queries), "ffn_down": (d, ff)}
        if config["model_type"] == "phi3":
            parts |= {"attn_qkv": (queries + 2 * keys, d), "ffn_up": (2 * ff, d)}
        else:
            parts |= {"attn_q": (queries, d), "attn_k": (keys, d), "attn_v": (keys, d)}
            parts |= {"ffn_gate": (ff, d), "ffn_up": (ff, d)}
        if config["model_type"] == "qwen3":
            parts |= {"attn_q_norm": (d_head,), "attn_k_norm": (d_head,)}
        for part, shape in parts.items():
            name = NAMES[part]
            if config["model_type"] == "phi3" and part == "ffn_up":
                name = "mlp.gate_up_proj"
            yield f"blk.{l}.{part}", f"model.layers.{l}.{name}", shape


def bfloat16(values):
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def save_folder(config, tokenizer, folder, block):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZERS / tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shards, used = [[]], 0
    for _, name, shape in tensors(config):
        size = 2 * int(numpy.prod(shape))
        if used + size > SHARD_BYTES and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append((f"{name}.weight", shape, size))
        used += size
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    weight_map = {}
    for file, entries in zip(files, shards):
        header, end = {}, 0
        for name, shape, size in entries:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            weight_map[name] = file
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little"))
            out.write(text)
            for _, shape, _ in entries:
                scale = 1.0 if len(shape) == 1 else shape[1] ** -0.5
                values = numpy.ones(shape) if len(shape) == 1 else block * scale
                repeated(out, bfloat16(values).tobytes(), 2 * int(numpy.prod(shape)))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def repeated(out, data, size):
    for start in range(0, size, len(data)):
        out.write(data[: min(len(data), size - start)])


def copy_tokenizer(writer, path):
    for field in gguf.GGUFReader(path).fields.values():
        if field.name.startswith("tokenizer."):
            of = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], of)


def save_gguf(config, tokenizer, path, block):
    architecture = config["model_type"]
    writer = gguf.GGUFWriter(path, architecture, use_temp_file=True)
    heads = config["num_attention_heads"]
    d_head = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(d_head)
    writer.add_value_length(d_head)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(int(d_head * config.get("partial_rotary_factor", 1.0)))
    scaling = config["rope_scaling"] or {}
    if "long_factor" in scaling:
        writer.add_sliding_window(config["sliding_window"])
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(1.1902381)
        for length in ("long", "short"):
            factors = numpy.array(scaling[f"{length}_factor"], dtype=numpy.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors)
    elif scaling:
        writer.add_tensor("rope_freqs.weight", numpy.ones(d_head // 2, dtype=numpy.float32))
    copy_tokenizer(writer, TOKENIZERS / f"{tokenizer}.gguf")
    for name, _, shape in tensors(config):
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", numpy.ones(shape, dtype=numpy.float32))
            continue
        # Blocks of 32: a scale, then 16 bytes of two quants each, or 32 of one.
        table = name == "token_embd"
        width, steps = (34, 127) if table else (18, 8)
        blocks = int(numpy.prod(shape)) // 32
        quants = block.view(numpy.uint8)[: len(block) // (width - 2) * (width - 2)].reshape(-1, width - 2)
        data = numpy.empty((blocks, width), dtype=numpy.uint8)
        data[:, :2] = numpy.frombuffer(numpy.float16(shape[1] ** -0.5 / steps).tobytes(), dtype=numpy.uint8)
        data[:, 2:] = numpy.resize(quants, (blocks, width - 2))
        kind = gguf.GGMLQuantizationType.Q8_0 if table else gguf.GGMLQuantizationType.Q4_0
        writer.add_tensor(f"{name}.weight", data.reshape(shape[0], -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    out = Path(sys.argv[1])
    random = numpy.random.default_rng(1)
    block = random.standard_normal(BLOCK, dtype=numpy.float32)
    raw = random.integers(0, 256, BLOCK, dtype=numpy.uint8)
    for name in sys.argv[2:] or SHAPES:
        shape = SHAPES[name]
        config = shape["config"] | {"eos_token_id": None}
        save_folder(config, shape["tokenizer"], out / name, block)
        save_gguf(config, shape.get("gguf_tokenizer", shape["tokenizer"]), out / f"{name}.gguf", raw)
        print(name, sum(file.stat().st_size for file in (out / name).iterdir()) >> 20, "MiB,",
              (out / f"{name}.gguf").stat().st_size >> 20, "MiB")


if __name__ == "__main__":
    main()
