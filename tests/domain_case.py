"""A kept benchmark made of numbers, whole or in part, for the tests of the chapters that read it."""

from pathlib import Path

import numpy as np
import pandas as pd

from rfdetr.experiments import ch09_domains as domains
from rfdetr.experiments.base.kept import Kept

SIZES = domains.SIZES["cpu"]
_SCALE = 65535
ALL = ("nas", "fixed", "nas_tuned", "fixed_tuned", "nas_continued", "fixed_continued", "scratch_nas",
       "scratch_fixed", "epochs", "prior_nas")  # fmt: skip
GAIN = {"nas_tuned": 0.03, "fixed_tuned": 0.03, "nas_continued": 0.01, "scratch_nas": -0.2}


def study(names, kinds=ALL, seeds=1, resamples=12):
    """The result for these domains: searched networks are good by their operations, gains are `GAIN`."""
    rng = np.random.default_rng(0)
    archs, cost = domains.archs_of(SIZES.search), domains.operations(SIZES)
    ids = [arch.id for arch in archs]
    order = {name: i for i, name in enumerate(ids)}
    base = 0.2 + 0.5 * cost / cost.max()
    fixed = domains.chosen(base, SIZES)
    rows, again, arrays = [], [], {}
    for domain in names:
        for seed in range(seeds):
            ap = np.clip(base + rng.normal(0, 0.05, len(ids)), 0, 1)
            noise = rng.normal(0, 0.01, resamples)
            whole = np.clip(ap[None] + noise[:, None], 0, 1)
            for what, values in (("val", ap), ("test", ap), ("again", whole)):
                arrays[f"{what}:{domain}:{seed}"] = np.round(values * _SCALE).astype(np.uint16)
            for kind in kinds:
                choice = fixed if kind.startswith("fixed") else domains.chosen(ap, SIZES)
                for target, name in choice.items():
                    value = ap[order[name]] + GAIN.get(kind, 0.0)
                    rows.append({"domain": domain, "seed": seed, "kind": kind, "target": target, "arch": name,
                                 "AP": value, "steps": 80, "epochs": 12.0})  # fmt: skip
                    again.append(np.clip(value + noise, 0, 1))
    arrays["resampled"] = np.round(np.array(again) * _SCALE).astype(np.uint16)
    about = [{"domain": d, "kind": "real", "objects_per_image": 2.0 + i} for i, d in enumerate(names)]
    tables = {
        "tests": pd.DataFrame(rows),
        "domains": pd.DataFrame(about),
        "grid": pd.DataFrame({"arch": ids, "gflops": cost}),
    }
    made = {"time_utc": "2026-01-01T00:00:00", "commit": "abc", "versions": {"torch": "2"}, "machine": "m"}
    record = {
        "provenance": {**made, "profile": "cpu", "seed": 0},
        "limits": domains.limits(SIZES),
        "fixed": fixed,
        "missing": [],
    }
    return Kept(tables, record, Path("results/fourteen-domains"), arrays)


def without(result, domain):
    """The result without one domain."""
    tests = result.tables["tests"]
    stays = (tests["domain"] != domain).to_numpy()
    table = result.tables["domains"]
    tables = {
        **result.tables,
        "tests": tests[stays].reset_index(drop=True),
        "domains": table[table["domain"] != domain].reset_index(drop=True),
    }
    arrays = {k: v for k, v in result.arrays.items() if f":{domain}:" not in k}
    return Kept(
        tables, result.record, result.folder, {**arrays, "resampled": result.arrays["resampled"][stays]}
    )
