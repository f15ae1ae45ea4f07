"""A finished run, read back from its folder: what the report and other tools compute with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset, Target
from rfdetr.data.masks import decode_segmentation
from rfdetr.data.registry import load_dataset
from rfdetr.errors import UserError
from rfdetr.evaluation.outcomes import Outcome, confusion, outcome, precision_recall
from rfdetr.files import read_json
from rfdetr.nas.choose import read_detections
from rfdetr.nas.words import named
from rfdetr.search.pareto import front_mask, latency_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Findings:
    """The results of the stages below `folder`. UserError where no run has finished there."""

    folder: Path

    def __post_init__(self) -> None:
        if "export" not in self._folders:
            raise UserError(f"no finished run in {self.folder}: run the same `nas` command again, it goes on")

    @classmethod
    def of(cls, folder: str | Path) -> "Findings":
        """The findings in a folder."""
        return cls(Path(folder))

    @property
    def stages(self) -> list[str]:
        """Names of the stages that were made."""
        return list(self._folders)

    @property
    def best(self) -> "dict[str, Any]":
        """The chosen network with the highest number on val: the test pictures must choose nothing."""
        return max(self.networks, key=lambda e: e["val"]["AP"] or 0.0)

    def inherited(self, arch: str) -> "dict[str, Any]":
        """A chosen network as it was chosen: with the supernet's weights."""
        chosen = self.stage("choose")["result"]["networks"]
        return next(entry for entry in chosen if entry["arch"] == arch)

    @property
    def statistics(self) -> "dict[str, dict[str, Any]]":
        """Statistics by split, as JSON values (`rfdetr.data.statistics.Statistics`)."""
        return self.stage("look")["result"]["statistics"]

    @cached_property
    def _folders(self) -> dict[str, str]:
        return read_json(self.folder / "stages.json") or {}

    def stage(self, name: str) -> dict[str, Any]:
        """The record of a stage: result, seconds; empty where the run had no such stage."""
        if name not in self._folders:
            return {}
        return read_json(self.folder / self._folders[name] / "stage.json") or {}

    def path(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder / self._folders[name]

    @cached_property
    def options(self) -> dict[str, Any]:
        """What was asked for."""
        return read_json(self.folder / "options.json") or {}

    @property
    def metric(self) -> str:
        """mask_AP with a mask head, else AP."""
        return "mask_AP" if self.options.get("segmentation") else "AP"

    @property
    def metric_words(self) -> str:
        """The metric as it is written."""
        return named(self.metric)

    @cached_property
    def networks(self) -> "list[dict[str, Any]]":
        """The chosen networks, fastest first."""
        return sorted(self.stage("export")["result"]["networks"], key=lambda entry: entry["latency_ms"])

    @cached_property
    def test(self) -> DetectionDataset:
        """The test split. UserError when it is no longer that of the run."""
        extra: dict[str, Any] = {"unreadable": "skip"} if self.options.get("skip_missing") else {}
        found = load_dataset(self.options["data"], "test", **extra)
        if found.fingerprint != self.stage("look")["values"]["data"]["test"]:
            raise UserError(
                f"the test pictures of {self.options['data']}, or their annotations, are not those of the"
                " run: run the same `nas` command again, it makes anew what depends on them"
            )
        return found

    @cached_property
    def targets(self) -> list[Target]:
        """Objects of all test pictures."""
        return [self.test[index][1] for index in range(len(self.test))]

    @cached_property
    def table(self) -> "pd.DataFrame":
        """All sub-networks: knobs, metric, `ms` (what decided), tokens a side, front, chosen."""
        import pandas as pd

        table = pd.read_csv(self.path("search") / "table.csv")
        column = latency_column(table)
        for entry in self.networks:  # timed after the search, where it had only predicted them
            table.loc[table["arch"] == entry["arch"], ["latency_ms", column]] = entry["latency_ms"]
        table["ms"] = table[column]
        table["side"] = table["resolution"] // table["patch_size"]
        table["front"] = front_mask(table[self.metric].to_numpy(), table["ms"].to_numpy())
        table["chosen"] = table["arch"].isin([entry["arch"] for entry in self.networks])
        return table

    def detections(self, arch: str) -> list[dict[str, Any]]:
        """Test detections of a chosen network, as it was handed over."""
        entry = next(e for e in self.networks if e["arch"] == arch)
        return read_detections(self.path("fine-tune" if entry["tuned"] else "choose") / f"test-{arch}.json")

    def outcomes(self, arch: str) -> list[Outcome]:
        """What became of every test picture at the network's own threshold."""
        entry = next(e for e in self.networks if e["arch"] == arch)
        pairs = zip(self.targets, self.detections(arch), strict=True)
        return [outcome(target, found, entry["threshold"]) for target, found in pairs]

    def masks(self, arch: str, index: int) -> list[np.ndarray]:
        """Masks [H, W] bool of a test picture's detections, in the order of its outcome; none are kept of a
        network without masks, nor of very large test splits.
        """
        found = self.detections(arch)[index]
        if "rles" not in found:
            return []
        entry = next(e for e in self.networks if e["arch"] == arch)
        order = np.argsort(-found["scores"], kind="stable")
        height, width = self.targets[index].size
        kept = [found["rles"][i] for i in order if found["scores"][i] >= entry["threshold"]]
        return [decode_segmentation(code, height, width) for code in kept]

    def class_names(self) -> list[str]:
        """Names of the data's classes, by class index."""
        return [self.test.category_ids.name_of(i) for i in range(self.test.num_classes)]

    def confusion(self, arch: str) -> "pd.DataFrame":
        """Counts: rows the true class, columns the detected one, the last of each "nothing"."""
        import pandas as pd

        names = [*self.class_names(), "nothing"]
        return pd.DataFrame(confusion(self.outcomes(arch), self.test.num_classes), names, names)

    def precision_recall(self, arch: str) -> "pd.DataFrame":
        """Long table: class, recall, precision at an overlap of 0.5."""
        import pandas as pd

        found = precision_recall(self.test, self.detections(arch))
        if found is None:
            return pd.DataFrame(columns=["class", "recall", "precision"])
        recall, precision = found
        parts = [
            pd.DataFrame({"class": name, "recall": recall, "precision": row})
            for name, row in zip(self.class_names(), precision, strict=False)
            if not np.isnan(row).all()
        ]
        return pd.concat(parts, ignore_index=True)

    def curve(self) -> "pd.DataFrame":
        """The supernet's losses, means over fiftieths of the training: step, and one column per loss."""
        import pandas as pd

        log = pd.read_csv(self.path("train") / "log.csv")
        losses = [c for c in log.columns if c == "total" or (c.startswith("loss_") and c.count("_") == 1)]
        width = max(1, len(log) // 50)
        return log[["step", *losses]].groupby((log["step"] - 1) // width).mean().reset_index(drop=True)

    def evaluations(self) -> "pd.DataFrame":
        """AP on val during the training: step, arch and the metric."""
        import json

        import pandas as pd

        path = self.path("train") / "evaluations.jsonl"
        rows = (
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if path.exists()
            else []
        )
        return pd.DataFrame(rows)

    def knob_means(self) -> "pd.DataFrame":
        """Mean metric and latency by the values of each knob: knob, value, metric, ms, sub_networks.

        The grid is not balanced after rounding, so a mean also carries what goes along with a value.
        """
        import pandas as pd

        rows = []
        for knob in ("side", *Arch.KNOBS):
            for value in sorted(self.table[knob].unique()):
                part = self.table[self.table[knob] == value]
                means = {
                    "metric": part[self.metric].mean(),
                    "ms": part["ms"].mean(),
                    "sub_networks": len(part),
                }
                rows.append({"knob": knob, "value": int(value), **means})
        return pd.DataFrame(rows)

    def shown_pictures(self, arch: str, count: int = 4) -> list[int]:
        """Indexes of test pictures by rule: the median and the worst by F1, then seeded random ones; no hand
        chooses.
        """
        scores = []
        for one in self.outcomes(arch):
            total = len(one.scores) + len(one.truth)
            scores.append(2 * one.hits.sum() / total if total else 1.0)
        order = np.argsort(scores, kind="stable")
        wanted = [int(order[len(order) // 2]), int(order[0])]
        rest = np.random.default_rng(0).permutation(len(scores)).tolist()
        return list(dict.fromkeys([*wanted, *rest]))[:count]
