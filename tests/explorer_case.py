"""Data of the explorer for its tests: a small grid, a made search, reading what the page reads."""

import numpy as np
import pandas as pd

from rfdetr import SearchSpace
from rfdetr.arch import effective
from rfdetr.experiments import ch02_search_space

CONFIG = ch02_search_space.supernet_config()
SMALL = SearchSpace((320, 384, 448), (16, 24), (1, 2, 4), (0, 2), (50, 300))


def value(data, column, at):
    """What the page reads: a number of a column at a cell of the grid."""
    packed = data["columns"][column]
    index = tuple(0 if size == 1 else i for size, i in zip(packed["shape"], at, strict=True))
    return np.array(packed["data"], dtype=object).reshape(packed["shape"])[index]


def random_cells(data, count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [len(axis["values"]) for axis in data["axes"]]
    return [tuple(int(rng.integers(size)) for size in sizes) for _ in range(count)]


def arch_at(data, at):
    return effective(*(axis["values"][i] for axis, i in zip(data["axes"], at, strict=True)))


def searched(space, missing=0):
    """A finished search: accuracies and latencies of every different sub-network but the first ones."""
    archs = space.distinct()[missing:]
    rng = np.random.default_rng(3)
    frame = pd.DataFrame([arch.to_dict() for arch in archs])
    return frame.assign(AP=rng.random(len(archs)), predicted_ms=np.exp(rng.normal(size=len(archs))))
