"""What INT8 costs on real pictures: networks that the miniature benchmark tuned on real sets.

A study in parts (`python -m rfdetr results int8-domains`), one per set. The network and the pictures come
from the parts of `fourteen-domains` in the same artifact store; its chosen sub-networks are quantised with
training pictures and tested on test pictures, every AP that of the very file that runs, losses paired over
pictures.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.experiments import ch05_real
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place, read
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch06_int8 import CALIBRATION, LIMIT, RESAMPLES
from rfdetr.experiments.ch09_data import Packed
from rfdetr.experiments.ch09_domains import NAME as BENCHMARK

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

NAME, PROFILE = "int8-domains", "full"
DOMAINS = ("bccd", "raccoon", "hit_uav", "playing_cards", "microcontrollers", "dsb2018_nuclei")
"""Real sets of the benchmark; those that the store has no network of are left out."""
PRECISIONS = ("fp32", "bf16", "int8")
TARGETS = ("N", "S", "M")
_CALL = "rfdetr.experiments.ch06_int8_domains"


def parts(profile: Profile, seed: int) -> list[Part]:
    """One part per set."""
    files = ch05_real.stems(profile.name)
    return [
        Part(
            f"set-{domain}",
            f"{_CALL}:set_part",
            {"domain": domain, "tuned": files[f"first-tune-{domain}"], "data": files[f"data-{domain}"]},
        )
        for domain in DOMAINS
    ]


def set_part(place: Place, domain: str, tuned: str, data: str) -> list[dict[str, Any]]:
    """AP of the chosen sub-networks at each precision. tuned, data: names of the benchmark's files. UserError
    where they are not in the store.
    """
    source = place.folder.parent / BENCHMARK
    network, pictures, record = (
        source / f"{name}{ending}"
        for name, ending in ((tuned, ".safetensors"), (data, ".zip"), (tuned, ".json"))
    )
    if not all(path.is_file() for path in (network, pictures, record)):
        raise UserError(
            f"the network tuned on {domain} and its pictures are not in {source}: make them with `python -m"
            f" rfdetr results {BENCHMARK} --part first-tune-{domain}`"
        )
    model, chosen = kept.read_network(network), read(record)["value"]["chosen"]
    train, test = (Packed(pictures, split) for split in ("train", "test"))
    archs = {target: chosen[target] for target in TARGETS if target in chosen}
    return [
        {
            "domain": domain,
            "target": target,
            "pictures": len(test),
            **compared(model, arch, train, test, place.work),
        }
        for target, arch in archs.items()
    ]


def compared(
    model: "RFDETR", arch: str, train: "DetectionDataset", test: "DetectionDataset", work: Path
) -> dict[str, Any]:
    """arch, `<precision> AP` and `<precision> built`, and for the lower precisions `<...> loss`, `low` and
    `high` (95 % over resampled test pictures).
    """
    from rfdetr.benchmark.accuracy import evaluate_artifact
    from rfdetr.benchmark.inputs import image_inputs
    from rfdetr.benchmark.runtimes import check_runtime, load_runtime
    from rfdetr.evaluation.bootstrap import bootstrap_ap
    from rfdetr.export.int8 import to_int8
    from rfdetr.export.onnx import export_onnx

    check_runtime("openvino", "int8")
    work.mkdir(parents=True, exist_ok=True)
    artifact = export_onnx(model, Arch.parse(arch), work / "network.onnx")
    feeds = image_inputs(train, int(artifact.inputs[0].sized()[-1]), min(CALIBRATION, len(train)))
    quantised = to_int8(artifact, work / "network.xml", feeds, metadata={"data": "training pictures"})
    row: dict[str, Any] = {"arch": arch, "calibration": len(feeds)}
    samples: dict[str, np.ndarray] = {}
    for precision in PRECISIONS:
        with load_runtime("openvino", quantised if precision == "int8" else artifact, precision) as runtime:
            result = evaluate_artifact(runtime, test)
            row |= {f"{precision} AP": result.ap, f"{precision} built": runtime.info.precision}
        samples[precision] = bootstrap_ap(test, result.detections, resamples=RESAMPLES).samples
    for precision in PRECISIONS[1:]:
        low, high = np.nanquantile(samples["fp32"] - samples[precision], [0.025, 0.975])
        row[f"{precision} loss"] = row["fp32 AP"] - row[f"{precision} AP"]
        row |= {f"{precision} low": float(low), f"{precision} high": float(high)}
    shutil.rmtree(work, ignore_errors=True)
    return row


def collect(finished: Finished) -> None:
    """Keep one row per set and sub-network. UserError when no set is done."""
    import pandas as pd

    rows = [row for value in finished.values("set-").values() for row in value]
    if not rows:
        raise UserError(f"{NAME}: no set is done yet; run it again, for longer")
    kept.keep(
        finished.folder,
        # One sub-network may be the choice for two targets.
        {"networks": pd.DataFrame(rows).drop_duplicates(["domain", "arch"])},
        finished.origin,
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def said(networks: "pd.DataFrame") -> str:
    """What INT8 and bfloat16 cost on real pictures, in sentences."""
    count, sets = len(networks), networks.domain.nunique()
    sentences = [f"{count} sub-networks on {sets} real sets."]
    for precision, name in (("int8", "INT8"), ("bf16", "bfloat16")):
        lost = networks[f"{precision} loss"]
        over = networks[lost > LIMIT]
        text = f"In {name} they lose from {lost.min():+.4f} to {lost.max():+.4f} AP"
        text += f" (median {lost.median():+.4f})"
        if over.empty:
            text += f"; none loses more than {LIMIT}"
        else:
            names = ", ".join(f"{r.domain} {r.arch}" for r in over.itertuples())
            text += f"; more than {LIMIT} lose {names}"
        sure = int((networks[f"{precision} low"] > 0).sum())
        wide = (networks[f"{precision} high"] - networks[f"{precision} low"]).median()
        text += (
            f". {sure} of {count} losses are resolved from nothing over the test pictures, whose intervals"
            f" are {wide:.4f} wide in the median."
        )
        sentences.append(text)
    return " ".join(sentences)


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept result, or None where there is none."""
    return kept.find(NAME, root)


STUDY = Study(NAME, PROFILE, parts, collect, ("rfdetr.export.int8", "rfdetr.evaluation.bootstrap"))
