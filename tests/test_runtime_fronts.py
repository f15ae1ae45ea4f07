"""Fronts of one search over latency in two runtimes (chapter 06)."""

import numpy as np
import pandas as pd
import pytest

from rfdetr.arch import Arch, SearchSpace
from rfdetr.experiments import ch06_runtimes

SPACE = SearchSpace((64, 96, 128), (8, 16), (1, 2), (1, 2, 3), (10, 20))


def tables(second):
    """All sub-networks, and timings in two runtimes: tokens and depth count, `second` changes the other
    one.
    """
    archs = SPACE.distinct()
    rows = pd.DataFrame([arch.to_dict() for arch in archs])
    rows["AP"] = np.log(rows.resolution / rows.patch_size * (1 + rows.decoder_layers)) / 10
    rows["arch"] = [arch.id for arch in archs]
    ms = 1 + (rows.resolution / rows.patch_size) ** 2 / 50 + 0.3 * rows.decoder_layers
    timed = []
    for name, latency in (("one", ms), ("two", second(rows, ms))):
        ends = {"latency_ms": latency, "latency_low_ms": 0.99 * latency, "latency_high_ms": 1.01 * latency}
        timed.append(rows.assign(runtime=name, held_out=False, **ends).drop(columns="AP"))
    return rows.drop(columns="arch"), pd.concat(timed, ignore_index=True)


def test_a_runtime_that_is_only_faster_has_the_same_front():
    found = ch06_runtimes.both(*tables(lambda rows, ms: ms / 2))
    assert found.runtimes == ["one", "two"]
    rows = ch06_runtimes.members(found)
    assert (rows.networks == rows.shared).all() and np.allclose(rows[["lost", "lost_most"]], 0)
    counts = ch06_runtimes.turned(found.timings).iloc[0]
    assert counts.turned == 0 and counts.same == counts.apart > 100 and counts.example == ""
    assert ch06_runtimes.only_on(found, "one").empty
    assert "0 of these change places." in ch06_runtimes.said(found)


def test_a_runtime_with_dear_layers_has_another_front():
    found = ch06_runtimes.both(*tables(lambda rows, ms: ms + 20 * rows.decoder_layers))
    counts = ch06_runtimes.turned(found.timings).iloc[0]
    assert counts.turned > 0 and counts.same + counts.turned == counts.apart <= counts.pairs
    assert " in one and " in counts.example
    rows = ch06_runtimes.members(found).set_index("runtime")
    assert rows.shared["one"] < rows.networks["one"] and rows.lost_most.max() > 0
    alone = ch06_runtimes.only_on(found, "one")
    assert len(alone) == rows.networks["one"] - rows.shared["one"] and (alone.behind > -1e-9).all()
    assert any(Arch.parse(name).decoder_layers > 1 for name in alone.arch)
    assert f"{counts.turned} of these change places" in ch06_runtimes.said(found)


def test_the_kept_timings_are_compared():
    found = ch06_runtimes.compared()
    assert found is not None and len(found.runtimes) == 2 and "latency-model" in found.origin
    counts = ch06_runtimes.turned(found.timings).iloc[0]
    assert counts.networks == len(found.timings) // 2 and counts.pairs == pytest.approx(
        counts.networks * (counts.networks - 1) / 2
    )
    assert all(name in ch06_runtimes.said(found) for name in found.runtimes)
