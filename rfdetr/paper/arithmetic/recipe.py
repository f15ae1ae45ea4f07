"""Claims about the recipe of Appendix A: what the paper's own statements, and the public defaults, say."""

import re
from typing import Any

from rfdetr.paper.verdicts import Remark, Verdict, agree

_RELATIONS = ("larger", "smaller", "same")


def stated(training_recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """One entry of the recipe; KeyError when the paper states none of that name."""
    for entry in training_recipe["training"]:
        if entry["name"] == name:
            return entry
    raise KeyError(f"the recipe has no {name!r}")


def c110(training_recipe: dict[str, Any], values: dict[str, Any]) -> Verdict:
    """A quarter of LW-DETR's learning rate."""
    entry = stated(training_recipe, "learning_rate")
    ratio = entry["value"] / entry["lw_detr_value"]
    return Verdict(
        agree(abs(ratio - 0.25) < 1e-9 and entry["value"] == values["lr"]),
        {"ratio": ratio, "public default": training_recipe["published_code_defaults"]["lr"]},
        "Both rates are the paper's statements; the public code has the same default.",
    )


def c111(inconsistencies: list[dict[str, Any]]) -> Verdict:
    """How the paper compares its batch with LW-DETR's: in one way?"""
    sides = next(entry["sides"] for entry in inconsistencies if entry["id"] == "I14")
    text = " ".join(side["value"] for side in sides)
    found = [word for word in _RELATIONS if re.search(rf"\b{word}\b", text)]
    return Verdict(
        agree(found == ["same"]),
        {"compared with LW-DETR's": found},
        f"It is described in {len(found)} ways (I14).",
    )


def _remark(training_recipe: dict[str, Any], name: str, key: str, text: str) -> Remark:
    entry = stated(training_recipe, name)
    numbers = {"paper": entry["value"]}
    if key:
        numbers["public default"] = training_recipe["published_code_defaults"][key]
    return Remark(text, numbers)


def c033(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(training_recipe, "pretraining_dataset", "", "A stated setting; it needs the data.")


def c034(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(
        training_recipe,
        "architecture_sampling",
        "",
        "A stated setting; chapter 04 counts how often its own training drew each setting.",
    )


def c050() -> Remark:
    """An argument."""
    return Remark("An argument without a number: a cosine schedule is a function of the length of training.")


def c051(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(
        training_recipe, "augmentations", "", "A stated setting; the crop's parameters are not stated."
    )


def c105(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(
        training_recipe,
        "pretraining_epochs_backbone_ablation",
        "",
        "A stated setting; the epochs of the final models are not.",
    )


def c112(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(
        training_recipe,
        "learning_rate_warm_up",
        "warmup_epochs",
        "A stated setting, which the public code has as its default. The averaging decay is not stated.",
    )


def c113(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(
        training_recipe,
        "gradient_clipping",
        "clip_max_norm",
        "A stated setting, which the public code has as its default; whether norm or value, only the code"
        " says.",
    )


def c114(training_recipe: dict[str, Any]) -> Remark:
    """A stated setting."""
    return _remark(
        training_recipe,
        "layer_wise_lr_decay",
        "lr_vit_layer_decay",
        "A stated setting, which the public code has as its default.",
    )


def c116(training_recipe: dict[str, Any]) -> Remark:
    """How many groups of neighbouring windowed blocks each list has."""
    entry = stated(training_recipe, "windowed_attention_blocks")
    groups = {}
    for name, blocks in (("RF-DETR", entry["value"]), ("LW-DETR", entry["lw_detr_value"])):
        starts = [b for b in blocks if b - 1 not in blocks]
        groups[f"{name}, windowed blocks and groups of them"] = [len(blocks), len(starts)]
    return Remark(
        "One reshape per group of neighbouring windowed blocks: by the printed lists both networks have"
        " equally many groups (I12). What it saves has to be profiled.",
        groups,
    )
