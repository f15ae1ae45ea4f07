"""Exact evaluation of a whole grid of sub-networks, with everything shared that can be shared.

The encoder depends on (resolution, patch size, windows) only. So each such triple, a work unit, needs ONE
encoder pass per image and one query selection (fewer queries are its first ranks); each query count needs ONE
decoder pass, because the queries attend to each other; and every decoder depth is a layer of that pass.
Source: Section 3 and Appendix A.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.files import write_json
from rfdetr.interrupts import check
from rfdetr.model.identity import fingerprint
from rfdetr.model.modes import evaluating
from rfdetr.progress import Report, progress_bar
from rfdetr.search.detections import Collector, Images
from rfdetr.search.matches import Matches
from rfdetr.search.passes import STAGES, Clock, cpu_threads

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

EVALUATOR_VERSION = 1
"""Part of the key under which results are kept and workers meet: to be raised with every change that gives
another number for the same network and data.
"""
_KNOWN = {"pairs", "rows", "seconds"}

Triple = tuple[int, int, int]
Pair = tuple[int, int]


def units(space: SearchSpace | Iterable[Arch]) -> dict[Triple, list[Pair]]:
    """The work units: (resolution, patch size, windows) -> all its different (decoder layers, queries),
    sorted.
    """
    archs = space.archs() if isinstance(space, SearchSpace) else space
    found: dict[Triple, set[Pair]] = {}
    for arch in archs:
        found.setdefault(arch.encoder, set()).add((arch.decoder_layers, arch.queries))
    return {triple: sorted(found[triple]) for triple in sorted(found)}


class GridEvaluator:
    """Evaluates work units of one network on one dataset; see `evaluate_grid` for the arguments."""

    def __init__(
        self,
        model: "RFDETR",
        dataset: DetectionDataset,
        *,
        batch_size: int = 32,
        dtype: torch.dtype | None = None,
        masks: bool | None = None,
    ) -> None:
        if model.config.segmentation and masks is None:
            masks = dataset.has_masks
        if masks and not (model.config.segmentation and dataset.has_masks):
            raise UserError(
                "masks need a model with segmentation=True and a dataset with instance masks; use masks=False"
            )
        self.model, self.batch_size, self.dtype, self.masks = model, batch_size, dtype, bool(masks)
        self.images = Images(dataset, model, self.masks)
        self.key = hashlib.sha256(
            json.dumps(
                [
                    EVALUATOR_VERSION,
                    fingerprint(model),
                    dataset.fingerprint,
                    str(dtype),
                    self.masks,
                    self.images.label_positions.tolist(),
                ]
            ).encode()
        ).hexdigest()[:16]

    def unit(self, triple: Triple, pairs: Iterable[Pair]) -> dict[str, Any]:
        """Evaluate the (decoder layers, queries) pairs of one encoder triple.

        Returns plain values (JSON): `pairs`; `rows`, one dict of COCO numbers per pair (NaN where undefined);
        `seconds` by stage.
        """
        pairs = sorted(set(pairs))
        order, collector, clock = self._passes(triple, pairs, range(len(self.images)))
        with clock("evaluation"):
            numbers = collector.numbers()
        by_pair = dict(zip(order, numbers, strict=True))
        return {
            "pairs": [list(pair) for pair in pairs],
            "rows": [by_pair[pair] for pair in pairs],
            "seconds": clock.seconds,
        }

    def block(
        self, triple: Triple, pairs: Iterable[Pair], images: range
    ) -> tuple[list[Pair], dict[str, Matches], dict[str, float]]:
        """Evaluate the pairs of one encoder triple on some images alone (indexes of the dataset).

        Returns the pairs in the order of the networks of the matches; the matches of boxes ("") and, with
        masks, of masks ("mask_"), from which `rfdetr.search.matches` computes the numbers; seconds by stage.
        """
        order, collector, clock = self._passes(triple, sorted(set(pairs)), images)
        with clock("evaluation"):
            matches = collector.matches()
        return order, matches, clock.seconds

    def _passes(
        self, triple: Triple, pairs: list[Pair], images: range
    ) -> tuple[list[Pair], Collector, Clock]:
        """All detections of the pairs on the images. Networks are numbered query count by query count, as
        the decoder passes run.
        """
        depths_of: dict[int, list[int]] = {}
        for depth, queries in pairs:
            self.model.config.check(Arch(*triple, depth, queries))
            depths_of.setdefault(queries, []).append(depth)
        order = [(depth, queries) for queries, depths in depths_of.items() for depth in depths]
        clock = Clock(next(self.model.parameters()).device)
        collector = Collector(self.images, len(order), self.masks)
        arch = Arch(*triple, 0, max(depths_of))
        with evaluating(self.model, self.dtype):
            for first in range(images.start, images.stop, self.batch_size):
                check()
                positions = range(first, min(first + self.batch_size, images.stop))
                self._batch(arch, positions, depths_of, collector, clock)
        return order, collector, clock

    def _batch(
        self,
        arch: Arch,
        positions: range,
        depths_of: dict[int, list[int]],
        collector: Collector,
        clock: Clock,
    ) -> None:
        with clock("images"):
            images = self.images.batch(positions, arch.resolution)
        with clock("encoder"):
            memory = self.model.encode(images, arch)
        with clock("decoder"):
            selected = self.model.selection(memory, arch.queries, 1)
        network = 0
        for queries, depths in depths_of.items():
            with clock("decoder"):
                output = self.model.decode(
                    memory, arch.resolution, max(depths), queries, True, selected=selected
                )
            with clock("detections"):
                layers = [output.layers[depth - 1] if depth else output.encoder for depth in depths]
                collector.add(network, positions, layers, queries)
            network += len(depths)


def evaluate_grid(
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace,
    *,
    folder: str | Path | None = None,
    batch_size: int = 32,
    dtype: torch.dtype | None = None,
    masks: bool | None = None,
    threads: int | None = None,
    gflops: bool = False,
    progress: bool | Report = False,
) -> "pd.DataFrame":
    """Average precision of every sub-network of a search space; equal to evaluating each alone.

    model, dataset, space  a supernet on its device; ground truth and images; the nominal grid
    folder      keep the result of every finished encoder triple here (atomically). A later call with the same
                weights, data and options goes on where this one was stopped
    dtype       for example torch.bfloat16: run the network under autocast (numbers then differ slightly from
                float32)
    masks       evaluate masks too; default: where the model and the data have them
    threads     CPU threads while this runs; default: as set.     gflops: add a column with the deployed
                network's GFLOPs
    progress    True for a bar, or a callable (done, total) over encoder triples

    Returns one row per NOMINAL point, in the order of `space.nominal()`: nominal_resolution, nominal_queries,
    the five effective knobs, the twelve COCO numbers ("AP", ...) and for masks twelve more ("mask_AP", ...),
    in 0..1. Different nominal points may be one sub-network, which is then evaluated once. `attrs["seconds"]`
    has the time by stage of the units that this call or earlier ones computed, `attrs["key"]` what the result
    depends on. Raises ArchError when the network has no such sub-network, UserError when classes do not fit.
    """
    model.config.check(space.largest)
    evaluator = GridEvaluator(model, dataset, batch_size=batch_size, dtype=dtype, masks=masks)
    keep = None if folder is None else Path(folder) / evaluator.key
    work = units(space)
    results: dict[Triple, Mapping[str, Any]] = {}
    with cpu_threads(threads), progress_bar(progress, len(work), "search grid", "encoder") as report:
        for done, (triple, pairs) in enumerate(work.items()):
            report(done, len(work))
            results[triple] = kept_unit(keep, triple, pairs) or keep_unit(
                keep, triple, evaluator.unit(triple, pairs)
            )
        report(len(work), len(work))
    table = to_table(space, results)
    if gflops:
        table = with_gflops(model, space, table)
    table.attrs = {
        "key": evaluator.key,
        "seconds": {s: sum(r["seconds"].get(s, 0.0) for r in results.values()) for s in STAGES},
    }
    return table


def to_table(space: SearchSpace, results: Mapping[Triple, Mapping[str, Any]]) -> "pd.DataFrame":
    """The rows of `evaluate_grid` from the results of its units (`GridEvaluator.unit`).

    Points of units that are not in `results` are left out, so that an unfinished search can be looked at.
    """
    import pandas as pd

    numbers = {
        (*triple, *pair): row
        for triple, result in results.items()
        for pair, row in zip(result["pairs"], result["rows"], strict=True)
    }
    rows = [
        {
            "nominal_resolution": point[0],
            "nominal_queries": point[4],
            **arch.to_dict(),
            **numbers[(*arch.encoder, arch.decoder_layers, arch.queries)],
        }
        for point, arch in zip(space.nominal(), space.archs(), strict=True)
        if (*arch.encoder, arch.decoder_layers, arch.queries) in numbers
    ]
    if rows:
        return pd.DataFrame(rows)
    return pd.DataFrame(columns=["nominal_resolution", "nominal_queries", *Arch.KNOBS, *METRICS])


def with_gflops(model: "RFDETR", space: SearchSpace, table: "pd.DataFrame") -> "pd.DataFrame":
    """A complete table of `evaluate_grid` with a column `gflops`: those of the deployed sub-network (analytic
    count).
    """
    from rfdetr.benchmark.flops import analytic_table

    about = table.attrs
    table = table.assign(gflops=analytic_table(model, space.archs())["gflops"].to_numpy())
    table.attrs = about
    return table


def unit_name(triple: Triple) -> str:
    """Short name of a work unit, e.g. `r384-p16-w2`."""
    return "r{}-p{}-w{}".format(*triple)


def kept_unit(folder: Path | None, triple: Triple, pairs: list[Pair]) -> dict[str, Any] | None:
    """An earlier result of this unit if it has all the pairs, else None."""
    if folder is None:
        return None
    try:
        found = json.loads((folder / f"{unit_name(triple)}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if not isinstance(found, dict) or not found.keys() >= _KNOWN:
        return None
    # JSON has no NaN: what is undefined is kept as null.
    found["rows"] = [{n: float("nan") if v is None else v for n, v in row.items()} for row in found["rows"]]
    return found if {tuple(p) for p in found["pairs"]} >= set(pairs) else None


def keep_unit(folder: Path | None, triple: Triple, result: dict[str, Any]) -> dict[str, Any]:
    """Write a unit's result into the folder, if there is one, and return it."""
    if folder is not None:
        write_json(folder / f"{unit_name(triple)}.json", result)
    return result
