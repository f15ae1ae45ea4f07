"""Results of runs that are too long for a chapter: made once, committed under `results/`, shown with where
they come from.

One folder per result: CSV tables, `result.json` (provenance, tables with their SHA-256) and, where a chapter
computes with it, the network. `rfdetr.experiments.kept_studies` makes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.experiments.base.findings import commit_words
from rfdetr.files import atomic_path, sha256_file, write_json
from rfdetr.sources import package_root

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from rfdetr.model.detector import RFDETR

_RECORD, _WEIGHTS, _ARRAYS = "result.json", "network.safetensors", "arrays.npz"


@dataclass(frozen=True)
class Kept:
    """A kept result: tables by name, the record (provenance and numbers that are no table), its folder, and
    arrays by name.
    """

    tables: Mapping[str, "pd.DataFrame"]
    record: Mapping[str, Any]
    folder: Path
    arrays: Mapping[str, "np.ndarray"] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where it comes from, in a sentence for the page."""
        made = self.record["provenance"]
        return (
            f"Made on {made['time_utc'][:10]} from {commit_words(made['commit'])} with torch"
            f" {made['versions']['torch']} on {made['machine']}, profile `{made['profile']}`, seed"
            f" {made['seed']}; `python -m rfdetr results {self.folder.name}` makes it anew."
        )

    def network(self) -> "RFDETR":
        """The network that was kept with the tables, in evaluation mode."""
        return read_network(self.folder / _WEIGHTS)


def results_root() -> Path:
    """Folder of the committed results, `results/` of the repository."""
    return package_root() / "results"


def find(name: str, root: Path | None = None) -> "Kept | None":
    """`load`, or None where there is no such result. UserError when a table was changed after it was made."""
    there = ((root or results_root()) / name / _RECORD).is_file()
    return load(name, root) if there else None


def load(name: str, root: Path | None = None) -> Kept:
    """Read a kept result. UserError when it is missing or a table was changed after it was made."""
    import pandas as pd

    folder = (root or results_root()) / name
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"there is no kept result {folder}: work in a clone of the repository, or make it with "
            f"`python -m rfdetr results {name}`"
        ) from error
    tables = {}
    for table, digest in record["tables"].items():
        path = folder / f"{table}.csv"
        _check(path, digest)
        tables[table] = pd.read_csv(path)
    return Kept(tables, record, folder, _read_arrays(folder, record))


def _check(path: Path, digest: str) -> None:
    if sha256_file(path) != digest:
        raise UserError(f"{path} is not the table that {_RECORD} was written for; restore it or make it anew")


def _read_arrays(folder: Path, record: Mapping[str, Any]) -> "dict[str, np.ndarray]":
    import numpy as np

    if "arrays" not in record:
        return {}
    _check(folder / _ARRAYS, record["arrays"])
    with np.load(folder / _ARRAYS) as file:
        return {name: file[name] for name in file.files}


def keep(
    folder: Path,
    tables: Mapping[str, "pd.DataFrame"],
    origin: Mapping[str, Any],
    network: "RFDETR | None" = None,
    digits: int = 6,
    arrays: "Mapping[str, np.ndarray] | None" = None,
    **numbers: Any,
) -> None:
    """Write tables (reals with `digits` significant digits), record and, if given, the network (see
    `write_network`) and arrays (compressed, in one file).
    """
    digests = {}
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False, float_format=f"%.{digits}g")
        digests[name] = sha256_file(path)
    if network is not None:
        write_network(network, folder / _WEIGHTS)
    record = {"provenance": dict(origin), **numbers, "tables": digests}
    if arrays:
        import numpy as np

        with atomic_path(folder / _ARRAYS) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **dict(arrays))
        record["arrays"] = sha256_file(folder / _ARRAYS)
    write_json(folder / _RECORD, record)


def write_network(model: "RFDETR", path: Path) -> None:
    """Write weights as float16 with the sizes in the header. Reading gives exactly these rounded weights."""
    import torch
    from safetensors.torch import save_file

    weights = {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata={"config": json.dumps(model.config.to_dict())})


def read_network(path: Path) -> "RFDETR":
    """A network of `write_network` in float32 and evaluation mode; UserError when the file is missing or
    damaged.
    """
    from safetensors import SafetensorError, safe_open

    from rfdetr.model.config import ModelConfig
    from rfdetr.model.detector import RFDETR

    try:
        with safe_open(path, "pt") as file:
            config = ModelConfig.from_dict(json.loads(file.metadata()["config"]))
            names = list(file.keys())  # not a mapping
            weights = {name: file.get_tensor(name).float() for name in names}
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the network {path}: restore it from the repository") from error
    model = RFDETR(**config.to_dict())
    model.load_state_dict(weights)
    return model.eval()
