"""Masks in miniature (chapter 08), and the readings of chapter 06 that need no extra."""

import numpy as np
import pandas as pd

from rfdetr.arch import Arch
from rfdetr.experiments import (
    ch06_graphs,
    ch06_half_peers,
    ch06_int8_domains,
    ch08_miniature,
    ch_d_timing,
    kept_studies,
)
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES


def test_a_segmenter_has_a_front_and_a_depth(tmp_path):
    store = Store(tmp_path)
    own = ch08_miniature.segmented(PROFILES["smoke"], 0, store)
    assert own is not None and own.seconds > 0
    sizes = ch08_miniature.SIZES["smoke"]
    assert set(own.table.decoder_layers) == set(sizes.search.decoder_layers)
    assert own.table.arch.is_unique and all(Arch.parse(name) for name in own.table.arch)
    assert own.table.mask_AP.between(0, 1).all() and (own.table.gflops > 0).all()
    by_depth = own.table[own.table.resolution == 64].set_index("decoder_layers")
    assert by_depth.masks_share.between(0, 100).all() and by_depth.gflops.is_monotonic_increasing
    assert 1 <= own.table.latency_ms.notna().sum() <= sizes.timed
    assert set(own.table.arch[own.table.latency_ms.notna()]) <= set(own.front.arch)
    assert own.front.mask_AP.is_monotonic_increasing and own.front.gflops.is_monotonic_increasing
    assert list(own.depths.decoder_layers) == [0, 3, 6] and own.depths["AP gain"].isna().sum() == 1
    last = own.depths.iloc[-1]
    assert last["AP gain"] == own.depths.AP.iloc[2] - own.depths.AP.iloc[1]
    # Once made, it is read.
    count = len(list(store.root.iterdir()))
    again = ch08_miniature.segmented(PROFILES["smoke"], 0, store)
    pd.testing.assert_frame_equal(again.table, own.table)
    assert len(list(store.root.iterdir())) == count


def test_what_depth_does_can_come_out_either_way():
    frame = pd.DataFrame({"decoder_layers": [0, 1, 2], "AP": 0.5, "mask_AP": 0.3})
    ends = {"AP low": [np.nan, 0.1, -0.1], "AP high": [np.nan, 0.3, 0.1]}
    ends |= {"mask_AP low": [np.nan, -0.2, -0.1], "mask_AP high": [np.nan, 0.1, -0.01]}
    text = ch08_miniature.depth_said(frame.assign(**ends))
    assert text == (
        "For boxes the last step that gains beyond its interval ends at layer 1; for masks no step gains"
        " beyond its interval, and the step to 2 loses."
    )


def test_graphs_are_faster_slower_or_neither():
    rows = [
        {"preset": "nano", "runtime": f"r {i}", "threads": 1, "ratio": r} for i, r in enumerate((1.2, 1.01))
    ]
    good = pd.DataFrame(rows)
    good = good.assign(against="x 1")
    bad = good.assign(ratio=[0.9, 1.2], against="y 2")
    first, second = ch06_graphs.said(pd.concat([good, bad])).split("within. ")
    assert "graph of x 1" in first and "1 beyond 3 % in favour of ours, 0 against it, the rest" in first
    assert "graph of y 2" in second and "1 against it (nano in r 0, threads: 1)" in second


def test_losses_on_real_pictures_are_said():
    rows = []
    for i, (lost, low) in enumerate(((0.001, -0.01), (0.02, 0.01), (-0.002, -0.01))):
        row = {"domain": f"set {i % 2}", "arch": f"r{i}", "fp32 AP": 0.4}
        for precision in ("int8", "bf16"):
            scale = 1 if precision == "int8" else 0.1
            row |= {
                f"{precision} loss": scale * lost,
                f"{precision} low": low,
                f"{precision} high": low + 0.02,
            }
        rows.append(row)
    text = ch06_int8_domains.said(pd.DataFrame(rows))
    assert text.startswith("3 sub-networks on 2 real sets.") and "more than 0.005 lose set 1 r1" in text
    assert "In bfloat16" in text and "none loses more than 0.005" in text and "1 of 3 losses" in text
    assert {"int8-domains", "peer-exports", "peer-fp16", "text-cost"} <= set(kept_studies.STUDIES)


def test_what_a_text_costs_is_resolved_or_not(tmp_path):
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    times = ch_d_timing.in_turns(runs, 2)
    assert calls == ["a", "b"] * 3 and all(len(values) == 2 for values in times.values())
    base = {"prompt": "many names", "tokens": 9, "passes": 3, "alone_ms": 10.0}
    base |= {"whole_ms": 100.0, "whole_low": 99.0, "whole_high": 101.0}
    short = {**base, "prompt": "one", "whole_ms": 60.0, "whole_low": 59.0, "whole_high": 61.0}
    clear = {"encoded_ms": 90.0, "encoded_low": 89.0, "encoded_high": 91.0}
    text = ch_d_timing.said(pd.DataFrame([base | clear, short | clear]))
    assert "10 ms of 100 (10.0 %)" in text and "10 ms less" in text and text.endswith("0.60 times as long.")
    vague = {**clear, "encoded_high": 99.5}
    text = ch_d_timing.said(pd.DataFrame([base | vague, base | vague | {"prompt": "one"}]))
    assert "nothing is resolved" in text and "not resolved: the passes overlap" in text


def test_what_fp16_does_to_peers_can_come_out_either_way():
    row = {"name": "a", "beyond": 0, "eager_ap": 0.4, "plain_ap": 0.399, "safe_ap": np.nan}
    text = ch06_half_peers.said(pd.DataFrame([row]))
    assert "0 have tensors" in text and "explains the printed collapse" in text
    worse = {**row, "name": "b", "beyond": 3, "plain_ap": 0.0, "safe_ap": 0.4}
    text = ch06_half_peers.said(pd.DataFrame([row, worse]))
    assert "1 have tensors or sums beyond FP16 (b)" in text and "costs b more" in text
    assert "all of them are within it again" in text
    lost = {**worse, "name": "c", "safe_ap": 0.1}
    assert "1 of 2 are within" in ch06_half_peers.said(pd.DataFrame([worse, lost]))
