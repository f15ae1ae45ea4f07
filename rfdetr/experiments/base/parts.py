"""Studies in parts: independent pieces of work, done by several processes at once, each exactly once.

A part is a function with plain options; its value and where it was made are one JSON file in the study's
folder, written when it is done. So a study may be stopped or killed at any time, go on later, also on another
machine to which the folder was copied, and be read before it is complete.
"""

import hashlib
import importlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.files import write_json
from rfdetr.provenance import provenance
from rfdetr.sources import files_digest, module_files, package_root


@dataclass(frozen=True)
class Part:
    """One piece of a study.

    name     of its result in the study's folder: letters, digits, `-`, `_`, `.`
    call     "module:function", called as function(place, **options); returns plain values
    options  plain values (JSON) that, with the code, decide the result
    needs    names of parts that have to be done before
    device   "cpu" or "cuda" where only one of them will do
    """

    name: str
    call: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    device: str = ""


@dataclass(frozen=True)
class Place:
    """Where a part is done: the study's folder, the part's name, the device, and the names that it needs."""

    folder: Path
    name: str
    device: str
    needs: Mapping[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """A folder for unfinished work, which outlives a stopped run and is deleted when the part is done."""
        return self.folder / f"{self.name}.work"

    def file(self, ending: str) -> Path:
        """A file of this part beside its result, e.g. `.safetensors`; to be written whole or not at all."""
        return self.folder / f"{self.name}{ending}"

    def needed(self, part: str, ending: str = ".json") -> Path:
        """A file of a part that is needed."""
        return self.folder / f"{self.needs[part]}{ending}"

    def value(self, part: str) -> Any:
        """The value of a part that is needed."""
        return read(self.needed(part))["value"]


class Plan:
    """The parts of a study and the files that they have in a folder.

    context  plain values that decide the parts too, as the profile's recipe does
    modules  code that decides them
    any_code accept parts that other code made; their records say which commit

    The files' names hold a digest of call, options, context, and the same of everything needed: a changed
    part is done anew, and all that build on it. So is a part that other code made.
    """

    def __init__(
        self,
        folder: Path,
        parts: Iterable[Part],
        modules: Iterable[str],
        context: Any = None,
        any_code: bool = False,
    ) -> None:
        self.folder, self.any_code = folder, any_code
        self.parts = {part.name: part for part in parts}
        self.code = files_digest(module_files(modules), package_root())[:16]
        self.stems: dict[str, str] = {}
        for part in self.parts.values():
            unknown = [name for name in part.needs if name not in self.stems]
            if unknown:
                raise ValueError(f"{part.name} needs {unknown[0]}, which does not come before it")
            content = [part.call, dict(part.options), [self.stems[name] for name in part.needs], context]
            text = json.dumps(content, sort_keys=True, allow_nan=False)
            self.stems[part.name] = f"{part.name}.{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        self._known: set[str] = set()
        self._whole: set[str] = set()

    def path(self, name: str) -> Path:
        """File of a part's result."""
        return self.folder / f"{self.stems[name]}.json"

    def place(self, name: str, device: str) -> Place:
        """Where a part is done."""
        needs = {needed: self.stems[needed] for needed in self.parts[name].needs}
        return Place(self.folder, self.stems[name], device, needs)

    def done(self) -> dict[str, dict[str, Any]]:
        """Name -> record (value, seconds, made, code) of every part that is done."""
        missing = set(self.missing())
        return {name: read(self.path(name)) for name in self.parts if name not in missing}

    def missing(self) -> list[str]:
        """Names of the parts that are not done, in order."""
        found: list[str] = []
        for name, part in self.parts.items():
            if name in self._known:
                continue
            # What needs a part that must be done anew must be done anew as well.
            if not set(part.needs).isdisjoint(found) or not self._is_done(name):
                found.append(name)
            else:
                self._known.add(name)
        return found

    def todo(self) -> list[str]:
        """Names of the parts to do, in order: the missing ones, and those that these need and of which files
        are gone (what a kept result carries has no networks, see `carried`).
        """
        wanted = set(self.missing())
        for part in reversed(self.parts.values()):
            if part.name in wanted:
                wanted.update(name for name in part.needs if name not in wanted and not self._is_whole(name))
        return [name for name in self.parts if name in wanted]

    def files(self, name: str) -> list[Path]:
        """What a part left beside its result."""
        found = self.folder.glob(f"{self.stems[name]}.*")
        return sorted(path for path in found if path.suffix not in (".json", ".work"))

    def _is_whole(self, name: str) -> bool:
        if name not in self._whole:
            endings = read(self.path(name)).get("files", ())
            if not all((self.folder / f"{self.stems[name]}{ending}").exists() for ending in endings):
                return False
            self._whole.add(name)
        return True

    def _is_done(self, name: str) -> bool:
        path = self.path(name)
        return path.is_file() and (self.any_code or read(path)["code"] == self.code)

    def ready(self, device: str, taken: Iterable[str] = (), asked: bool = False) -> str | None:
        """The first part that can be done now on a device, or None. asked: only one that asks for it."""
        todo = self.todo()
        waiting, busy = set(todo), set(taken)
        wanted = (device,) if asked else ("", device)
        for name in todo:
            part = self.parts[name]
            if name not in busy and part.device in wanted and not waiting & set(part.needs):
                return name
        return None


def read(path: Path) -> dict[str, Any]:
    """The record of a part; UserError when the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read {path}: delete it, and the part is done again") from error


def perform(plan: Plan, name: str, device: str, profile: str, seed: int) -> dict[str, Any]:
    """Do one part here and keep its record. What it left in its folder for unfinished work is deleted."""
    part, place = plan.parts[name], plan.place(name, device)
    module, _, function = part.call.partition(":")
    started = datetime.now(UTC)
    value = getattr(importlib.import_module(module), function)(place, **part.options)
    seconds = (datetime.now(UTC) - started).total_seconds()
    made = {**provenance(profile, seed), "device": device_name(device)}
    # What was made from a part of other code is not made by this code alone.
    same = all(read(path)["code"] == plan.code for path in map(plan.path, part.needs))
    code = plan.code if same else f"{plan.code} and other"
    record = {"part": name, "code": code, "seconds": round(seconds, 1), "made": made, "value": value}
    record["files"] = [path.name.removeprefix(plan.stems[name]) for path in plan.files(name)]
    write_json(plan.path(name), record)
    shutil.rmtree(place.work, ignore_errors=True)
    return record


def device_name(device: str) -> str:
    """The graphics processor's name, or cpu."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name()


def makers(records: Iterable[Mapping[str, Any]], code: str = "", commit: str = "") -> list[dict[str, Any]]:
    """Where the parts of a study were made: one row per (commit, code, device, machine, versions), with how
    many parts and their seconds.

    code, commit: digest of the code here and its commit. A part whose code has the same digest gets
    `code_of`, the commit: proof where its own machine did not know the commit.
    """
    groups: dict[str, dict[str, Any]] = {}
    for record in records:
        made = {k: record["made"].get(k) for k in ("commit", "device", "machine", "versions")}
        made |= {"code": record["code"]} | ({"code_of": commit} if commit and record["code"] == code else {})
        group = groups.setdefault(json.dumps(made, sort_keys=True), {**made, "parts": 0, "seconds": 0.0})
        group["parts"] += 1
        group["seconds"] = round(group["seconds"] + record["seconds"], 1)
    return list(groups.values())
