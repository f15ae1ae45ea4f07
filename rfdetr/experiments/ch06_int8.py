"""Which knobs make a network fragile under INT8, and which of its layers lose most.

A study in parts (`python -m rfdetr results int8`), on sub-networks of the kept network of the full search:
each is quantised after training with scenes of the training split, and tested on the same validation scenes
in float32, bfloat16 and INT8, every AP that of the very file that runs. For the layers, each part of the
network in turn stays in floating point: how much of the outputs' error goes with it.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.studies import Finished, Study

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.export.artifact import Artifact

NAME, PROFILE, SOURCE = "int8", "full", "full-search"
REFERENCE = Arch(96, 8, 2, 3, 30)
CHANGES: dict[str, tuple[int, ...]] = {
    "resolution": (64, 128),
    "patch_size": (6, 12),
    "windows": (1, 4),
    "decoder_layers": (0, 1, 6),
    "queries": (10, 20),
}
"""Knob -> values that it takes while all others stay at the reference."""
CORNERS = (Arch(64, 8, 1, 2, 20), Arch(120, 6, 2, 6, 30))
PRECISIONS = ("fp32", "bf16", "int8", "int8+bf16")
CALIBRATION, SCENES, PROBES = 200, 200, 20
"""Training scenes for the ranges; validation scenes for AP; validation scenes for the error of the
outputs.
"""
LIMIT = 0.005
"""AP that INT8 may cost."""
_CALL = "rfdetr.experiments.ch06_int8"
_LAYERS = ("reference", "large", "small")


def archs() -> dict[str, Arch]:
    """Name -> sub-network: the reference, single knobs changed, and two corners."""
    found = {"reference": REFERENCE}
    for knob, values in CHANGES.items():
        for value in values:
            found[f"{knob}-{value}"] = REFERENCE.replace(**{knob: value})
    return found | dict(zip(("small", "large"), CORNERS, strict=True))


def parts(profile: Profile, seed: int) -> list[Part]:
    """One part per sub-network, then the layers of three of them."""
    about = {"profile": profile.name, "network": source_digest()}
    found = [
        Part(f"net-{name}", f"{_CALL}:network_part", {**about, "arch": arch.id})
        for name, arch in archs().items()
    ]
    for name in _LAYERS:
        options = {**about, "arch": archs()[name].id}
        found.append(Part(f"layers-{name}", f"{_CALL}:layers_part", options))
    return found


def source_digest() -> str:
    """Digest of the kept network: another network means other parts. "" where there is none."""
    from rfdetr.files import sha256_file

    path = kept.results_root() / SOURCE / "network.safetensors"
    return sha256_file(path)[:16] if path.is_file() else ""


def _exported(place: Place, arch: str) -> "Artifact":
    from rfdetr.export.onnx import export_onnx

    model = kept.read_network(kept.results_root() / SOURCE / "network.safetensors")
    place.work.mkdir(parents=True, exist_ok=True)
    return export_onnx(model, Arch.parse(arch), place.work / "network.onnx")


def _scenes(place: Place, profile: str, split: str, size: int) -> "DetectionDataset":
    return fitting.scenes_of(place, get_profile(profile), split, size)


def _feeds(place: Place, artifact: "Artifact", profile: str, split: str, count: int) -> list[dict[str, Any]]:
    from rfdetr.benchmark.inputs import image_inputs

    data = _scenes(place, profile, split, count)
    return image_inputs(data, int(artifact.inputs[0].sized()[-1]), count)


def network_part(place: Place, profile: str, network: str, arch: str) -> dict[str, Any]:
    """AP of one sub-network at each precision, as built, on the same scenes."""
    from rfdetr.benchmark.accuracy import accuracy_record
    from rfdetr.benchmark.runtimes import check_runtime, load_runtime
    from rfdetr.export.int8 import to_int8

    check_runtime("openvino", "int8")
    artifact = _exported(place, arch)
    quantised = to_int8(
        artifact,
        place.work / "network.xml",
        _feeds(place, artifact, profile, "train", CALIBRATION),
        metadata={"data": "training scenes"},
    )
    data = _scenes(place, profile, "val", SCENES)
    found: dict[str, Any] = {"arch": arch}
    for precision in PRECISIONS:
        file = quantised if precision.startswith("int8") else artifact
        with load_runtime("openvino", file, precision) as runtime:
            record = accuracy_record(runtime, data, progress=False)
            found[precision] = {
                "AP": record.metrics["AP"],
                "built": record.precision,
                "sha256": record.sha256,
                "products": runtime.info.details["products"],
            }
    return found


def layers_part(place: Place, profile: str, network: str, arch: str) -> dict[str, Any]:
    """For every part of a sub-network: the outputs' error with all in INT8, and with this part in float32.

    Error: root mean square difference of the scores (as probabilities) and boxes from float32.
    """
    from rfdetr.benchmark.runtimes import check_runtime, load_runtime
    from rfdetr.export.int8 import to_int8

    check_runtime("openvino", "int8")
    artifact = _exported(place, arch)
    feeds = _feeds(place, artifact, profile, "train", CALIBRATION)
    probes = _feeds(place, artifact, profile, "val", PROBES)
    with load_runtime("openvino", artifact, "fp32") as runtime:
        expected = [runtime.run(feed) for feed in probes]

    def error(keep: list[str]) -> float:
        file = to_int8(artifact, place.work / "layers.xml", feeds, keep=keep)
        with load_runtime("openvino", file, "int8") as runtime:
            return output_error([runtime.run(feed) for feed in probes], expected)

    whole = error([])
    groups = parts_of(artifact)
    rows = [{"part": name, "nodes": len(nodes), "error": error(nodes)} for name, nodes in groups.items()]
    return {"arch": arch, "int8": whole, "parts": rows}


def parts_of(artifact: "Artifact") -> dict[str, list[str]]:
    """Part of the network -> names of its products (matrix products and convolutions) in the file."""
    import onnx

    graph = onnx.load(artifact.file, load_external_data=False).graph
    found: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            found.setdefault(part_of(node.name), []).append(node.name)
    return found


def part_of(name: str) -> str:
    """The part that a node belongs to, from the module in its name."""
    module = name.partition("/")[0].split(".")
    if module[0] == "backbone":
        if len(module) < 3:
            return "embedding"
        return f"block {int(module[2]) + 1}: {'attention' if 'attention' in module else 'MLP'}"
    if module[0] == "decoder" and len(module) > 2 and module[2].isdigit():
        return f"decoder layer {int(module[2]) + 1}"
    return {"class_head": "heads", "box_head": "heads"}.get(module[0], module[0])


def output_error(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> float:
    """Root mean square difference over all outputs; logits as probabilities.

    Queries are paired by rank; one that changes rank counts with its whole difference, as it does for a user
    who takes the best.
    """
    squares = [
        np.square(_plain(name, a[name]) - _plain(name, b[name])).mean()
        for a, b in zip(found, expected, strict=True)
        for name in ("logits", "boxes")
    ]
    return float(np.sqrt(np.mean(squares)))


def _plain(name: str, value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value)) if name == "logits" else value


def collect(finished: Finished) -> None:
    """Keep one row per sub-network and one per part. UserError when no sub-network is done."""
    import pandas as pd

    nets = {name.removeprefix("net-"): value for name, value in finished.values("net-").items()}
    if not nets:
        raise UserError(f"{NAME}: no sub-network is done yet; run it again, for longer")
    rows = []
    for name, value in nets.items():
        knob, _, _ = name.rpartition("-")
        row = {"name": name, "knob": knob or name, "arch": value["arch"]}
        for precision in PRECISIONS:
            row[f"{precision} AP"] = value[precision]["AP"]
            row[f"{precision} built"] = value[precision]["built"]
        rows.append(row)
    layers = [
        {"name": name.removeprefix("layers-"), "arch": value["arch"], "int8": value["int8"], **row}
        for name, value in finished.values("layers-").items()
        for row in value["parts"]
    ]
    kept.keep(
        finished.folder,
        {"networks": pd.DataFrame(rows), "layers": pd.DataFrame(layers)},
        finished.origin,
        calibration=CALIBRATION,
        scenes=SCENES,
        source=source_digest(),
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def losses(networks: "pd.DataFrame") -> "pd.DataFrame":
    """What each precision costs, in AP: columns name, knob, arch, fp32 AP, and `<precision> loss`."""
    frame = networks[["name", "knob", "arch", "fp32 AP"]].copy()
    for precision in PRECISIONS[1:]:
        frame[f"{precision} loss"] = networks["fp32 AP"] - networks[f"{precision} AP"]
    return frame


def by_knob(networks: "pd.DataFrame") -> "pd.DataFrame":
    """For each knob, over its values and the reference: smallest and largest loss under INT8, in AP.

    Columns: knob, networks, least, most, range (most - least: how far the knob alone moves the loss).
    """
    import pandas as pd

    frame = losses(networks).set_index("name")
    rows = []
    for knob in CHANGES:
        part = frame[(frame.knob == knob) | (frame.index == "reference")]["int8 loss"]
        if len(part) > 1:
            rows.append((knob, len(part), part.min(), part.max(), part.max() - part.min()))
    return pd.DataFrame(rows, columns=["knob", "networks", "least", "most", "range"])


def available() -> bool:
    """Whether OpenVINO and NNCF are installed."""
    return find_spec("openvino") is not None and find_spec("nncf") is not None


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    try:
        return kept.load(NAME, root)
    except UserError:
        return None


STUDY = Study(NAME, PROFILE, parts, collect, ("rfdetr.export.int8", "rfdetr.benchmark.accuracy"))
