# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "peft==0.21.*", "gguf==0.19.*", "safetensors", "numpy==2.4.*"]
# ///
"""Soft prompts by PEFT on a tiny random llama, and the logits that transformers + PEFT give with them.

    python scripts/reference_peft.py --out tests/fixtures/peft
    python scripts/reference_peft.py --load FOLDER

The first form writes `model.gguf` (float32, no tokenizer), for each of `prompt_tuning` and `p_tuning` a folder as
`save_pretrained` leaves it (trained for some steps, so that the rows are no mere initialisation), and `logits.json`: of
each prompt `ids` and, as `[len(ids)][vocab]` float32 logits, `plain` and one entry per adapter. PEFT puts the rows before
the first token.

The second form loads an adapter that `demeanor embed export --format peft` wrote with PEFT onto a random llama of its
width, and says whether PEFT sees the rows of the file.
"""

import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from peft import PeftModel, PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import reference_model as reference

SEED = 11
D_MODEL, D_FF, BLOCKS, HEADS, KV_HEADS, VOCAB = 32, 64, 2, 2, 1, 96
ROWS, STEPS = 5, 30


def tiny(d_model=D_MODEL, blocks=BLOCKS):
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=d_model,
        intermediate_size=D_FF,
        num_hidden_layers=blocks,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        initializer_range=0.25,
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        # Norm weights of 1 would hide a norm that is left out.
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
    return model


def write_gguf(model, path):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny random llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(256)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(D_FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(D_MODEL // HEADS)
    parts = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    add = lambda name, value: writer.add_tensor(f"{name}.weight", np.ascontiguousarray(value))  # noqa: E731
    add("token_embd", state["model.embed_tokens.weight"])
    add("output_norm", state["model.norm.weight"])
    add("output", state["lm_head.weight"])
    for block in range(BLOCKS):
        for ours, theirs in parts.items():
            value = state[f"model.layers.{block}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                value = reference.interleaved(value, HEADS if ours == "attn_q" else KV_HEADS)
            add(f"blk.{block}.{ours}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def train(model, prompts):
    """Some steps towards a made-up task: every token is followed by its successor."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=0.05)
    model.train()
    for step in range(STEPS):
        ids = torch.tensor([prompts[step % len(prompts)]])
        loss = model(input_ids=ids, labels=(ids + 1) % VOCAB).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return float(loss.detach())


def logits_of(model, ids, rows):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    assert logits.shape == (rows + len(ids), VOCAB)
    return [[float(f"{value:.8g}") for value in row] for row in logits[rows:].tolist()]


def make(out):
    out.mkdir(parents=True, exist_ok=True)
    model = tiny()
    write_gguf(model, out / "model.gguf")
    draw = np.random.default_rng(SEED)
    prompts = [draw.integers(0, VOCAB, size).tolist() for size in (1, 7, 12)]
    entries = [{"ids": ids, "plain": logits_of(model, ids, 0)} for ids in prompts]
    common = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": ROWS}
    configs = {
        "prompt_tuning": PromptTuningConfig(**common),
        "p_tuning": PromptEncoderConfig(**common, encoder_hidden_size=16),
    }
    for name, config in configs.items():
        torch.manual_seed(SEED + 1)
        adapted = get_peft_model(tiny(), config)
        loss = train(adapted, prompts)
        adapted.save_pretrained(out / name)
        (out / name / "README.md").unlink(missing_ok=True)
        rows = load_file(out / name / "adapter_model.safetensors")["prompt_embeddings"]
        print(f"{name}: {tuple(rows.shape)}, row norms {rows.norm(dim=1).tolist()}, loss {loss:.3f}")
        for entry in entries:
            entry[name] = logits_of(adapted, entry["ids"], ROWS)
    head = {"made_by": "scripts/reference_peft.py", "rows": ROWS, "d_model": D_MODEL}
    text = json.dumps(head | {"prompts": entries}, separators=(",", ":"))
    (out / "logits.json").write_text(text.replace("],[", "],\n[") + "\n")


def load(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    rows = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
    base = tiny(config["token_dim"], 1)
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    seen = model.get_prompt(1)[0].detach()
    if not torch.equal(seen, rows.float()):
        sys.exit("PEFT sees other rows than the file has")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits
        inputs = torch.cat([rows.float(), base.get_input_embeddings()(torch.tensor([1, 2, 3]))])[None]
        expected = base(inputs_embeds=inputs).logits
    worst = float((logits - expected).abs().max())
    print(f"PEFT loads {folder}: {tuple(rows.shape)}, rows equal, logits within {worst:.1e} of the rows by hand")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path)
    what.add_argument("--load", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make(arguments.out) if arguments.out else load(arguments.load)


if __name__ == "__main__":
    main()
