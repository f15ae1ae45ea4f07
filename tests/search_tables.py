"""Tables of made-up searches: accuracies with known laws, and what few images show of them."""

import numpy as np
import pandas as pd

from rfdetr.arch import SearchSpace

SPACE = SearchSpace((64, 80, 96, 112, 128), (4, 8, 12, 16), (1, 2, 4), (0, 1, 2, 3), (4, 8, 16))
IMAGES = 1000
LEVELS = (20, 50, 100, 200, 500)


def by_tokens(table):
    """Accuracy is a function of tokens a side, layers and queries."""
    tokens = (table["resolution"] / table["patch_size"]) ** 2
    depth, queries = table["decoder_layers"], table["queries"]
    return 0.7 * (1 - np.exp(-tokens / 80)) * (1 - 0.4 * np.exp(-depth)) * (1 - 0.2 * np.exp(-queries / 5))


def by_resolution(table):
    """At equal tokens the larger resolution is clearly better: small objects need real pixels."""
    return by_tokens(table) * (0.5 + 0.5 * (table["resolution"] / 128) ** 1.5)


def unit_cost():
    return {(r, p, w): 1 + (r / p) ** 2 / 50 + (r / p) ** 4 / w**2 / 5e4 for r, p, w in SPACE.triples()}


def make(law=by_tokens, seed=0, own=0.003, levels=LEVELS, images=IMAGES):
    """A table with latency_ms, AP on all images and AP_20, ...: on the first so many.

    The error of few images is mostly shared by all networks, partly by those of equal tokens, hardly a
    network's own; `own` is what a setting differs from its law by.
    """
    table = pd.DataFrame([arch.to_dict() for arch in SPACE.distinct()])
    rng = np.random.default_rng(seed)
    side = table["resolution"] / table["patch_size"]
    table["latency_ms"] = (
        1
        + 5e-3 * side**2
        + 1e-5 * table["resolution"] ** 2
        + table["decoder_layers"] * (0.2 + 0.01 * table["queries"])
        + 0.05 * table["windows"]
    )
    triples = table.groupby(["resolution", "patch_size", "windows"]).ngroup().to_numpy()
    law_ap = law(table).to_numpy() + own * rng.standard_normal(triples.max() + 1)[triples]
    table["AP"] = np.clip(law_ap, 0.01, 0.99)
    grids, at = np.unique(side, return_inverse=True)
    total, done = np.zeros(len(table)), 0
    for n in levels:
        share = n - done
        shared = 0.3 * rng.standard_normal()
        some = 0.15 * rng.standard_normal(len(grids))[at]
        alone = 0.04 * rng.standard_normal(triples.max() + 1)[triples]
        total += np.sqrt(share) * (shared + some + alone)
        done = n
        scale = 2 * np.sqrt(table["AP"] * (1 - table["AP"]))
        table[f"AP_{n}"] = np.clip(table["AP"] + scale * total / n * np.sqrt(1 - n / images), 0.0, 1.0)
    return table
