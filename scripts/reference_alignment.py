#!/usr/bin/env python3
"""The alignment's numbers again in numpy and scikit-learn, from the same gradients and activations.

  pip install numpy scikit-learn safetensors gguf

  reference_alignment.py fixture tests/fixtures/alignment.json
      a small made-up case with its results; a unit test compares
  reference_alignment.py check --prepared FILE.safetensors --inventory models/inventories/NAME.json --answers FILE \
      --result FILE.json --vector FILE.safetensors --model FILE.gguf [--heads FILE-heads.safetensors]
      what a real alignment came to: `prepared` and `heads` are in the data folder under `alignment/`, `result` is what
      `demeanor align --json` printed, `vector` is `demeanor vectors export NAME.alignment`

`check` ends with status 1 where a figure differs by more than 1e-4.
"""
import argparse
import json
import sys

import numpy as np

LAMBDAS = 10.0 ** np.arange(-4, 3, 0.5)
ALPHAS = [0.0, 1.0, 2.0, 4.0, 6.0, 8.0]


# ---- ridge
def ridge(kernel, residuals):
    """Coefficients and penalty by leave-one-out absolute error, by the eigenvectors of the kernel."""
    w, u = np.linalg.eigh(kernel)
    best = None
    for penalty in LAMBDAS:
        hat = (u * (w / (w + penalty))) @ u.T
        error = np.abs((residuals - hat @ residuals) / (1 - np.diag(hat))).mean()
        if best is None or error < best[0]:
            best = (error, penalty)
    return (u / (w + best[1])) @ u.T @ residuals, best[1], best[0]


def constants(gradients, plain, known, norms, answers, first_block, slope, cap):
    """Constants before the correction of the mean, with penalty and norm; `gradients` is [items, blocks, width]."""
    g = gradients.astype(np.float64).copy()
    g[:, :first_block] = 0
    g = g.reshape(len(g), -1)
    kernel = g @ g.T
    unit = np.diag(kernel)[known].mean()
    kernel /= unit
    weights = np.zeros(len(g))
    if norms is not None:
        weights[known] += ridge(kernel[np.ix_(known, known)], norms[known] - plain[known])[0]
    started = plain + kernel @ weights
    answered = np.where(answers > 0)[0]
    a, penalty, _ = ridge(kernel[np.ix_(answered, answered)], answers[answered] - started[answered])
    weights[answered] += a
    v = weights @ g / (unit * slope)
    norm = np.linalg.norm(v)
    return v * min(1.0, cap / norm), penalty, norm


