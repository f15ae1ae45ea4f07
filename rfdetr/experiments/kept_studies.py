"""What makes the kept results (`rfdetr.experiments.base.kept`) anew. Finished parts are in the artifact
store: a stopped run goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from rfdetr.errors import UserError
from rfdetr.experiments import (
    ch04_precision,
    ch04_ranking,
    ch04_sampling_study,
    ch05_bill,
    ch05_full_parts,
    ch05_regret,
    ch06_half_peers,
    ch06_int8,
    ch06_int8_domains,
    ch07_contest,
    ch07_exports,
    ch09_convolution,
    ch09_study,
    ch10_miniature,
    ch_d_timing,
)
from rfdetr.experiments.base import studies
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.kept import results_root

STUDIES = {
    study.name: study
    for study in (
        ch04_sampling_study.STUDY,
        ch04_ranking.STUDY,
        ch04_precision.STUDY,
        ch05_full_parts.STUDY,
        ch05_regret.STUDY,
        ch05_bill.STUDY,
        ch06_int8.STUDY,
        ch06_half_peers.STUDY,
        ch06_int8_domains.STUDY,
        ch07_contest.STUDY,
        ch07_contest.BACKBONES_STUDY,
        ch07_exports.STUDY,
        ch09_study.STUDY,
        ch09_convolution.STUDY,
        ch10_miniature.STUDY,
        ch_d_timing.STUDY,
    )
}
"""Name of a kept result -> the study that makes it in parts."""


def make(
    name: str,
    out: Path | None = None,
    seed: int = 0,
    store: Store | None = None,
    devices: Sequence[str] = ("cpu",),
    seconds: float | None = None,
    only: Sequence[str] = (),
    any_code: bool = False,
) -> Path:
    """Run what makes a result and write it to `out` (default: the committed folder), which is returned; with
    `only` the folder of the parts. Takes from minutes to hours. devices, seconds, only, any_code: see
    `studies.make`.
    """
    if name not in STUDIES:
        raise UserError(f"unknown result {name!r}; choose one of {', '.join(STUDIES)}")
    if name in (ch07_contest.NAME, ch07_contest.BACKBONES_NAME) and len(devices) > 1:
        raise UserError(f"{name} times models: one at a time (--jobs 1), on a machine that does nothing else")
    folder = out or results_root() / name
    store = store or Store()
    studies.make(STUDIES[name], folder, seed, store, devices, seconds, only, any_code)
    return store.root / "parts" / name if only else folder
