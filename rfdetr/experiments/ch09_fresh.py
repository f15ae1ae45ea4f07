"""The miniature benchmark run afresh, small: the network of the kept search goes to two embedded domains.

Source: Section 4.2 of the paper. The protocol of `ch09_domains` with what every copy of the repository has:
the supernet that was trained on digits takes the part of the one trained on COCO, its own choice on its own
validation scenes is the fixed architecture, and two embedded domains are the data sets. They have the digits'
ten classes, since so few steps teach no new ones. The result has the form of the kept one, so that
`ch09_analysis` reads both.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.scenes import scenes
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.kept import Kept
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import PROFILES, Profile
from rfdetr.experiments.ch09_data import facts
from rfdetr.experiments.ch09_domains import SIZES, Sizes, archs_of, chosen, limits, operations
from rfdetr.experiments.ch09_parts import RATES, grid_ap, tests
from rfdetr.files import sha256_file, write_json
from rfdetr.model.weights import with_classes

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

MODULES = (*fitting.MODULES, "rfdetr.search.grid")
SPLITS = ("train", "val", "test")
_SCALE = 65535


@dataclass(frozen=True)
class Fresh:
    """How much the fresh run computes: sizes as of the study, and the lengths, in steps, for which the middle
    choice is trained on alone.
    """

    sizes: Sizes
    lengths: tuple[int, ...]


_FULL = PROFILES["full"].recipe
_CPU = replace(
    SIZES["cpu"],
    real=(),
    embedded=("giants", "clutter"),
    model=_FULL.model,
    training=SearchSpace((64, 96, 128), (8, 12, 16), (1,), (6,), (30,)),
    search=SearchSpace((64, 96, 128), (8, 12, 16), (1,), (0, 1, 2, 3, 4, 6), _FULL.search.queries),
    canvas=_FULL.canvas,
    few=(200, 40, 60),
    batch_size=8,
    steps=40,
    tuned=12,
    seeds=1,
    grid_resamples=30,
)
_SMOKE = replace(
    _CPU,
    training=SearchSpace((64,), (16,), (1,), (6,), (16,)),
    search=SearchSpace((64,), (12, 16), (1,), (0, 1), (5, 10)),
    few=(8, 4, 4),
    batch_size=4,
    steps=2,
    tuned=1,
    grid_resamples=5,
)
FRESH = {"cpu": Fresh(_CPU, (6, 24)), "smoke": Fresh(_SMOKE, (1,))}
"""By profile; other profiles take that of cpu."""


def fresh(profile: Profile) -> Fresh:
    """The sizes of a profile."""
    return FRESH.get(profile.name, FRESH["cpu"])


def searched(profile: Profile, seed: int, store: Store, base: Kept) -> Kept:
    """The base trained further on both domains with weight sharing, searched, tested; kinds nas and fixed.

    base: the kept search of chapter 05. Made once per profile and seed, in the artifact store.
    """
    return _read(_searched(profile, seed, store, base), fresh(profile).sizes, base, seed)


def fine_tuned(profile: Profile, seed: int, store: Store, base: Kept) -> Kept:
    """What `searched` has, and the chosen sub-networks trained further alone (nas_tuned), the supernet for as
    many steps (nas_continued), and the middle choice for several lengths (epochs).
    """
    first = _searched(profile, seed, store, base)
    sizes = fresh(profile)

    def build(work: Path) -> None:
        for domain in sizes.sizes.embedded:
            rows, again = _alone(Place(work, domain, fitting.fastest_device()), sizes, domain, seed, first)
            _write(work, domain, rows, {"tests": again})

    key = {**_key(profile, seed, base), "lengths": list(sizes.lengths), "stage": "alone"}
    second = store.artifact("fresh-domains-tuned", key, build, MODULES)
    return _read(first, sizes.sizes, base, seed, second)


def _searched(profile: Profile, seed: int, store: Store, base: Kept) -> Path:
    sizes = fresh(profile).sizes

    def build(work: Path) -> None:
        for domain in sizes.embedded:
            place = Place(work, domain, fitting.fastest_device())
            rows, arrays, about = _on_domain(place, sizes, domain, seed, base)
            _write(work, domain, rows, arrays, about)

    return store.artifact("fresh-domains", _key(profile, seed, base), build, MODULES)


def _key(profile: Profile, seed: int, base: Kept) -> dict[str, Any]:
    network = sha256_file(base.folder / "network.safetensors")
    sizes = json.loads(json.dumps(asdict(fresh(profile).sizes)))
    return {"sizes": sizes, "seed": seed, "base": network, "fixed": fixed_choice(base, fresh(profile).sizes)}


def fixed_choice(base: Kept, sizes: Sizes) -> dict[str, str]:
    """Target -> what the base itself takes within it, by the kept search on its own validation scenes."""
    import pandas as pd

    archs = pd.DataFrame([arch.to_dict() for arch in archs_of(sizes.search)])
    found = archs.merge(base.tables["table"][[*Arch.KNOBS, "AP"]], on=list(Arch.KNOBS), how="left")
    return chosen(found["AP"].to_numpy(), sizes)


def split(sizes: Sizes, domain: str, name: str) -> DetectionDataset:
    """One split of one of the two domains."""
    count = dict(zip(SPLITS, sizes.few, strict=True))[name]
    return scenes(domain, name, size=count, canvas=sizes.canvas)


def _on_domain(
    place: Place, sizes: Sizes, domain: str, seed: int, base: Kept
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], dict[str, Any]]:
    train, val, test = (split(sizes, domain, name) for name in SPLITS)
    start, _ = with_classes(base.network(), categories=train.category_ids)
    config = _recipe(sizes, seed, sizes.steps, RATES["tune"])
    model, _ = fitting.fit(place, start, train, sizes.training, config)
    kept.write_network(model, place.file(".safetensors"))
    model = kept.read_network(place.file(".safetensors")).to(place.device)
    ap, _ = grid_ap(model, val, sizes.search)
    tested, again = grid_ap(model, test, sizes.search, sizes.grid_resamples)
    choices = {"nas": chosen(ap, sizes), "fixed": fixed_choice(base, sizes)}
    found, _ = tests(model, test, [name for choice in choices.values() for name in choice.values()])
    rows = [
        {"kind": kind, "target": target, "arch": name, "steps": sizes.steps, **found[name]}
        for kind, choice in choices.items()
        for target, name in choice.items()
    ]
    grids = {"val": _whole(ap), "test": _whole(tested), "again": _whole(again)}
    return rows, {**grids, "tests": _resampled(rows)}, facts([train, val, test])


def _alone(
    place: Place, sizes: Fresh, domain: str, seed: int, first: Path
) -> tuple[list[dict[str, Any]], np.ndarray]:
    train, test = (split(sizes.sizes, domain, name) for name in ("train", "test"))
    tuned = sizes.sizes.tuned
    choices = {row["target"]: row["arch"] for row in _rows(first, domain) if row["kind"] == "nas"}

    def trained(space: SearchSpace | Arch, steps: int, stage: str) -> "RFDETR":
        model = kept.read_network(first / f"{domain}.safetensors")
        config = _recipe(sizes.sizes, seed, steps, RATES["alone"])
        return fitting.fit(place, model, train, space, config, stage)[0]

    rows = []
    for target, name in choices.items():
        lengths = {tuned, *(sizes.lengths if target == "S" else ())}
        for steps in sorted(lengths):
            found, _ = tests(trained(Arch.parse(name), steps, f"{name}-{steps}"), test, [name])
            head = {"target": target, "arch": name, "steps": steps}
            if steps == tuned:
                rows.append({"kind": "nas_tuned", **head, **found[name]})
            if target == "S":
                epochs = steps * sizes.sizes.batch_size / len(train)
                rows.append({"kind": "epochs", **head, "epochs": epochs, **found[name]})
    found, _ = tests(trained(sizes.sizes.training, tuned, "continued"), test, choices.values())
    rows += [
        {"kind": "nas_continued", "target": target, "arch": name, "steps": tuned, **found[name]}
        for target, name in choices.items()
    ]
    return rows, _resampled(rows)


def _recipe(sizes: Sizes, seed: int, steps: int, rate: float) -> dict[str, Any]:
    train = _FULL.train
    rates = {key: rate * train[key] for key in ("lr", "encoder_lr")}
    changes = {"steps": steps, "warmup_steps": max(1, steps // 10), "batch_size": sizes.batch_size}
    return {**train, **rates, **changes, "seed": seed, "augment": True, "precision": "fp32"}


def _whole(values: np.ndarray) -> np.ndarray:
    return np.round(np.nan_to_num(values) * _SCALE).astype(np.uint16)


def _resampled(rows: Iterable[dict[str, Any]]) -> np.ndarray:
    return _whole(fitting.resampled(rows))


def _write(
    work: Path,
    domain: str,
    rows: list[dict[str, Any]],
    arrays: dict[str, np.ndarray],
    about: dict[str, Any] | None = None,
) -> None:
    np.savez_compressed(work / f"{domain}.npz", allow_pickle=False, **arrays)
    plain = [{k: v for k, v in row.items() if k != "resampled"} for row in rows]
    write_json(work / f"{domain}.json", {"about": about, "tests": plain})


def _rows(folder: Path, domain: str) -> list[dict[str, Any]]:
    return json.loads((folder / f"{domain}.json").read_text(encoding="utf-8"))["tests"]


def _read(first: Path, sizes: Sizes, base: Kept, seed: int, *more: Path) -> Kept:
    """The artifacts in the form of the kept benchmark."""
    import pandas as pd

    tested, again, domains = [], [], []
    arrays: dict[str, np.ndarray] = {}
    for domain in sizes.embedded:
        about = json.loads((first / f"{domain}.json").read_text(encoding="utf-8"))["about"]
        domains.append({"domain": domain, "kind": "embedded", **about})
        for folder in (first, *more):
            tested += [{"domain": domain, "seed": seed, **row} for row in _rows(folder, domain)]
            with np.load(folder / f"{domain}.npz") as file:
                again.append(file["tests"])
                grids = [name for name in ("val", "test", "again") if name in file.files]
                arrays |= {f"{name}:{domain}:{seed}": file[name] for name in grids}
    names = [arch.id for arch in archs_of(sizes.search)]
    tables: dict[str, pd.DataFrame] = {
        "tests": pd.DataFrame(tested),
        "domains": pd.DataFrame(domains),
        "grid": pd.DataFrame({"arch": names, "gflops": operations(sizes)}),
    }
    record = {"limits": limits(sizes), "fixed": fixed_choice(base, sizes), "missing": []}
    return Kept(tables, record, first, {**arrays, "resampled": np.concatenate(again)})
