# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*"]
# ///
"""Writes tests/fixtures/models: tiny random models of every family in both containers, with logits of transformers.

    python scripts/make_tiny_models.py [OUT]

Each folder is a model as
transformers saves it (config.json, safetensors in half precision, one of them in shards) beside model.gguf, the same
weights written with gguf-py the way its converters do: rows of Q and K permuted for llama, norms plus one for gemma, divisors of
rotary frequencies as tensors. The weights are exact in every type used, so both containers hold the same model.
reference*.safetensors holds a prompt longer than every window, some of its positions, and the logits there in f32.
"""

import json
import math
import sys
from pathlib import Path

import gguf
import numpy
import torch
import transformers
from reference_model import interleaved
from safetensors.numpy import save_file

VOCAB = 288
WIDTH = 48
LENGTH = 160
ROWS = 24

SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    bos_token_id=1,
    eos_token_id=[2, 3],
    pad_token_id=0,
)

MODELS = {
    # Heads wider than d_model / n_heads (Mistral Nemo), Llama 3.1's frequencies, a head of its own.
    "llama": transformers.LlamaConfig(
        **SIZES,
        num_hidden_layers=3,
        head_dim=16,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        rope_parameters=dict(
            rope_type="llama3",
            rope_theta=10000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    # A window in every block, positions stretched.
    "mistral": transformers.MistralConfig(
        **SIZES,
        num_hidden_layers=3,
        head_dim=16,
        sliding_window=24,
        tie_word_embeddings=False,
        rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
    ),
    "qwen2": transformers.Qwen2Config(
        **SIZES | dict(num_attention_heads=3, num_key_value_heads=1),
        num_hidden_layers=3,
        tie_word_embeddings=True,
        rope_parameters=dict(
            rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64
        ),
    ),
    "qwen3": transformers.Qwen3Config(
        **SIZES | dict(num_attention_heads=3, num_key_value_heads=1),
        num_hidden_layers=3,
        head_dim=32,
        tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
    ),
    "gemma2": transformers.Gemma2Config(
        **SIZES,
        num_hidden_layers=4,
        head_dim=16,
        sliding_window=20,
        query_pre_attn_scalar=6,
        attn_logit_softcapping=4.0,
        final_logit_softcapping=3.0,
    ),
    # Five windowed blocks, then one that sees everything and whose positions are stretched.
    "gemma3": transformers.Gemma3TextConfig(
        **SIZES,
        num_hidden_layers=6,
        head_dim=16,
        sliding_window=20,
        query_pre_attn_scalar=16,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0),
        ),
    ),
    # Three quarters of a head rotate; a window; frequencies that depend on the context.
    "phi3": transformers.Phi3Config(
        **SIZES | dict(num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, hidden_size=64),
        num_hidden_layers=3,
        sliding_window=40,
        tie_word_embeddings=True,
        original_max_position_embeddings=64,
        rope_parameters=dict(
            rope_type="longrope",
            rope_theta=10000.0,
            partial_rotary_factor=0.75,
            original_max_position_embeddings=64,
            short_factor=[1.0 + 0.05 * i for i in range(12)],
            long_factor=[1.0 + 0.6 * i for i in range(12)],
        ),
    ),
}
BFLOAT16 = {"qwen3"}
SHARDED = {"gemma2"}
# Written in the fields that older versions of transformers write.
OLD_SPELLING = {"llama", "gemma3", "phi3"}


def random_model(name, config):
    """A model in f32 whose weights are exact in f16 and in bf16."""
    config._attn_implementation = "eager"
    torch.manual_seed(sum(name.encode()))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    gemma = name.startswith("gemma")
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if key.endswith("norm.weight"):
                tensor.copy_(0.2 * torch.randn_like(tensor) + (0.0 if gemma else 1.0))
            elif key.endswith("bias"):
                tensor.copy_(0.5 * torch.randn_like(tensor))
            elif "embed_tokens" in key or "lm_head" in key:
                tensor.copy_(torch.randn_like(tensor) * (0.3 if gemma else 1.0))
            else:
                tensor.copy_(1.6 * torch.randn_like(tensor) / math.sqrt(tensor.shape[1]))
            rounded = tensor.to(torch.bfloat16).to(torch.float32)
            tensor.copy_(torch.where(rounded.abs() < 2**-10, torch.zeros_like(rounded), rounded))
            assert torch.equal(tensor, tensor.half().float())
    return model


