# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*"]
# ///
"""Loss and gradient with respect to soft rows of tiny random models, by torch in float64.

    python scripts/reference_gradients.py --out tests/fixtures

Writes for llama and gemma3 `tiny_*.gguf` (weights in f16, which torch reads exactly) and `gradients_*.json`: `soft` rows
`[k, d_model]`, `sequences` (`ids`, of which the first stands before the soft rows and the others after
them; `target`, the token that should follow), `loss` (mean negative log-likelihood of the targets in nat) and `gradient`
of the loss with respect to the soft rows, which all sequences share.
"""

import argparse
import os

import gguf
import numpy as np
import torch
import transformers

import reference_model as reference

SCRIPT = "reference_gradients.py"
D_MODEL, D_FF, D_HEAD, N_HEADS, N_KV_HEADS, VOCABULARY, EPSILON = 32, 32, 16, 4, 2, 96, 1e-5
# Blocks, and the window of gemma's local blocks: short enough that sequences of this length notice it.
SIZES = {"llama": (3, None), "gemma3": (6, 4)}
SOFT_ROWS = 3
SEQUENCES = [([1, 7, 20, 33, 48, 5], 11), ([1, 90, 14], 60), ([1, 3, 71, 22, 8, 64, 41, 30], 2)]


def config_of(architecture):
    n_blocks, window = SIZES[architecture]
    sizes = dict(
        hidden_size=D_MODEL,
        intermediate_size=D_FF,
        num_hidden_layers=n_blocks,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KV_HEADS,
        head_dim=D_HEAD,
        vocab_size=VOCABULARY,
        rms_norm_eps=EPSILON,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    if architecture == "llama":
        return transformers.LlamaConfig(**sizes)
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(n_blocks)]
    return transformers.Gemma3TextConfig(
        **sizes, sliding_window=window, layer_types=kinds, query_pre_attn_scalar=D_HEAD, pad_token_id=0
    )


def random_model(architecture):
    """A model in float64 whose weights are halves."""
    config = config_of(architecture)
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        values = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        norm = weight.dim() == 1
        values = values * 0.2 if norm else values * 1.2 / weight.shape[1] ** 0.5
        if norm and architecture == "llama":
            values = values + 1
        weight.data = values.half().double()
    return model


def write_gguf(path, architecture, model):
    n_blocks, window = SIZES[architecture]
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny-{architecture}")
    writer.add_context_length(512)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(n_blocks)
    writer.add_feed_forward_length(D_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_key_length(D_HEAD)
    writer.add_layer_norm_rms_eps(EPSILON)
    rope = config.rope_parameters
    if window is None:
        writer.add_rope_freq_base(rope["rope_theta"])
    else:
        writer.add_sliding_window(window)
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        assert rope["sliding_attention"]["rope_theta"] == 10000.0
    state = model.state_dict()
    parts = reference.BLOCK_TENSORS | reference.NORMS[architecture]
    if architecture == "llama":
        parts = {name: theirs for name, theirs in parts.items() if not name.endswith(("q_norm", "k_norm"))}
    names = ["token_embd.weight", "output_norm.weight"]
    names += [f"blk.{block}.{part}.weight" for block in range(n_blocks) for part in parts]
    for name in names:
        values = state[reference.transformers_name(name, architecture)].numpy()
        if architecture == "gemma3" and "norm" in name:
            values = values + 1  # what the model multiplies by; f32, since the sum need not be a half
        if architecture == "llama" and ".attn_q." in name:
            values = reference.interleaved(values, N_HEADS)
        if architecture == "llama" and ".attn_k." in name:
            values = reference.interleaved(values, N_KV_HEADS)
        writer.add_tensor(name, values.astype(np.float32 if values.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def loss_of(model, soft):
    """Sequence by sequence, so that nothing depends on how padding is masked."""
    embed = model.get_input_embeddings()
    losses = []
    for ids, target in SEQUENCES:
        tokens = embed(torch.tensor(ids))
        rows = torch.cat([tokens[:1], soft, tokens[1:]])
        logits = model(inputs_embeds=rows[None], use_cache=False).logits[0, -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(target)))
    return torch.stack(losses).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder of the fixtures")
    out = parser.parse_args().out
    for architecture in SIZES:
        model = random_model(architecture)
        path = os.path.join(out, f"tiny_{architecture}.gguf")
        write_gguf(path, architecture, model)
        # Gemma's embeddings enter multiplied by sqrt(d_model); soft rows have the same size.
        size = model.get_input_embeddings()(torch.arange(VOCABULARY)).std().item()
        generator = torch.Generator().manual_seed(5)
        soft = size * torch.randn((SOFT_ROWS, D_MODEL), generator=generator, dtype=torch.float64)
        soft = soft.float().double().requires_grad_()
        loss = loss_of(model, soft)
        loss.backward()
        digits = lambda tensor: [[reference.round_digits(x, 9) for x in row] for row in tensor.tolist()]  # noqa: E731
        head = {
            "made_by": f"scripts/{SCRIPT}",
            "sha256": reference.sha256_of(path),
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
            "soft": digits(soft.detach()),
            "sequences": [{"ids": ids, "target": target} for ids, target in SEQUENCES],
            "loss": reference.round_digits(loss.item(), 10),
        }
        reference.write(os.path.join(out, f"gradients_{architecture}.json"), head, "gradient", digits(soft.grad))


if __name__ == "__main__":
    main()
