"""One file in one runtime, timed in a process of its own: latency under two protocols, and memory.

`python -m rfdetr.peers.timing` reads a `Cell` as JSON from standard input and writes what was measured as
JSON to standard output. A process of its own has no other model's memory, threads or caches.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from rfdetr.errors import UserError


@dataclass(frozen=True)
class Cell:
    """What is timed.

    path                 of the file: .onnx, or .xml for INT8
    runtime, precision   of `rfdetr.benchmark.runtimes`; threads of the processor
    samples, pause_ms    of `buffered`; seconds, warm_seconds of `sustained`
    """

    path: str
    runtime: str
    precision: str
    threads: int
    samples: int = 10
    pause_ms: float = 200.0
    seconds: float = 3.0
    warm_seconds: float = 1.0


def timed_apart(cell: Cell) -> list[dict[str, Any]]:
    """Time a cell in a fresh process; one row per protocol. UserError with the process's last line."""
    done = subprocess.run(
        [sys.executable, "-m", "rfdetr.peers.timing"],
        input=json.dumps(asdict(cell)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr.strip() or f"code {done.returncode}").splitlines()
        raise UserError(f"{cell.path} in {cell.runtime} {cell.precision}: {lines[-1]}")
    return json.loads(done.stdout)


def timed(cell: Cell) -> list[dict[str, Any]]:
    """Time a cell here: rows with protocol, median_ms, p90_ms, count, precision (as built), load_s, memory_mb
    (growth of this process's largest size since before loading), noisy, reasons, sha256.
    """
    import time

    import psutil

    from rfdetr.benchmark.latency import time_artifact
    from rfdetr.benchmark.runtimes import load_runtime
    from rfdetr.export.artifact import load_artifact

    artifact = load_artifact(cell.path)
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    rows = []
    protocols: dict[str, dict[str, Any]] = {
        "buffered": {"pause_ms": cell.pause_ms, "samples": cell.samples},
        "sustained": {"seconds": cell.seconds, "warm_seconds": cell.warm_seconds},
    }
    with load_runtime(cell.runtime, artifact, cell.precision, threads=cell.threads) as runtime:
        loaded = time.perf_counter() - start
        for protocol, options in protocols.items():
            record = time_artifact(runtime, protocol, runs=1, **options)
            rows.append(
                {
                    "protocol": protocol,
                    "runtime": record.runtime,
                    "version": record.runtime_version,
                    "asked": cell.precision,
                    "precision": record.precision,
                    "threads": cell.threads,
                    "median_ms": record.median_ms,
                    "p90_ms": record.statistics["p90_ms"],
                    "count": record.statistics["count"],
                    "load_s": loaded,
                    "memory_mb": (_largest() - before) / 1e6,
                    "noisy": record.noisy,
                    "reasons": "; ".join(record.reasons),
                    "sha256": record.sha256,
                    "device": record.device,
                }
            )
    return rows


def _largest() -> int:
    """Largest size of this process so far, bytes; the present one where the system does not tell."""
    try:
        import resource
    except ImportError:
        import psutil

        return psutil.Process().memory_info().rss
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def main() -> int:
    """Read a cell, time it, write the rows; a user's error is one line and code 2."""
    try:
        rows = timed(Cell(**json.load(sys.stdin)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
