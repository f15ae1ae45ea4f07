"""Accuracy of artifacts as they are deployed, recorded under their SHA-256."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rfdetr.benchmark.records import AccuracyRecord
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.model.detections import Detections
from rfdetr.model.outputs import Output, Prediction
from rfdetr.model.predict import Options, detect, only
from rfdetr.networks import named_categories, runtime_for
from rfdetr.provenance import environment, utc_now

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.evaluation.coco import CocoResult


_OURS = {"dets": "boxes", "labels": "logits"}
"""Outputs of a graph with the published package's names (`rfdetr.export.published`) -> ours."""


class ArtifactModel:
    """A loaded artifact that is called like a network: images [B, 3, R, R] -> `Output`.

    A fixed batch is filled up with zeros where images are missing and cut in pieces where there are more.
    Raises UserError for a graph of other outputs than those of `rfdetr.export.onnx`.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.names = {o.name: _OURS.get(o.name, o.name) for o in runtime.artifact.outputs}
        missing = {"logits", "boxes"} - set(self.names.values())
        if missing:
            raise UserError(
                f"{runtime.artifact.name} has no output {', '.join(sorted(missing))}; only graphs with the"
                " outputs of `export` can be evaluated or predict"
            )
        self.runtime = runtime
        self.arch = runtime.artifact.arch
        self.categories = runtime.artifact.categories
        self.num_classes = runtime.artifact.num_classes
        self.resolution = int(runtime.artifact.inputs[0].sized()[-1])

    def predict(
        self,
        images: Any,
        threshold: float = 0.5,
        *,
        batch_size: int = 8,
        max_detections: int | None = None,
        keep_images: bool = True,
    ) -> list[Detections]:
        """Detections of every picture; as `RFDETR.predict`, without an architecture: the file has one."""
        return list(self.predict_each(images, Options(threshold, batch_size, max_detections, keep_images)))

    def predict_one(self, image: Any, threshold: float = 0.5) -> Detections:
        """Detections of one picture; UserError when there is not exactly one."""
        return only(self.predict(image, threshold))

    def predict_each(self, images: Any, options: Options | None = None) -> Iterator[Detections]:
        """Detections of one picture after the other; see `rfdetr.model.predict.detect`."""
        return detect(self, self.resolution, images, options or Options(), self.categories)

    def __call__(self, images: Tensor) -> Output:
        """Run the artifact; outputs are float32 on the CPU."""
        spec = self.runtime.artifact.inputs[0]
        values = images.cpu().numpy().astype(spec.dtype)
        size = spec.shape[0] if isinstance(spec.shape[0], int) else len(values)
        pieces = []
        for start in range(0, len(values), size):
            piece = values[start : start + size]
            count = len(piece)
            if count < size:
                piece = np.concatenate([piece, np.zeros((size - count, *piece.shape[1:]), piece.dtype)])
            found = self.runtime.run({spec.name: piece})
            pieces.append({self.names[name]: value[:count] for name, value in found.items()})
        joined = {
            name: torch.from_numpy(np.concatenate([p[name] for p in pieces])).float() for name in pieces[0]
        }
        prediction = Prediction(joined["logits"], joined["boxes"])
        if "masks" in joined:
            # Whole masks in the form that post-processing takes: features, one selector per query, no bias.
            masks = joined["masks"]
            prediction.mask_features = masks
            prediction.mask_queries = torch.eye(masks.shape[1]).expand(len(masks), -1, -1)
            prediction.mask_bias = torch.zeros(1)
        return Output(encoder=prediction, projector=torch.empty(0))


def load_exported(
    path: str | Path, runtime: str | None = None, *, categories: str | None = None, **options: Any
) -> ArtifactModel:
    """An exported file, ready to predict: `load_exported("model.onnx").predict("photo.jpg")`.

    path        an ONNX file or an OpenVINO model (.xml and .bin) that `export` wrote, or a TensorRT engine
                with the description beside it
    runtime     see `rfdetr.benchmark.runtimes`; None: by the file's ending (ONNX Runtime, OpenVINO,
                TensorRT). options: of that runtime, for example threads
    categories  what its classes are, where the file does not say it: "coco", or a JSON file that lists them

    It can be given to `rfdetr.evaluate`, too. Raises UserError for a file that is missing, damaged, or of
    another maker's outputs.
    """
    artifact = load_artifact(path)
    if categories is not None:
        artifact = artifact.with_categories(named_categories(categories, artifact.num_classes))
    return ArtifactModel(load_runtime(runtime or runtime_for(path), artifact, **options))


def evaluate_artifact(
    artifact: Artifact | Runtime,
    dataset: "DetectionDataset",
    runtime: str = "onnxruntime",
    threads: int = 1,
    **options: Any,
) -> "CocoResult":
    """COCO average precision of an exported artifact, run as it is deployed.

    options: of `rfdetr.evaluation.coco.evaluate` (progress, max_dets, masks, ...).
    """
    from rfdetr.evaluation.coco import evaluate

    loaded = artifact if isinstance(artifact, Runtime) else load_runtime(runtime, artifact, threads=threads)
    network = ArtifactModel(loaded)
    return evaluate(network, dataset, resolution=network.resolution, **options)


def accuracy_record(runtime: Runtime, dataset: "DetectionDataset", **options: Any) -> AccuracyRecord:
    """Evaluate a loaded artifact and record it (`record_accuracy`). options: of `evaluate_artifact`."""
    return record_accuracy(runtime, dataset, evaluate_artifact(runtime, dataset, **options))


def record_accuracy(runtime: Runtime, dataset: "DetectionDataset", result: "CocoResult") -> AccuracyRecord:
    """Record what `evaluate_artifact` found under the artifact's SHA-256 and the precision as executed."""
    return AccuracyRecord(
        sha256=runtime.artifact.sha256,
        artifact=runtime.artifact.to_dict(),
        runtime=runtime.info.runtime,
        runtime_version=runtime.info.version,
        precision=runtime.info.precision,
        dataset=dataset.name,
        split=dataset.split,
        fingerprint=dataset.fingerprint,
        images=len(dataset),
        metrics=result.row(),
        time_utc=utc_now(),
        environment=environment(),
    )
