"""All kept results that the command line makes: those of `base.long_runs`, and those about deployment."""

from collections.abc import Sequence
from pathlib import Path

from rfdetr.errors import UserError
from rfdetr.experiments import ch06_int8, ch07_contest
from rfdetr.experiments.base import long_runs, studies
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.kept import results_root

STUDIES = long_runs.STUDIES | {study.name: study for study in (ch06_int8.STUDY, ch07_contest.STUDY)}
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
    """As `base.long_runs.make`, for every study. UserError that lists them for an unknown name."""
    if name in long_runs.STUDIES:
        return long_runs.make(name, out, seed, store, devices, seconds, only, any_code)
    if name not in STUDIES:
        raise UserError(f"unknown result {name!r}; choose one of {', '.join(STUDIES)}")
    if name == ch07_contest.NAME and len(devices) > 1:
        raise UserError(f"{name} times models: one at a time (--jobs 1), on a machine that does nothing else")
    folder = out or results_root() / name
    store = store or Store()
    studies.make(STUDIES[name], folder, seed, store, devices, seconds, only, any_code)
    return store.root / "parts" / name if only else folder
