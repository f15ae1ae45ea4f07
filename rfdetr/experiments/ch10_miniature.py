"""Table 5 in miniature: each of its steps as an experiment on the embedded scenes.

A study in parts (`python -m rfdetr results ablation-study`). Trained are one fixed architecture with batch
norm and with layer norm in the projector, with gentler settings, and the supernet; the later steps of the
table (patch size, resolution, windows, decoder layers) are sub-networks of that supernet, as in the paper. No
backbone is pre-trained here, so two steps of the table have no counterpart.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.studies import Finished, Study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from rfdetr.model.detector import RFDETR

NAME, PROFILE = "ablation-study", "cpu"
TRAINED = ("batch norm", "layer norm", "gentler", "supernet")
"""The trainings, in the order of the table; each changes one thing of the one before."""
LABELS = {
    "batch norm": "fixed architecture, batch norm in the projector",
    "layer norm": "layer norm",
    "gentler": "twice the batch, half the rate",
    "supernet": "weight sharing",
    "patch size": "larger patches, as many tokens",
    "resolution": "smaller pictures",
    "windows": "fewer windows",
    "decoder layers": "one decoder layer more",
}
COUNTERPART = {
    "layer norm": "",
    "gentler": "+ Gentler Hyperparameters",
    "supernet": "+ Weight Sharing NAS",
    "patch size": "+ Patch Size 14 → 16, Res 560 → 640",
    "resolution": "+ Image Resolution 640 → 576",
    "windows": "+ # Windows per Block 4 → 2",
    "decoder layers": "+ # Decoder Layers 3 → 4",
}
"""Step -> its label in the printed table."""
_CALL = "rfdetr.experiments.ch10_miniature"


def steps_of(space: SearchSpace) -> dict[str, Arch]:
    """Step -> the sub-network that it is tested as, in a grid's own values.

    The base has the second smallest patch size, most windows, and one decoder layer and no query fewer than
    the most.
    """
    patches, windows = sorted(space.patch_sizes), sorted(space.windows)
    depth, queries = max(space.decoder_layers) - 1, max(space.queries)
    small, large = patches[0], patches[1]
    # So many tokens a side that they can be halved and still be cut into the windows.
    side = max(s for s in range(2, max(space.resolutions) // large + 1) if s % windows[-1] == 0)
    fewer = max(s for s in range(1, side) if s % windows[-1] == 0)
    base = Arch(side * small, small, windows[-1], depth, queries)
    chain = dict.fromkeys(TRAINED, base)
    chain["patch size"] = base.replace(resolution=side * large, patch_size=large)
    chain["resolution"] = chain["patch size"].replace(resolution=fewer * large)
    chain["windows"] = chain["resolution"].replace(windows=windows[-2])
    chain["decoder layers"] = chain["windows"].replace(decoder_layers=depth + 1)
    return chain


def recipes(profile: Profile) -> dict[str, dict[str, Any]]:
    """Training -> fields of its recipe that differ from the profile's; all see as many pictures."""
    recipe = profile.recipe
    batch, steps = int(recipe.train["batch_size"]), recipe.study_steps
    warmup = max(1, round(recipe.train["warmup_steps"] * steps / recipe.train["steps"]))
    usual = {"steps": steps, "warmup_steps": warmup}
    rates = {name: recipe.train[name] / 2 for name in ("lr", "encoder_lr")}
    half = {"steps": max(1, steps // 2), "warmup_steps": max(1, warmup // 2)}
    gentle = {**half, "batch_size": 2 * batch, **rates}
    return dict(zip(TRAINED, (usual, usual, gentle, gentle), strict=True))


def parts(profile: Profile, seed: int) -> list[Part]:
    """Seed by seed all trainings."""
    return [
        Part(
            f"fit-{name.replace(' ', '_')}-{s}",
            f"{_CALL}:training_part",
            {"profile": profile.name, "seed": s, "training": name, "changes": changes},
        )
        for s in range(seed, seed + profile.recipe.study_seeds)
        for name, changes in recipes(profile).items()
    ]


def training_part(
    place: Place, profile: str, seed: int, training: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """One training; AP of every step of the table that it stands for, and on resampled scenes."""
    from rfdetr.experiments.ch04_learning import training_cost

    sizes = get_profile(profile)
    recipe = sizes.recipe
    train = fitting.scenes_of(place, sizes, "train")
    model = fitting.new_network(train, recipe.model, seed)
    if training == "batch norm":
        use_batch_norm(model)
    chain = steps_of(recipe.training)
    base = chain[training]
    space: SearchSpace | Arch = recipe.training
    if training != "supernet":
        space = base.replace(decoder_layers=max(recipe.training.decoder_layers))
    config = {**recipe.train, "seed": seed, **changes}
    model, log = fitting.fit(place, model, train, space, config)
    cost = float(training_cost(model, log, config["batch_size"])[-1])
    model = model.to(fitting.fastest_device())
    names = [training] if training != "supernet" else [n for n in chain if n not in TRAINED[:-1]]
    archs = {name: model.resolve(chain[name]) for name in names}
    found = fitting.tested(model, fitting.scenes_of(place, sizes, "test"), archs.values())
    tests = {name: {"arch": arch.id, **found[arch.id]} for name, arch in archs.items()}
    return {**fitting.about(log), "tflops": cost, "tests": tests}


def use_batch_norm(model: "RFDETR") -> int:
    """Batch normalisation in place of every layer normalisation of the projector, as in LW-DETR; how many."""
    from torch import nn

    from rfdetr.model.projector import ChannelNorm

    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ChannelNorm):
                setattr(module, name, nn.BatchNorm2d(child.normalized_shape[0], eps=child.eps))
                count += 1
    return count


def collect(finished: Finished) -> None:
    """Keep one row per training and step. UserError when no seed has all trainings."""
    import pandas as pd

    rows, again = [], []
    for name, record in finished.records.items():
        value, options = record["value"], finished.plan.parts[name].options
        for step, test in value["tests"].items():
            row = {"variant": step, "seed": options["seed"], "arch": test["arch"], "AP": test["AP"]}
            row |= {"steps": value["steps"], "tflops": value["tflops"], "seconds": value["seconds"]}
            rows.append({**row, "group": "all", "updates": float("nan")})
            again.append(test)
    runs = pd.DataFrame(rows)
    if runs.empty or (runs.groupby("seed")["variant"].nunique() < len(LABELS)).all():
        raise UserError(f"{NAME}: no seed has all trainings yet; run it again, for longer")
    kept.keep(
        finished.folder,
        {"runs": runs},
        finished.origin,
        arrays={"resampled": fitting.resampled(again)},
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def chain_table(runs: "pd.DataFrame", resamples: "np.ndarray") -> "pd.DataFrame":
    """One row per step: step, label, printed (label of the paper's step), arch, seeds, AP, and the
    difference from the step before with half_width (seeds), half_images (scenes) and resolved, as in
    `ch04_variants.differences`.
    """
    import pandas as pd

    from rfdetr.experiments.ch04_variants import differences

    found: list[dict[str, Any]] = []
    before: str | None = None
    for step in LABELS:
        part = runs[runs.variant.isin([step] if before is None else [before, step])]
        if part.empty:
            continue
        row = differences(part.reset_index(drop=True), before or step, resamples[part.index])
        values = {str(name): value for name, value in row[row.variant == step].iloc[0].items()}
        head: dict[str, Any] = {"step": step, "label": LABELS[step], "printed": COUNTERPART.get(step, "")}
        arch = str(runs.loc[runs.variant == step, "arch"].iloc[0])
        found.append(head | {"arch": arch} | values)
        before = step
    return pd.DataFrame(found).drop(columns=["variant", "group", "updates"])


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    return kept.find(NAME, root)


STUDY = Study(NAME, PROFILE, parts, collect, fitting.MODULES)
