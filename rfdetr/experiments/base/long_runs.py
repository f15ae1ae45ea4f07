"""What makes the kept results (`rfdetr.experiments.base.kept`) anew. Finished parts are in the artifact
store: a stopped run goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from rfdetr.errors import UserError
from rfdetr.experiments import ch04_ranking, ch04_sampling_study, ch05_full_parts
from rfdetr.experiments.base import studies
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.kept import results_root
from rfdetr.provenance import provenance

STUDIES = {study.name: study for study in (ch04_ranking.STUDY, ch05_full_parts.STUDY)}
"""Name of a kept result -> the study that makes it in parts."""
RUNS = {
    "sampling-study": (ch04_sampling_study.PROFILE, ch04_sampling_study.make),
}
"""Name of a kept result -> its profile, and the function (folder, seed, store, provenance) that makes it."""


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
    """Run what makes a result and write it to `out` (default: the committed folder). Takes from minutes to
    hours. devices, seconds, only, any_code: see `studies.make`.
    """
    if name not in {*STUDIES, *RUNS}:
        raise UserError(f"unknown result {name!r}; choose one of {', '.join([*RUNS, *STUDIES])}")
    folder = out or results_root() / name
    store = store or Store()
    if name in STUDIES:
        studies.make(STUDIES[name], folder, seed, store, devices, seconds, only, any_code)
        return folder
    profile, run = RUNS[name]
    run(folder, seed, store, provenance(profile, seed))
    return folder
