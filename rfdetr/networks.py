"""Networks by name, as the command line and the recipes take them."""

from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.arch import PRESETS
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

RANDOM = "random:"


def open_network(target: str | Path) -> "RFDETR":
    """A network from a checkpoint or the folder of a training, or a published one.

    Published ones: by name (downloaded), `<name>:<file or folder>` for weights that are here
    (`rfdetr.load_official`), or `random:<name>`. A path that exists goes before a name. Random weights (seed
    0) time like trained ones; only their accuracy means nothing. Raises UserError that lists what can be
    given.
    """
    name, path = str(target), Path(target)
    if path.exists():
        from rfdetr.training.checkpoint import model_from_checkpoint

        return model_from_checkpoint(path)
    if name.startswith(RANDOM):
        import torch

        import rfdetr

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return rfdetr.build(name.removeprefix(RANDOM)).eval()
    if name in PRESETS:
        import rfdetr

        return rfdetr.load_official(name)
    preset, colon, file = name.partition(":")
    if colon and preset in PRESETS:
        import rfdetr

        return rfdetr.load_official(preset, file)
    raise UserError(
        f"there is no file {name} and no configuration of that name; give a checkpoint of `train` or its"
        f" folder, one of {', '.join(PRESETS)}, <one of them>:<file of published weights>, or {RANDOM}<one of"
        " them>"
    )
