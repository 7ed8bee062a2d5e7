"""Shapes of models that people run, and GGUF files of those shapes with random weights, for scripts that write such models."""

import itertools
from pathlib import Path

import gguf
import numpy

TOKENIZERS = Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizers"
# Blocks and scales that are repeated; two primes, so that rows differ.
BODIES, SCALES = 8191, 997

QWEN3 = dict(
    model_type="qwen3",
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
)

SHAPES = {
    "qwen3-0.6b": dict(tokenizer="qwen", config=dict(QWEN3, hidden_size=1024, intermediate_size=3072)),
    "qwen3-1.7b": dict(tokenizer="qwen", config=dict(QWEN3, hidden_size=2048, intermediate_size=6144)),
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


Kind = gguf.GGMLQuantizationType


def normalised(values, deviation, levels):
    """`values` random scales around the one that gives a weight of `levels` (their standard deviation) this deviation."""
    return (deviation / levels * values).astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)


def packed_scales(random, count):
    """Eight sub-scales and the same eight as minima, six bits each in twelve bytes, as K-types keep them; and their mean.

    The first four of either lie in the low six bits of bytes 0 to 7; of the last four the low halves share bytes 8 to
    11, their upper two bits are the upper two bits of bytes 0 to 7.
    """
    scales = random.integers(24, 64, (count, 8), dtype=numpy.uint8)
    first, last = scales[:, :4], scales[:, 4:]
    upper = first | (last >> 4) << 6
    return numpy.concatenate([upper, upper, (last & 15) | (last & 15) << 4], axis=1), 43.5


def raw_bytes(random, shape):
    return random.integers(0, 256, shape, dtype=numpy.uint8)


def blocks(kind, deviation, random):
    """`BODIES` random blocks of a kind, as bytes, where their scales lie, and `SCALES` scales, each of one f16 or two.

    Every weight has mean 0 and about this standard deviation, so logits stay finite and moderate.
    """
    bits = {Kind.Q4_0: 4, Kind.Q4_1: 4, Kind.Q5_0: 5, Kind.Q5_1: 5, Kind.Q8_0: 8, Kind.Q4_K: 4, Kind.Q5_K: 5, Kind.Q6_K: 6}
    if kind not in bits:
        raise ValueError(f"no random blocks of `{kind.name}`; there are {', '.join(kind.name for kind in bits)}")
    size, width = gguf.GGML_QUANT_SIZES[kind]
    body = raw_bytes(random, (BODIES, width))
    spread = random.uniform(0.8, 1.2, SCALES)
    middle = (2 ** bits[kind] - 1) / 2
    # Quants are evenly distributed.
    levels = 2 ** bits[kind] / 12 ** 0.5
    if kind == Kind.Q6_K:
        # 128 bytes of low halves, 64 of upper bits, 16 signed sub-scales, a scale.
        body[:, 192:208] = random.integers(48, 112, (BODIES, 16), dtype=numpy.uint8)
        return body, slice(208, 210), normalised(spread, deviation, 79.5 * levels)
    if size == 32 and kind in (Kind.Q4_0, Kind.Q5_0, Kind.Q8_0):
        return body, slice(0, 2), normalised(spread, deviation, levels)
    mean = 1.0
    if size == 256:
        body[:, 4:16], mean = packed_scales(random, BODIES)
    sign = -1.0 if size == 32 else 1.0  # added in Q4_1 and Q5_1, subtracted in K-types
    scale = normalised(spread, deviation, mean * levels)
    return body, slice(0, 4), numpy.concatenate([scale, normalised(sign * middle * spread, deviation, mean * levels)], axis=1)


class RandomWeights:
    """Random tensors; the blocks of a kind and width are made once and repeated, so a file is written in seconds."""

    def __init__(self, seed=1):
        self.random, self.made = numpy.random.default_rng(seed), {}

    def tensor(self, kind, shape):
        """Bytes `[rows, bytes of a row]`."""
        size, width = gguf.GGML_QUANT_SIZES[kind]
        if (kind, shape[1]) not in self.made:
            self.made[kind, shape[1]] = blocks(kind, shape[1] ** -0.5, self.random)
        body, where, scales = self.made[kind, shape[1]]
        count = shape[0] * shape[1] // size
        data = numpy.resize(body, (count, width))
        data[:, where] = numpy.resize(scales, (count, scales.shape[1]))
        return data.reshape(shape[0], -1)


def copy_tokenizer(writer, path, size=None):
    """The tokenizer of a GGUF; with `size` unused words follow until it has that many, for servers that ask for them."""
    pieces = (f"\u0120unused{number}" for number in itertools.count())
    padding = {"tokenizer.ggml.tokens": pieces, "tokenizer.ggml.token_type": itertools.repeat(int(gguf.TokenType.NORMAL)),
               "tokenizer.ggml.scores": itertools.repeat(-1e6)}
    for field in gguf.GGUFReader(path).fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        of = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = field.contents()
        if size is not None and field.name in padding:
            value = value + list(itertools.islice(padding[field.name], size - len(value)))
        writer.add_key_value(field.name, value, field.types[0], of)


def add_sizes(writer, config):
    heads = config["num_attention_heads"]
    d_head = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(d_head)
    writer.add_value_length(d_head)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(int(d_head * config.get("partial_rotary_factor", 1.0)))
    return d_head


def rope_tensors(writer, config, d_head):
    """Names and values of the tensors that stretch rotary frequencies."""
    scaling = config["rope_scaling"] or {}
    if "long_factor" in scaling:
        writer.add_sliding_window(config["sliding_window"])
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(1.1902381)
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", numpy.array(scaling[f"{length}_factor"], dtype=numpy.float32)
    elif scaling:
        yield "rope_freqs.weight", numpy.ones(d_head // 2, dtype=numpy.float32)


def save_gguf(config, tokenizer, path, kind_of, file_type=None, full_vocabulary=False):
    """Writes a GGUF; `kind_of(name, shape)` is the type of a matrix, `tokenizer` the name of one of the tests' tokenizers."""
    writer, weights = gguf.GGUFWriter(path, config["model_type"]), RandomWeights()
    d_head = add_sizes(writer, config)
    if file_type is not None:
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    vectors = dict(rope_tensors(writer, config, d_head))
    copy_tokenizer(writer, TOKENIZERS / f"{tokenizer}.gguf", config["vocab_size"] if full_vocabulary else None)
    matrices = {}
    for name, _, shape in tensors(config):
        if len(shape) == 1:
            vectors[f"{name}.weight"] = numpy.ones(shape, dtype=numpy.float32)
        else:
            matrices[f"{name}.weight"] = kind_of(name, shape), shape
    for name, values in vectors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for name, (kind, shape) in matrices.items():
        row = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(name, row, numpy.dtype(numpy.uint8), int(numpy.prod(row)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in vectors.values():
        writer.write_tensor_data(values)
    for kind, shape in matrices.values():
        writer.write_tensor_data(weights.tensor(kind, shape))
    writer.close()
