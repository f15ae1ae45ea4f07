"""A kept benchmark made of numbers, whole or in part, for the tests of the chapters that read it."""

from pathlib import Path

import numpy as np
import pandas as pd

from rfdetr.experiments import ch09_convolution as convolution
from rfdetr.experiments import ch09_domains as domains
from rfdetr.experiments import ch09_shown
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.kept import Kept
from rfdetr.model.detector import RFDETR

SIZES = domains.SIZES["cpu"]
EVERY = (*SIZES.real, *SIZES.embedded)
_SCALE = 65535
ALL = ("nas", "fixed", "nas_tuned", "fixed_tuned", "nas_continued", "fixed_continued", "scratch_nas",
       "scratch_fixed", "epochs", "prior_nas")  # fmt: skip
GAIN = {"nas_tuned": 0.03, "fixed_tuned": 0.03, "nas_continued": 0.01, "scratch_nas": -0.2}
MADE = {"time_utc": "2026-01-01T00:00:00", "commit": "abc", "versions": {"torch": "2"}, "machine": "m",
        "profile": "cpu", "seed": 0}  # fmt: skip


def study(names, kinds=ALL, seeds=1, resamples=12):
    """The result for these domains: searched networks are good by their operations, gains are `GAIN`."""
    return _study(names, lambda domain, seed: kinds, seeds, resamples, 0)


def planned(domain, seed):
    """The kinds that the study plans for a domain and seed."""
    some = {"epochs": SIZES.epochs, "prior_nas": SIZES.priors}
    return [kind for kind in ALL if kind not in some or (domain in some[kind] and seed == 0)]


def _study(names, kinds_of, seeds, resamples, generator):
    rng = np.random.default_rng(generator)
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
            for kind in kinds_of(domain, seed):
                choice = fixed if kind.startswith("fixed") else domains.chosen(ap, SIZES)
                lengths = SIZES.lengths if kind == "epochs" and kinds_of is planned else (80,)
                for target, name in choice.items():
                    if kinds_of is planned and kind == "epochs" and target != "S":
                        continue
                    value = ap[order[name]] + GAIN.get(kind, 0.0)
                    for steps in lengths:
                        rows.append({"domain": domain, "seed": seed, "kind": kind, "target": target,
                                     "arch": name, "AP": value, "steps": steps,
                                     "epochs": 0.15 * steps})  # fmt: skip
                        again.append(np.clip(value + noise, 0, 1))
    arrays["resampled"] = np.round(np.array(again) * _SCALE).astype(np.uint16)
    kinds = {name: "real" if name in SIZES.real else "embedded" for name in names}
    about = [
        {"domain": d, "kind": kinds[d], "objects_per_image": (2.0 + i) ** 1.4} for i, d in enumerate(names)
    ]
    tables = {
        "tests": pd.DataFrame(rows),
        "domains": pd.DataFrame(about),
        "grid": pd.DataFrame({"arch": ids, "gflops": cost}),
    }
    record = {"provenance": MADE, "limits": domains.limits(SIZES), "fixed": fixed, "missing": []}
    return Kept(tables, record, Path("results/fourteen-domains"), arrays)


def folder(root, names=EVERY, seeds=SIZES.seeds, generator=1):
    """Everything that the study plans, of random numbers, written and read as the study does."""
    made = _study(names, planned, seeds, 40, generator)
    rng = np.random.default_rng(generator)
    shown = [
        {"domain": domain, "kind": kind, "target": target, "image": image, "label": 0,
         "score": round(float(rng.uniform(0.3, 1)), 3), "left": 0.2, "top": 0.3, "right": 0.6, "bottom": 0.7}
        for domain in ch09_shown.PICTURED if domain in names
        for kind, target in ch09_shown.SHOWN for image in range(10)
    ]  # fmt: skip
    tables = {**made.tables, "detections": pd.DataFrame(shown, columns=list(ch09_shown.COLUMNS))}
    record = {key: value for key, value in made.record.items() if key != "provenance"}
    base = RFDETR(num_classes=13, **SIZES.model)
    kept.keep(root / domains.NAME, tables, MADE, base, arrays=made.arrays, **record)
    return kept.load(domains.NAME, root)


def without(result, domain):
    """The result without one domain."""
    tests = result.tables["tests"]
    stays = (tests["domain"] != domain).to_numpy()
    tables = {
        name: table[table["domain"] != domain].reset_index(drop=True) if "domain" in table else table
        for name, table in result.tables.items()
    }
    arrays = {k: v for k, v in result.arrays.items() if f":{domain}:" not in k}
    return Kept(
        tables, result.record, result.folder, {**arrays, "resampled": result.arrays["resampled"][stays]}
    )


def baseline(result, domains=SIZES.real, seeds=1, gain=-0.1):
    """A convolutional baseline of made numbers on the domains that a made result has: its AP is that of the
    searched network of target S and `gain`.
    """
    rows, again = [], []
    tests = result.tables["tests"]
    for number, row in enumerate(tests.itertuples()):
        if (row.kind, row.target) != ("nas", "S") or row.domain not in domains or row.seed >= seeds:
            continue
        for kind, less in ((convolution.KIND["evaluation"], 0.0), (convolution.KIND["deployed"], 0.05)):
            rows.append({"domain": row.domain, "seed": row.seed, "kind": kind, "AP": row.AP + gain - less,
                         "side": 160, "recipe": "recipe-adamw", "steps": 300, "epochs": 60.0,
                         "seconds": 120.0, "params_m": 0.9, "gflops": 0.16})  # fmt: skip
            shift = round((gain - less) * _SCALE)
            again.append(np.clip(result.arrays["resampled"][number].astype(int) + shift, 0, _SCALE))
    times = [
        {"domain": domain, "network": name, "round": r, "protocol": protocol, "median_ms": ms * (1 + 0.1 * r),
         "noisy": False}
        for domain in dict.fromkeys(row["domain"] for row in rows)
        for name, ms in (("convolution, evaluation", 4.0), ("convolution, deployed", 3.0),
                         ("searched, S", 2.0))
        for r in range(2) for protocol in ("buffered", "sustained")
    ]  # fmt: skip
    shown = [
        {"domain": domain, "image": image, "label": 0, "score": 0.6, "left": 0.2, "top": 0.3, "right": 0.6,
         "bottom": 0.7}
        for domain in ch09_shown.PICTURED if domain in domains for image in range(3)
    ]  # fmt: skip
    tables = {"tests": pd.DataFrame(rows), "latency": pd.DataFrame(times), "detections": pd.DataFrame(shown)}
    arrays = {"resampled": np.array(again).astype(np.uint16)}
    return Kept(tables, {"provenance": MADE}, Path("results/domain-baseline"), arrays)
