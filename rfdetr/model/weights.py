"""New networks from old ones: another set of classes for fine-tuning.

Source: the focal prior of Lin et al. 2017 for the new class layers.
"""

from collections.abc import Sequence

import torch

from rfdetr.errors import UserError
from rfdetr.model.detector import PRIOR, RFDETR
from rfdetr.model.load_report import LoadReport

CLASS_LAYERS = ("selection.classes.", "class_head.")


def with_classes(
    model: RFDETR, num_classes: int, class_names: Sequence[str] | None = None
) -> tuple[RFDETR, LoadReport]:
    """A copy of `model` for other classes, and what became of every tensor.

    The class layers (of the decoder and of every query group's selection) are new: Xavier weights, and a bias
    that gives every class the focal prior of 0.01, so that the first losses are not dominated by easy
    negatives. All other tensors are copied. class_names: names of the classes, num_classes of them, or None.
    `model` itself is left alone. Raises UserError when the names do not fit.
    """
    if num_classes < 1:
        raise UserError(f"a detector needs at least one class, not {num_classes}")
    names = None if class_names is None else tuple(class_names)
    config = model.config.replace(num_classes=num_classes, class_names=names)
    new = RFDETR(**config.to_dict())
    reference = next(model.parameters())
    new.to(device=reference.device, dtype=reference.dtype)
    report = LoadReport(f"a network with {model.config.num_classes} classes", "this package")
    copied = {}
    for key, value in model.state_dict().items():
        if key.startswith(CLASS_LAYERS):
            reason = f"new class layer for {num_classes} classes, initial probability {PRIOR}"
            report.add("dropped", [key], reason=f"class layer for {model.config.num_classes} classes")
            report.add("initialised", [key], key, reason)
        else:
            copied[key] = value
            report.add("loaded", [key], key)
    with torch.no_grad():
        for key, value in copied.items():
            new.get_parameter(key).copy_(value)
    new.load_report = report
    return new.train(model.training), report
