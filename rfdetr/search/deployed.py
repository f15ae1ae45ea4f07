"""Accuracy of the very files and networks that were timed, for precisions that change it.

A grid is evaluated in float32. What is deployed in FP16, bfloat16 or INT8 has another accuracy, and the one
that counts is its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.benchmark.subnetworks import kept_threads, loader
from rfdetr.files import read_json, write_json
from rfdetr.interrupts import check
from rfdetr.search.timing import Protocol

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR


def deployed_accuracy(
    model: "RFDETR", archs: list[Arch], dataset: "DetectionDataset", protocol: Protocol, folder: Path
) -> dict[Arch, dict[str, float]]:
    """The COCO numbers (`CocoResult.row`) of each sub-network as `protocol` runs it.

    folder: of the search; the files of the timing are found in it, and results are kept in `deployed/` under
    the SHA-256 of what was evaluated.
    """
    precision = protocol.check()
    found: dict[Arch, dict[str, float]] = {}
    with kept_threads():
        load = loader(
            model,
            archs,
            protocol.runtime,
            precision,
            protocol.threads,
            protocol.gpu,
            folder / "onnx",
            protocol.images,
        )
        for arch in archs:
            check()
            with load(arch) as runtime:
                name = f"{runtime.artifact.sha256[:16]}-{runtime.info.precision}-{dataset.fingerprint[:16]}"
                path = folder / "deployed" / f"{name}.json"
                kept: Any = read_json(path) if path.is_file() else None
                if kept is None:
                    kept = evaluate_artifact(runtime, dataset).row()
                    write_json(path, kept)
                found[arch] = {n: float("nan") if v is None else float(v) for n, v in kept.items()}
    return found
