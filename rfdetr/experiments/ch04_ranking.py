"""Does the supernet rank architectures as training each alone would? Trainings behind the answer.

Source: Section 3 of the paper, which inherits weights without training any chosen network alone;
`ch04_ranking_summary` reads the kept result. For every chosen architecture and seed there are four networks:

inherited  read from the supernet of that seed, which was trained by the profile's recipe to its end
tuned      that one trained further on the one architecture, at a smaller rate that falls to zero
alone      trained from scratch on the one architecture, same recipe, rate falling to zero at the stated step
share      the same with as many steps as make all the chosen networks together cost what the supernet cost
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace, effective
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.studies import Finished, Study

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

NAME, PROFILE = "ranking", "cpu"
KINDS = ("inherited", "tuned", "share", "alone")
SIZES = {
    "cpu": {"archs": 16, "seeds": 3, "alone": 800, "tuned": 200, "images": 500},
    "smoke": {"archs": 4, "seeds": 2, "alone": 4, "tuned": 3, "images": 12},
}
"""By profile: architectures, seeds, steps of `alone` and `tuned`, test scenes."""
TUNED_LR = 0.3
"""Rate of `tuned`, as a part of the recipe's."""
_DESIGNS = 4000  # designs that are drawn to find one whose knobs are nearly uncorrelated
_CALL = "rfdetr.experiments.ch04_ranking"


def chosen_archs(space: SearchSpace, count: int, seed: int = 0) -> list[Arch]:
    """`count` architectures that cover a space, cheapest token count first, by a rule that knows no accuracy.

    A Latin hypercube over tokens, windows, layers and queries: each knob takes each of its values equally
    often, and the token counts are evenly spaced in the order of all encoder settings with that window count.
    Of `_DESIGNS` random ones the one whose largest correlation between two knobs is smallest.
    """
    rng = np.random.default_rng(seed)
    place = (np.arange(count) + 0.5) / count
    levels = [
        np.arange(count) * len(v) // count for v in (space.windows, space.decoder_layers, space.queries)
    ]
    best: tuple[float, list[Arch]] = (np.inf, [])
    for _ in range(_DESIGNS if count <= len(space.distinct()) else 0):
        columns = [rng.permutation(level) for level in levels]
        worst = np.abs(np.corrcoef([place, *columns]) - np.eye(4)).max()
        if worst < best[0]:
            archs = [_placed(space, *point) for point in zip(place, *columns, strict=True)]
            if len(set(archs)) == count:
                best = worst, archs
    if not best[1]:
        raise ValueError(f"the space has no {count} different architectures that cover it")
    return best[1]


def _placed(space: SearchSpace, place: float, window: int, layer: int, query: int) -> Arch:
    """The architecture at a place (0..1) in the order of the token counts of one window count."""
    windows = space.windows[window]
    rest = windows, space.decoder_layers[layer], space.queries[query]
    settings = {effective(r, p, *rest) for r in space.resolutions for p in space.patch_sizes}
    ordered = sorted(settings, key=lambda arch: (arch.tokens, arch))
    return ordered[int(place * len(ordered))]


def architectures(profile: Profile) -> list[Arch]:
    """The architectures of the study: of the profile's search space, with patch sizes that training draws."""
    search, training = profile.recipe.search, profile.recipe.training
    seen = SearchSpace(
        search.resolutions, training.patch_sizes, search.windows, search.decoder_layers, search.queries
    )
    return chosen_archs(seen, SIZES[profile.name]["archs"])


def share_steps(profile: Profile, archs: list[Arch]) -> int:
    """Steps of each architecture alone that make all together cost what the supernet's training costs.

    Cost in operations of the forward passes, the supernet's as the mean over its training space.
    """
    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.model.config import ModelConfig

    recipe = profile.recipe
    config = ModelConfig(num_classes=10, **recipe.model)
    step = analytic_table(config, recipe.training.archs())["gflops"].mean()
    return max(1, round(recipe.train["steps"] * step / analytic_table(config, archs)["gflops"].sum()))


