"""The parts of a study that its kept result carries, so that another machine goes on where this one ended.

`parts.zip` in the result's folder holds the records of the finished parts and the small files beside them;
not their networks and pictures, which are made again where a part that is still missing needs them.
"""

import shutil
import zipfile
from pathlib import Path

from rfdetr.experiments.base.parts import Plan
from rfdetr.files import atomic_path

ARCHIVE = "parts.zip"
NETWORK = "network.safetensors"
_LARGEST = 1_000_000  # bytes of a file that is carried
_CARRIED = (".json", ".npz")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same parts make the same archive


def pack(plan: Plan, folder: Path) -> None:
    """Write the archive of what is done into the folder of the kept result."""
    paths = [path for name in plan.done() for path in (plan.path(name), *plan.files(name))]
    with atomic_path(folder / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in paths:
            if path.suffix in _CARRIED and path.stat().st_size <= _LARGEST:
                info = zipfile.ZipInfo(path.name, _LONG_AGO)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, path.read_bytes())


def unpack(plan: Plan, folder: Path, network: str = "") -> int:
    """Put the carried parts that are not with the others yet there; returns how many.

    network: part whose network is the kept result's.
    """
    if not (folder / ARCHIVE).is_file():
        return 0
    plan.folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        held = set(archive.namelist())
        absent = [
            name for name in plan.parts if not plan.path(name).exists() and plan.path(name).name in held
        ]
        for name in absent:
            # The record comes last: a part with a record is done.
            if name == network and (folder / NETWORK).is_file():
                with atomic_path(plan.folder / f"{plan.stems[name]}.safetensors") as temporary:
                    shutil.copyfile(folder / NETWORK, temporary)
            for ending in sorted(_CARRIED, reverse=True):
                path = plan.folder / f"{plan.stems[name]}{ending}"
                if path.name in held:
                    with atomic_path(path) as temporary:
                        temporary.write_bytes(archive.read(path.name))
    return len(absent)
