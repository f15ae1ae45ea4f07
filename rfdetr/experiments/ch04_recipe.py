"""How chapter 04 trains, beside how the paper does, and why the two differ."""

from typing import TYPE_CHECKING, Any

from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.supernet import train_config
from rfdetr.paper import tables
from rfdetr.paper.arithmetic.recipe import stated

if TYPE_CHECKING:
    import pandas as pd

_SMALL = "random weights and small data: a large rate at first, a small one at the end"
# Setting -> (name in the paper's recipe, why this page has another value).
_ROWS: dict[str, tuple[str, str]] = {
    "initial weights": ("backbone", "nothing is downloaded; the paper starts from DINOv2 and Objects-365"),
    "steps × images": ("batch_size", "minutes on two processor cores"),
    "learning rate": ("learning_rate", _SMALL),
    "warm-up": ("learning_rate_warm_up", _SMALL),
    "schedule": ("learning_rate_schedule", "the paper's is scheduler-free; a run of minutes has to settle"),
    "averaged weights": ("ema", "the average of so short a run would hold its start"),
    "gradient clipping": ("gradient_clipping", "0.1 suits fine-tuning; from scratch gradients are larger"),
    "layer-wise decay": ("layer_wise_lr_decay", "it protects pre-trained weights; there are none"),
    "augmentation": ("augmentations", "every scene is painted anew, so none repeats"),
    "class loss weight": ("", "here the classes, not the boxes, are learned last"),
    "precision": ("", "bfloat16 is held against it below"),
    "scenes": ("target_datasets", "embedded in the package; inputs above their size show no more detail"),
}


def recipe_table(profile: Profile) -> "pd.DataFrame":
    """Columns: setting, paper, here, why (empty where the values agree)."""
    import pandas as pd

    recipe = tables.document("training_recipe")
    here = _here(profile)
    rows = []
    for setting, (name, why) in _ROWS.items():
        paper = _text(stated(recipe, name)["value"]) if name else "not stated"
        same = paper.split(" ")[0].rstrip(",") == here[setting].split(" ")[0]
        rows.append({"setting": setting, "paper": paper, "here": here[setting], "why": "" if same else why})
    return pd.DataFrame(rows)


def _here(profile: Profile) -> dict[str, str]:
    config, recipe = train_config(profile, 0), profile.recipe
    return {
        "initial weights": "random",
        "steps × images": f"{config.steps:,} × {config.batch_size * config.accumulate}",
        "learning rate": f"{config.lr:g}",
        "warm-up": f"{config.warmup_steps} steps" if config.warmup_steps else "none",
        "schedule": "none" if config.schedule == "none" else f"{config.schedule}, to zero",
        "averaged weights": "none" if config.ema_decay is None else f"decay {config.ema_decay:g}",
        "gradient clipping": f"{config.clip_norm:g}",
        "layer-wise decay": f"{config.layer_decay:g}",
        "augmentation": "horizontal flip, random crop" if config.augment else "none",
        "class loss weight": f"{config.weights.label:g}",
        "precision": config.precision,
        "scenes": f"digits on photographs, {recipe.canvas} × {recipe.canvas} px",
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
