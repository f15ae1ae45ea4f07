from dataclasses import replace

import pytest
from lab_fixtures import Simulated

from rfdetr.benchmark import records
from rfdetr.errors import UserError

ARTIFACT = {"sha256": "a" * 64, "name": "nano", "precision": "fp16", "arch": None, "format": "onnx"}
LATENCY = records.LatencyRecord(
    sha256="a" * 64,
    artifact=ARTIFACT,
    runtime="onnxruntime",
    runtime_version="1",
    precision="fp16",
    device="cpu",
    driver="",
    input_shape=(1, 3, 64, 64),
    batch=1,
    protocol="buffered",
    parameters={"pause_ms": 200.0},
    statistics={"median_ms": 4.4, "p90_ms": 5.0},
    clock="host clock",
    warm_up={"passes": 10, "seconds": 1.0, "steady": True},
    noisy=False,
    reasons=(),
    throttle="clean",
    readings={},
    time_utc="2026-01-01T00:00:00+00:00",
)
ACCURACY = records.AccuracyRecord(
    sha256="a" * 64,
    artifact=ARTIFACT,
    runtime="onnxruntime",
    runtime_version="1",
    precision="fp16",
    dataset="digits",
    split="val",
    fingerprint="f",
    images=10,
    metrics={"AP": 0.5},
    time_utc="2026-01-01T00:00:00+00:00",
)


def test_one_artifact_gives_one_row() -> None:
    row = records.join(ACCURACY, LATENCY).row()
    assert (row["AP"], row["median_ms"], row["pause_ms"], row["sha256"]) == (0.5, 4.4, 200.0, "a" * 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "b" * 64}, "same file"),
        ({"precision": "fp32"}, "evaluated at fp32 .* timed at fp16"),
    ],
)
def test_accuracy_of_another_artifact_or_precision_is_refused(change, words) -> None:
    with pytest.raises(records.ArtifactMismatchError, match=words):
        records.join(replace(ACCURACY, **change), LATENCY)
    # Nor can the check be walked around by building the joint record itself.
    with pytest.raises(records.ArtifactMismatchError):
        records.JointRecord(replace(ACCURACY, **change), LATENCY)


def test_two_latencies_cannot_be_joined() -> None:
    with pytest.raises(TypeError):
        records.join(LATENCY, LATENCY)


def test_records_survive_a_file_and_a_mismatch_in_a_file_is_found(tmp_path) -> None:
    path = tmp_path / "r.jsonl"
    joint = records.join(ACCURACY, LATENCY)
    records.write_records(path, [LATENCY, ACCURACY])
    records.write_records(path, [joint])
    assert records.read_records(path) == [LATENCY, ACCURACY, joint]
    assert list(records.to_frame([LATENCY, LATENCY])["median_ms"]) == [4.4, 4.4]
    forged = path.read_text().splitlines()[-1].replace("a" * 64, "b" * 64, 2)
    path.write_text(forged + "\n")
    with pytest.raises(records.ArtifactMismatchError):
        records.read_records(path)


def test_an_undefined_accuracy_is_null_in_the_file_and_undefined_when_it_is_read(tmp_path) -> None:
    path = tmp_path / "r.jsonl"
    records.write_records(path, [replace(ACCURACY, metrics={"AP": float("nan"), "AP50": 0.25})])
    assert '"AP": null' in path.read_text() and "NaN" not in path.read_text()
    (found,) = records.read_records(path)
    assert found.metrics["AP"] != found.metrics["AP"] and found.metrics["AP50"] == 0.25


@pytest.mark.parametrize("line", ["{", '{"kind": "odd"}', '{"kind": "latency"}', "3"])
def test_a_line_that_is_no_record_is_named(tmp_path, line) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError):
        records.read_records(path)


class Known(Simulated):
    """A simulated runtime with what a record needs besides times."""

    has_copies = False

    def __init__(self, *services: float) -> None:
        super().__init__(*services)
        from rfdetr.benchmark.runtimes.base import RuntimeInfo
        from rfdetr.export.artifact import Artifact, TensorSpec

        specs = (TensorSpec("images", "float32", (1, 3, 8, 8)),)
        self.artifact = Artifact(
            None, "c" * 64, "torch", {"precision": "fp32"} | {"arch": "r64-p8-w2-d2-q10"}, specs, specs
        )
        self.info = RuntimeInfo("simulated", "1", "none", "fp32")

    def bind(self, inputs) -> None:
        self.bound = inputs


def time_known(*services: float, **options) -> records.LatencyRecord:
    from rfdetr.benchmark.latency import time_artifact

    runtime = Known(*services)
    return time_artifact(
        runtime, "buffered", watch=False, pause_ms=0, clock=runtime.clock, sleep=runtime.sleep, **options
    )


def test_a_repeatable_measurement_is_not_noisy_and_a_drifting_one_says_why() -> None:
    good = time_known(0.010, samples=20)
    assert not good.noisy and good.runs_ms == pytest.approx((10, 10)) and good.throttle == "not monitored"
    assert good.sha256 == "c" * 64 and good.median_ms == pytest.approx(10)
    # 15 passes of warm-up at most, then the second run is 20 % slower.
    bad = time_known(*[0.010] * 30, *[0.012] * 100, samples=20)
    assert bad.noisy and any("runs differ by 20%" in reason for reason in bad.reasons)
