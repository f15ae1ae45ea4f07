"""Whether exported peers find what their networks find: outputs, and accuracy on stand-in data.

A study in parts (`python -m rfdetr results peer-exports`), one per detector; it needs the extra `peers`,
and for some of them libreyolo. What is not installed is left out and said.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

NAME, PROFILE = "peer-exports", "cpu"
EXPORTED = (
    *("lw-detr-t", "lw-detr-s", "d-fine-n", "d-fine-s", "rt-detr-r18", "rt-detrv2-r18"),
    *("yolov8-n", "yolov8-s", "yolo11-n", "yolo11-s", "yolov8-seg-n", "yolo11-seg-n"),
    *("yolov9-t", "yolo12-n", "yolo26-n"),
    *("yolox-t", "yolox-s", "yolov9-mit-t", "deim-n", "deim-s", "deimv2-n", "rt-detrv4-s"),
)
PICTURES = 8
SAME = 1e-3
"""AP may differ by so much between file and network."""
_CALL = "rfdetr.experiments.ch07_exports"


def parts(profile: Profile, seed: int) -> list[Part]:
    """One part per detector."""
    return [Part(f"peer-{name}", f"{_CALL}:peer_part", {"name": name}) for name in EXPORTED]


def peer_part(place: Place, name: str) -> dict[str, Any]:
    """Export a detector with all its suppression, compare its outputs, and both on stand-in pictures."""
    from rfdetr.benchmark.accuracy import evaluate_artifact
    from rfdetr.evaluation.coco import evaluate
    from rfdetr.peers.checking import TOLERANCE, compare
    from rfdetr.peers.detectors import detector
    from rfdetr.peers.exporting import export_peer
    from rfdetr.peers.standing_in import Eager, StandIn

    entry = catalogue.named(name)
    catalogue.require(entry)
    place.work.mkdir(parents=True, exist_ok=True)
    artifact = export_peer(name, place.work / "peer.onnx", nms="evaluation", check=False)
    network = detector(name)
    difference = compare(artifact, network, "evaluation")
    assert artifact.categories is not None
    eager = Eager(network, "evaluation", entry["input"][0], artifact.categories).eval()
    data = StandIn(eager, PICTURES)
    expected = evaluate(eager, data, resolution=eager.resolution, batch_size=1, masks=False)
    found = evaluate_artifact(artifact, data, masks=False)
    return {
        "difference": difference,
        "tolerance": TOLERANCE,
        "eager_ap": expected.ap,
        "file_ap": found.ap,
        "objects": sum(len(target.labels) for target in data.targets),
        "package": f"{entry['package']} {_version(entry['package'])}",
        "sha256": artifact.sha256,
    }


def _version(package: str) -> str:
    from rfdetr.peers.comparing import installed

    return installed(package)


def collect(finished: Finished) -> None:
    """Keep one row per detector. UserError when none is done."""
    keep_detectors(finished, NAME, "exports", PICTURES)


def keep_detectors(finished: Finished, name: str, table: str, pictures: int) -> None:
    """Keep the parts `peer-...` of a study on so many stand-in pictures as one table. UserError when none is
    done.
    """
    import pandas as pd

    done = finished.values("peer-")
    if not done:
        raise UserError(f"{name}: no detector is done yet; run it again, for longer")
    rows = [{"name": part.removeprefix("peer-"), **value} for part, value in done.items()]
    kept.keep(
        finished.folder,
        {table: pd.DataFrame(rows)},
        finished.origin,
        pictures=pictures,
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def said(exports: "pd.DataFrame") -> str:
    """How many files find what their networks find, in sentences."""
    good = exports[exports.difference <= exports.tolerance]
    apart = (exports.file_ap - exports.eager_ap).abs()
    text = (
        f"{len(good)} of {len(exports)} files give their network's outputs within"
        f" {exports.tolerance.max():g}; the largest difference is {exports.difference.max():.1g}. On the"
        f" stand-in pictures AP of file and network differ by {apart.max():.1g} at most"
    )
    off = exports.name[apart > SAME]
    return text + (f"; by more than {SAME:g}: {', '.join(off)}." if len(off) else ".")


def today() -> "pd.DataFrame":
    """Later detectors, which the paper does not print: what was counted, and from which package.

    Columns: model, name, input, params_m, gflops (one convention), package, licence.
    """
    import pandas as pd

    rows = [
        {
            "model": f"{entry['name']} {entry['size']}",
            "name": catalogue.key(entry),
            "input": entry["input"][0],
            "params_m": entry["params_m"],
            "gflops": catalogue.one_convention(entry),
            "package": entry["package"],
            "licence": entry["licence"],
        }
        for entry in catalogue.entries(today=True)[len(catalogue.entries()) :]
    ]
    return pd.DataFrame(rows)


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    return kept.find(NAME, root)


STUDY = Study(NAME, PROFILE, parts, collect, ("rfdetr.peers.exporting", "rfdetr.peers.standing_in"))
