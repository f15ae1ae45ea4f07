"""A kept result that is made in parts: which parts, and what becomes of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.experiments.base import carried
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.crew import Outcome, Task, work
from rfdetr.experiments.base.kept import results_root
from rfdetr.experiments.base.parts import Part, Plan, makers
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.provenance import provenance


@dataclass(frozen=True)
class Finished:
    """What a study is collected from.

    plan, records: all its parts, and name -> record of those that are done. folder: of the kept result.
    origin: provenance of the collecting; that of the parts is in the records.
    """

    profile: Profile
    seed: int
    plan: Plan
    records: Mapping[str, Mapping[str, Any]]
    folder: Path
    origin: Mapping[str, Any]

    def values(self, prefix: str = "") -> dict[str, Any]:
        """Name -> value of the done parts whose names begin so."""
        return {name: record["value"] for name, record in self.records.items() if name.startswith(prefix)}

    def makers(self, beginning: str = "") -> list[dict[str, Any]]:
        """Where the parts whose names begin so were made, see `parts.makers`."""
        wanted = (record for name, record in self.records.items() if name.startswith(beginning))
        return makers(wanted, self.plan.code, self.origin.get("commit", ""))

    def file(self, part: str, ending: str) -> Path:
        """A file that a part left beside its result."""
        return self.plan.folder / f"{self.plan.stems[part]}{ending}"


@dataclass(frozen=True)
class Study:
    """How a kept result is made.

    name     of the kept result
    profile  whose sizes it has
    parts    (profile, seed) -> the parts, those that matter most first
    collect  writes the kept result from what is done; UserError when that is too little
    modules  code that decides the parts' values, beside their functions' options and the profile's recipe
    settings further plain values of a profile that decide the parts
    network  the part whose network is the kept result's, if there is one
    """

    name: str
    profile: str
    parts: Callable[[Profile, int], Sequence[Part]]
    collect: Callable[[Finished], None]
    modules: tuple[str, ...]
    settings: Callable[[Profile], Any] | None = None
    network: str = ""

    def task(self, seed: int, store: Store, only: Sequence[str] = (), any_code: bool = False) -> Task:
        """The work of this study.

        only      beginnings of the names of the parts that are wanted (with all that they need)
        any_code  take parts that were made by other code, too
        """
        profile = get_profile(self.profile)
        parts = list(self.parts(profile, seed))
        if only:
            parts = _with_needs(parts, only)
        decisive = [asdict(profile.recipe), self.settings(profile) if self.settings else None]
        context = json.loads(json.dumps(decisive))
        plan = Plan(store.root / "parts" / self.name, parts, self.modules, context, any_code)
        return Task(self.name, plan, profile.name, seed)

    def keep(self, folder: Path, seed: int, store: Store, any_code: bool = False) -> None:
        """Write the kept result from the parts that are done."""
        plan = self.task(seed, store, any_code=any_code).plan
        profile = get_profile(self.profile)
        origin = provenance(profile.name, seed)
        self.collect(Finished(profile, seed, plan, plan.done(), folder, origin))
        carried.pack(plan, folder)


def make(
    study: Study,
    folder: Path,
    seed: int,
    store: Store,
    devices: Sequence[str] = ("cpu",),
    seconds: float | None = None,
    only: Sequence[str] = (),
    any_code: bool = False,
) -> Outcome:
    """Do what is missing of a study and keep the result from what is done: all, or what `seconds` allowed.
    Parts that the kept result carries are not done again.

    only, any_code: see `Study.task`; with `only` nothing is kept. UserError when parts failed.
    """
    plan = study.task(seed, store).plan
    for source in dict.fromkeys((folder, results_root() / study.name)):
        carried.unpack(plan, source, study.network)
    outcome = work([study.task(seed, store, only, any_code)], devices, seconds)
    if not only:
        study.keep(folder, seed, store, any_code)
    if outcome.failed:
        (name, part), error = next(iter(outcome.failed.items()))
        raise UserError(
            f"{len(outcome.failed)} parts of {name} failed, first {part}: {error} (whole text in"
            f" {store.root / 'parts' / name / (part + '.error.txt')}); run again to go on"
        )
    return outcome


def _with_needs(parts: Sequence[Part], only: Sequence[str]) -> list[Part]:
    wanted = {part.name for part in parts if part.name.startswith(tuple(only))}
    if not wanted:
        raise UserError(f"no part begins with {', '.join(only)}; parts: {', '.join(p.name for p in parts)}")
    for part in reversed(parts):
        if part.name in wanted:
            wanted |= set(part.needs)
    return [part for part in parts if part.name in wanted]
