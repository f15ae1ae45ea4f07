"""Latency of one loaded artifact under a protocol, as a record. Of many sub-networks in turns:
`rfdetr.benchmark.subnetworks`.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from rfdetr.benchmark.inputs import random_inputs
from rfdetr.benchmark.power import NOT_MONITORED, Watch, monitor
from rfdetr.benchmark.protocols import Measurement, measure
from rfdetr.benchmark.records import LatencyRecord
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.benchmark.statistics import NOISE_LIMIT, noise_reasons, summary
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact
from rfdetr.provenance import environment, utc_now


def time_artifact(
    runtime: Runtime,
    protocol: str = "buffered",
    runs: int = 2,
    batch: int | None = None,
    watch: bool = True,
    kept: list[Measurement] | None = None,
    **options: Any,
) -> LatencyRecord:
    """Time a loaded artifact under one protocol (`rfdetr.benchmark.protocols`; `options` are its arguments).

    runs    the protocol is run this often and the samples are joined; runs whose medians differ by more than
            5 % make the record noisy, with the reason (as do a drift, other processes, an unsettled warm-up,
            a throttled GPU)
    batch   images in a pass, for artifacts whose batch is open; a fixed one cannot be another (UserError)
    watch   read power, clocks and throttle reasons (GPU) or load and frequency (CPU) meanwhile
    kept    takes the sample of every run, which the record only summarises
    """
    if runs < 1:
        raise UserError(f"runs must be at least 1, not {runs}")
    if runtime.info.details.get("emulated"):
        raise UserError("an emulated precision has an accuracy, but no latency")
    batch = _batch(runtime.artifact, batch)
    inputs = random_inputs(runtime.artifact, batch)
    runtime.bind(inputs)
    watcher = monitor(runtime.info.gpu) if watch else nullcontext()
    with watcher:
        measured = [measure(runtime, protocol, **options) for _ in range(runs)]
    seen = (
        watcher.result() if not isinstance(watcher, nullcontext) else Watch(NOT_MONITORED, ("not asked for",))
    )
    if kept is not None:
        kept += measured
    return _record(runtime, measured, seen, batch)


def _batch(artifact: Artifact, wanted: int | None) -> int:
    size = artifact.inputs[0].shape[0]
    if wanted is not None and wanted < 1:
        raise UserError(f"the batch must be at least 1, not {wanted}")
    if isinstance(size, int) and wanted not in (None, size):
        raise UserError(
            f"{artifact.name} takes batches of {size}, not of {wanted}: export it with --batch {wanted} or"
            " --dynamic-batch"
        )
    return size if isinstance(size, int) else wanted or 1


def _record(runtime: Runtime, measured: Sequence[Measurement], seen: Watch, batch: int) -> LatencyRecord:
    first, artifact, info = measured[0], runtime.artifact, runtime.info
    values = np.concatenate([m.latencies_ms for m in measured])
    if not len(values):
        raise UserError("no frame was finished in time; lower the frame rate or measure for longer")
    medians = tuple(float(np.median(m.latencies_ms)) for m in measured)
    reasons = list(seen.reasons) if seen.state != NOT_MONITORED or seen.values else []
    spread = (max(medians) - min(medians)) / min(medians)
    if spread > NOISE_LIMIT:
        reasons.append(f"medians of {len(medians)} runs differ by {spread:.0%} (limit {NOISE_LIMIT:.0%})")
    if first.protocol != "rate":  # a growing queue is a finding, not noise
        for reason in (r for m in measured for r in noise_reasons(m.latencies_ms)):
            if reason not in reasons:
                reasons.append(reason)
    if not all(m.warm_up.steady for m in measured):
        reasons.append("the pass time had not settled when the warm-up ended")
    return LatencyRecord(
        sha256=artifact.sha256,
        artifact=artifact.to_dict(),
        runtime=info.runtime,
        runtime_version=info.version,
        precision=info.precision,
        device=info.device,
        driver=info.driver,
        input_shape=artifact.inputs[0].sized(batch),
        batch=batch,
        protocol=first.protocol,
        parameters=first.parameters,
        statistics=summary(values),
        clock=first.clock,
        warm_up=asdict(first.warm_up),
        noisy=bool(reasons),
        reasons=tuple(reasons),
        throttle=seen.state,
        readings=dict(seen.values) | ({} if seen.values else {"why": "; ".join(seen.reasons)}),
        time_utc=utc_now(),
        frames=sum(m.frames for m in measured),
        misses=sum(m.misses for m in measured),
        unfinished=sum(m.unfinished for m in measured),
        growth_ms_per_s=float(np.mean([m.growth_ms_per_s for m in measured])),
        runs_ms=medians,
        copies_ms=copies(runtime, batch),
        includes=("network", *(["masks"] if artifact.has_masks else []), *info.details.get("includes", ())),
        details=dict(info.details),
        environment=environment(),
    )


def copies(runtime: Runtime, batch: int = 1, repeats: int = 20) -> dict[str, float]:
    """Median ms of the copies to the device and back; {} where there is no device memory."""
    if not runtime.has_copies:
        return {}
    inputs = random_inputs(runtime.artifact, batch)
    times: dict[str, list[float]] = {"in": [], "out": []}
    for _ in range(repeats):
        start = time.perf_counter()
        runtime.bind(inputs)
        middle = time.perf_counter()
        runtime.infer()
        after = time.perf_counter()
        runtime.fetch()
        times["in"].append((middle - start) * 1000)
        times["out"].append((time.perf_counter() - after) * 1000)
    return {name: float(np.median(values)) for name, values in times.items()}
