"""Which classes a published or fine-tuned checkpoint knows: read from what the file says beside its weights.

Source: the layout of public checkpoints. Fine-tuned ones hold their class names among the arguments of their
training (`args.class_names`) and, in the Transformers layout, in `config.json` (`id2label`); the released
COCO checkpoints have K = 91 and name nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfdetr.data.categories import CategoryMap

_HOLDERS = ("args", "hyper_parameters", "config")
"""Entries of a checkpoint that may hold `class_names`."""
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def names_in(others: Mapping[str, Any]) -> tuple[Any, str]:
    """The class names (a list, or a dict by class index) among the entries beside the weights, and the name
    of the entry that held them; (None, "") if there are none.
    """
    for name in ("class_names", *_HOLDERS):
        holder = others.get(name)
        values = holder if isinstance(holder, Mapping) else getattr(holder, "__dict__", {})
        names = holder if name == "class_names" else values.get("class_names")
        if isinstance(names, Sequence | Mapping) and not isinstance(names, str) and len(names):
            return names, name
    return None, ""


def labels_beside(source: Any) -> Any:
    """`id2label` of the `config.json` beside a weight file or in its folder; None without one."""
    if isinstance(source, Mapping):
        return None
    path = Path(source)
    try:
        found = json.loads(((path if path.is_dir() else path.parent) / "config.json").read_text("utf-8"))
        labels = {int(index): str(name) for index, name in found["id2label"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return labels if any(not _PLACEHOLDER.fullmatch(name) for name in labels.values()) else None


def categories_of(names: Any, num_classes: int) -> CategoryMap | None:
    """The map that a file's class names describe for K class logits; None where they do not fit K.

    As many names as classes: one per class index. Fewer names than classes: the published training takes
    category ids as class indexes and its files start at 1, so name i stands for index i + 1 and the other
    indexes for nothing; COCO's 80 names with K = 91 are COCO's. A dict says the indexes itself.
    """
    try:
        if isinstance(names, Mapping):
            by_index = {int(index): str(name) for index, name in names.items()}
        elif len(names) == num_classes:
            by_index = dict(enumerate(map(str, names)))
        else:
            by_index = dict(enumerate(map(str, names), start=1))
    except (TypeError, ValueError):
        return None
    if not by_index or min(by_index) < 0 or max(by_index) >= num_classes:
        return None
    official = CategoryMap.official()
    if num_classes == official.num_classes and tuple(by_index.values()) == official.names:
        return official
    if len(by_index) == num_classes:
        return CategoryMap.from_class_names([by_index[index] for index in range(num_classes)])
    return CategoryMap(tuple(by_index), tuple(by_index.values()), tuple(by_index), num_classes)
