import sys
import time
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.benchmark import power


def fake_nvml(bits, fail_after=None):
    """NVML with the calls that the monitor makes; `bits` are returned in turn, the last one for ever."""
    module = types.ModuleType("pynvml")
    calls = {"count": 0}

    def reasons(handle):
        assert handle == "handle of GPU-7"
        index = calls["count"]
        calls["count"] += 1
        if fail_after is not None and index >= fail_after:
            raise RuntimeError("GPU is lost")
        return bits[min(index, len(bits) - 1)]

    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = lambda uuid: f"handle of {uuid}"
    module.nvmlDeviceGetPowerUsage = lambda handle: 70_000
    module.nvmlDeviceGetClockInfo = lambda handle, which: {1: 1590, 2: 5000}[which]
    module.nvmlDeviceGetTemperature = lambda handle, sensor: 55
    module.nvmlDeviceGetCurrentClocksThrottleReasons = reasons
    return module


def watch(monkeypatch, *arguments, seconds=0.1, **options):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(*arguments, **options))
    with power.GpuMonitor("GPU-7", interval=0.01) as monitor:
        time.sleep(seconds)
    return monitor.result()


def test_watched_without_throttling_is_clean(monkeypatch) -> None:
    seen = watch(monkeypatch, [0x1, 0x0, 0x2])
    assert seen.state == "clean" and seen.reasons == ()
    assert seen.values["power_w_mean"] == 70 and seen.values["sm_clock_mhz_min"] == 1590
    assert seen.values["clock_reasons"] == ["GPU idle", "applications clocks setting"]


def test_one_reading_with_a_power_cap_marks_the_whole_measurement(monkeypatch) -> None:
    seen = watch(monkeypatch, [0x0, 0x0, 0x4, 0x0])
    assert seen.state == "throttled" and seen.reasons == ("software power cap",)


def test_an_undocumented_bit_is_not_named_and_never_clean(monkeypatch) -> None:
    seen = watch(monkeypatch, [0x400])
    assert seen.state == "throttled" and seen.reasons == ("unknown bit 0x400",)


def test_a_watcher_that_dies_certifies_nothing(monkeypatch) -> None:
    seen = watch(monkeypatch, [0x0], fail_after=3)
    assert seen.state == "not monitored" and "GPU is lost" in seen.reasons[0]


def test_a_watcher_thread_that_vanishes_certifies_nothing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0]))
    monkeypatch.setattr(power.GpuMonitor, "_loop", lambda self: None)
    with power.GpuMonitor("GPU-7", interval=0.01) as monitor:
        time.sleep(0.05)
    assert monitor.result().state == "not monitored"


def test_a_gap_in_the_readings_certifies_nothing(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0]))
    with power.GpuMonitor("GPU-7", interval=5.0, clock=lambda: now[0]) as monitor:
        now[0] = 60.0
    seen = monitor.result()
    assert seen.state == "not monitored" and "60.0 s" in seen.reasons[0]


def test_without_nvml_it_is_not_monitored_and_names_the_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with power.GpuMonitor("GPU-7") as monitor:
        pass
    seen = monitor.result()
    assert seen.state == "not monitored" and "nvidia-ml-py" in seen.reasons[0]


def test_a_gpu_that_is_not_known_is_not_monitored(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0]))
    with power.monitor("") as monitor:
        pass
    seen = monitor.result()
    assert seen.state == "not monitored" and "not known" in seen.reasons[0]


@given(st.integers(0, 2**20 - 1))
def test_every_set_bit_is_reported_and_only_harmless_ones_stay_clean(bits) -> None:
    names, throttled = power.throttle_reasons(bits)
    assert len(names) == bits.bit_count()
    assert throttled == bool(bits & ~(0x1 | 0x2 | 0x100))


def test_cpu_monitor_reports_load_and_is_never_clean() -> None:
    with power.CpuMonitor(interval=0.02) as monitor:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    seen = monitor.result()
    assert seen.state == "not monitored"
    assert seen.values["own_load_cpus"] > 0.02 and seen.values["cpus"] >= 1


def test_cpu_monitor_names_other_processes(monkeypatch) -> None:
    with power.CpuMonitor(interval=0.02) as monitor:
        time.sleep(0.05)
    monitor._first = (0.0, 0.0, 0.0)
    monitor._samples[-1]["counters"] = (10.0, 25.0, 9.0)
    seen = monitor.result()
    assert seen.values["other_load_cpus"] == pytest.approx(1.6)
    assert "other processes used 1.6 CPUs" in seen.reasons[0]
