"""A model of accuracy over encoder settings, decoder pairs AND numbers of images.

All (decoder layers, queries) pairs of a setting are learned at once, so its accuracies are a vector over the
pairs. That vector is written in a few patterns, learned from what was seen, and every pattern's score is a
Gaussian process over the settings (`rfdetr.search.process`): a smooth function of the tokens a side alone,
smooth departures from it by resolution and windows, an effect of the setting by itself, and the error of
having looked at few images. How large each part is, is estimated. So whether the tokens decide accuracy is
found out within the budget, not assumed.
"""

import numpy as np

from rfdetr.search.process import PRIOR, Process

PATTERNS = 5
_SETTLED = 50.0  # images at which a look counts half in the patterns
_PRIOR_WEIGHT = 2.0  # settings that the prior of the patterns counts for
_LEARNED = 160  # looks that the parameters of the processes are learned from, about


def link(accuracy: np.ndarray) -> np.ndarray:
    """Accuracy in 0..1 on a scale where the error of a sample is about equally large everywhere."""
    return np.arcsin(np.sqrt(np.clip(accuracy, 0.0, 1.0)))


def unlink(value: np.ndarray) -> np.ndarray:
    """The accuracy of a value of `link`."""
    return np.sin(np.clip(value, 0.0, np.pi / 2)) ** 2


def coordinates(triples: np.ndarray) -> np.ndarray:
    """[U, 3] of (resolution, patch size, windows) [U, 3]: logarithms to base 2 of the tokens a side, the
    resolution, the windows.
    """
    resolution, patch, windows = np.asarray(triples, dtype=float).T
    return np.log2(np.stack([resolution / patch, resolution, windows], axis=1))


class Surface:
    """What is believed about the accuracy of U settings with J pairs on all N images.

    triples [U, 3] (resolution, patch size, windows);   pairs [J, 2] (decoder layers, queries)
    images  N
    """

    def __init__(self, triples: np.ndarray, pairs: np.ndarray, images: int) -> None:
        self.x, self.images = coordinates(triples), images
        self.processes: list[Process] = []
        self.every, self.whole = np.arange(len(self.x)), np.full(len(self.x), 1.0 / images)
        depth, queries = np.asarray(pairs, dtype=float).T
        place = np.stack([np.log2(1 + depth), 2.0 * (depth == 0), 0.5 * np.log2(queries)], axis=1)
        # How alike two pairs are before anything is seen: no layer at all is unlike any number of layers.
        self._alike = np.exp(-((place[:, None] - place[None]) ** 2).sum(-1) / 4)

    def fit(self, at: np.ndarray, images: np.ndarray, seen: np.ndarray) -> None:
        """Learn from all looks so far: at [O] settings, images [O] that were looked at, seen [O, J]
        accuracies.
        """
        values, share = link(seen), 1.0 / images
        self._find_patterns(at, images, values)
        scores = (values - self.centre) @ self.patterns / self.size
        self.processes, learned = [], _some(at, self.x[:, 0])
        # The patterns beyond the first few are small and share their parameters.
        for k, part in enumerate(_parts(len(self.size))):
            middle = PRIOR.scaled(len(self.centre), float(self.size[part.start]), first=k == 0)
            self.processes.append(Process(self.x, at, share, self.images, scores[:, part], middle, learned))

    def _find_patterns(self, at: np.ndarray, images: np.ndarray, values: np.ndarray) -> None:
        """Centre [J], patterns [J, J] and their sizes [J], from the last look at each setting."""
        last = [np.flatnonzero(at == u)[np.argmax(images[at == u])] for u in np.unique(at)]
        rows, weight = values[last], images[last] / (images[last] + _SETTLED)
        self.centre = np.average(rows, axis=0, weights=weight)
        away = rows - self.centre
        spread = (away * weight[:, None]).T @ away / weight.sum()
        prior = 0.1 * max(float(np.trace(spread)) / len(spread), 1e-4) * self._alike
        spread = (spread * len(rows) + prior * _PRIOR_WEIGHT) / (len(rows) + _PRIOR_WEIGHT)
        sizes, vectors = np.linalg.eigh(spread)
        self.patterns, self.size = vectors[:, ::-1], np.sqrt(np.maximum(sizes[::-1], 1e-8))
        rest = self.size[PATTERNS:]
        rest[:] = np.sqrt(np.mean(rest**2)) if len(rest) else 0.0

    def mean(self) -> np.ndarray:
        """[U, J], on the scale of `link`: what is expected of every setting and pair on all images."""
        scores = np.concatenate([p.project(self.every, self.whole)[0] for p in self.processes], axis=1)
        return self.centre + scores * self.size @ self.patterns.T

    def deviation(self) -> np.ndarray:
        """[U, J] standard deviation of `mean`."""
        each = [p.variance(self.every, self.whole) for p in self.processes]
        counts = [part.stop - part.start for part in _parts(len(self.size))]
        variances = np.repeat(np.stack(each, axis=1), counts, axis=1)
        return np.sqrt(np.maximum(variances * self.size**2 @ self.patterns.T**2, 0.0))

    def covariances(self, at: np.ndarray, images: np.ndarray) -> np.ndarray:
        """[K, U + M, U + M]: covariances of the scores of the first K patterns, of all settings on all
        images, and of what M more looks (settings `at`, `images`) would show.
        """
        both = np.r_[self.every, at], np.r_[self.whole, 1.0 / images]
        return np.stack([p.covariance(*both) for p in self.processes[:PATTERNS]])


def _parts(patterns: int) -> list[slice]:
    """The patterns of each process: the first few have one each, the others one together."""
    alone = [slice(k, k + 1) for k in range(min(PATTERNS, patterns))]
    return alone + ([slice(PATTERNS, patterns)] if patterns > PATTERNS else [])


def _some(at: np.ndarray, side: np.ndarray) -> np.ndarray:
    """All looks at settings spread over the tokens a side, together about `_LEARNED`: what is seen of one
    setting on few and on many images tells how large errors are.
    """
    settings = np.unique(at)
    count = max(1, round(len(settings) * min(1.0, _LEARNED / len(at))))
    places = np.unique(np.linspace(0, len(settings) - 1, count).round().astype(int))
    return np.flatnonzero(np.isin(at, settings[np.argsort(side[settings], kind="stable")][places]))
