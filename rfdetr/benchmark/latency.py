"""Latency of artifacts: the functions that the search, the chapters and the command line call."""

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.benchmark.power import NOT_MONITORED, Watch, monitor
from rfdetr.benchmark.protocols import Measurement, measure, time_pass, warm_up
from rfdetr.benchmark.records import LatencyRecord
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.benchmark.runtimes.base import Runtime, random_inputs
from rfdetr.benchmark.statistics import NOISE_LIMIT, noise_reasons, summary
from rfdetr.errors import UserError
from rfdetr.interrupts import check
from rfdetr.model.detector import RFDETR
from rfdetr.progress import Report, progress_bar
from rfdetr.provenance import environment, utc_now

if TYPE_CHECKING:
    import pandas as pd


def time_artifact(
    runtime: Runtime,
    protocol: str = "buffered",
    runs: int = 2,
    batch: int = 1,
    watch: bool = True,
    kept: list[Measurement] | None = None,
    **options: Any,
) -> LatencyRecord:
    """Time a loaded artifact under one protocol (`rfdetr.benchmark.protocols`; `options` are its arguments).

    runs    the protocol is run this often and the samples are joined; runs whose medians differ by more than
            5 % make the record noisy, with the reason (as do a drift, other processes, an unsettled warm-up,
            a throttled GPU)
    batch   for artifacts whose batch is open
    watch   read power, clocks and throttle reasons (GPU) or load and frequency (CPU) meanwhile
    kept    takes the sample of every run, which the record only summarises
    """
    if runs < 1:
        raise UserError(f"runs must be at least 1, not {runs}")
    if runtime.info.details.get("emulated"):
        raise UserError("an emulated precision has an accuracy, but no latency")
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
        batch=artifact.inputs[0].sized(batch)[0],
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
    import time

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


def measure_latency(
    model: RFDETR,
    archs: Iterable[Arch],
    runtime: str = "onnxruntime",
    threads: int = 1,
    rounds: int = 5,
    passes: int = 5,
    pause_ms: float = 0.0,
    progress: bool | Report = False,
    cache_dir: str | Path | None = None,
    max_seconds: float | None = None,
    at_once: int = 150,
) -> "pd.DataFrame":
    """Export and time many sub-networks of one supernet, batch 1, on one machine, comparably.

    The sub-networks take turns: every round times each of them for `passes` passes, in a new order, so that a
    drift of the machine hits all alike. The latency of one is the median of its rounds' medians; `spread` is
    how far the rounds are apart, (max - min) / median. cache_dir keeps the exported files (used again when
    weights and versions are the same). max_seconds: end the timing after the round in which it passes; three
    rounds are always made. at_once: so many are loaded at a time, drawn at random, because each takes tens of
    megabytes.

    Returns one row per distinct sub-network, in the order given: the five knobs, arch, latency_ms,
    latency_low_ms and latency_high_ms (smallest and largest round), spread, noisy (spread over 5 % between
    the middle rounds), sha256, precision, runtime, threads, rounds. `frame.attrs` holds "environment" and
    "device".
    """
    import pandas as pd

    from rfdetr.export.onnx import export_many

    wanted = list(dict.fromkeys(model.resolve(a) for a in archs))
    if not wanted:
        raise UserError("there is no sub-network to time")
    total = 2 * len(wanted)
    with (
        progress_bar(progress, total, "export and time", "step") as report,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(cache_dir) if cache_dir is not None else Path(scratch)
        artifacts = export_many(model, wanted, folder, progress=lambda done, _: report(done, total))
        groups = np.array_split(np.random.default_rng(0).permutation(len(wanted)), -(-len(wanted) // at_once))
        limit = None if max_seconds is None else max_seconds / len(groups)
        medians: list[np.ndarray] = [np.empty(0)] * len(wanted)
        done = 0
        for group in groups:
            runtimes = [load_runtime(runtime, artifacts[wanted[i]], threads=threads) for i in group]
            found = _in_turns(runtimes, rounds, passes, pause_ms, limit)
            done += len(group)
            report(len(wanted) + done, total)
            info = runtimes[0].info
            for position, values in zip(group, found.T, strict=True):
                medians[position] = values
            for loaded in runtimes:
                loaded.close()
    rows = []
    for position, arch in enumerate(wanted):
        values = medians[position]
        middle = float(np.median(values))
        low, high = np.percentile(values, [25, 75])
        rows.append(
            {
                **arch.to_dict(),
                "arch": arch.id,
                "latency_ms": middle,
                "latency_low_ms": float(values.min()),
                "latency_high_ms": float(values.max()),
                "spread": float((values.max() - values.min()) / middle),
                "noisy": bool((high - low) / middle > NOISE_LIMIT),
                "sha256": artifacts[arch].sha256,
                "precision": info.precision,
                "runtime": f"{info.runtime} {info.version}",
                "threads": threads,
                "rounds": len(values),
            }
        )
    frame = pd.DataFrame(rows)
    # Plain values: pandas copies and compares what is in attrs.
    frame.attrs["environment"] = environment()
    frame.attrs["device"] = info.device
    return frame


def _in_turns(
    runtimes: Sequence[Runtime],
    rounds: int,
    passes: int,
    pause_ms: float,
    max_seconds: float | None,
) -> np.ndarray:
    """Medians in ms [rounds made, runtimes] of `passes` passes each, in a new order every round."""
    import time

    for loaded in runtimes:
        loaded.bind(random_inputs(loaded.artifact))
        warm_up(loaded, max_passes=20, max_seconds=1.0)
    random = np.random.default_rng(0)
    medians = np.empty((rounds, len(runtimes)))
    begin = time.perf_counter()
    for index in range(rounds):
        for position in random.permutation(len(runtimes)):
            check()
            loaded = runtimes[position]
            loaded.infer()  # the one before it has the caches
            times = []
            for _ in range(passes):
                if pause_ms:
                    time.sleep(pause_ms / 1000)
                times.append(time_pass(loaded, time.perf_counter))
            medians[index, position] = np.median(times)
        if max_seconds is not None and index >= 2 and time.perf_counter() - begin > max_seconds:
            return medians[: index + 1]
    return medians
