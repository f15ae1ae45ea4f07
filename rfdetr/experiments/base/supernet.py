"""The trained supernet that chapters share, and variants of its training.

Source: Section 3 of the paper (weight-sharing training). All are artifacts: the same profile and seed are
never trained twice, and a killed training goes on where it stopped.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.scenes import Scenes, scenes
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.telling import telling

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR
    from rfdetr.training.config import TrainConfig

MODULES = ("rfdetr.training.loop", "rfdetr.data.scenes")
"""Code that decides what a trained network is: a change of it trains anew."""


@dataclass(frozen=True)
class Trained:
    """A trained network: in evaluation mode, with the log of its training (one row per step) and its
    folder.
    """

    model: "RFDETR"
    log: "pd.DataFrame"
    folder: Path

    def snapshots(self) -> dict[int, dict[str, Any]]:
        """Weights that were kept on the way, averaged where the final ones are: step -> state dict."""
        import torch

        files = {int(path.stem.rpartition("-")[2]): path for path in self.folder.glob("step-*.pt")}
        return {step: torch.load(path, weights_only=True) for step, path in sorted(files.items())}


def data(profile: Profile, split: str, domain: str = "digits") -> Scenes:
    """The embedded scenes of a profile: train, val or test."""
    recipe = profile.recipe
    return scenes(domain, split, size=recipe.images[split], canvas=recipe.canvas)


def train_supernet(
    profile: Profile, seed: int, store: Store, domain: str = "digits", show: bool = True
) -> Trained:
    """The supernet: every step draws one (resolution, patch size, windows) from the profile's training
    space.
    """
    return _trained("supernet", profile, profile.recipe.training, {}, seed, store, domain, show)


def train_variant(
    profile: Profile,
    seed: int,
    store: Store,
    changes: dict[str, Any],
    domain: str = "digits",
    show: bool = True,
) -> Trained:
    """The supernet with some fields of its `TrainConfig` changed, for comparisons."""
    return _trained("variant", profile, profile.recipe.training, changes, seed, store, domain, show)


def train_config(profile: Profile, seed: int, **changes: Any) -> "TrainConfig":
    """The training recipe of a profile."""
    from rfdetr.training.config import TrainConfig

    return TrainConfig.from_dict({**profile.recipe.train, "seed": seed, **changes})


def _trained(
    name: str,
    profile: Profile,
    space: SearchSpace | Arch,
    changes: dict[str, Any],
    seed: int,
    store: Store,
    domain: str,
    show: bool,
) -> Trained:
    import pandas as pd
    import torch

    from rfdetr.model.detector import RFDETR
    from rfdetr.training.checkpoint import model_from_checkpoint
    from rfdetr.training.loop import train
    from rfdetr.training.precision import resolve_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = data(profile, "train", domain)
    config = train_config(profile, seed, **changes)

    def build(folder: Path) -> None:
        torch.manual_seed(seed)
        model = RFDETR(categories=dataset.category_ids, **profile.recipe.model)
        tell = telling("steps")

        def report(row: dict[str, Any]) -> None:
            if show:
                more = f"loss {row['total']:.2f}, {row['images_per_s']:.0f} images/s"
                tell(row["step"], config.steps, more)

        train(model, dataset, space, config, folder, progress=report, snapshots=profile.recipe.snapshots)

    key = {
        "model": profile.recipe.model,
        "space": space.to_dict() if isinstance(space, Arch) else asdict(space),
        "config": config.to_dict(),
        # What "auto" means depends on the device.
        "precision": resolve_precision(config.precision, device),
        "data": dataset.fingerprint,
        "snapshots": profile.recipe.snapshots,
    }
    folder = store.artifact(name, json.loads(json.dumps(key)), build, MODULES)
    log = pd.read_json(folder / "log.jsonl", lines=True)
    return Trained(model_from_checkpoint(folder / "checkpoint.pt"), log, folder)
