"""The three latency protocols. Source: Section 4 and Table 1 (buffering), v2 Appendix K, Table 20 (pauses).

buffered    a pause between single passes: repeatable single-shot latency without power throttling (the
            paper's)
sustained   back to back after a warm-up to a steady state: what a busy service sees
rate        frames arrive by the clock; latency counts from arrival, waiting in the queue included; misses are
            counted

Each needs only `runtime.infer()` and `runtime.device_ms()`. The clock (s) and sleep are arguments, so that a
simulated runtime of known service time can be measured exactly. GPU passes are timed by device events, CPU
passes by the clock; `rate` always uses the clock, because waiting happens on the host.
"""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from rfdetr.benchmark.statistics import difference, queue_growth
from rfdetr.errors import UserError

Clock = Callable[[], float]
Sleep = Callable[[float], None]
Progress = Callable[[int, int], None]


class Timed(Protocol):
    """What a protocol needs of a runtime."""

    def infer(self) -> None:
        """One pass, finished on return."""

    def device_ms(self) -> float | None:
        """Duration of the last pass by the device's own events, or None."""


@dataclass(frozen=True)
class WarmUp:
    """Passes and seconds before the sample. `steady`: whether the pass time had settled."""

    passes: int
    seconds: float
    steady: bool


@dataclass(frozen=True)
class Measurement:
    """A latency sample. latencies_ms [N] in order of measurement, warm-up not included.

    arrivals_s   [N] arrival of each frame after the start (`rate` only, else empty)
    misses       frames that were later than the deadline, unfinished ones included (`rate` only)
    """

    protocol: str
    parameters: dict[str, Any]
    latencies_ms: np.ndarray
    warm_up: WarmUp
    seconds: float
    clock: str
    arrivals_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    frames: int = 0
    misses: int = 0
    unfinished: int = 0

    @property
    def growth_ms_per_s(self) -> float:
        """How fast latency grows with arrival time (`rate`); clearly above zero means that the queue never
        empties.
        """
        return queue_growth(self.arrivals_s, self.latencies_ms)


def time_pass(runtime: Timed, clock: Clock) -> float:
    """ms of one pass: device events if there are any, else the clock."""
    start = clock()
    runtime.infer()
    seconds = clock() - start
    device = runtime.device_ms()
    return seconds * 1000 if device is None else device


def warm_up(
    runtime: Timed,
    seconds: float = 0.0,
    window: int = 5,
    tolerance: float = 0.03,
    max_passes: int = 2000,
    max_seconds: float = 20.0,
    clock: Clock = time.perf_counter,
) -> WarmUp:
    """Run until two successive windows of passes have the same median within `tolerance`, and for `seconds`
    at least.

    After `seconds` it gives up at `max_passes` or `max_seconds` (then `steady` is False, and the record says
    so).
    """
    start = clock()
    times: list[float] = []
    steady = False
    while True:
        times.append(time_pass(runtime, clock))
        elapsed = clock() - start
        if len(times) >= 2 * window:
            recent, before = np.array(times[-window:]), np.array(times[-2 * window : -window])
            steady = difference(recent, before) <= tolerance
        if elapsed >= seconds and (steady or len(times) >= max_passes or elapsed >= max_seconds):
            return WarmUp(len(times), elapsed, steady)


def buffered(
    runtime: Timed,
    pause_ms: float = 200.0,
    samples: int = 50,
    warm: dict[str, Any] | None = None,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
    progress: Progress | None = None,
) -> Measurement:
    """Single passes with a pause before each. pause_ms: 200 in the paper; 0, 200, 400, 800 in Table 20.

    Passes are not overlapped and the pause is not counted. After a pause of more than a few ms a CPU has
    slowed its clock and lost its caches: that is part of what this protocol measures.
    """
    if pause_ms < 0 or samples < 1:
        raise UserError(
            f"buffered needs a pause of 0 ms or more and a sample or more, not {pause_ms}, {samples}"
        )
    warmed = warm_up(runtime, clock=clock, **(warm or {}))
    start = clock()
    latencies = np.empty(samples)
    for index in range(samples):
        if pause_ms:
            sleep(pause_ms / 1000)
        latencies[index] = time_pass(runtime, clock)
        if progress:
            progress(index + 1, samples)
    return Measurement(
        "buffered", {"pause_ms": pause_ms}, latencies, warmed, clock() - start, _clock_name(runtime)
    )


