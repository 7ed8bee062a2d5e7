# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.*", "transformers==5.24.*", "gguf==0.19.*", "numpy==2.4.*"]
# ///
"""Loss and gradient of every trained tensor of a projector through a tiny random model, by torch in float64.

    python scripts/reference_projector.py --out tests/fixtures

Uses the models of `reference_gradients.py` (`tiny_llama.gguf`, `tiny_gemma3.gguf`) and its sequences, each behind the rows of a
person of its own. Writes `projector_gradients.json`: for each family and form (`static`, `input-aware`) the projector's
`tensors` and numbers, the `people` (`embeddings` `[n, e]`, `weights` `[n]`, `query` `[e]`), the `loss` (mean negative
log-likelihood of the targets in nat) and the `gradients`, by the names of `src/users/train/network.rs`.
"""

import argparse
import os

import torch
import transformers

import reference_gradients as tiny
import reference_model as reference

SCRIPT = "reference_projector.py"
E, HIDDEN, K, N = 6, 5, 3, 4
# The cap holds for some rows and not for others.
NUMBERS = {"scale": 1.5, "temperature": 0.2, "n0": 2.0, "n_min": 0.5, "cap": 0.37}


def draw(generator, *shape, scale=1.0):
    values = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return values.float().double()


def projector(generator, form, d_model, size):
    inputs = E + (form == "input-aware")
    tensors = {
        "constant": draw(generator, K, d_model, scale=size),
        "centre": draw(generator, inputs, scale=0.2),
        "layers.0.weight": draw(generator, HIDDEN, inputs),
        "layers.0.bias": draw(generator, HIDDEN, scale=0.3),
        "layers.1.weight": draw(generator, K * d_model, HIDDEN, scale=0.06),
        "layers.1.bias": draw(generator, K * d_model, scale=0.03),
    }
    if form == "input-aware":
        tensors["query"] = torch.eye(E, dtype=torch.float64) + draw(generator, E, E, scale=0.3)
        tensors["query"] = tensors["query"].float().double()
    return tensors


def person(generator):
    unit = lambda values: (values / values.norm(dim=-1, keepdim=True)).float().double()  # noqa: E731
    weights = torch.tensor([1.0, -0.5, 0.75, -1.0], dtype=torch.float64)
    return {"embeddings": unit(draw(generator, N, E)), "weights": weights, "query": unit(draw(generator, E))}


def rows(tensors, form, one):
    embeddings, weights = one["embeddings"], one["weights"]
    n = weights.abs().sum()
    if form == "static":
        pooled = (weights / n) @ embeddings
    else:
        scores = embeddings @ (tensors["query"] @ one["query"]) / NUMBERS["temperature"]
        signed = torch.softmax(scores, 0) * weights
        pooled = torch.cat([signed @ embeddings, signed.sum()[None]])
    values = (pooled - tensors["centre"]) * NUMBERS["scale"]
    values = tensors["layers.0.weight"] @ values + tensors["layers.0.bias"]
    values = torch.nn.functional.gelu(values, approximate="tanh")
    values = tensors["layers.1.weight"] @ values + tensors["layers.1.bias"]
    change = (values * n / (n + NUMBERS["n0"])).reshape(tensors["constant"].shape)
    norms = change.norm(dim=-1, keepdim=True)
    change = change * torch.clamp(NUMBERS["cap"] / norms, max=1.0)
    return tensors["constant"] + change, norms


def case(architecture, form):
    model = tiny.random_model(architecture)
    generator = torch.Generator().manual_seed(8)
    size = model.get_input_embeddings()(torch.arange(tiny.VOCABULARY)).std().item()
    tensors = projector(generator, form, tiny.D_MODEL, size)
    trained = [name for name in tensors if name not in ("constant", "centre")]
    for name in trained:
        tensors[name].requires_grad_()
    people = [person(generator) for _ in tiny.SEQUENCES]
    embed = model.get_input_embeddings()
    losses, capped = [], []
    for (ids, target), one in zip(tiny.SEQUENCES, people):
        tokens = embed(torch.tensor(ids))
        soft, norms = rows(tensors, form, one)
        capped += (norms > NUMBERS["cap"]).flatten().tolist()
        logits = model(inputs_embeds=torch.cat([tokens[:1], soft, tokens[1:]])[None], use_cache=False).logits
        losses.append(torch.nn.functional.cross_entropy(logits[0, -1], torch.tensor(target)))
    assert any(capped) and not all(capped), "the cap holds for some rows only"
    loss = torch.stack(losses).mean()
    loss.backward()
    digits = lambda tensor: [reference.round_digits(x, 9) for x in tensor.detach().flatten().tolist()]  # noqa: E731
    return {
        "architecture": architecture,
        "form": form,
        "tensors": {name: digits(tensor) for name, tensor in tensors.items()},
        "people": [{name: digits(values) for name, values in one.items()} for one in people],
        "loss": reference.round_digits(loss.item(), 10),
        "gradients": {name: digits(tensors[name].grad) for name in trained},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder of the fixtures")
    out = parser.parse_args().out
    head = {
        "made_by": f"scripts/{SCRIPT}",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
        "shape": {"e": E, "hidden": HIDDEN, "k": K, "d_model": tiny.D_MODEL},
        "numbers": NUMBERS,
        "sequences": [{"ids": ids, "target": target} for ids, target in tiny.SEQUENCES],
    }
    cases = [case(architecture, form) for architecture in tiny.SIZES for form in ("static", "input-aware")]
    reference.write(os.path.join(out, "projector_gradients.json"), head, "cases", cases)


if __name__ == "__main__":
    main()
