"""Which knobs make a network fragile under INT8, and which of its layers lose most.

A study in parts (`python -m rfdetr results int8`), on sub-networks of the kept network of the full search:
each is quantised after training with scenes of the training split, and tested on the same validation scenes
in float32, bfloat16 and INT8, every AP that of the very file that runs. For the layers, each part of the
network in turn stays in floating point: how much of the outputs' error goes with it.
"""

from collections.abc import Mapping
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
CALIBRATION, RANKING, SCENES, PROBES = 200, 32, 200, 20
"""Training scenes for the ranges, and for those of the ranking of parts; scenes for AP; validation scenes for
the error of the outputs.
"""
LIMIT = 0.005
"""AP that INT8 may cost."""
RESAMPLES = 200
"""Resamples of the scenes, the same for all precisions and sub-networks."""
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
    """One part per sub-network, then the layers of three of them, and INT8 files that keep those that lose
    most.
    """
    about = {"profile": profile.name, "network": source_digest()}
    found = [
        Part(f"net-{name}", f"{_CALL}:network_part", {**about, "arch": arch.id})
        for name, arch in archs().items()
    ]
    for name in _LAYERS:
        options = {**about, "arch": archs()[name].id}
        found.append(Part(f"layers-{name}", f"{_CALL}:layers_part", options))
        found.append(Part(f"kept-{name}", f"{_CALL}:kept_part", options))
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
    """AP of one sub-network at each precision, as built, on the same scenes, and on the same resamples of
    them.
    """
    from rfdetr.benchmark.accuracy import evaluate_artifact
    from rfdetr.benchmark.runtimes import check_runtime, load_runtime
    from rfdetr.evaluation.bootstrap import bootstrap_ap
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
            result = evaluate_artifact(runtime, data)
            found[precision] = {
                "AP": result.ap,
                "samples": _plain(bootstrap_ap(data, result.detections, resamples=RESAMPLES).samples),
                "built": runtime.info.precision,
                "sha256": file.sha256,
                "products": runtime.info.details["products"],
            }
    return found


def _plain(samples: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in samples]


def layers_part(place: Place, profile: str, network: str, arch: str) -> dict[str, Any]:
    """For every part of a sub-network: the outputs' error with all in INT8, and with this part in float32
    (`int8_layers.output_error`).
    """
    from rfdetr.benchmark.int8_layers import rank_parts
    from rfdetr.benchmark.runtimes import check_runtime

    check_runtime("openvino", "int8")
    artifact = _exported(place, arch)
    feeds = _feeds(place, artifact, profile, "train", RANKING)
    probes = _feeds(place, artifact, profile, "val", PROBES)
    found = rank_parts(artifact, feeds, probes, place.work)
    rows = [{"part": name, "nodes": len(nodes), "error": error} for name, nodes, error in found.parts]
    return {"arch": arch, "int8": found.int8, "parts": rows}


def kept_part(place: Place, profile: str, network: str, arch: str) -> dict[str, Any]:
    """INT8 within `LIMIT` of float32 by keeping the parts that lose most: AP after each try.

    Parts are chosen on validation scenes, and both files are tested on others (the test split), so that the
    choice does not flatter itself.
    """
    from rfdetr.benchmark.int8_layers import within_limit
    from rfdetr.benchmark.runtimes import check_runtime

    check_runtime("openvino", "int8")
    artifact = _exported(place, arch)
    images = _scenes(place, profile, "train", CALIBRATION)
    chosen = within_limit(artifact, place.work, images, _scenes(place, profile, "val", SCENES), limit=LIMIT)
    test = _scenes(place, profile, "test", SCENES)
    return {
        "arch": arch,
        "kept": list(chosen.kept),
        "reached": chosen.reached,
        "fp32": chosen.expected,
        "tries": [list(row) for row in chosen.tries],
        "test_fp32": _test(artifact, "fp32", test),
        "test_int8": _test(chosen.file, "int8", test),
    }


def _test(file: "Artifact", precision: str, data: "DetectionDataset") -> float:
    from rfdetr.benchmark.accuracy import evaluate_artifact
    from rfdetr.benchmark.runtimes import load_runtime

    with load_runtime("openvino", file, precision) as runtime:
        return evaluate_artifact(runtime, data).row()["AP"]


def collect(finished: Finished) -> None:
    """Keep one row per sub-network and one per part. UserError when no sub-network is done."""
    import pandas as pd

    nets = {name.removeprefix("net-"): value for name, value in finished.values("net-").items()}
    if not nets:
        raise UserError(f"{NAME}: no sub-network is done yet; run it again, for longer")
    lost = {name: lost_samples(value) for name, value in nets.items()}
    rows = []
    for name, value in nets.items():
        knob, _, _ = name.rpartition("-")
        row: dict[str, Any] = {"name": name, "knob": knob or name, "arch": value["arch"]}
        for precision in PRECISIONS:
            row[f"{precision} AP"] = value[precision]["AP"]
            row[f"{precision} built"] = value[precision]["built"]
            if precision != "fp32":
                ends = _ends(lost[name][precision])
                row |= {f"{precision} {end}": x for end, x in zip(("low", "high"), ends, strict=True)}
        if "reference" in lost and name != "reference":
            more = lost[name]["int8"] - lost["reference"]["int8"]
            row |= dict(zip(("more low", "more high"), _ends(more), strict=True))
        rows.append(row)
    layers = [
        {"name": name.removeprefix("layers-"), "arch": value["arch"], "int8": value["int8"], **row}
        for name, value in finished.values("layers-").items()
        for row in value["parts"]
    ]
    chosen = [
        {"name": name.removeprefix("kept-"), **value, "kept": ", ".join(value["kept"])}
        | {"tries": "; ".join(f"{count}: {ap:.4f}" for count, ap in value["tries"])}
        for name, value in finished.values("kept-").items()
    ]
    tables = {"networks": rows, "layers": layers, "kept": chosen}
    kept.keep(
        finished.folder,
        {name: pd.DataFrame(found) for name, found in tables.items() if found},
        finished.origin,
        calibration=CALIBRATION,
        scenes=SCENES,
        source=source_digest(),
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def lost_samples(value: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Precision -> AP lost on each resample of the scenes; NaN where AP is not defined."""
    samples = {p: np.array(value[p]["samples"], dtype=float) for p in PRECISIONS}
    return {p: samples["fp32"] - samples[p] for p in PRECISIONS[1:]}


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def available() -> bool:
    """Whether OpenVINO and NNCF are installed."""
    return find_spec("openvino") is not None and find_spec("nncf") is not None


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    return kept.find(NAME, root)


STUDY = Study(NAME, PROFILE, parts, collect, ("rfdetr.export.int8", "rfdetr.benchmark.int8_layers"))
