"""Sub-networks that no training step drew: other token grids, other patch sizes, against what was trained.

Source: Section 1 and v2 Appendix F. At equal tokens another patch size is nearly the same network (chapter
05), so the harder question is a token grid that training never had.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

_LEVEL = (2.5, 97.5)


def seen_sides(space: SearchSpace, windows: int = 1) -> set[int]:
    """Tokens a side that training draws with this number of windows."""
    return {resolution // patch for resolution, patch, w in space.triples() if w == windows}


def unseen_token_grids(space: SearchSpace, decoder_layers: int, queries: int) -> "pd.DataFrame":
    """Token grids half-way between two neighbours that training drew, and those neighbours.

    All with the smallest trained patch size and one window. Columns: side (tokens a side), arch, below and
    above (the trained neighbours' architectures).
    """
    import pandas as pd

    patch, seen = space.patch_sizes[0], seen_sides(space)

    def arch(side: int) -> Arch:
        return Arch(side * patch, patch, 1, decoder_layers, min(queries, side**2))

    drawn = sorted(resolution // patch for resolution, p, w in space.triples() if (p, w) == (patch, 1))
    rows = []
    for low, high in zip(drawn, drawn[1:], strict=False):
        side = (low + high) // 2
        if side not in seen and low < side < high:
            rows.append({"side": side, "arch": arch(side), "below": arch(low), "above": arch(high)})
    return pd.DataFrame(rows, columns=["side", "arch", "below", "above"])


def unseen_patch_sizes(
    training: SearchSpace, search: SearchSpace, decoder_layers: int, queries: int
) -> "pd.DataFrame":
    """Patch sizes that only the search has, and the trained ones around each at the same tokens and windows.

    The largest token grid that all three have in their spaces. Columns as of `unseen_token_grids`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for patch in search.patch_sizes:
        smaller = [p for p in training.patch_sizes if p < patch]
        larger = [p for p in training.patch_sizes if p > patch]
        if patch in training.patch_sizes or not smaller or not larger:
            continue
        low, high = smaller[-1], larger[0]
        grids = [
            {(r // q, w) for r, q, w in space.triples() if q == p}
            for space, p in ((search, patch), (training, low), (training, high))
        ]
        common = sorted(set.intersection(*grids))
        if not common:
            continue
        side, windows = common[-1]

        def arch(p: int, side: int = side, windows: int = windows) -> Arch:
            return Arch(side * p, p, windows, decoder_layers, min(queries, side**2))

        rows.append({"side": side, "arch": arch(patch), "below": arch(low), "above": arch(high)})
    return pd.DataFrame(rows, columns=["side", "arch", "below", "above"])


def against_neighbours(
    model: "RFDETR", dataset: DetectionDataset, unseen: "pd.DataFrame", resamples: int = 300, seed: int = 0
) -> "pd.DataFrame":
    """AP of each unseen sub-network against the mean of its two trained neighbours, over the same images.

    Columns: side, arch, below, above (ids), AP, neighbours (their mean AP), difference, low and high (95 %,
    bootstrap over images, every resample drawing the same images for all three).
    """
    import pandas as pd

    from rfdetr.experiments.ch04_learning import intervals

    archs = [arch for column in ("arch", "below", "above") for arch in unseen[column]]
    found = intervals(model, dataset, archs, resamples, seed)
    rows = []
    for row in unseen.to_dict("records"):
        one, below, above = (found[row[name]][0] for name in ("arch", "below", "above"))
        samples = one.samples - (below.samples + above.samples) / 2
        low, high = np.nanpercentile(samples, _LEVEL)
        mean = (below.ap + above.ap) / 2
        ids = {name: row[name].id for name in ("arch", "below", "above")}
        numbers = {"AP": one.ap, "neighbours": mean, "difference": one.ap - mean, "low": low, "high": high}
        rows.append({"side": row["side"], **ids, **numbers})
    columns = ["side", "arch", "below", "above", "AP", "neighbours", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
