"""What was counted in the paper's other detectors, and how they are built: the record `peers.yaml`.

38 entries with package, class, configuration, and what was counted (parameters, operations with and without
attention, other conventions), with the printed figures; and later detectors that the paper does not print.
"""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError

PARAMETERS_LIMIT, GFLOPS_LIMIT = 1.0, 2.0
"""Per cent beyond which a difference from the printed number needs a cause (`cause`)."""
_EXTRA = "pip install 'rf-detr-nas-companion[peers]'"
# What else it asks for it needs for other things than its networks, and torchvision may not load.
_INSTALL = {"libreyolo": "pip install --no-deps libreyolo"}
BACKBONE = "backbone"
"""The size of an entry that is only the backbone of a detector."""

_MERGED = "merged_with_attention"
_BY_PACKAGE = {"ultralytics": "gflops_fused", "libreyolo": "gflops_deployed"}
_ONE_CONVENTION = {"D-FINE": "deploy_with_attention", "RT-DETR": _MERGED, "RT-DETRv2": _MERGED}


@cache
def document() -> dict[str, Any]:
    """Content of `peers.yaml`. Do not modify it."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("peers.yaml").read_text(encoding="utf-8"))


def entries(today: bool = False) -> list[dict[str, Any]]:
    """The detectors and backbones of the paper; with `today` the later ones, too."""
    return document()["peers"] + (document()["today"] if today else [])


def find(name: str, size: str) -> dict[str, Any]:
    """One detector, e.g. `find("LW-DETR", "S")`. KeyError listing the sizes of that name otherwise."""
    for entry in entries(today=True):
        if (entry["name"], entry["size"]) == (name, size):
            return entry
    sizes = [entry["size"] for entry in entries(today=True) if entry["name"] == name]
    raise KeyError(
        f"no {name} {size} among the measured detectors; sizes of {name}: {', '.join(sizes) or 'none'}"
    )


def key(entry: Mapping[str, Any]) -> str:
    """The name of an entry on the command line: "d-fine-s", "yolo11-seg-n", "hiera-s"."""
    return entry.get("key") or f"{entry['name']}-{entry['size']}".lower()


def keys() -> list[str]:
    """All names, the paper's first."""
    return [key(entry) for entry in entries(today=True)]


def named(name: str) -> dict[str, Any]:
    """The entry with this name. UserError that lists the names otherwise."""
    for entry in entries(today=True):
        if key(entry) == name.lower():
            return entry
    raise UserError(f"there is no peer {name!r}; choose one of {', '.join(keys())}")


def is_yolo(entry: Mapping[str, Any]) -> bool:
    """Whether it is one of the families that the package ultralytics holds."""
    return entry["package"] == "ultralytics"


def is_libre(entry: Mapping[str, Any]) -> bool:
    """Whether its network comes from the package libreyolo."""
    return entry["package"] == "libreyolo"


def has_masks(entry: Mapping[str, Any]) -> bool:
    """Whether the detector predicts masks."""
    return entry["name"].endswith("-seg")


def takes_image_alone(entry: Mapping[str, Any]) -> bool:
    """Whether it is a detector that needs a picture and no text: what can be exported and timed here."""
    return entry["size"] != BACKBONE and "text_config" not in entry["config"]


def one_convention(entry: Mapping[str, Any]) -> float:
    """GFLOPs on the convention that is fair to all: attention counted, graph as deployed."""
    way = _ONE_CONVENTION.get(entry["name"], _BY_PACKAGE.get(entry["package"], ""))
    return entry.get("variants", {}).get(way, entry["gflops_with_attention"])


def available(entry: Mapping[str, Any] | None = None) -> bool:
    """Whether the package that an entry needs is installed; of None, transformers."""
    return find_spec("transformers" if entry is None else entry["package"]) is not None


def require(entry: Mapping[str, Any]) -> None:
    """UserError naming what to install when the package of an entry is missing."""
    if not available(entry):
        licence = f" ({entry['licence']})" if entry["package"] != "transformers" else ""
        raise UserError(
            f"{entry['name']} {entry['size']} needs the package {entry['package']}{licence}:"
            f" {_INSTALL.get(entry['package'], _EXTRA)}"
        )


def differences(entry: Mapping[str, Any]) -> dict[str, float]:
    """Per cent by which the detector as built differs from the printed number: params, gflops.

    gflops is of the nearer of the two counts, with attention and without. Empty where nothing is printed.
    """
    printed = entry.get("published")
    if not printed or entry["size"] == BACKBONE:
        return {}
    counts = (entry["gflops_with_attention"], entry["gflops_no_attention"])
    errors = [100 * (count / printed["gflops"] - 1) for count in counts]
    return {
        "params": 100 * (entry["params_m"] / printed["params_m"] - 1),
        "gflops": min(errors, key=abs),
    }


def cause(entry: Mapping[str, Any]) -> str:
    """Why the detector as built differs from the printed numbers by more than the limits; "" if it does not.

    A number printed with one decimal or none may differ by its rounding alone; otherwise the convention that
    comes closest says it, and where none does, the note of the record.
    """
    found = differences(entry)
    reasons = []
    for kind, word, limit in (
        ("params", "parameters", PARAMETERS_LIMIT),
        ("gflops", "GFLOPs", GFLOPS_LIMIT),
    ):
        if abs(found.get(kind, 0.0)) <= limit:
            continue
        if kind == "params" and _is_rounding(entry["params_m"], entry["published"]["params_m"]):
            reasons.append(f"{word}: rounding of the printed number")
        elif abs(entry["closest"][f"{kind}_error_percent"]) <= GFLOPS_LIMIT:
            reasons.append(f"{word}: {entry['closest'][f'{kind}_convention']}")
        else:
            reasons.append(f"{word}: {entry['note']}")
    kinds, whys = zip(*(reason.split(": ", 1) for reason in reasons), strict=True) if reasons else ((), ())
    if len(set(whys)) == 1:
        return f"{' and '.join(kinds)}: {whys[0]}"
    return "; ".join(reasons)


def _is_rounding(measured: float, printed: float) -> bool:
    decimals = 0 if float(printed).is_integer() and printed >= 30 else 1
    return round(measured, decimals) == round(printed, decimals)
