"""The two photographs that ship with scikit-learn, as network inputs; no download."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def photograph(name: str = "china.jpg") -> np.ndarray:
    """uint8 [height, width, 3] RGB. ValueError for a name that is not in `PHOTOGRAPHS`."""
    if name not in PHOTOGRAPHS:
        raise ValueError(f"no photograph {name!r}; there are {', '.join(PHOTOGRAPHS)}")
    from sklearn.datasets import load_sample_image

    # A copy: scikit-learn's array is not writable, which torch warns about.
    return np.array(load_sample_image(name))


def network_input(name: str, resolution: int) -> "Tensor":
    """Float tensor [1, 3, resolution, resolution], preprocessed as for evaluation."""
    from rfdetr.data.transforms import preprocess

    return preprocess(photograph(name), resolution)[None]


def patches(size: int, count: int, seed: int = 0, columns: tuple[float, float] = (0.0, 1.0)) -> "Tensor":
    """Square patches cut at random places out of both photographs: float64 [count, 3, size, size], zero mean,
    unit deviation.

    columns   part of the photographs' width that the patches come from; patches of disjoint parts share no
              pixel

    Mean and deviation are those of all the patches together, per colour channel.
    """
    import torch

    rng = np.random.default_rng(seed)
    images = [photograph(name).astype(np.float64) / 255 for name in PHOTOGRAPHS]
    cut = np.empty((count, size, size, 3))
    for i in range(count):
        image = images[i % len(images)]
        top = rng.integers(image.shape[0] - size + 1)
        first, last = (round(part * image.shape[1]) for part in columns)
        left = rng.integers(first, last - size + 1)
        cut[i] = image[top : top + size, left : left + size]
    cut = (cut - cut.mean((0, 1, 2))) / cut.std((0, 1, 2))
    return torch.from_numpy(cut.transpose(0, 3, 1, 2).copy())
