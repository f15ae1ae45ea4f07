"""Latency of all sub-networks from a few measured ones.

A sub-network's time is nearly a sum of terms that follow from its knobs (tokens, attention products, decoder
work), with machine-specific steps on top. So a non-negative sum of such terms is fitted to relative errors,
and what it leaves is
learned: a table of encoder triples, a Gaussian process, or gradient boosting. Cross-validation on the
measured archs chooses. Context: the paper measures every sub-network (Appendix A); this needs a tenth.
"""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError
from rfdetr.search.pareto import front, hypervolume, reference_point

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("terms", "terms+table", "terms+process", "terms+boosting")
_KERNEL_ROWS = 120
FEWEST = 12
"""Measured sub-networks; fewer cannot be cross-validated."""


def knobs_array(archs: "Iterable[Arch] | pd.DataFrame") -> np.ndarray:
    """[N, 5] float, the five knobs of architectures or of a table's rows."""
    import pandas as pd

    if isinstance(archs, pd.DataFrame):
        missing = [name for name in Arch.KNOBS if name not in archs]
        if missing:
            raise UserError(f"the table has no column {', '.join(missing)}: it needs the five knobs")
        return archs[list(Arch.KNOBS)].to_numpy(dtype=float)
    return np.array([[getattr(a, name) for name in Arch.KNOBS] for a in archs], dtype=float).reshape(-1, 5)


def terms(knobs: np.ndarray) -> np.ndarray:
    """[N, F] non-negative amounts of work that a latency may be a sum of; each column has the operations'
    growth.
    """
    resolution, patch, windows, depth, queries = knobs.T
    tokens = (resolution / patch) ** 2
    sequence = 1 + tokens / windows**2
    decoder = np.minimum(depth, 1)
    columns = [
        np.ones(len(knobs)),
        resolution**2,
        tokens,
        windows**2,
        windows**2 * sequence**2,
        (tokens + windows**2) ** 2,
        queries,
        decoder,
        decoder * queries,
        depth,
        depth * tokens,
        depth * queries,
        depth * queries**2,
        # The mask head works at a quarter of the resolution; unused terms get weight zero.
        depth * resolution**2,
        queries * resolution**2,
    ]
    return np.stack(columns, axis=1)


