"""Which sub-networks to time, so that few timings tell the latency of all.

The latency model (`rfdetr.search.latency_model`) is a sum of amounts of work with unknown weights, fitted to
relative errors. Measuring a sub-network narrows the weights; how far, follows from its amounts of work alone.
So measurements are chosen one after another: always the one after which the predictions for ALL sub-networks
are least uncertain, per cost of measuring. Exporting a graph is what takes long, and all depths of an
(encoder setting, query count) are cut out of one; another depth of a graph that is there is cheap.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.search.latency_model import fit_terms, knobs_array, measurement_plan, terms

if TYPE_CHECKING:
    import pandas as pd

_START = 0.4  # part of the measurements that is spread evenly, before anything is known
_BATCHES = 3  # in which the others are chosen
_DEPTH_PRICE = 0.6  # of timing another depth of an exported graph, a new graph being 1
_RIDGE = 0.1  # what is known of the weights beforehand, in units of one measurement


def measure_actively(
    measure: "Callable[[list[Arch]], pd.DataFrame]", space: SearchSpace, count: int, seed: int = 0
) -> "pd.DataFrame":
    """Time `count` different sub-networks of a space (all, if there are fewer), chosen as the timings come
    in.

    measure   architectures to time -> everything timed so far, also by earlier calls: a table with the five
              knobs and latency_ms. What is there is taken into account and not asked for again
    """
    candidates = space.distinct()
    count = min(count, len(candidates))
    found = measure(measurement_plan(space, max(1, round(_START * count)), seed))
    batch = max(1, -(-round((1 - _START) * count) // _BATCHES))
    while len(found) < count:
        chosen = next_measurements(found, candidates, min(batch, count - len(found)))
        if not chosen:
            break
        found = measure(chosen)
    return found


def next_measurements(
    measured: "pd.DataFrame",
    candidates: Sequence[Arch],
    count: int,
    of_interest: Sequence[Arch] | None = None,
) -> list[Arch]:
    """The `count` candidates that tell most about the latencies `of_interest` (default: of all candidates)
    beside those measured (table with the five knobs and latency_ms). Fewer, when there are no more.
    """
    knobs = knobs_array(measured)
    weights = fit_terms(knobs, measured["latency_ms"].to_numpy(dtype=float))
    everything = knobs_array(candidates)
    scale = np.maximum(np.linalg.norm(_relative(everything, weights), axis=0), 1e-12)
    target = everything if of_interest is None else knobs_array(of_interest)
    rows, wanted, known = (_relative(part, weights) / scale for part in (everything, target, knobs))
    gram = wanted.T @ wanted / len(wanted)
    size = np.trace(known.T @ known) / len(scale) / max(1, len(known))
    covariance = np.linalg.inv(known.T @ known + _RIDGE * size * np.eye(len(scale)))
    have = set(map(tuple, knobs.astype(int).tolist()))
    graphs = {(k[:3], k[4]) for k in have}
    names = [tuple(k) for k in everything.astype(int).tolist()]
    open_ = np.array([name not in have for name in names])
    price = np.array([_DEPTH_PRICE if (name[:3], name[4]) in graphs else 1.0 for name in names])
    chosen: list[Arch] = []
    while len(chosen) < count and open_.any():
        spread = rows @ covariance
        gain = np.einsum("ni,ij,nj->n", spread, gram, spread) / (1 + np.einsum("ni,ni->n", spread, rows))
        best = int(np.argmax(np.where(open_, gain / price, -1.0)))
        chosen.append(candidates[best])
        open_[best] = False
        price[[(n[:3], n[4]) == (names[best][:3], names[best][4]) for n in names]] = _DEPTH_PRICE
        step = spread[best]
        covariance = covariance - np.outer(step, step) / (1 + step @ rows[best])
    return chosen


def _relative(knobs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Amounts of work over the latency that they are believed to add up to."""
    amounts = terms(knobs)
    return amounts / np.maximum(amounts @ weights, 1e-9)[:, None]
