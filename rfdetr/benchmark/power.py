"""Watches over a measurement: GPU power, clocks and throttle reasons (NVML), CPU load and frequency (psutil).

A GPU measurement ends in one of three states: "clean" (watched throughout, nothing throttled), "throttled",
or "not monitored". A watcher that died, lagged or never started can never certify a measurement as clean.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

CLEAN, THROTTLED, NOT_MONITORED = "clean", "throttled", "not monitored"

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons as documented in nvml.h. True: the GPU runs slower than it
# could.
REASONS: dict[int, tuple[str, bool]] = {
    0x1: ("GPU idle", False),
    0x2: ("applications clocks setting", False),
    0x4: ("software power cap", True),
    0x8: ("hardware slowdown", True),
    0x10: ("sync boost", True),
    0x20: ("software thermal slowdown", True),
    0x40: ("hardware thermal slowdown", True),
    0x80: ("hardware power brake slowdown", True),
    0x100: ("display clock setting", False),
}


def throttle_reasons(bits: int) -> tuple[list[str], bool]:
    """Names of the set bits, and whether any of them speaks against a clean state.

    A bit that is not documented here is given by its value, not by a guessed name, and counts as throttling.
    """
    names, throttled = [], False
    for position in range(bits.bit_length()):
        bit = 1 << position
        if bits & bit:
            name, slows = REASONS.get(bit, (f"unknown bit 0x{bit:x}", True))
            names.append(name)
            throttled |= slows
    return names, throttled


@dataclass(frozen=True)
class Watch:
    """What a watcher saw. `values` are means, minima and maxima; `reasons` explain a state that is not
    clean.
    """

    state: str
    reasons: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


class _Watcher:
    """Samples on a thread from `with` to its end. `result()` afterwards."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval, self._clock = interval, clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._samples: list[dict[str, Any]] = []
        self._times: list[float] = []
        self._failure = ""
        self._begin = self._end = 0.0

    def _open(self) -> None:
        raise NotImplementedError

    def _sample(self) -> dict[str, Any]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._begin = self._clock()
        try:
            self._open()
            self._take()
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
            return self
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def _take(self) -> None:
        values = self._sample()
        self._times.append(self._clock())
        self._samples.append(values)

    def _loop(self) -> None:
        while not self._stop.wait(self.interval):
            try:
                self._take()
            except Exception as error:
                self._failure = f"{type(error).__name__}: {error}"
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            alive = self._thread.is_alive()
            self._thread.join(timeout=5)
            if not alive and not self._failure:
                self._failure = "the watching thread ended early"
        if not self._failure:
            try:
                self._take()
            except Exception as error:
                self._failure = f"{type(error).__name__}: {error}"
        self._end = self._clock()

    def _gap(self) -> float:
        """Longest time without a sample, s."""
        return float(np.diff([self._begin, *self._times, self._end]).max())


class GpuMonitor(_Watcher):
    """NVML watcher of the GPU with this UUID (an index would not do, see `rfdetr.benchmark.devices`).

    Samples every `interval` s; a gap of more than ten intervals, or an unknown GPU, is "not monitored".
    """

    def __init__(self, uuid: str, interval: float = 0.05, **options: Any) -> None:
        super().__init__(interval, **options)
        self._uuid = uuid
        self._nvml: Any = None
        self._handle: Any = None

    def _open(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise RuntimeError("nvidia-ml-py is not installed (pip install nvidia-ml-py)") from error
        if not self._uuid:
            raise RuntimeError("which of the GPUs computed is not known (pip install cuda-python)")
        pynvml.nvmlInit()
        self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByUUID(self._uuid)

    def _sample(self) -> dict[str, Any]:
        nvml, handle = self._nvml, self._handle
        return {
            "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "sm_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "bits": nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }

    def result(self) -> Watch:
        """State and readings over the whole `with` block."""
        if self._failure:
            return Watch(NOT_MONITORED, (self._failure,))
        if self._gap() > max(10 * self.interval, 0.5):
            return Watch(NOT_MONITORED, (f"no reading for {self._gap():.1f} s of the measurement",))
        bits = 0
        for sample in self._samples:
            bits |= sample["bits"]
        names, throttled = throttle_reasons(bits)
        values: dict[str, Any] = {"readings": len(self._samples), "clock_reasons": names}
        for key in ("power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c"):
            readings = np.array([s[key] for s in self._samples], dtype=float)
            values |= {
                f"{key}_mean": round(float(readings.mean()), 1),
                f"{key}_min": float(readings.min()),
                f"{key}_max": float(readings.max()),
            }
        active = tuple(n for n in names if throttle_reasons(_bit(n))[1])
        return Watch(THROTTLED if throttled else CLEAN, active, values)


def _bit(name: str) -> int:
    for bit, (known, _) in REASONS.items():
        if known == name:
            return bit
    return int(name.rpartition("0x")[2], 16)


class CpuMonitor(_Watcher):
    """CPU watcher: load of other processes (in CPUs), load of this one, and frequency where the system tells.

    A CPU has no documented throttle bits, so its state is "not monitored" as to throttling; `reasons` name
    what makes a measurement doubtful: other processes that took more than `busy` CPUs on average.
    """

    def __init__(self, interval: float = 0.2, busy: float = 0.5, **options: Any) -> None:
        super().__init__(interval, **options)
        self.busy = busy
        self._psutil: Any = None
        self._process: Any = None

    def _open(self) -> None:
        import psutil

        self._psutil, self._process = psutil, psutil.Process()
        self._first = self._counters()

    def _counters(self) -> tuple[float, float, float]:
        times = self._psutil.cpu_times()
        own = self._process.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Guest time is already part of user time.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return self._clock(), total - idle, own.user + own.system

    def _sample(self) -> dict[str, Any]:
        frequency = self._psutil.cpu_freq()
        return {"mhz": frequency.current if frequency else None, "counters": self._counters()}

    def result(self) -> Watch:
        """Mean load and frequency over the `with` block."""
        if self._failure or len(self._samples) < 2:
            return Watch(NOT_MONITORED, (self._failure or "no readings",))
        (t0, busy0, own0), (t1, busy1, own1) = self._first, self._samples[-1]["counters"]
        seconds = max(t1 - t0, 1e-9)
        own = (own1 - own0) / seconds
        others = max(0.0, (busy1 - busy0) / seconds - own)
        values: dict[str, Any] = {
            "cpus": self._psutil.cpu_count(),
            "own_load_cpus": round(own, 2),
            "other_load_cpus": round(others, 2),
        }
        mhz = [s["mhz"] for s in self._samples if s["mhz"]]
        if mhz:
            values |= {"mhz_mean": round(float(np.mean(mhz))), "mhz_min": min(mhz), "mhz_max": max(mhz)}
        # Below a tenth of a second the counters' own resolution would be taken for load.
        doubtful = others > self.busy and seconds > 0.1
        reasons = (f"other processes used {others:.1f} CPUs meanwhile",) if doubtful else ()
        return Watch(NOT_MONITORED, reasons, values)


def monitor(gpu: str | None) -> GpuMonitor | CpuMonitor:
    """The watcher for a measurement: of the GPU with this UUID ("": one that is not known), or of the CPU
    (None).
    """
    return CpuMonitor() if gpu is None else GpuMonitor(gpu)
