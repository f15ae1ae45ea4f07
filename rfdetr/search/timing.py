"""Latencies of a search: a sample is measured, kept and measured no second time, the rest is predicted."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.benchmark.runtimes import check_executes, device_name, library_version
from rfdetr.benchmark.subnetworks import measure_latency
from rfdetr.errors import UserError
from rfdetr.files import atomic_path
from rfdetr.search.latency_model import FEWEST, LatencyModel
from rfdetr.search.pareto import front_mask

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR
    from rfdetr.progress import Report

_ROUNDS = 6  # of measuring what the round before has brought onto the front; hardly ever more than two
_KEY = ("network", "runtime_asked", "precision_asked", "threads", "device", "library")


@dataclass(frozen=True)
class Protocol:
    """How the latencies of a search are measured.

    runtime, precision   of `rfdetr.benchmark.runtimes` (precision "": the runtime's default)
    threads              of a processor;   gpu: index, as CUDA counts
    images               of the data, for conversions that look at them (FP16, INT8)
    """

    runtime: str = "onnxruntime"
    precision: str = ""
    threads: int = 1
    gpu: int = 0
    images: "DetectionDataset | None" = None

    def check(self) -> str:
        """The precision; UserError when this cannot run here."""
        if self.threads < 1:
            raise UserError(f"--threads must be at least 1, not {self.threads}")
        precision = check_executes(self.runtime, self.precision, self.gpu)
        if precision.startswith("int8") and self.images is None:
            raise UserError("int8 is calibrated with images of the data: give Protocol(images=...)")
        return precision


class Timings:
    """The measured latencies of one network in the folder of a search (`latency.csv`).

    Rows of another network, runtime, precision, number of threads or device stay in the file and count for
    nothing here. again: measure what was measured before, too.
    """

    def __init__(
        self, folder: Path, model: "RFDETR", network: str, protocol: Protocol, again: bool = False
    ) -> None:
        import pandas as pd

        self.folder, self.model, self.protocol = folder, model, protocol
        self._key: dict[str, Any] = {
            "network": network,
            "runtime_asked": protocol.runtime,
            "precision_asked": protocol.check(),
            "threads": protocol.threads,
            "device": device_name(protocol.runtime, protocol.gpu),
            "library": library_version(protocol.runtime),
        }
        path = folder / "latency.csv"
        kept = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        if not set(_KEY) <= set(kept.columns):
            kept = kept.iloc[:0]  # written by an earlier version
        mine = np.ones(len(kept), dtype=bool)
        for name, value in self._key.items():
            mine &= (kept[name] == value).to_numpy() if len(kept) else mine
        self._others = kept[~mine]
        self.rows = kept[mine] if not again else kept.iloc[:0]
        self.environment: dict[str, Any] = {}
        self.reused = len(self.rows)

    def measure(self, archs: Iterable[Arch], progress: "bool | Report" = False) -> int:
        """Measure those that are not known yet, and keep them; returns how many these were."""
        import pandas as pd

        known = set(self.rows["arch"]) if len(self.rows) else set()
        wanted = [arch for arch in dict.fromkeys(archs) if arch.id not in known]
        if not wanted:
            return 0
        protocol = self.protocol
        found = measure_latency(
            self.model,
            wanted,
            protocol.runtime,
            protocol.threads,
            progress=progress,
            cache_dir=self.folder / "onnx",
            precision=protocol.precision,
            device=protocol.gpu,
            images=protocol.images,
        )
        self.environment = found.attrs["environment"]
        found = found.assign(**self._key)
        self.rows = pd.concat([self.rows, found], ignore_index=True) if len(self.rows) else found
        parts = [part for part in (self._others, self.rows) if len(part)]
        with atomic_path(self.folder / "latency.csv") as temporary:
            pd.concat(parts, ignore_index=True).to_csv(temporary, index=False)
        return len(wanted)

    def measure_again(self, archs: Iterable[Arch], progress: "bool | Report" = False) -> int:
        """Measure these whether they are known or not: their files are others now."""
        wanted = list(archs)
        self.rows = self.rows[~self.rows["arch"].isin([arch.id for arch in wanted])]
        return self.measure(wanted, progress)

    def measured(self, archs: Iterable[Arch], progress: "bool | Report" = False) -> "pd.DataFrame":
        """Every row that is known once these are measured, too."""
        self.measure(archs, progress)
        return self.rows

    def model_of_latency(self, seed: int = 0) -> LatencyModel:
        """Fitted to what is measured; a rough one where that is little."""
        return (
            LatencyModel.fit(self.rows, seed=seed)
            if len(self.rows) >= FEWEST
            else LatencyModel.rough(self.rows)
        )

    def onto(self, table: "pd.DataFrame", seed: int = 0) -> "pd.DataFrame":
        """The table with latency_ms, latency_low_ms, latency_high_ms, noisy (measured, else empty),
        predicted_ms (all), time_ms (measured where it is, else predicted), runtime, precision, device.
        """
        columns = ["latency_ms", "latency_low_ms", "latency_high_ms", "noisy", "precision"]
        knobs = list(Arch.KNOBS)
        # All of them, so that the order of the columns does not tell how often this was done.
        made = {*columns, "predicted_ms", "time_ms", "runtime", "device"}
        table = table.drop(columns=[c for c in table if c in made])
        table = table.merge(self.rows[[*knobs, *columns]], on=knobs, how="left")
        predicted = self.model_of_latency(seed).predict(table)
        measured = table["latency_ms"].to_numpy(dtype=float)
        return table.assign(
            predicted_ms=predicted,
            time_ms=np.where(np.isnan(measured), predicted, measured),
            runtime=self.rows["runtime"].iloc[-1],
            device=self._key["device"],
        )

    def complete_front(
        self, table: "pd.DataFrame", metric: str, progress: "bool | Report" = False, seed: int = 0
    ) -> "pd.DataFrame":
        """`onto`, after measuring what lies on the front by prediction until that moves it no more."""
        table = self.onto(table, seed)
        for _ in range(_ROUNDS):
            best = table[front_mask(table[metric].to_numpy(), table["time_ms"].to_numpy())]
            missing = best[best["latency_ms"].isna()]
            archs = [Arch(*map(int, row)) for row in missing[list(Arch.KNOBS)].to_numpy()]
            if not self.measure(archs, progress):
                break
            table = self.onto(table, seed)
        return table


def candidates(table: "pd.DataFrame", count: int, seed: int = 0, metric: str = "AP") -> list[Arch]:
    """Sub-networks worth timing, `count` of them (or all, if there are fewer).

    Exporting is what takes long, and sub-networks of one encoder setting are cut out of one or two exports.
    So a quarter as many settings are chosen, two thirds of them evenly from the front in (accuracy, GFLOPs),
    the rest at random, and of each the ones on the front, then those with most and fewest layers and queries,
    then random ones.
    """
    rng = np.random.default_rng(seed)
    triples = table[list(Arch.KNOBS[:3])].apply(tuple, axis=1)
    on_front = front_mask(table[metric].to_numpy(), table["gflops"].to_numpy())
    leading = list(dict.fromkeys(triples[on_front].iloc[np.argsort(table["gflops"][on_front].to_numpy())]))
    others = sorted(set(triples) - set(leading))
    settings = max(1, -(-count // 4))
    from_front = max(-(-2 * settings // 3), settings - len(others))
    chosen = [
        leading[i]
        for i in np.unique(np.linspace(0, len(leading) - 1, min(from_front, len(leading))).astype(int))
    ]
    chosen += [others[i] for i in rng.permutation(len(others))[: settings - len(chosen)]]

    def order(rows: "pd.DataFrame") -> list[int]:
        depth, queries = rows["decoder_layers"], rows["queries"]
        extreme = depth.isin((depth.min(), depth.max())) & queries.isin((queries.min(), queries.max()))
        rank = np.where(on_front[rows.index], 0, np.where(extreme, 1, 2))
        return rows.index[np.lexsort((rng.random(len(rows)), rank))].tolist()

    queues = [order(table[triples == triple]) for triple in chosen]
    # In turn, so that every setting is measured before one is measured twice.
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return [Arch(*map(int, row)) for row in table.loc[sorted(turns[:count]), list(Arch.KNOBS)].to_numpy()]


def timed_file(folder: Path, arch: str) -> Path | None:
    """The file whose latency a search in `folder` has for a sub-network (the last one), if it is there."""
    import pandas as pd

    from rfdetr.export.artifact import load_artifact

    path = folder / "latency.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["arch"])
    rows = rows[rows["arch"] == arch]
    if rows.empty:
        return None
    wanted = str(rows["sha256"].iloc[-1])
    for ending in ("*.xml", "*.engine", "*.onnx"):
        for file in sorted((folder / "onnx").glob(ending)):
            with contextlib.suppress(UserError):  # a damaged file is not the one
                if load_artifact(file).sha256 == wanted:
                    return file
    return None
