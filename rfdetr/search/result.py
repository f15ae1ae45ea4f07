"""The end of a search, however it found its accuracies: latencies, the front, what is known of it, files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset
from rfdetr.files import atomic_path, write_json
from rfdetr.model.identity import fingerprint
from rfdetr.search import folder as kept
from rfdetr.search.deployed import column, deployed_front
from rfdetr.search.grid import GridEvaluator
from rfdetr.search.intervals import resampled_ap, with_intervals
from rfdetr.search.pareto import front
from rfdetr.search.space import trained_triples
from rfdetr.search.timing import Timings

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


@dataclass(frozen=True)
class SearchResult:
    """table: one row per evaluated sub-network. front: the rows that no other beats in `metric` and time, all
    of them measured, cheapest first. notes: what a reader of the front should know, one sentence each.
    """

    table: "pd.DataFrame"
    front: "pd.DataFrame"
    path: Path
    metric: str = "AP"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A search under way: what the exact search and the one within a budget have in common.

    timings are those of the network in the folder of the search, metric is what decides (`chosen_metric`);
    the others are options of `rfdetr.search.run.search`.
    """

    model: "RFDETR"
    dataset: DetectionDataset
    timings: Timings
    metric: str
    seed: int
    complete: bool
    intervals: bool
    max_loss: float | None
    progress: bool | Callable[[int, int], None]
    origin: dict[str, Any] | None

    @property
    def folder(self) -> Path:
        """Folder of the search."""
        return self.timings.folder

    def finish(
        self, table: "pd.DataFrame", about: dict[str, Any], notes: tuple[str, ...] = ()
    ) -> SearchResult:
        """Latencies onto a table of accuracies, the front with what is known of it, and the files.

        about: more fields of search.json. notes: what the search itself has to say.
        """
        trained, timings = trained_triples(self.model), self.timings
        archs = [Arch(*map(int, row)) for row in table[list(Arch.KNOBS)].to_numpy()]
        table = table.assign(arch=[a.id for a in archs], trained=[a.encoder in trained for a in archs])
        if self.complete:
            table = timings.complete_front(table, self.metric, self.progress is True, self.seed)
        else:
            table = timings.onto(table, self.seed)
        table, best, more = self._front(table)
        extra = [c for c in best.columns if c not in table.columns]
        table = table.merge(best[["arch", *extra]], on="arch", how="left") if extra else table
        leading = ["arch", *Arch.KNOBS, "trained"]
        table = table[[*leading, *(c for c in table.columns if c not in leading)]]
        latency = timings.model_of_latency(self.seed)
        notes = (*notes, *more, *kept.notes(table, best, timings, latency, self.metric))
        checked = latency.cross_validation
        method = {
            "method": latency.method,
            "cross_validation": None if checked is None else checked.to_dict("records"),
        }
        self._write(table, best, {**about, **self._protocol(), "latency_model": method}, notes)
        return SearchResult(table, best, self.folder / "table.csv", self.metric, notes)

    def _front(self, table: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]":
        """(table, front, notes): the front of float32 accuracies, or of those of the timed files."""
        if self.timings.protocol.check() == "fp32":
            best = front(table.dropna(subset=["latency_ms"]), self.metric, "time_ms")
            return table, self._with_intervals(best), ()
        table, best, found, notes = deployed_front(
            self.model, table, self.timings, self.dataset, self.metric, self.seed, self.max_loss
        )
        samples = {arch: one.samples for arch, one in found.items() if one.samples is not None}
        if self.intervals and all(Arch.parse(name) in samples for name in best["arch"]):
            best = with_intervals(best, samples, column(self.metric))
        return table, best, notes

    def _with_intervals(self, best: "pd.DataFrame") -> "pd.DataFrame":
        """The front of float32 accuracies with intervals."""
        metric, archs = self.metric, [Arch.parse(name) for name in best["arch"]]
        if "images" in best and bool((best["images"] < len(self.dataset)).any()):
            # Expected from few images. To evaluate all, to say how sure that is, would cost what was saved.
            reach = 1.96 * best[f"{metric}_sd"]
            bounds = {f"{metric}_low": best[metric] - reach, f"{metric}_high": best[metric] + reach}
            return best.assign(**bounds)
        if not (self.intervals and metric in ("AP", "mask_AP") and archs):
            return best
        evaluator = GridEvaluator(self.model, self.dataset)
        drawn = resampled_ap(evaluator, archs, metric, self.seed, self.folder / "intervals")
        return with_intervals(best, drawn, metric)

    def _protocol(self) -> dict[str, Any]:
        protocol = self.timings.protocol
        return {
            "metric": self.metric,
            "measured": len(self.timings.rows),
            "threads": protocol.threads,
            "runtime": protocol.runtime,
            "precision": protocol.check(),
        }

    def _write(
        self, table: "pd.DataFrame", best: "pd.DataFrame", about: dict[str, Any], notes: tuple[str, ...]
    ) -> None:
        data = self.dataset
        for name, frame in (("table", table), ("front", best)):
            with atomic_path(self.folder / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False)
        record = {
            "sub_networks": len(table),
            "network": fingerprint(self.model),
            "dataset": {"name": data.name, "split": data.split, "fingerprint": data.fingerprint},
            **about,
            "notes": list(notes),
            "provenance": self.origin or {},
        }
        write_json(self.folder / "search.json", record)
        kept.describe(self.folder, data, self.metric, len(table), len(best))
