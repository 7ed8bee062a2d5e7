#!/usr/bin/env python3
# /// script
# dependencies = ["scipy==1.17.1", "statsmodels", "numpy"]
# ///
"""Writes the figures that the tests of src/statistics/paired.rs compare with, from scipy and statsmodels.

    python3 scripts/reference_statistics.py > src/statistics/paired_golden.rs && cargo fmt
"""

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

P = [0.001, 0.04, 0.03, 0.2, 0.9, 0.005, 0.03, 0.6]
FLIPPED = [0.3, -0.1, 0.25, 0.4, 0.05, -0.2, 0.5, 0.15, 0.35, 0.1]
PAIRS = [(0, 6), (1, 8), (5, 5), (3, 12), (12, 12), (10, 15), (40, 20), (200, 150)]
CHI = [0.01, 0.5, 3.841458820694124, 6.0, 8.1, 20.0, 60.0]


def mcnemar_p(gained, lost):
    exact = gained + lost < 25
    return float(mcnemar([[0, gained], [lost, 0]], exact=exact, correction=True).pvalue)


def adjusted(method):
    return [float(p) for p in multipletests(P, method=method)[1]]


flips = stats.permutation_test(
    (np.array(FLIPPED), np.zeros(len(FLIPPED))),
    lambda x, y, axis: np.mean(x - y, axis=axis),
    permutation_type="samples",
    vectorized=True,
    n_resamples=np.inf,
)


def rows(values):
    return ", ".join(values)


print("//! Reference figures of scipy and statsmodels for `paired`, written by scripts/reference_statistics.py.\n")
print(f"pub const P: [f64; {len(P)}] = [{rows(map(repr, P))}];")
print(f"pub const HOLM: [f64; {len(P)}] = [{rows(map(repr, adjusted('holm')))}];")
print(f"pub const HOCHBERG: [f64; {len(P)}] = [{rows(map(repr, adjusted('fdr_bh')))}];")
pairs = [f"({a}, {b}, {mcnemar_p(a, b)!r})" for a, b in PAIRS]
print(f"pub const MCNEMAR: [(u64, u64, f64); {len(pairs)}] = [{rows(pairs)}];")
chi = [f"({x!r}, {float(stats.chi2.sf(x, 1))!r})" for x in CHI]
print(f"pub const CHI_SQUARE: [(f64, f64); {len(chi)}] = [{rows(chi)}];")
print(f"pub const FLIPPED: [f64; {len(FLIPPED)}] = [{rows(map(repr, FLIPPED))}];")
print(f"pub const FLIPPED_P: f64 = {float(flips.pvalue)!r};")
sizes = [5, 26, 60]
tails = [f"({n}, {float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)))!r})" for n in sizes]
print(f"pub const TAILS: [(usize, f64); {len(tails)}] = [{rows(tails)}];")
