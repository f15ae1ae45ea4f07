"""Reading tensors from files without running code from them."""

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfdetr.errors import UserError

WEIGHT_ENTRIES = ("model", "state_dict")
"""Entries of a training checkpoint that may hold the weights, in order of preference."""
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that training wrappers (data parallel, compile, Lightning) put before every name."""

SAVED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What a folder of weights may hold (the Transformers package's `save_pretrained`), in order of
preference.
"""

_UNSAFE = re.compile(r"GLOBAL|unrecognized|not an allowed|blocked|disallowed|[Uu]nsupported (class|operand)")


def read_tensors(source: Any) -> tuple[dict[str, Tensor], str, dict[str, Any]]:
    """The weights of a checkpoint: name -> tensor on the CPU, a description of the source, and the entries
    that are no weights.

    source: path of a `.pth`/`.pt` file (a state dict, or a dict whose "model" or "state_dict" entry is one),
    of a `.safetensors` file, of a folder that `save_pretrained` wrote or of its index of shards; or such a
    dict itself. Pickled files are read with `weights_only`: nothing in them is executed.
    Raises UserError for a missing, truncated, changed, foreign or unsafe file, and when there are no tensors
    in it.
    """
    if isinstance(source, Mapping):
        return _weights(source, "state dict"), "state dict", _other_entries(source)
    path = Path(source)
    files = _files(path)
    content = _read(files[0])
    others = _other_entries(content)
    tensors = _weights(content, str(files[0]))
    for file in files[1:]:
        tensors |= _weights(_read(file), str(file))
    return tensors, str(path), others


def _files(path: Path) -> list[Path]:
    """The file itself, or the shards of a folder or index."""
    if path.is_dir():
        found = [path / name for name in SAVED if (path / name).is_file()]
        if not found:
            raise UserError(f"the folder {path} holds no weights: expected one of {', '.join(SAVED)} in it")
        path = found[0]
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: check the path")
    if not path.name.endswith(".index.json"):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of weight files: it has no readable weight_map") from error
    # Only files beside the index: a name with a folder in it would reach anywhere.
    files = [path.parent / Path(str(name)).name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(
            f"{path} names weight files that are missing: {', '.join(missing) or 'none are listed'}"
        )
    return files


def _other_entries(content: Any) -> dict[str, Any]:
    used = _weights_entry(content)
    return {} if used is None else {str(key): content[key] for key in content if key != used}


def _weights_entry(content: Any) -> str | None:
    if not isinstance(content, Mapping):
        return None
    return next((entry for entry in WEIGHT_ENTRIES if isinstance(content.get(entry), Mapping)), None)


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(16)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(_damaged(path, error)) from error
    if len(head) == 0:
        raise UserError(_damaged(path, "the file is empty"))
    _check_records(path)
    try:
        # Published checkpoints keep their command line as a Namespace, which is only a bag of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path) and head[:1] != b"\x80":
            raise UserError(_damaged(path, "neither a PyTorch nor a safetensors file")) from error
        # Torch's message also advises to load without the check; only the line that names the object is
        # passed on.
        unsafe = [line for line in str(error).splitlines() if _UNSAFE.search(line)]
        if unsafe:
            raise UserError(
                f"{path} holds objects that are not plain tensors and could run code; it was not loaded, and"
                f" nothing in it was executed ({unsafe[0].strip()}). If you trust the file, save its state"
                " dict alone, best as safetensors"
            ) from error
        raise UserError(_damaged(path, "unreadable pickle")) from error
    except Exception as error:  # so can a changed pickle, down to assertions inside torch
        raise UserError(_damaged(path, error)) from error


def _check_records(path: Path) -> None:
    """Compare the records of a zip archive with their checksums: torch does not, and would load changed
    weights in silence.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            # Torch can be told to leave checksums out; they are then 0.
            for record in (r for r in archive.infolist() if r.CRC):
                with archive.open(record) as content:
                    while content.read(1 << 22):
                        pass
    except Exception as error:  # a changed directory of the archive can fail in any way
        raise UserError(_damaged(path, error)) from error


def _damaged(path: Path, error: object) -> str:
    detail = " ".join(str(error).split())[:200]
    return (
        f"{path} cannot be read as a checkpoint: truncated or damaged ({detail}); download or copy it again"
    )


def _weights(content: Any, name: str) -> dict[str, Tensor]:
    entry = _weights_entry(content)
    if entry is not None:
        content = content[entry]
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{name} holds no weights: expected a state dict or a dict with a 'model' entry, got"
            f" {type(content).__name__}"
        )
    foreign = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise UserError(
            f"{name} is no state dict: entry {foreign[0]!r} is no tensor; give the entry that holds the"
            " weights"
        )
    broken = [
        key for key, value in content.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        raise UserError(
            f"{name} is damaged: {broken[0]} holds values that are not finite; get the file again"
        )
    return dict(content)


def unwrap(state: dict[str, Tensor], anchors: tuple[str, ...]) -> dict[str, Tensor]:
    """Remove wrapper prefixes shared by all names, until names that start with one of `anchors` appear."""
    while not any(key.startswith(anchors) for key in state):
        prefix = next((w for w in WRAPPERS if all(key.startswith(w) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
