"""The network that a run starts from, its training space and its recipe.

A pre-trained network keeps its own sizes and starts from the paper's recipe (Appendix A); one with random
weights gets sizes that a processor can train in minutes, and the recipe for that.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rfdetr.arch import SearchSpace
from rfdetr.data.dataset import DetectionDataset, digest
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.files import sha256_file
from rfdetr.model.detector import RFDETR
from rfdetr.nas.look import Proposal
from rfdetr.nas.options import NasOptions
from rfdetr.training.checkpoint import checkpoint_file
from rfdetr.training.config import TrainConfig

_SEARCHED_PATCHES = (8, 10, 12, 14, 16)
_TENSORS = (".pth", ".pt", ".safetensors", ".bin")
PROFILE = "cpu"
"""Sizes of a network with random weights, and its recipe."""


@dataclass(frozen=True)
class Start:
    """model: on the processor, with the data's classes. space: what each step draws from. config: the recipe,
    whose number of steps and batch size the plan sets. pretrained: whether its weights are any good. origin,
    recipe: in words. details: what became of the tensors of given weights.
    """

    model: RFDETR
    space: SearchSpace
    config: TrainConfig
    pretrained: bool
    origin: str
    recipe: str
    details: tuple[str, ...] = ()


def start(options: NasOptions, dataset: DetectionDataset, proposal: Proposal) -> Start:
    """The network of a run; the same options, data and seed give the same weights."""
    if options.weights:
        return _pretrained(options, dataset)
    return _from_scratch(options, dataset, proposal)


def _pretrained(options: NasOptions, dataset: DetectionDataset) -> Start:
    from rfdetr.networks import open_network
    from rfdetr.training.finetune import adapt, recipe_of, space_of

    model, reports = adapt(open_network(options.weights), dataset, options.segmentation)
    words = f"weights of {options.weights}"
    if options.backbone:
        from rfdetr.model.dinov2 import load_dinov2

        own = None if options.backbone == "dinov2" else options.backbone
        reports = [*reports, load_dinov2(model, own)]
        words = f"{options.weights} with a backbone of DINOv2"
    if options.queries not in (None, model.config.queries):
        raise UserError(
            f"--queries {options.queries} is for a network with random weights: {options.weights} has"
            f" {model.config.queries}; leave the option out"
        )
    space = space_of(model)
    given = {name: getattr(options, name) for name in ("resolutions", "patch_sizes", "windows")}
    space = replace(space, **{name: values for name, values in given.items() if values})
    config = recipe_of(model, space, len(dataset)).replace(seed=options.seed)
    details = tuple(line for report in reports for line in str(report).splitlines())
    return Start(model, space, config, True, words, "Appendix A", details)


def weights_digest(weights: str) -> str:
    """Digest of the files that `--weights` names, since another file may come to the same name; "" for a
    published name, whose file is checked when it is fetched, and for random weights.
    """
    path = Path(weights)
    if not path.exists():
        path = Path(weights.partition(":")[2])
    if not weights or not path.exists() or path == Path():
        return ""
    if path.is_file():
        return sha256_file(path)
    training = checkpoint_file(path)
    files = [training] if training.is_file() else sorted(p for p in path.iterdir() if p.suffix in _TENSORS)
    return digest([(file.name, sha256_file(file)) for file in files])


def _from_scratch(options: NasOptions, dataset: DetectionDataset, proposal: Proposal) -> Start:
    import torch

    recipe = get_profile(PROFILE).recipe
    space = proposal.space
    sizes: dict[str, Any] = {
        **recipe.model,
        "position_grid": space.position_grid,
        "decoder_layers": space.decoder_layers[-1],
        "queries": space.queries[-1],
        "segmentation": options.segmentation,
        "categories": dataset.category_ids,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = RFDETR(dataset.num_classes, **sizes)
    values = {**recipe.train, "seed": options.seed, "augment": True, "precision": "auto"}
    return Start(model, space, TrainConfig.from_dict(values), False, "random weights", "from scratch")


def search_space(begin: Start) -> SearchSpace:
    """What is looked at after training: the trained token grids with patches and depths that training never
    drew.

    A network trained at one patch size is often better, and faster, at another picture size with as many
    tokens.
    """
    space = begin.space
    patches = set(space.patch_sizes)
    if not begin.pretrained:
        patches |= {p for p in _SEARCHED_PATCHES if p < max(space.patch_sizes)}
    sides = sorted({resolution // p for resolution in space.resolutions for p in space.patch_sizes})
    largest = max(space.windows) * max(patches)
    resolutions = sorted({s * p for s in sides for p in patches if largest <= s * p <= space.resolutions[-1]})
    depths = tuple(range(space.decoder_layers[-1] + 1))
    most = space.queries[-1]
    queries = tuple(sorted({max(1, round(most * part)) for part in (1 / 3, 2 / 3, 1)}))
    return SearchSpace(tuple(resolutions), tuple(sorted(patches)), space.windows, depths, queries)