class LatencyModel:
    """Predicts latency in ms; make one with `LatencyModel.fit`.

    method           one of `METHODS`, the one that cross-validation chose
    cross_validation one row per method: median_ape, p95_ape (absolute percentage errors in %, out of fold)
    measured         number of measured sub-networks
    """

    def __init__(self, method: str, knobs: np.ndarray, latency: np.ndarray, seed: int = 0) -> None:
        self.method, self.measured = method, len(latency)
        self.cross_validation: Any = None
        self._floor = 0.0
        self._weights = fit_terms(knobs, latency)
        base = terms(knobs) @ self._weights
        self._rest = _REST[method.partition("+")[2]](knobs, np.log(latency / base), seed)

    @classmethod
    def fit(
        cls, measured: "pd.DataFrame", method: str = "auto", folds: int = 5, seed: int = 0
    ) -> "LatencyModel":
        """Fit on a table with the five knobs and `latency_ms`, one row per measured sub-network.

        method "auto" takes the one with the smallest 95th percentile plus median of out-of-fold errors.
        Repeated rows of one sub-network are replaced by their median. Raises UserError with fewer than 12
        sub-networks, or when a latency is not positive.
        """
        import pandas as pd

        if method not in ("auto", *METHODS):
            raise UserError(f"unknown method {method!r}: use auto or one of {', '.join(METHODS)}")
        knobs_array(measured)
        if "latency_ms" not in measured:
            raise UserError("the table has no column latency_ms")
        rows = measured.groupby(list(Arch.KNOBS), as_index=False)["latency_ms"].median()
        knobs, latency = knobs_array(rows), rows["latency_ms"].to_numpy(dtype=float)
        if not (np.isfinite(latency) & (latency > 0)).all():
            raise UserError(
                "latency_ms must be positive and finite in every row; drop the failed measurements"
            )
        if len(rows) < FEWEST:
            raise UserError(f"{len(rows)} measured sub-networks are too few: measure at least {FEWEST}")
        part = np.random.default_rng(seed).permutation(len(rows)) % folds
        found = []
        for name in METHODS if method == "auto" else (method,):
            predicted = np.empty(len(rows))
            for fold in range(folds):
                away = part == fold
                predicted[away] = cls(name, knobs[~away], latency[~away], seed).predict_knobs(knobs[away])
            found.append({"method": name, **errors(predicted, latency)})
        table = pd.DataFrame(found)
        best = str(table["method"].iloc[int((table["median_ape"] + table["p95_ape"]).to_numpy().argmin())])
        model = cls(best, knobs, latency, seed)
        model.cross_validation = table
        return model

    @classmethod
    def rough(cls, measured: "pd.DataFrame") -> "LatencyModel":
        """From fewer measured sub-networks than `fit` needs: the sum of terms alone, its error not known.

        UserError without any.
        """
        if not len(measured):
            raise UserError("no sub-network was measured: nothing can be predicted")
        model = cls("terms", knobs_array(measured), measured["latency_ms"].to_numpy(dtype=float))
        # Terms that no measured one has may be left out altogether: no other can take no time at all.
        model._floor = 0.5 * float(measured["latency_ms"].min())
        return model

    def predict_knobs(self, knobs: np.ndarray) -> np.ndarray:
        """Latency in ms [N] of knobs [N, 5]."""
        return np.maximum(terms(knobs) @ self._weights * np.exp(self._rest(knobs)), self._floor)

    def predict(self, archs: "Iterable[Arch] | pd.DataFrame") -> np.ndarray:
        """Latency in ms [N] of architectures or of the rows of a table with the five knobs."""
        return self.predict_knobs(knobs_array(archs))

    def report(self, held_out: "pd.DataFrame") -> dict[str, Any]:
        """Errors on measured sub-networks that were not used for fitting: median_ape, p95_ape, worst_ape (%),
        count.
        """
        return {
            "method": self.method,
            "measured": self.measured,
            **errors(self.predict(held_out), held_out["latency_ms"].to_numpy(dtype=float)),
        }