def sustained(
    runtime: Timed,
    seconds: float = 10.0,
    warm_seconds: float = 5.0,
    warm: dict[str, Any] | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
) -> Measurement:
    """Passes back to back for `seconds`, after at least `warm_seconds` of the same load.

    Reaching thermal steady state takes a GPU minutes: give warm_seconds=120 there. At least ten passes are
    measured.
    """
    if seconds <= 0:
        raise UserError(f"sustained needs a positive duration, not {seconds} s")
    warmed = warm_up(runtime, seconds=warm_seconds, clock=clock, **(warm or {}))
    start = clock()
    latencies: list[float] = []
    while len(latencies) < 10 or clock() - start < seconds:
        latencies.append(time_pass(runtime, clock))
        if progress:
            progress(min(int((clock() - start) * 10), int(seconds * 10)), int(seconds * 10))
    return Measurement(
        "sustained",
        {"seconds": seconds, "warm_seconds": warm_seconds},
        np.array(latencies),
        warmed,
        clock() - start,
        _clock_name(runtime),
    )


def rate(
    runtime: Timed,
    fps: float = 30.0,
    seconds: float = 10.0,
    deadline_ms: float | None = None,
    warm: dict[str, Any] | None = None,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
    progress: Progress | None = None,
) -> Measurement:
    """Frames arrive at `fps` per second whether or not the runtime is ready; latency = finish - arrival.

    Frames wait in a queue, first in first out, none is dropped. So a slow pass delays the frames behind it
    and their latency says so (timing only the passes would hide it: coordinated omission). deadline_ms: one
    frame period if None; a frame that is later is a miss. Frames that are not finished after twice `seconds`
    are misses without a latency.
    """
    if fps <= 0 or seconds <= 0:
        raise UserError(f"rate needs a positive frame rate and duration, not {fps} fps, {seconds} s")
    deadline = 1000 / fps if deadline_ms is None else deadline_ms
    warmed = warm_up(runtime, clock=clock, **(warm or {}))
    frames = max(1, round(fps * seconds))
    arrivals = np.arange(frames) / fps
    latencies: list[float] = []
    start = clock()
    for index, arrival in enumerate(arrivals):
        while (wait := start + arrival - clock()) > 0:
            sleep(wait)
        if clock() - start > 2 * seconds:
            break
        runtime.infer()
        latencies.append((clock() - start - arrival) * 1000)
        if progress:
            progress(index + 1, frames)
    measured = np.array(latencies)
    unfinished = frames - len(measured)
    # A frame that takes exactly one period is in time; the clock's resolution must not decide.
    late = int((measured > deadline * (1 + 1e-9) + 1e-6).sum())
    return Measurement(
        "rate",
        {"fps": fps, "seconds": seconds, "deadline_ms": deadline},
        measured,
        warmed,
        clock() - start,
        "host clock, from arrival",
        arrivals[: len(measured)],
        frames,
        late + unfinished,
        unfinished,
    )


def _clock_name(runtime: Timed) -> str:
    return "host clock" if runtime.device_ms() is None else "device events"


PROTOCOLS: dict[str, Callable[..., Measurement]] = {
    "buffered": buffered,
    "sustained": sustained,
    "rate": rate,
}


def measure(runtime: Timed, protocol: str = "buffered", **options: Any) -> Measurement:
    """Run a protocol by name; `options` are its arguments. Raises UserError for an unknown name or
    argument.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    function = PROTOCOLS[protocol]
    known = set(inspect.signature(function).parameters) - {"runtime"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UserError(f"{protocol} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return function(runtime, **options)
