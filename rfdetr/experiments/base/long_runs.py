"""What makes the kept results (`rfdetr.experiments.base.kept`) anew. Finished parts are in the artifact
store: a stopped run goes on.
"""

from pathlib import Path

from rfdetr.errors import UserError
from rfdetr.experiments import ch04_sampling_study, ch05_full_search
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.kept import results_root
from rfdetr.provenance import provenance

RUNS = {
    "sampling-study": (ch04_sampling_study.PROFILE, ch04_sampling_study.make),
    "full-search": (ch05_full_search.PROFILE, ch05_full_search.make),
}
"""Name of a kept result -> its profile, and the function (folder, seed, store, provenance) that makes it."""


def make(name: str, out: Path | None = None, seed: int = 0, store: Store | None = None) -> Path:
    """Run what makes a result and write it to `out` (default: the committed folder). Takes from minutes to
    hours.
    """
    if name not in RUNS:
        raise UserError(f"unknown result {name!r}; choose one of {', '.join(RUNS)}")
    folder = out or results_root() / name
    profile, run = RUNS[name]
    run(folder, seed, store or Store(), provenance(profile, seed))
    return folder
