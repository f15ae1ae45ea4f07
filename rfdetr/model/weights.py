"""New networks from old ones: another set of classes, a mask head more or less, for fine-tuning.

Source: the focal prior of Lin et al. 2017 for the new class layers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rfdetr.data.categories import UNUSED, CategoryMap
from rfdetr.errors import UserError
from rfdetr.model.detector import PRIOR, RFDETR
from rfdetr.model.load_report import LoadReport

CLASS_LAYERS = ("selection.classes.", "class_head.")


def with_classes(
    model: RFDETR,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    *,
    categories: CategoryMap | None = None,
) -> tuple[RFDETR, LoadReport]:
    """A copy of `model` for other classes, and what became of every tensor.

    num_classes, class_names, categories: how many they are, their names in the order of the class indexes, or
    (best) the category map of the data, `dataset.category_ids`; one of them is enough.

    The class layers (of the decoder and of every query group's selection) are new: Xavier weights, and a bias
    that gives every class the focal prior of 0.01, so that the first losses are not dominated by easy
    negatives. Where the network knows all the new classes by name, their rows are kept instead, in the new
    order. All other tensors are copied. `model` itself is left alone. Raises UserError when what is given
    does not fit together.
    """
    if categories is None and class_names is not None:
        categories = CategoryMap.from_class_names(class_names)
    count = num_classes if num_classes is not None or categories is None else categories.num_classes
    if count is None or count < 1:
        raise UserError(f"a detector needs at least one class, not {count}")
    config = model.config.replace(num_classes=count, categories=categories)
    rows = _known_rows(model.config.categories, categories)
    new = RFDETR(**config.to_dict())
    reference = next(model.parameters())
    new.to(device=reference.device, dtype=reference.dtype)
    report = LoadReport(f"a network with {model.config.num_classes} classes", "this package")
    copied = {}
    for key, value in model.state_dict().items():
        if not key.startswith(CLASS_LAYERS):
            copied[key] = value
            report.add("loaded", [key], key)
        elif rows is not None:
            copied[key] = _take(value, rows, new.get_parameter(key), -2 if key.endswith("weight") else -1)
            report.add("resized", [key], key, f"rows of the {count} classes, by name")
        else:
            reason = f"new class layer for {count} classes, initial probability {PRIOR}"
            report.add("dropped", [key], reason=f"class layer for {model.config.num_classes} classes")
            report.add("initialised", [key], key, reason)
    with torch.no_grad():
        for key, value in copied.items():
            new.get_parameter(key).copy_(value)
    new.load_report = report
    return new.train(model.training), report


def _known_rows(old: CategoryMap | None, new: CategoryMap | None) -> np.ndarray | None:
    """Class index in `old` of each class index of `new` (UNUSED for those without a category); None where a
    class is unknown.
    """
    if old is None or new is None:
        return None
    rows = new.onto(old, needed=())
    return rows if (rows[list(new.indexes)] != UNUSED).all() else None


def _take(value: Tensor, rows: np.ndarray, fresh: Tensor, axis: int) -> Tensor:
    """The rows of a class layer along `axis`; fresh ones where `rows` is UNUSED."""
    known = torch.from_numpy(np.flatnonzero(rows != UNUSED)).to(value.device)
    kept = value.index_select(axis, torch.from_numpy(rows).to(value.device)[known])
    return fresh.detach().clone().index_copy_(axis, known, kept)


def with_mask_head(model: RFDETR, segmentation: bool = True) -> tuple[RFDETR, LoadReport]:
    """A copy of `model` with a new mask head (or, with False, without the one it has), and what became of
    every tensor. `model` itself is left alone.
    """
    new = RFDETR(**model.config.replace(segmentation=segmentation).to_dict())
    reference = next(model.parameters())
    new.to(device=reference.device, dtype=reference.dtype)
    report = LoadReport(
        f"a network {'with' if model.config.segmentation else 'without'} a mask head", "this package"
    )
    state, wanted = model.state_dict(), new.state_dict()
    for key in state.keys() - wanted.keys():
        report.add("dropped", [key], reason="part of the mask head")
    for key in wanted.keys() - state.keys():
        report.add("initialised", [key], key, "part of the new mask head")
    kept = [key for key in wanted if key in state]
    for key in kept:
        report.add("loaded", [key], key)
    new.load_state_dict({key: state[key] for key in kept}, strict=False)
    new.load_report = report
    return new.train(model.training), report
