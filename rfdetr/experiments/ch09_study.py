"""The miniature benchmark as a study that `python -m rfdetr results fourteen-domains` makes in parts."""

from dataclasses import asdict

from rfdetr.experiments.base import fitting
from rfdetr.experiments.base.studies import Study
from rfdetr.experiments.ch09_collect import keep
from rfdetr.experiments.ch09_domains import NAME, PROFILE, SIZES, parts

STUDY = Study(
    NAME,
    PROFILE,
    parts,
    keep,
    (*fitting.MODULES, "rfdetr.search.blocks", "rfdetr.search.grid", "rfdetr.data.registry"),
    lambda profile: asdict(SIZES[profile.name]),
    network="base",
)
