"""The class-id convention, in one place.

A network speaks in class indexes 0..K-1, an annotation file in category ids that may start anywhere and have
gaps (COCO: 80 categories with ids 1..90), a reader in names. `CategoryMap` is the bijection between the
three; every other file asks it and none adds or subtracts one.

A network carries the map of the data that it was trained on, and so do its checkpoints and exported files.
Where it meets other data the two maps are matched by name (`CategoryMap.onto`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rfdetr.errors import UserError

UNUSED = -1
"""Category id given to a class index that stands for nothing (index 0 of the published COCO checkpoints)."""


@dataclass(frozen=True)
class CategoryMap:
    """Bijection class index <-> category id <-> name.

    ids: category id of every category. names: its name (names may repeat in real files; ids and indexes may
    not).
    indexes: its class index; by default 0..len-1 in the given order. num_classes: K of the network, at least
    the largest index + 1; indexes that no category uses are allowed and mean nothing.
    Raises UserError when ids or indexes repeat, or when the lengths differ.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    indexes: tuple[int, ...] = ()
    num_classes: int = 0

    def __post_init__(self) -> None:
        # Lists come from JSON.
        for name, kind in (("ids", int), ("names", str), ("indexes", int)):
            object.__setattr__(self, name, tuple(kind(value) for value in getattr(self, name)))
        if not self.indexes:
            object.__setattr__(self, "indexes", tuple(range(len(self.ids))))
        if not self.num_classes:
            object.__setattr__(self, "num_classes", max(self.indexes, default=-1) + 1)
        if not (len(self.ids) == len(self.names) == len(self.indexes)):
            raise UserError(
                f"categories need one id, one name and one index each, got {len(self.ids)} ids, "
                f"{len(self.names)} names, {len(self.indexes)} indexes"
            )
        for label, values in (("category id", self.ids), ("class index", self.indexes)):
            repeated = [value for value, count in Counter(values).items() if count > 1]
            if repeated:
                raise UserError(f"{label} {min(repeated)} is used twice: give every category its own id")
        if self.indexes and (min(self.indexes) < 0 or max(self.indexes) >= self.num_classes):
            raise UserError(
                f"class indexes must be in 0..{self.num_classes - 1}, got"
                f" {min(self.indexes)}..{max(self.indexes)}"
            )
        if UNUSED in self.ids:
            raise UserError(f"category id {UNUSED} is reserved: use an id >= 0")

    @classmethod
    def from_names(cls, names: Iterable[str], first_id: int = 1) -> "CategoryMap":
        """Categories in the given order with consecutive ids starting at `first_id`."""
        names = tuple(names)
        return cls(tuple(range(first_id, first_id + len(names))), names)

    @classmethod
    def from_class_names(cls, names: Sequence[str | None]) -> "CategoryMap":
        """The map of a network that is described by one name per class index alone, as older files are.

        None, or "unused-<index>" at that index, is an index without a category. The names of COCO give COCO's
        ids (`official`, `coco80`); any other names get the ids 1..N.
        """
        used = {i: name for i, name in enumerate(names) if name is not None and name != f"unused-{i}"}
        for known in (cls.official(), cls.coco80()):
            if known.num_classes == len(names) and used == dict(zip(known.indexes, known.names, strict=True)):
                return known
        return cls(tuple(range(1, len(used) + 1)), tuple(used.values()), tuple(used), len(names))

    @classmethod
    def from_coco(cls, categories: Sequence[dict[str, Any]]) -> "CategoryMap":
        """The `categories` list of a COCO file; class indexes follow ascending category id, whatever the
        order.
        """
        ordered = sorted(categories, key=lambda category: int(category["id"]))
        return cls(
            tuple(int(category["id"]) for category in ordered),
            tuple(str(category.get("name", category["id"])) for category in ordered),
        )

    @classmethod
    def coco80(cls) -> "CategoryMap":
        """The 80 categories of COCO 2017 with contiguous class indexes 0..79 (category ids 1..90 with
        gaps).
        """
        return cls(tuple(COCO_CATEGORIES), tuple(COCO_CATEGORIES.values()))

    @classmethod
    def official(cls) -> "CategoryMap":
        """The published COCO checkpoints: K = 91, class index equals COCO category id; index 0 and ten gaps
        unused.
        """
        ids = tuple(COCO_CATEGORIES)
        return cls(ids, tuple(COCO_CATEGORIES.values()), indexes=ids, num_classes=91)

    def __len__(self) -> int:
        """Number of categories (not K)."""
        return len(self.ids)

    def __str__(self) -> str:
        """The first names and how many there are, for messages."""
        return shortened(self.names)

    def index_of(self, category_id: int) -> int:
        """Class index of a category id. Raises KeyError for an unknown id."""
        return self._by_id[category_id]

    def __contains__(self, category_id: object) -> bool:
        """True for a known category id."""
        return category_id in self._by_id

    def id_of(self, index: int) -> int:
        """Category id of a class index. Raises KeyError for an index without a category."""
        category_id = int(self._id_table[index]) if 0 <= index < self.num_classes else UNUSED
        if category_id == UNUSED:
            raise KeyError(index)
        return category_id

    def name_of(self, index: int) -> str:
        """Name of a class index; "unused-<index>" for an index without a category."""
        name = self.class_names[index]
        return name if name is not None else f"unused-{index}"

    @cached_property
    def _by_id(self) -> dict[int, int]:
        return dict(zip(self.ids, self.indexes, strict=True))

    @cached_property
    def class_names(self) -> tuple[str | None, ...]:
        """Name per class index, length K; None where the index is unused."""
        names: list[str | None] = [None] * self.num_classes
        for index, name in zip(self.indexes, self.names, strict=True):
            names[index] = name
        return tuple(names)

    @cached_property
    def _id_table(self) -> np.ndarray:
        table = np.full(self.num_classes, UNUSED, dtype=np.int64)
        table[list(self.indexes)] = self.ids
        return table

    def ids_of(self, indexes: np.ndarray) -> np.ndarray:
        """Category ids [N] of class indexes [N]; `UNUSED` (-1) where an index stands for nothing.

        Raises UserError for an index outside 0..K-1: the network has more classes than the data.
        """
        indexes = np.asarray(indexes, dtype=np.int64)
        if indexes.size and (indexes.min() < 0 or indexes.max() >= self.num_classes):
            raise UserError(
                f"class index {int(indexes.max())} of the predictions is outside 0..{self.num_classes - 1}:"
                " the model has another number of classes than the data; give the category map that the"
                " model was trained with"
            )
        return self._id_table[indexes]

    def onto(self, data: "CategoryMap", needed: Iterable[int] | None = None) -> np.ndarray:
        """Class index in `data` of each class index of this network, [K] int64; `UNUSED` where there is none.

        The two are matched by name: another order, other ids, and names that the data lacks are fine. A name
        that occurs several times on both sides is matched in the order of the indexes.
        needed: ids of the categories of `data` that the network must know; default: all of them. Raises
        UserError, with both lists, for such a category that it does not know.
        """
        places: dict[str, list[int]] = defaultdict(list)
        for index, name in sorted(zip(data.indexes, data.names, strict=True)):
            places[name].append(index)
        table = np.full(self.num_classes, UNUSED, dtype=np.int64)
        for index, name in sorted(zip(self.indexes, self.names, strict=True)):
            if places[name]:
                table[index] = places[name].pop(0)
        known = set(table.tolist())
        wanted = set(data.ids if needed is None else needed)
        lacking = [
            name
            for i, index, name in zip(data.ids, data.indexes, data.names, strict=True)
            if i in wanted and index not in known
        ]
        if lacking:
            raise UserError(
                f"the network does not know the data's class{'es' if len(lacking) > 1 else ''}"
                f" {shortened(lacking)}: it knows {self}, the data has {data}. Use data of its own classes,"
                " rename the data's categories, or train it on these data (train --weights)"
            )
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and checkpoints; `CategoryMap(**values)` reads them back."""
        return {
            "ids": list(self.ids),
            "names": list(self.names),
            "indexes": list(self.indexes),
            "num_classes": self.num_classes,
        }

    def to_coco(self) -> list[dict[str, Any]]:
        """The `categories` list of a COCO file."""
        return [
            {"id": i, "name": n, "supercategory": "none"} for i, n in zip(self.ids, self.names, strict=True)
        ]


def shortened(names: Sequence[str], most: int = 5) -> str:
    """A list of names for a message: the first few and how many there are."""
    lines = [" ".join(name.split()) or repr(name) for name in names[:most]]  # a message is one line
    return ", ".join(lines) + (f", ... ({len(names)})" if len(names) > most else "")


_COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,"
    "laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,"
    "scissors,teddy bear,hair drier,toothbrush"
)
COCO_CATEGORIES: dict[int, str] = {i: name for i, name in enumerate(_COCO_NAMES.split(","), start=1) if name}
"""COCO 2017: category id -> name; an empty entry in the list above is one of the ten ids that COCO never
released.
"""
