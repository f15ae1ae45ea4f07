"""Where a network meets data: which of the dataset's classes each of its class indexes means."""

from typing import Any

import numpy as np

from rfdetr.data.categories import CategoryMap
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError


def to_data_labels(model: Any, dataset: DetectionDataset) -> np.ndarray | None:
    """The dataset's class index of each of the model's class indexes, [K] int64; -1 where the data lacks it.

    model: a network, a sub-network or an `ArtifactModel`, whose categories are matched with the dataset's by
    name (`CategoryMap.onto`). One that does not say its categories must have as many classes as the dataset,
    in the same order; None for a plain callable, whose labels are taken to be the dataset's. Only classes of
    which the dataset has objects must be known. Raises UserError otherwise.
    """
    config = getattr(model, "config", model)
    categories: CategoryMap | None = getattr(config, "categories", None)
    count: int | None = getattr(config, "num_classes", None)
    if categories is not None and categories == dataset.category_ids:
        return np.arange(categories.num_classes)  # without a look at the objects, which scenes have to paint
    if categories is not None:
        used = {annotation["category_id"] for annotation in dataset.coco["annotations"]}
        return categories.onto(dataset.category_ids, used)
    if count is not None and count != dataset.num_classes:
        raise UserError(
            f"the network has {count} classes and does not say which, {dataset!r} has {dataset.num_classes}"
            f" ({dataset.category_ids}): say which with --categories (coco, or a COCO annotation file that"
            " lists them), or train it on these data (train --weights)"
        )
    return None if count is None else np.arange(count)
