"""The parts of the miniature benchmark (`ch09_domains`): trainings, searches and tests on one domain each."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.scenes import DOMAINS
from rfdetr.evaluation.bootstrap import Matches, image_weights
from rfdetr.experiments.base import fitting, kept, per_image
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.ch09_data import Mixture, Packed, embedded, facts
from rfdetr.experiments.ch09_domains import SIZES, Sizes, archs_of, chosen
from rfdetr.model.weights import with_classes
from rfdetr.search import blocks
from rfdetr.search.grid import GridEvaluator, units
from rfdetr.search.matches import average_precision

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

RATES = {"tune": 0.5, "alone": 0.3, "scratch": 1.0}
"""Learning rates as parts of the recipe's from scratch; all fall to zero at the end."""
_SCALE = 65535  # of AP as a whole number of 16 bits
_REAL_SHARE = 0.5  # about so much of the pictures of a base with real sets are real


def base_part(place: Place, profile: str, seed: int, steps: int, real: list[str]) -> dict[str, Any]:
    """Train the base on scenes of all embedded domains and, if named, on real sets."""
    sizes = SIZES[profile]
    made = [embedded(place, domain, "train", sizes.scenes[0], sizes.canvas) for domain in DOMAINS]
    found: list[DetectionDataset] = [Packed(place.needed(f"data-{name}", ".zip"), "train") for name in real]
    times = [1] * len(made)
    if found:
        share = _REAL_SHARE / (1 - _REAL_SHARE) * sum(map(len, made)) / sum(map(len, found))
        times += [max(1, round(share))] * len(found)
    data = Mixture([*made, *found], times)
    model = fitting.new_network(data, sizes.model, seed)
    config = {**_recipe(profile, seed, steps, 1.0), "augment": False}
    model, log = fitting.fit(place, model, data, sizes.training, config)
    kept.write_network(model, place.file(".safetensors"))
    return {**fitting.about(log), "pictures": len(data), "classes": data.num_classes}


def choice_part(place: Place, profile: str) -> dict[str, Any]:
    """What the base itself would take: all sub-networks on embedded validation scenes of all domains."""
    sizes = SIZES[profile]
    data = Mixture([embedded(place, d, "val", sizes.scenes[1], sizes.canvas) for d in DOMAINS])
    model = kept.read_network(place.needed("base", ".safetensors")).to(place.device)
    ap, _ = grid_ap(model, data, sizes.search)
    _write(place, {"val": _whole(ap)})
    return {"chosen": chosen(ap, sizes), "images": len(data)}


def tune_part(
    place: Place, profile: str, domain: str, seed: int, steps: int, base: str = "base"
) -> dict[str, Any]:
    """The base trained further on a domain with weight sharing, searched on val, tested."""
    sizes = SIZES[profile]
    train = open_domain(place, sizes, domain, "train")
    torch.manual_seed(seed)
    start = kept.read_network(place.needed(base, ".safetensors"))
    model, _ = with_classes(start, categories=train.category_ids)
    config = _recipe(profile, seed, steps, RATES["tune"])
    return _searched(place, sizes, domain, model, sizes.training, config, {"nas": None, "fixed": "choice"})


def scratch_part(place: Place, profile: str, domain: str, seed: int, steps: int) -> dict[str, Any]:
    """The same from random weights."""
    sizes = SIZES[profile]
    model = fitting.new_network(open_domain(place, sizes, domain, "train"), sizes.model, seed)
    config = _recipe(profile, seed, steps, RATES["scratch"])
    kinds = {"scratch_nas": None, "scratch_fixed": "choice"}
    # Nothing goes on from these weights.
    return _searched(place, sizes, domain, model, sizes.training, config, kinds)


def _searched(
    place: Place,
    sizes: Sizes,
    domain: str,
    model: "RFDETR",
    space: SearchSpace,
    config: dict[str, Any],
    kinds: Mapping[str, str | None],
) -> dict[str, Any]:
    """Train, evaluate all sub-networks on val and test, choose, test the choices. kinds: name -> part that
    chose, or None for the choice on val.
    """
    train, val, test = (open_domain(place, sizes, domain, split) for split in ("train", "val", "test"))
    model, log = fitting.fit(place, model, train, space, config)
    if "nas" in kinds:
        kept.write_network(model, place.file(".safetensors"))
        model = kept.read_network(place.file(".safetensors"))
    model = model.to(place.device)
    ap, _ = grid_ap(model, val, sizes.search)
    tested, again = grid_ap(model, test, sizes.search, sizes.grid_resamples)
    best = chosen(ap, sizes)
    rows = []
    for kind, part in kinds.items():
        archs = best if part is None else place.value(part)["chosen"]
        rows += [{"kind": kind, "target": target, "arch": name} for target, name in archs.items()]
    found, arrays = tests(model, test, [row["arch"] for row in rows])
    names = [arch.id for arch in archs_of(sizes.search)]
    rows = [
        {**row, **found[row["arch"]], "steps": len(log), "val_AP": float(ap[names.index(row["arch"])])}
        for row in rows
    ]
    whole = {"val": _whole(ap), "test": _whole(tested), "resampled": _whole(again)}
    _write(place, {**whole, **_per_image(rows, arrays)})
    about = {**fitting.about(log), "domain": domain, **facts([train, val, test])}
    return {**about, "chosen": best, "tests": rows}