def parts(profile: Profile, seed: int) -> list[Part]:
    """Supernets first, then seed by seed what is read from them and what is trained alone."""
    sizes = SIZES[profile.name]
    archs, seeds = architectures(profile), range(seed, seed + sizes["seeds"])
    common = {"profile": profile.name, "images": sizes["images"]}
    names = [arch.id for arch in archs]
    found = [
        Part(f"supernet-{s}", f"{_CALL}:supernet_part", {**common, "seed": s, "archs": names}) for s in seeds
    ]
    steps = {"alone": sizes["alone"], "share": share_steps(profile, archs)}
    for s in seeds:
        for kind in ("alone", "tuned", "share"):
            for arch in names:
                options = {**common, "seed": s, "arch": arch}
                if kind == "tuned":
                    options |= {"steps": sizes["tuned"], "rate": TUNED_LR}
                    found.append(
                        Part(f"tuned-{s}-{arch}", f"{_CALL}:tuned_part", options, (f"supernet-{s}",))
                    )
                else:
                    options["steps"] = steps[kind]
                    found.append(Part(f"{kind}-{s}-{arch}", f"{_CALL}:alone_part", options))
    return found


def supernet_part(place: Place, profile: str, images: int, seed: int, archs: list[str]) -> dict[str, Any]:
    """Train the supernet of one seed, keep its weights, test the architectures in it."""
    sizes = get_profile(profile)
    train = fitting.scenes_of(place, sizes, "train")
    model = fitting.new_network(train, sizes.recipe.model, seed)
    config = {**sizes.recipe.train, "seed": seed}
    model, log = fitting.fit(place, model, train, sizes.recipe.training, config)
    path = place.file(".safetensors")
    kept.write_network(model, path)
    # The weights as they are kept, which are also those that `tuned` starts from.
    model = kept.read_network(path).to(place.device)
    found = fitting.tested(
        model, fitting.scenes_of(place, sizes, "test", images), [Arch.parse(name) for name in archs]
    )
    drawn = log["arch"].str.extract(r"^(r\d+-p\d+-w\d+)")[0].value_counts()
    updates = {name: int(drawn.get(name[: name.index("-d")], 0)) for name in archs}
    return {**fitting.about(log), "tests": found, "updates": updates}


def alone_part(place: Place, profile: str, images: int, seed: int, arch: str, steps: int) -> dict[str, Any]:
    """Train one architecture from scratch and test it."""
    sizes = get_profile(profile)
    model = fitting.new_network(fitting.scenes_of(place, sizes, "train"), sizes.recipe.model, seed)
    return _single(place, sizes, model, arch, _recipe(sizes, seed, steps), images)


def tuned_part(
    place: Place, profile: str, images: int, seed: int, arch: str, steps: int, rate: float
) -> dict[str, Any]:
    """Train the supernet of the same seed further on one architecture and test it."""
    sizes = get_profile(profile)
    model = kept.read_network(place.needed(f"supernet-{seed}", ".safetensors"))
    config = _recipe(sizes, seed, steps)
    config |= {name: rate * config[name] for name in ("lr", "encoder_lr")}
    return _single(place, sizes, model, arch, config, images)


def _recipe(profile: Profile, seed: int, steps: int) -> dict[str, Any]:
    """The profile's recipe over other steps, with its warm-up shortened alike."""
    train = profile.recipe.train
    warmup = round(train["warmup_steps"] * steps / train["steps"])
    return {**train, "seed": seed, "steps": steps, "warmup_steps": warmup}


def _single(
    place: Place, profile: Profile, model: "RFDETR", name: str, config: dict[str, Any], images: int
) -> dict[str, Any]:
    arch = Arch.parse(name)
    model, log = fitting.fit(place, model, fitting.scenes_of(place, profile, "train"), arch, config)
    test = fitting.scenes_of(place, profile, "test", images)
    return {**fitting.about(log), "tests": fitting.tested(model, test, [arch])}


def collect(finished: Finished) -> None:
    """Keep one row per tested network and their APs on resampled images."""
    from rfdetr.experiments.ch04_ranking_summary import tables

    sizes = SIZES[finished.profile.name]
    archs = architectures(finished.profile)
    networks, resamples = tables(finished, archs)
    recipe = {**sizes, "share": share_steps(finished.profile, archs), "tuned_lr": TUNED_LR}
    kept.keep(
        finished.folder,
        {"networks": networks},
        finished.origin,
        arrays={"resampled": resamples},
        recipe=recipe,
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


STUDY = Study(NAME, PROFILE, parts, collect, fitting.MODULES)
