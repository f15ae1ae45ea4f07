"""Networks of the peers from their packages: random weights (seed 0), or those of a file."""

import contextlib
import importlib.metadata
import os
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.peers import libre
from rfdetr.peers.catalogue import is_libre, is_yolo, named, require

if TYPE_CHECKING:
    from torch import nn


def build(name: str, weights: str | Path | None = None) -> "nn.Module":
    """A peer as its package builds it, in evaluation mode.

    name     of the catalogue, e.g. "d-fine-s" or "yolo11-seg-n"
    weights  a state dict of that network: .safetensors, or .pt / .pth read without executing anything; None:
             random weights, the same at every call

    Raises UserError for an unknown name, without the package, and for weights that do not fit.
    """
    entry = named(name)
    require(entry)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make = libre.network if is_libre(entry) else _yolo if is_yolo(entry) else _transformers
        model = make(entry)
    if weights is not None:
        load_weights(model, Path(weights), name)
    return model.eval()


def lively(name: str) -> "nn.Module":
    """A detector with random weights that can be exported, run and timed like a trained one
    (`rfdetr.peers.liveliness`).
    """
    from rfdetr.peers.liveliness import enliven, picture, spread_scores

    entry = named(name)
    model, size = build(name), tuple(entry["input"])
    if is_libre(entry):
        libre.make_lively(entry, model)
        return model
    enliven(model, model if is_yolo(entry) else lambda x: model(pixel_values=x), size)
    if is_yolo(entry):
        head: Any = model.model[-1]  # type: ignore[index]
        branches = head.one2one_cv3 if getattr(head, "end2end", False) else head.cv3
        spread_scores([branch[-1] for branch in branches], lambda: model(picture(size)))
    return model


def load_weights(model: "nn.Module", path: Path, name: str) -> None:
    """Put a state dict into a network. UserError for a file that is missing, unreadable, or of another
    network.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles that it then refuses
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"cannot read the weights {path}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch's refusal of a pickle that would run code
        raise UserError(
            f"{path} is no plain state dict, and what else is in it is not executed: save"
            " model.state_dict() of the network, as .safetensors best"
        ) from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no weights of {name}: {' '.join(str(error).split())[:200]}") from error


def _transformers(entry: Mapping[str, Any]) -> "nn.Module":
    with warnings.catch_warnings():
        # The package asks for a notebook widget at import; it is not needed.
        warnings.filterwarnings("ignore", message="IProgress not found")
        parts = {
            key: _configuration(entry["config"][key])
            for key in ("backbone_config", "text_config")
            if key in entry["config"]
        }
        return _named(entry["class"])(_configuration(entry["config"], **parts))


def _configuration(spec: Mapping[str, Any], **parts: Any) -> Any:
    return _named(spec["class"])(**spec.get("kwargs", {}), **parts)


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _yolo(entry: Mapping[str, Any]) -> "nn.Module":
    with ultralytics():
        model = _named(entry["class"])(entry["config"]["yaml"], verbose=False)
    head = model.model[-1]
    if getattr(head, "one2one_cv2", None) is not None:
        head.end2end = True  # of two heads the one that needs no suppression is deployed
    return model


@contextlib.contextmanager
def ultralytics() -> Iterator[None]:
    """In the block the package ultralytics can be imported in silence, and without torchvision.

    It asks for torchvision's version when it is imported, and uses that package for nothing that is done
    here; torchvision's wheel beside a processor's torch does not load, and would break transformers.
    """
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    asked = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return asked(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name == "torchvision":
                return "0.0.0"
            raise

    importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = asked