def errors(predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Absolute percentage errors in %: median_ape, p95_ape, worst_ape, and their count."""
    ape = 100 * np.abs(predicted / actual - 1)
    return {
        "median_ape": float(np.median(ape)),
        "p95_ape": float(np.percentile(ape, 95)),
        "worst_ape": float(ape.max()),
        "count": len(ape),
    }


def measurement_plan(space: SearchSpace, count: int, seed: int = 0) -> list[Arch]:
    """`count` different sub-networks to measure (all, if there are fewer), in random order.

    Exporting a graph is what takes long, and all depths of one encoder triple and query count are cut out of
    one. So every triple gets one query count, drawn at random, and of that the deepest, the shallowest, then
    random depths; further counts only where these are used up. With fewer than two sub-networks per triple,
    triples spread evenly over the sorted numbers of tokens are taken.
    """
    rng = np.random.default_rng(seed)
    members: dict[tuple[int, int, int], dict[int, list[int]]] = {}
    for arch in space.distinct():
        members.setdefault(arch.encoder, {}).setdefault(arch.queries, []).append(arch.decoder_layers)
    triples = sorted(members, key=lambda t: ((t[0] / t[1]) ** 2, t[0], t[2]))
    wanted = min(len(triples), max(1, count // 2))
    queues = []
    for i in np.unique(np.linspace(0, len(triples) - 1, wanted).round().astype(int)):
        queue = []
        triple = triples[i]
        counts = list(members[triple])
        for j in rng.permutation(len(counts)):
            depths = sorted(members[triple][counts[j]])
            middle = [depths[k] for k in 1 + rng.permutation(max(0, len(depths) - 2))]
            for depth in dict.fromkeys((depths[-1], depths[0], *middle)):
                queue.append(Arch(triple[0], triple[1], triple[2], depth, counts[j]))
        queues.append(queue)
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    plan = turns[:count]
    return [plan[i] for i in rng.permutation(len(plan))]


def compare_fronts(
    table: "pd.DataFrame", predicted: str = "predicted_ms", measured: str = "latency_ms", accuracy: str = "AP"
) -> dict[str, float]:
    """The front chosen by predicted latency against the one by measured latency.

    hypervolume_ratio: hypervolume, at MEASURED latency, of the sub-networks on the predicted front, over that
    of the measured front (1: choosing by prediction loses nothing). shared: part of the measured front that
    is on both.
    """
    table = table.dropna(subset=[predicted, measured, accuracy])
    chosen, real = front(table, accuracy, predicted), front(table, accuracy, measured)
    reference = reference_point(table[accuracy].to_numpy(), table[measured].to_numpy())
    volumes = [hypervolume(f[accuracy].to_numpy(), f[measured].to_numpy(), reference) for f in (chosen, real)]
    return {
        "hypervolume_ratio": volumes[0] / volumes[1] if volumes[1] else 1.0,
        "shared": float(real.index.isin(chosen.index).mean()),
        "predicted_front": len(chosen),
        "measured_front": len(real),
    }


def fit_terms(knobs: np.ndarray, latency: np.ndarray) -> np.ndarray:
    """Non-negative weights of `terms` that minimise squared relative errors."""
    from scipy.optimize import nnls

    amounts = terms(knobs) / latency[:, None]
    scale = np.maximum(np.linalg.norm(amounts, axis=0), 1e-300)
    weights, _ = nnls(amounts / scale, np.ones(len(latency)), maxiter=1000)
    return weights / scale


def _inputs(knobs: np.ndarray) -> np.ndarray:
    """Smooth coordinates for the learned rest."""
    resolution, patch, windows, depth, queries = knobs.T
    side = np.log2(resolution / patch)
    return np.stack([side, np.log2(patch), np.log2(windows), depth, np.log2(queries)], axis=1)


def _nothing(knobs: np.ndarray, rest: np.ndarray, seed: int) -> Any:
    return lambda asked: np.zeros(len(asked))


def _table(knobs: np.ndarray, rest: np.ndarray, seed: int) -> Any:
    """Mean rest per encoder triple, drawn to zero where few were measured."""
    found: dict[tuple[float, ...], list[float]] = {}
    for triple, value in zip(map(tuple, knobs[:, :3]), rest, strict=True):
        found.setdefault(triple, []).append(value)
    means = {triple: sum(values) / (len(values) + 0.5) for triple, values in found.items()}
    return lambda asked: np.array([means.get(triple, 0.0) for triple in map(tuple, asked[:, :3])])


def _process(knobs: np.ndarray, rest: np.ndarray, seed: int) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

    inputs = _inputs(knobs)
    centre, spread = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    size = max(float(rest.std()), 1e-6)
    # One smooth part in all knobs, one rough part for the steps between neighbouring encoders, and noise.
    kernel = (
        ConstantKernel(1.0, (1e-3, 1e2)) * RBF(np.ones(5), (0.1, 30))
        + ConstantKernel(0.3, (1e-3, 1e2)) * Matern(np.r_[np.full(3, 0.2), 3.0, 3.0], (0.02, 30), nu=0.5)
        + WhiteKernel(0.05, (1e-4, 1))
    )
    # The kernel's parameters are found on a part, which costs the cube of its size at every step; all rows
    # are used then.
    part = np.random.default_rng(seed).permutation(len(rest))[:_KERNEL_ROWS]
    points = (inputs - centre) / spread
    with warnings.catch_warnings():
        # A length scale at its bound means that a knob does not matter, which is fine.
        warnings.simplefilter("ignore")
        found = GaussianProcessRegressor(kernel, random_state=seed).fit(points[part], rest[part] / size)
        process = GaussianProcessRegressor(found.kernel_, optimizer=None).fit(points, rest / size)
    return lambda asked: process.predict((_inputs(asked) - centre) / spread) * size


def _boosting(knobs: np.ndarray, rest: np.ndarray, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    trees = GradientBoostingRegressor(
        n_estimators=200,
        learning_rate=0.08,
        max_depth=4,
        min_samples_leaf=3,
        subsample=0.8,
        random_state=seed,
    )
    trees.fit(_inputs(knobs), rest)
    return lambda asked: trees.predict(_inputs(asked))


_REST = {"": _nothing, "table": _table, "process": _process, "boosting": _boosting}
