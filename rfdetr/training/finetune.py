"""How a network that is already trained is trained further: its classes, mask head, space and recipe.

Source: Appendix A (the recipe, and pictures of 0.5 to 1.5 times the own size).
"""

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR
from rfdetr.model.load_report import LoadReport
from rfdetr.model.weights import with_classes, with_mask_head
from rfdetr.training.config import TrainConfig

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Resolutions of the training grid relative to the own one; the paper's range."""
EPOCHS, FEWEST, MOST = 100, 300, 3000
"""Steps of a training that says none: so many epochs, within these limits."""


def adapt(
    model: RFDETR, dataset: DetectionDataset, segmentation: bool | None = None
) -> tuple[RFDETR, list[LoadReport]]:
    """`model`, or a copy with class layers for the data's classes and with or without a mask head.

    segmentation: None leaves the mask head as it is. Returns what became of the tensors, one report per
    change.
    """
    reports, origin = [], model.origin
    if model.config.categories != dataset.category_ids:
        model, report = with_classes(model, categories=dataset.category_ids)
        reports.append(report)
    if segmentation is not None and segmentation != model.config.segmentation:
        model, report = with_mask_head(model, segmentation)
        reports.append(report)
    model.origin = origin
    return model, reports


def space_of(model: RFDETR) -> SearchSpace:
    """The training grid of a network: the one that it was trained on, or one around its own architecture.

    Around: the own patch size and windows (and half as many windows), pictures of 0.5 to 1.5 times the own
    size. Depth and queries are the network's. Raises UserError for a network with neither.
    """
    config = model.config
    if model.origin is not None:
        trained = model.origin.space
        return SearchSpace(
            trained.resolutions,
            trained.patch_sizes,
            trained.windows,
            (config.decoder_layers,),
            (config.queries,),
        )
    if config.default_arch is None:
        raise UserError(
            "this network has no architecture of its own to build a training grid around: give --arch, or"
            " --resolutions, --patch-sizes and --windows"
        )
    return space_around(config, config.default_arch)


def space_around(config: ModelConfig, arch: Arch) -> SearchSpace:
    """The grid that `space_of` describes. Every resolution is a multiple of patch size times windows."""
    unit = arch.patch_size * arch.windows
    cells = arch.resolution // unit
    resolutions = {unit * max(1, round(cells * scale)) for scale in SCALES}
    windows = {arch.windows, arch.windows // 2 if arch.windows % 2 == 0 else arch.windows}
    return SearchSpace(
        tuple(resolutions), (arch.patch_size,), tuple(windows), (config.decoder_layers,), (config.queries,)
    )


def recipe_of(model: RFDETR, space: SearchSpace, images: int) -> TrainConfig:
    """Appendix A's recipe for fine-tuning `model` on `images` pictures.

    16 pictures a step, four at a time; `EPOCHS` epochs. The architecture of a network that was made for one,
    such as a published one, is trained in every second step: what is used by default is trained most.
    """
    steps = min(MOST, max(FEWEST, -(-EPOCHS * images // 16)))
    own, triples = model.config.default_arch, space.triples()
    anchor = own.encoder if own is not None else None
    if model.origin is not None:
        anchor = model.origin.anchor
    if len(triples) == 1 or anchor not in triples:
        anchor = None
    return TrainConfig(steps=steps, batch_size=4, accumulate=4, anchor=anchor, checkpoint_every=100)
