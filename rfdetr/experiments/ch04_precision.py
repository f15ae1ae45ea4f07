"""bfloat16 against float32 in training: the same trainings in both, on a processor and on a GPU.

Source: Appendix A of the paper (mixed precision). Accuracy decides whether bfloat16 may be a default, time
whether it is worth it; the kept result has both, and which instructions for bfloat16 the processor has.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch04_variants import differences, runs_table, variant_part

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NAME, PROFILE = "precision-study", "cpu"
PRECISIONS = ("fp32", "bf16")
DEVICES = ("cpu", "cuda")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
_CALL = "rfdetr.experiments.ch04_precision"


def parts(profile: Profile, seed: int) -> list[Part]:
    """Seed by seed both precisions on both devices; the GPU's parts are left open where there is none."""
    recipe = profile.recipe
    warmup = round(recipe.train["warmup_steps"] * recipe.study_steps / recipe.train["steps"])
    changes = {"steps": recipe.study_steps, "warmup_steps": warmup}
    return [
        Part(
            f"{device}-{precision}-{s}",
            f"{_CALL}:precision_part",
            {"profile": profile.name, "seed": s, "changes": {**changes, "precision": precision}},
            device=device,
        )
        for s in range(seed, seed + recipe.study_seeds)
        for device in DEVICES
        for precision in PRECISIONS
    ]


def precision_part(place: Place, profile: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """One training and its test (`ch04_variants.variant_part`), and what the processor has for bfloat16."""
    return {**variant_part(place, profile, seed, changes), "flags": cpu_flags()}


def cpu_flags() -> list[str]:
    """Those of the processor's instruction sets that matter for bfloat16; empty where the system does not
    tell.
    """
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    found = set(next(lines, "").partition(":")[2].split())
    return [flag for flag in _FLAGS if flag in found]


def collect(finished: Finished) -> None:
    """Keep one row per training and group. UserError when no pair of trainings is done."""
    heads = {}
    for name in finished.records:
        device, precision, seed = name.split("-")
        heads[name] = {"variant": precision, "hardware": device, "seed": int(seed)}
    runs, resamples = runs_table(finished, heads)
    if runs.empty or not (runs.groupby(["hardware", "seed"])["variant"].nunique() == 2).any():
        raise UserError("precision-study: no seed has both precisions yet; run it again, for longer")
    flags = {record["made"]["machine"]: record["value"]["flags"] for record in finished.records.values()}
    kept.keep(
        finished.folder,
        {"runs": runs},
        finished.origin,
        arrays={"resampled": resamples},
        flags=flags,
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def summary(runs: "pd.DataFrame", resamples: "np.ndarray | None" = None) -> "pd.DataFrame":
    """`ch04_variants.differences` of bf16 from fp32 for each hardware (cpu, cuda), with step_s, the median
    time of a training step in seconds (beside the other trainings of the study), and its ratio to fp32's.
    """
    import pandas as pd

    frames = []
    for hardware, part in runs.reset_index(drop=True).groupby("hardware", sort=False):
        again = None if resamples is None else resamples[part.index]
        steps = part.groupby("variant")["step_s"].median()
        found = differences(part, "fp32", again)
        found = found.assign(step_s=found["variant"].map(steps))
        frames.append(found.assign(hardware=hardware, time_ratio=found["step_s"] / float(steps["fp32"])))
    return pd.concat(frames, ignore_index=True)


STUDY = Study(NAME, PROFILE, parts, collect, (*fitting.MODULES, "rfdetr.search.blocks", "rfdetr.search.grid"))