def reference(model, length, path):
    ids = torch.randint(4, VOCAB, (length,), generator=torch.Generator().manual_seed(length))
    rows = numpy.unique(numpy.linspace(0, length - 1, ROWS).astype(int))
    with torch.no_grad():
        logits = model(ids[None], use_cache=False).logits[0].numpy()[rows]
    floats = lambda values: numpy.asarray(values, dtype=numpy.float32)
    save_file({"ids": floats(ids.numpy()), "rows": floats(rows), "logits": floats(logits)}, path)
    return float(numpy.abs(logits).max())


def old_spelling(config):
    """config.json with `rope_theta` and `rope_scaling` in the place of `rope_parameters`."""
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        config.pop("layer_types")
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
    config["rope_theta"] = rope.pop("rope_theta")
    for key in ("partial_rotary_factor", "original_max_position_embeddings"):
        if config["model_type"] == "phi3":
            config[key] = rope.pop(key)
    rope.pop("attention_factor", None)
    if rope.get("rope_type") == "longrope":
        rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope


def save_folder(name, model, folder):
    half = torch.bfloat16 if name in BFLOAT16 else torch.float16
    model.to(half).save_pretrained(folder, max_shard_size="60KB" if name in SHARDED else "5GB")
    model.to(torch.float32)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in ("transformers_version", "_attn_implementation"):
        config.pop(key, None)
    if name in OLD_SPELLING:
        old_spelling(config)
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2, 3]}, indent=1) + "\n")


def llama3_divisors(config):
    """What Llama 3.1 divides each frequency by, as gguf's converters compute it."""
    rope = config.rope_parameters
    dim = config.head_dim
    frequencies = rope["rope_theta"] ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    factor, original = rope["factor"], rope["original_max_position_embeddings"]
    low, high = original / rope["low_freq_factor"], original / rope["high_freq_factor"]
    divisors = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        if wavelength < high:
            divisors.append(1.0)
        elif wavelength > low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            divisors.append(float(1 / ((1 - smooth) / factor + smooth)))
    return numpy.array(divisors, dtype=numpy.float32)


def save_gguf(name, model, path):
    config = model.config
    architecture = "llama" if name == "mistral" else name
    writer = gguf.GGUFWriter(path, architecture)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if d_head * heads != config.hidden_size or name.startswith("gemma"):
        writer.add_key_length(d_head)
        writer.add_value_length(d_head)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(d_head * rope.get("partial_rotary_factor", 1.0)))
    match rope["rope_type"]:
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        case "llama3":
            writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
        case "longrope":
            original = rope["original_max_position_embeddings"]
            writer.add_rope_scaling_orig_ctx_len(original)
            stretched = config.max_position_embeddings / original
            writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretched) / math.log(original)))
            for length in ("long", "short"):
                factors = numpy.array(rope[f"{length}_factor"], dtype=numpy.float32)
                writer.add_tensor(f"rope_factors_{length}.weight", factors)
    if name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_attention_scale(config.query_pre_attn_scalar**-0.5)
    arch = next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if architecture == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            values = interleaved(values, heads if "q_proj" in key else kv_heads)
        if name.startswith("gemma") and key.endswith("norm.weight"):
            values = values + 1
        values = values.astype(numpy.float16 if values.ndim > 1 else numpy.float32)
        writer.add_tensor(names.get_name(key, (".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    default = Path(__file__).resolve().parent.parent / "tests/fixtures/models"
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for name, config in MODELS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        model = random_model(name, config)
        largest = reference(model, LENGTH, folder / "reference.safetensors")
        if name == "phi3":
            reference(model, 60, folder / "reference_short.safetensors")
        save_folder(name, model, folder)
        save_gguf(name, model, folder / "model.gguf")
        for file in folder.iterdir():
            file.chmod(0o644)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {size // 1024} KiB, largest logit {largest:.1f}")


if __name__ == "__main__":
    main()
