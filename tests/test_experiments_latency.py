"""Chapter 06 on the smoke profile: every function that makes one of its tables or figures."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pytest
import torch

from rfdetr.benchmark.inputs import image_inputs
from rfdetr.benchmark.records import join
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.evaluation.coco import evaluate
from rfdetr.experiments import ch06_claims, ch06_half_precision
from rfdetr.experiments import ch06_protocol as lab
from rfdetr.experiments.base import supernet
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import Timing, get_profile
from rfdetr.paper import tables
from rfdetr.paper.arithmetic.latency import one_row_each, with_gains
from rfdetr.paper.verdicts import findings
from rfdetr.plots import latency as figures

PROFILE = get_profile("smoke")
ARCH = PROFILE.recipe.reference
QUICK = Timing(samples=8, seconds=0.2, pauses_ms=(0.0, 2.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    return supernet.train_supernet(PROFILE, 0, store, show=False).model


@pytest.fixture(scope="module")
def images():
    return supernet.data(PROFILE, "test")


@pytest.fixture(scope="module")
def inputs():
    return image_inputs(supernet.data(PROFILE, "val"), ARCH.resolution, count=3)


@pytest.fixture(scope="module")
def found(model, inputs, tmp_path_factory):
    return ch06_half_precision.halves(model, ARCH, tmp_path_factory.mktemp("halves"), inputs)


@pytest.fixture(scope="module")
def timed(found):
    with load_runtime("onnxruntime", found.full) as runtime:
        return lab.time_protocols(runtime, QUICK, pause_ms=1.0)


def test_table_1_has_the_printed_numbers_and_what_follows_from_them():
    frame = one_row_each(tables.table(1)).set_index("model")
    assert len(frame) == 6
    for model, row in frame.iterrows():
        printed = tables.find_row(1, model=model, setting="buffering_fp16")
        assert row["latency_ms_fp16"] == float(printed["latency_ms"])
    assert frame.loc["RF-DETR", "speed_up"] == pytest.approx(20.5 / 4.4)
    assert frame["ap_naive_fp16"].notna().sum() == 1 and np.isnan(frame.loc["RF-DETR", "ap_reported"])


def test_table_20_in_both_forms():
    wide, long = with_gains(tables.table(20)), lab.printed_pauses()
    assert len(long) == 4 * len(wide) and set(long["pause_ms"]) == {0, 200, 400, 800}
    d_fine = wide.set_index("model").loc["D-FINE"]
    assert (d_fine["gain_ms"], d_fine["beyond_ms"]) == (0.3, 0.0)
    assert wide["beyond_ms"].max() == 0.1


def test_protocols_are_timed_on_one_file(timed, found):
    frame = timed.frame
    assert list(frame["protocol"]) == ["buffered", "sustained", "rate", "rate", "rate", "buffered"]
    assert set(frame["sha256"]) == {found.full.sha256}
    assert timed.only("rate", fps=30.0).frames == 6
    with pytest.raises(KeyError):
        timed.only("rate", fps=31.0)
    assert figures.protocols(frame).axes and figures.queues(timed.traces).axes


def test_the_highest_frame_rate_is_above_capacity(timed):
    highest = timed.records[4]
    capacity = 1000 / timed.only("sustained").statistics["mean_ms"]
    assert highest.parameters["fps"] == pytest.approx(lab.OVERLOAD * capacity)
    assert lab.label(highest).startswith("rate, ")
    # One row per finished frame of all three rates.
    assert len(timed.traces) == sum(r.frames - r.unfinished for r in timed.records[2:5])


def test_repeatability_names_its_doubts(timed):
    first, last = timed.records[0], timed.records[-1]
    table = lab.repeatability(first, last)
    assert len(table) == 3 and (table["agrees"] == (table["difference"] <= 0.05)).all()
    slower = replace(
        last, statistics={**last.statistics, "median_ms": 2 * first.median_ms}, reasons=("busy",)
    )
    apart = lab.repeatability(first, slower).iloc[-1]
    assert apart["difference"] == pytest.approx(1) and not apart["agrees"]
    assert lab.repeatability(first, slower)["why"][1] == "busy"
    with pytest.raises(ValueError, match="same artifact"):
        lab.repeatability(first, timed.records[1])


def test_pauses_are_timed_and_drawn(found):
    with load_runtime("onnxruntime", found.full) as runtime:
        pauses = lab.time_pauses(runtime, QUICK)
    assert list(pauses.frame["pause_ms"]) == [0, 2]
    assert figures.pauses(lab.printed_pauses(), pauses.frame).axes


def test_file_and_network_have_the_same_accuracy_and_two_files_never_share_a_row(model, found, images, timed):
    results = {"network": evaluate(model, images, ARCH, masks=False)}
    accuracy = {}
    for name, artifact in (("file", found.full), ("FP16 file", found.safe)):
        with load_runtime("onnxruntime", artifact, emulate_fp16=artifact is found.safe) as runtime:
            results[name], accuracy[name] = lab.evaluated(runtime, images)
    table = lab.summarise(results, images)
    assert abs(table.iloc[1]["difference"]) <= lab.TOLERANCE
    assert table.iloc[0][["difference", "low", "high"]].tolist() == [0, 0, 0]
    row = join(accuracy["file"], timed.records[0]).row()
    assert row["AP"] == table.iloc[1]["AP"] and row["sha256"] == found.full.sha256
    message = lab.refused(accuracy["FP16 file"], timed.records[0])
    assert "evaluate and time the same file" in message and "fp16" in message
    with pytest.raises(AssertionError, match="should not exist"):
        lab.refused(accuracy["file"], timed.records[0])


def test_rescaled_network_is_the_same_function_and_overflows(model, found, inputs, tmp_path):
    big = ch06_half_precision.rescaled(model)
    pixels = torch.from_numpy(inputs[0]["images"])
    with torch.inference_mode():
        a, b = model(pixels, ARCH), big(pixels, ARCH)
    assert torch.equal(a.logits, b.logits) and torch.equal(a.boxes, b.boxes)
    broken = ch06_half_precision.halves(big, ARCH, tmp_path, inputs)
    table = ch06_half_precision.report({"as trained": found, "rescaled": broken})
    assert table["max_abs"].iloc[1] > 65504 > table["max_abs"].iloc[0]
    assert table["kept"].iloc[1] > table["kept"].iloc[0] and table["beyond"].iloc[1] > 0
    named = ch06_half_precision.beyond_range(broken)
    assert named["node"].str.contains("decoder.layers").all() and len(named) == table["beyond"].iloc[1]
    assert any("MatMul" in name for name in broken.kept)
    from lab_fixtures import output_error

    plain = min(max(output_error(broken.plain, found.full, [feed]).values()) for feed in inputs)
    safe = min(max(output_error(broken.safe, found.full, [feed]).values()) for feed in inputs)
    assert not plain < 1 and safe < 0.2


def test_end_to_end_says_what_a_pass_includes(model, found, tmp_path):
    from rfdetr.benchmark.nms import WithNms
    from rfdetr.export.onnx import export_onnx

    masks = export_onnx(lab.untrained(model, segmentation=True), ARCH, tmp_path / "masks.onnx")
    raw = load_runtime("onnxruntime", lab.raw_form(found.full, tmp_path / "raw.onnx"))
    frame = lab.end_to_end(
        {
            "boxes": load_runtime("onnxruntime", found.full),
            "boxes and suppression": WithNms(raw),
            "masks": load_runtime("onnxruntime", masks),
        },
        samples=8,
    )
    assert list(frame["includes"]) == ["network", "network + nms", "network + masks"]
    assert (frame["low_ms"] <= frame["median_ms"]).all() and (frame["copies"] == "none: one memory").all()


def test_committed_records_are_read_where_there_are_some(tmp_path, timed):
    from rfdetr.benchmark.records import write_records

    assert lab.committed(tmp_path) == []
    write_records(tmp_path / "results" / "latency-cpu" / "records.jsonl", timed.records)
    assert lab.committed(tmp_path) == timed.records


def accuracies(*rows: tuple[float, float, float]) -> pd.DataFrame:
    first = rows[0][0]
    return pd.DataFrame(
        [{"AP": ap, "difference": ap - first, "low": low, "high": high} for ap, low, high in rows]
    )


def decided(**evidence):
    return {row.claim: row.verdict for row in findings(ch06_claims, **evidence) if row.claim}


@pytest.mark.parametrize(
    ("half", "expected"),
    [
        ((0.5, -0.0005, 0.0005), "consistent"),
        ((0.5, -0.004, 0.004), "not resolved"),
        ((0.4, -0.11, -0.09), "contradicted"),
    ],
)
def test_half_precision_is_decided_by_the_whole_interval(half, expected):
    full = (0.5, 0.0, 0.0)
    table = accuracies(full, full, half)
    found = decided(accuracy=table, overflow=table, t4_rows=None)
    assert found["C061"] == expected
    assert all(found[c].startswith("needs an NVIDIA") for c in ("C020", "C057", "C118"))
    assert found["C058"].startswith("needs D-FINE")


def test_a_t4_decides_what_only_it_can_decide(found, monkeypatch, tmp_path):
    rows = [
        {
            "model": "medium",
            "requested": "fp16",
            "protocol": "buffered",
            "pause_ms": pause,
            "latency_ms": ms,
            "latency_low_ms": ms - 0.05,
            "latency_high_ms": ms + high,
            "throttle": state,
        }
        for pause, ms, high, state in [
            (0.0, 4.7, 0.0, "throttled"),
            (200.0, 4.4, 0.0, "clean"),
            (800.0, 4.4, 0.1, "clean"),
        ]
    ]
    half = accuracies((0.5, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.0, 0.0))

    first = decided(accuracy=half, overflow=half, t4_rows=pd.DataFrame(rows))
    assert [first[c] for c in ("C020", "C057")] == ["consistent", "consistent"]
    rows[2] |= {"latency_ms": 4.6, "latency_low_ms": 4.6, "latency_high_ms": 4.6, "throttle": "throttled"}
    second = decided(accuracy=half, overflow=half, t4_rows=pd.DataFrame(rows))
    assert [second[c] for c in ("C020", "C057")] == ["contradicted", "contradicted"]


def test_without_a_t4_the_page_says_so(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("rfdetr.data.registry.load_dataset", lambda *_: None)
    for name, words in (("smoke", "profile `smoke`"), ("t4", "[tensorrt]")):
        rows, why = lab.on_a_t4(get_profile(name), tmp_path)
        assert rows is None and "Not executed on TensorRT" in why and words in why
    for name in ("t4", "gpu", "full"):
        assert lab.embedded(get_profile(name)) == get_profile("cpu")
    assert lab.embedded(PROFILE) == PROFILE