def alone_part(place: Place, profile: str, domain: str, seed: int, steps: int, tune: str) -> dict[str, Any]:
    """Every chosen and fixed architecture trained further alone; the supernet for as many steps."""
    sizes = SIZES[profile]
    train, test = (open_domain(place, sizes, domain, split) for split in ("train", "test"))
    choices = {"nas": place.value(tune)["chosen"], "fixed": place.value("choice")["chosen"]}
    config = _recipe(profile, seed, steps, RATES["alone"])
    archs = dict.fromkeys(name for choice in choices.values() for name in choice.values())
    found, arrays = {}, {}
    for name in archs:
        model = kept.read_network(place.needed(tune, ".safetensors"))
        model, _ = fitting.fit(place, model, train, Arch.parse(name), config, name)
        one, packed = tests(model, test, [name])
        found["tuned", name], arrays["tuned", name] = one[name], packed[name]
    model = kept.read_network(place.needed(tune, ".safetensors"))
    model, _ = fitting.fit(place, model, train, sizes.training, config, "continued")
    continued, packed = tests(model, test, archs)
    found |= {("continued", name): row for name, row in continued.items()}
    arrays |= {("continued", name): row for name, row in packed.items()}
    rows, kept_arrays = [], []
    for how in ("tuned", "continued"):
        for kind, choice in choices.items():
            for target, name in choice.items():
                head = {"kind": f"{kind}_{how}", "target": target, "arch": name, "steps": steps}
                rows.append({**head, **found[how, name]})
                kept_arrays.append(arrays[how, name])
    _write(place, per_image.joined(kept_arrays))
    return {"domain": domain, "tests": rows}


def epochs_part(
    place: Place, profile: str, domain: str, seed: int, lengths: list[int], tune: str
) -> dict[str, Any]:
    """The middle choice trained further alone for several numbers of steps, each falling to zero at its
    end.
    """
    sizes = SIZES[profile]
    train, test = (open_domain(place, sizes, domain, split) for split in ("train", "test"))
    name = list(place.value(tune)["chosen"].values())[1]
    rows, arrays = [], []
    for steps in lengths:
        model = kept.read_network(place.needed(tune, ".safetensors"))
        config = _recipe(profile, seed, steps, RATES["alone"])
        model, _ = fitting.fit(place, model, train, Arch.parse(name), config, f"steps-{steps}")
        found, packed = tests(model, test, [name])
        epochs = steps * config["batch_size"] / len(train)
        head = {"kind": "epochs", "target": "S", "arch": name, "steps": steps, "epochs": epochs}
        rows.append({**head, **found[name]})
        arrays.append(packed[name])
    _write(place, per_image.joined(arrays))
    return {"domain": domain, "tests": rows}


def open_domain(place: Place, sizes: Sizes, domain: str, split: str) -> DetectionDataset:
    """One split of a real set that was packed, or of an embedded domain."""
    if domain in sizes.real:
        return Packed(place.needed(f"data-{domain}", ".zip"), split)
    count = dict(zip(("train", "val", "test"), sizes.few, strict=True))[split]
    return embedded(place, domain, split, count, sizes.canvas)


def _recipe(profile: str, seed: int, steps: int, rate: float) -> dict[str, Any]:
    """The recipe from scratch over other steps at another rate, with flips and crops."""
    train = PROFILES[profile].recipe.train
    rates = {key: rate * train[key] for key in ("lr", "encoder_lr")}
    warmup = min(train["warmup_steps"], steps // 10)
    changes = {"seed": seed, "steps": steps, "warmup_steps": warmup, "batch_size": SIZES[profile].batch_size}
    return {**train, **rates, **changes, "augment": True}


def grid_ap(
    model: "RFDETR", dataset: DetectionDataset, space: SearchSpace, resamples: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """AP of every sub-network [N] in the order of `archs_of`, and on resampled pictures [resamples, N]."""
    evaluator = GridEvaluator(model, dataset, batch_size=50)
    truth, weights = evaluator.images.truth, None
    if resamples:
        weights = image_weights(len(dataset), resamples, 0)
    places = {arch: i for i, arch in enumerate(archs_of(space))}
    ap, again = np.full(len(places), np.nan), np.full((resamples, len(places)), np.nan)
    for triple, pairs in units(space).items():
        order, matches, _ = evaluator.block(triple, pairs, range(len(dataset)))
        which = [places[Arch(*triple, *pair)] for pair in order]
        ap[which] = average_precision(truth.objects, matches[""])
        if weights is not None:
            for number, column in enumerate(which):
                again[:, column] = blocks.resampled(truth, matches[""], number).ap(weights)
    return ap, again


def tests(
    model: "RFDETR", dataset: DetectionDataset, names: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """Architecture -> AP and `resampled` (as `fitting.tested`), and -> what it found per picture."""
    evaluator = GridEvaluator(model, dataset, batch_size=50)
    weights = image_weights(len(dataset), fitting.RESAMPLES, 0)
    rows, arrays = {}, {}
    for name in dict.fromkeys(names):
        arch = Arch.parse(name)
        pair = [(arch.decoder_layers, arch.queries)]
        _, found, _ = evaluator.block(arch.encoder, pair, range(len(dataset)))
        matches: Matches = blocks.resampled(evaluator.images.truth, found[""], 0)
        ap = matches.ap(np.concatenate([np.ones((1, len(dataset))), weights]))
        rows[name] = {"AP": float(ap[0]), "resampled": [round(float(v), 5) for v in ap[1:]]}
        arrays[name] = per_image.packed(matches)
    return rows, arrays


def _per_image(
    rows: Iterable[Mapping[str, Any]], arrays: Mapping[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    return per_image.joined([arrays[row["arch"]] for row in rows])


def _whole(values: np.ndarray) -> np.ndarray:
    """AP as whole numbers of 16 bits (steps of 1.5e-5); what is undefined counts as 0."""
    return np.round(np.nan_to_num(values) * _SCALE).astype(np.uint16)


def _write(place: Place, arrays: Mapping[str, np.ndarray]) -> None:
    from rfdetr.files import atomic_path

    with atomic_path(place.file(".npz")) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **dict(arrays))