def common(gradients, known):
    """The unit direction of the upper third that moves all answers alike."""
    mean = gradients[known].astype(np.float64).mean(0)
    mean[: len(mean) * 2 // 3] = 0
    mean = mean.ravel()
    return mean / np.linalg.norm(mean)


# ---- the published search
def search(activations, labelled, fitted, keep):
    """Scores of all heads, and head, direction and sigma of the best `keep`. `labelled` is [(item, agreed)], `fitted` how
    many of them, from the first on, the probes see."""
    from sklearn.linear_model import LogisticRegression

    def points(part, head):
        x = np.concatenate([activations[item, :, head] for item, _ in part]).astype(np.float64)
        y = np.concatenate([[agreed, not agreed] for _, agreed in part]).astype(int)
        return x, y

    scores = []
    for head in range(activations.shape[2]):
        x, y = points(labelled[:fitted], head)
        probe = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(x, y)
        xo, yo = points(labelled[fitted:], head)
        scores.append((probe.score(x, y) + probe.score(xo, yo)) / 2)
    order = np.argsort(-np.array(scores), kind="stable")[:keep]
    found = []
    for head in order:
        x, y = points(labelled, head)
        direction = x[y == 1].mean(0) - x[y == 0].mean(0)
        direction /= np.linalg.norm(direction)
        found.append((int(head), direction, (x @ direction).std()))
    return scores, found


class Draws:
    """The reproducible draws of src/statistics.rs."""

    def __init__(self, seed, purpose, index):
        self.state = seed
        for part in [*purpose.encode(), index]:
            self.state = self.bits() ^ part

    def bits(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, n):
        return (self.bits() * n) >> 64

    def shuffled(self, n):
        order = list(range(n))
        for i in range(n):
            other = i + self.below(n - i)
            order[i], order[other] = order[other], order[i]
        return order


# ---- the fixture
def fixture(path):
    random = np.random.default_rng(7)
    items, blocks, width, heads, d_head = 14, 3, 4, 6, 3
    gradients = random.normal(size=(items, blocks, width)).astype(np.float32)
    known = np.arange(10)
    plain = random.normal(3, 0.5, items)
    norms = random.uniform(2, 4, items)
    # A person whom some constants describe, so that the penalty is neither the least nor the largest.
    truth = random.normal(0, 1.2, (blocks, width))
    truth[0] = 0
    answers = plain + 0.7 * gradients.reshape(items, -1) @ truth.ravel() + random.normal(0, 0.2, items)
    answers = np.clip(np.round(answers), 1, 5).astype(int)
    answers[[2, 11, 12, 13]] = 0
    v, penalty, norm = constants(gradients, plain, known, norms, answers, 1, 0.7, 0.9)
    activations = random.normal(size=(items, 2, heads, d_head)).astype(np.float32)
    labelled = [(i, bool(answers[i] > 3)) for i in range(10) if answers[i] not in (0, 3)]
    # One head says what the labels say.
    for item, agreed in labelled:
        activations[item, 0, 4] += 2 if agreed else -2
        activations[item, 1, 4] -= 2 if agreed else -2
    scores, found = search(activations, labelled, int(0.6 * len(labelled)), 4)
    content = {
        "shape": [items, blocks, width],
        "gradients": gradients.ravel().tolist(),
        "known": known.tolist(),
        "plain": plain.tolist(),
        "norms": norms.tolist(),
        "answers": answers.tolist(),
        "first_block": 1,
        "slope": 0.7,
        "cap": 0.9,
        "ridge": {"constants": v.tolist(), "lambda": penalty, "norm": norm},
        "heads": heads,
        "d_head": d_head,
        "activations": activations.ravel().tolist(),
        "labelled": labelled,
        "fitted": int(0.6 * len(labelled)),
        "search": {
            "scores": scores,
            "heads": [head for head, _, _ in found],
            "directions": [direction.tolist() for _, direction, _ in found],
            "sigmas": [sigma for _, _, sigma in found],
        },
    }
    with open(path, "w") as file:
        json.dump(content, file)
        file.write("\n")


# ---- a real alignment
def output_projections(path, architecture="llama"):
    """[d_model, n_heads * d_head] of every block, in f32."""
    from gguf import GGUFReader, dequantize

    found = {}
    for tensor in GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and parts[2] == "attn_output":
            found[int(parts[1])] = dequantize(tensor.data, tensor.tensor_type)
    return [found[l] for l in sorted(found)]


def check(args):
    from safetensors import safe_open

    with safe_open(args.prepared, "np") as file:
        prepared = {name: file.get_tensor(name) for name in file.keys()}
        labels = file.metadata()
    inventory = json.load(open(args.inventory))
    items = inventory["items"]
    known = np.array([i for i, item in enumerate(items) if item.get("known", True)])
    norms = None
    if all("norm" in items[i] for i in known):
        norms = np.array([item.get("norm", {"mean": 3})["mean"] for item in items])
    given = json.load(open(args.answers))
    if isinstance(given, dict):
        given = [given.get(str(n + 1), 0) for n in range(len(items))]
    answers = np.array(given)
    result = json.load(open(args.result))
    signals = prepared["signals"].astype(np.float64)
    slope, intercept = np.polyfit(signals[known], norms[known], 1)
    plain = slope * signals + intercept
    gradients = prepared["gradients"]
    worst = {}

    def note(name, ours, theirs, scale=None):
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        scale = scale or max(np.abs(theirs).max(), 1e-12)
        worst[name] = float(np.abs(ours - theirs).max() / scale)

    note("slope and intercept", [result["readout"]["slope"], result["readout"]["intercept"]], [slope, intercept])
    found = result["found"]
    if found["algorithm"] == "ridge":
        v, penalty, norm = constants(
            gradients, plain, known, norms, answers, int(labels["first_block"]), slope, float(labels["norm_cap"])
        )
        note("lambda", found["lambda"], penalty)
        note("norm", found["norm"], norm)
        v = v + found["shift"]["norm"] * common(gradients, known)
    else:
        with safe_open(args.heads, "np") as file:
            activations = file.get_tensor("activations")
        labelled = [(int(i), bool(answers[i] > 3)) for i in known if answers[i] not in (0, 3)]
        order = Draws(1, "probe split", 0).shuffled(len(labelled))
        labelled = [labelled[i] for i in order]
        scores, best = search(activations, labelled, int(0.6 * len(labelled)), 24)
        note("scores of the moved heads", found["scores"], [scores[head] for head in found["heads"]])
        same = sorted(scores[head] for head in found["heads"]) == sorted(scores[head] for head, _, _ in best)
        worst["ranking up to ties"] = 0.0 if same else 1.0
        note("sigma", found["sigmas"], [sigma for _, _, sigma in best])
        v = np.zeros(activations.shape[2:])
        for head, direction, sigma in best:
            v[head] = found["alpha"] * sigma * direction
        v = v.ravel()
    if found["alpha"] == 0:
        print("nothing is moved: no vector to compare")
        return report(worst)
    v = v.reshape(gradients.shape[1:])
    projections = output_projections(args.model)
    with safe_open(args.vector, "np") as file:
        stored = {int(name.split(".")[1]): file.get_tensor(name) for name in file.keys()}
    ours = np.stack([stored.get(l, np.zeros(len(projections[l]))) for l in range(len(v))])
    theirs = np.stack([projections[l].astype(np.float64) @ v[l] for l in range(len(v))])
    note("vector at attn[l]", ours, theirs)
    report(worst)


def report(worst):
    for name, error in worst.items():
        print(f"{name:28} {error:.1e}")
    sys.exit(1 if max(worst.values()) > 1e-4 else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("fixture")
    make.add_argument("path")
    compare = verbs.add_parser("check")
    for name in ["prepared", "inventory", "answers", "result"]:
        compare.add_argument(f"--{name}", required=True)
    for name in ["vector", "model", "heads"]:
        compare.add_argument(f"--{name}", help="needed where something is moved" if name != "heads" else "for pas")
    args = parser.parse_args()
    fixture(args.path) if args.verb == "fixture" else check(args)


if __name__ == "__main__":
    main()
