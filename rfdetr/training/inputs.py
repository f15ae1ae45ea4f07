"""Whether model, data, space and recipe fit each other, said before the first step."""

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.classes import to_data_labels
from rfdetr.model.detector import RFDETR
from rfdetr.training.config import TrainConfig


def single_point(arch: Arch) -> SearchSpace:
    """The space that holds one architecture."""
    return SearchSpace(*((value,) for value in arch.to_dict().values()))


def check_inputs(
    model: RFDETR, dataset: DetectionDataset, space: SearchSpace, val: DetectionDataset | None = None
) -> None:
    """Raise UserError (ArchError for the space) if model, data and space do not fit each other."""
    for data in (dataset, val):
        if data is None:
            continue
        if not len(data):
            raise UserError(f"{data!r} has no images; check the path and the split")
        if model.config.categories is None and data.num_classes != model.config.num_classes:
            raise UserError(
                f"{data!r} has {data.num_classes} classes ({data.category_ids}), the network has"
                f" {model.config.num_classes}; build the network with num_classes={data.num_classes}"
            )
        labels = to_data_labels(model, data)
        if data is dataset and labels is not None and labels.tolist() != list(range(data.num_classes)):
            raise UserError(
                f"the network's classes ({model.config.categories}) are not those of {data!r}"
                f" ({data.category_ids}) in the same order: give it new class layers with"
                " rfdetr.with_classes(network, categories=dataset.category_ids), as `train --weights` does"
            )
    if dataset.untrainable:
        raise UserError(f"there is nothing to learn from: {dataset.untrainable}")
    if model.config.segmentation and not dataset.has_masks:
        raise UserError(
            f"{dataset!r} has no masks, the network has a mask head"
            f"{': ' + dataset.maskless if dataset.maskless else ''}; give every object a mask, or train"
            " without a mask head (--no-segmentation; segmentation=False)"
        )
    for arch in space.distinct():
        model.config.check(arch)


def check_recipe(config: TrainConfig, space: SearchSpace, val: DetectionDataset | None) -> None:
    """Raise UserError if the recipe asks for what space and data do not have."""
    if config.anchor is not None and config.anchor not in space.triples():
        raise UserError(
            f"the anchor {config.anchor} (resolution, patch size, windows) is no setting of the training grid"
        )
    if config.patience and val is None:
        raise UserError("patience needs a validation set: give one, or leave patience at 0")
