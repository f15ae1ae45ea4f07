"""FP16 for other detectors: which tensors leave its range, and what a plain conversion makes of their
accuracy.

A study in parts (`python -m rfdetr results peer-fp16`), where the extra `peers` is installed. The weights are
random, so it cannot show what trained weights do (Table 1 prints such a collapse for D-FINE): it shows which
graphs leave the range by their structure alone, and that the rest of the conversion does no harm. Accuracy
is on stand-in data (`rfdetr.peers.standing_in`), every FP16 tensor rounded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch07_exports import keep_detectors
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

NAME, PROFILE = "peer-fp16", "cpu"
CONVERTED = ("d-fine-n", "d-fine-s", "lw-detr-t", "rt-detr-r18", "yolo11-n", "yolov8-n")
PICTURES, SEEN = 6, 2
SAME = 0.005
"""AP that a conversion may cost without being said to harm."""
_CALL = "rfdetr.experiments.ch06_half_peers"


def parts(profile: Profile, seed: int) -> list[Part]:
    """One part per detector."""
    return [Part(f"peer-{name}", f"{_CALL}:peer_part", {"name": name}) for name in CONVERTED]


def peer_part(place: Place, name: str) -> dict[str, Any]:
    """Ranges of a detector's tensors on noise, and AP of its network, of the plain FP16 file, and of the file
    with what overflows in FP32 (None where nothing does).
    """
    from rfdetr.benchmark import fp16
    from rfdetr.benchmark.accuracy import evaluate_artifact
    from rfdetr.benchmark.inputs import image_inputs
    from rfdetr.benchmark.runtimes import load_runtime
    from rfdetr.evaluation.coco import evaluate
    from rfdetr.export.artifact import Artifact
    from rfdetr.export.fp16 import to_fp16
    from rfdetr.peers.detectors import detector
    from rfdetr.peers.exporting import export_peer
    from rfdetr.peers.standing_in import Eager, StandIn

    entry = catalogue.named(name)
    catalogue.require(entry)
    place.work.mkdir(parents=True, exist_ok=True)
    artifact = export_peer(name, place.work / "peer.onnx", nms="evaluation", check=False)
    assert artifact.categories is not None
    eager = Eager(detector(name), "evaluation", entry["input"][0], artifact.categories).eval()
    data = StandIn(eager, PICTURES)
    table = fp16.ranges(artifact, image_inputs(data, eager.resolution, SEEN))

    def accuracy(keep: list[str], ending: str) -> float:
        half: Artifact = to_fp16(artifact, place.work / f"peer-{ending}.onnx", keep)
        with load_runtime("onnxruntime", half, emulate_fp16=True) as runtime:
            return float(evaluate_artifact(runtime, data, masks=False).ap)

    nodes = fp16.nodes_to_keep(artifact, table)
    top = table.iloc[0]
    return {
        "tensors": len(table),
        "beyond": int((table["beyond"] | table["inside_beyond"]).sum()),
        "largest": float(top["max_abs"]),
        "operator": str(top["operator"]),
        "eager_ap": evaluate(eager, data, resolution=eager.resolution, batch_size=1, masks=False).ap,
        "plain_ap": accuracy([], "plain"),
        "kept": len(nodes),
        "safe_ap": accuracy(nodes, "safe") if nodes else None,
    }


def collect(finished: Finished) -> None:
    """Keep one row per detector. UserError when none is done."""
    keep_detectors(finished, NAME, "peers", PICTURES)


def said(peers: "pd.DataFrame") -> str:
    """Which graphs leave the range, and which conversions harm, in sentences."""
    out = peers[peers.beyond > 0]
    text = f"Of {len(peers)} detectors with random weights "
    text += f"{len(out)} have tensors or sums beyond FP16" + (f" ({', '.join(out.name)})" if len(out) else "")
    harmed = peers[peers.eager_ap - peers.plain_ap > SAME]
    apart = (peers.plain_ap - peers.eager_ap).abs().max()
    if harmed.empty:
        text += f". The plain conversion costs none of them more than {SAME} AP on the stand-in pictures"
        text += f" (largest change {apart:.4f}): nothing in these graphs alone explains the printed collapse."
        return text
    text += (
        f". The plain conversion costs {', '.join(harmed.name)} more than {SAME} AP on the stand-in pictures"
    )
    mended = harmed[(harmed.eager_ap - harmed.safe_ap) <= SAME]
    rest = "all of them" if len(mended) == len(harmed) else f"{len(mended)} of {len(harmed)}"
    return f"{text}; with what overflows kept in FP32 {rest} are within it again."


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    return kept.find(NAME, root)


STUDY = Study(
    NAME,
    PROFILE,
    parts,
    collect,
    ("rfdetr.peers.exporting", "rfdetr.peers.standing_in", "rfdetr.benchmark.fp16"),
)
