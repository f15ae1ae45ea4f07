"""What was found about the paper's claims: the words, and how a chapter's small functions are run.

A claim is decided by a function that is named after it (`c124`) and is given the evidence that its parameters
name. It never sees anything else, so that other evidence can be put in its place: a test shuffles, zeroes and
reverses it, and sees the verdict change. What code cannot decide is a `Remark`; what concerns this project's
own code is a `Check`. Neither is counted among the verdicts.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from rfdetr.paper import tables

if TYPE_CHECKING:
    import pandas as pd

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "reproduced": "the same quantity was computed here and agrees with the printed one",
        "consistent": "a smaller experiment points the same way",
        "tables agree": "arithmetic on the paper's own numbers bears it out; nothing was measured",
        "not resolved": "the difference lies inside the interval that the experiment can tell apart",
        "contradicted": "the same quantity, or a smaller experiment, comes out otherwise",
        "disagrees with itself": "other numbers or statements of the paper say otherwise",
    }
)
"""The words of a verdict and what they mean; one more begins with `needs`."""
NEEDS = "needs "
NEEDS_MEANING = "what is missing here: a device, weights, data"

_CLAIM = re.compile(r"c(\d{3})")
_TABLE = re.compile(r"t(\d+)(_v1)?")


@dataclass(frozen=True)
class Verdict:
    """The outcome for one claim of the paper.

    verdict  one of `WORDS`, or `needs ...` saying what is missing
    numbers  the numbers that decided it
    why      one sentence

    ValueError for any other word.
    """

    verdict: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    def __post_init__(self) -> None:
        needs = self.verdict.startswith(NEEDS) and self.verdict[len(NEEDS) :].strip()
        if self.verdict not in WORDS and not needs:
            raise ValueError(f"a verdict is one of {', '.join(WORDS)} or 'needs ...', not {self.verdict!r}")


@dataclass(frozen=True)
class Remark:
    """A statement about a claim that no code can decide: shown, not counted."""

    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A statement about this project's own code that a chapter has tested: in a table of its own."""

    statement: str
    passed: bool
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


Outcome: TypeAlias = Verdict | Remark | Check


@dataclass(frozen=True)
class Finding:
    """One outcome with what it is about, as it is shown and saved.

    kind     verdict, remark or check
    claim    id in the ledger; empty for a check
    verdict  the word; `passed` or `failed` for a check, empty for a remark
    """

    kind: str
    claim: str
    statement: str
    verdict: str
    numbers: Mapping[str, Any]
    why: str


def agree(holds: Any) -> str:
    """The word for arithmetic on the print."""
    return "tables agree" if holds else "disagrees with itself"


def computed(holds: Any) -> str:
    """The word for the printed quantity, computed here."""
    return "reproduced" if holds else "contradicted"


def by_interval(low: float, high: float, least: float = 0.0) -> str:
    """The word for a miniature experiment whose effect should be above `least`, from its interval."""
    if low > least:
        return "consistent"
    return "contradicted" if high < least else "not resolved"


@cache
def claims() -> Mapping[str, Mapping[str, Any]]:
    """The ledger by id: where, statement, kind, values, check, see."""
    return {claim["id"]: claim for claim in tables.document("claims")}


def own_functions(*modules: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions that these modules define themselves, in their order: (name, function)."""
    for module in modules:
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                yield name, value


def functions(*modules: ModuleType) -> Iterator[tuple[str, Callable[..., Outcome]]]:
    """The functions of modules that decide something, in their order: (claim id or name, function)."""
    for name, function in own_functions(*modules):
        if _CLAIM.fullmatch(name):
            yield name.upper(), function
        elif name.startswith("check_"):
            yield name, function


def decided(*modules: ModuleType) -> tuple[str, ...]:
    """Ids of the claims that functions of these modules speak about."""
    return tuple(name for name, _ in functions(*modules) if _CLAIM.fullmatch(name.lower()))


def findings(*modules: ModuleType, **evidence: Any) -> list[Finding]:
    """What the functions of these modules find. Each gets the evidence that its parameters name.

    Beside `evidence` a function may ask for printed tables (`t2`, `t17_v1`), the other documents of the paper
    (`search_grid`, `training_recipe`, `inconsistencies`) and the printed `values` of its claim.

    TypeError naming the function for evidence that is not there.
    """
    return [finding(name, outcome(name, function, evidence)) for name, function in functions(*modules)]


def outcome(name: str, function: Callable[..., Outcome], evidence: Mapping[str, Any]) -> Outcome:
    """Call one function with its evidence; `name` is the id of its claim."""
    own = {"values": claims()[name]["values"]} if name in claims() else {}
    return function(**arguments(function, own, **evidence))


def arguments(function: Callable[..., Any], own: Mapping[str, Any], **evidence: Any) -> dict[str, Any]:
    """What the parameters of a function name: evidence, its own entry of a ledger, or a part of the paper."""
    given: dict[str, Any] = {}
    for wanted in inspect.signature(function).parameters:
        if wanted in evidence:
            given[wanted] = evidence[wanted]
        elif wanted in own:
            given[wanted] = own[wanted]
        elif wanted in ("search_grid", "training_recipe", "inconsistencies"):
            given[wanted] = tables.document(wanted)
        elif match := _TABLE.fullmatch(wanted):
            given[wanted] = tables.table(int(match[1]), 1 if match[2] else 2)
        else:
            raise TypeError(f"{function.__module__}.{function.__name__} needs {wanted!r}, which is not given")
    return given


def finding(name: str, found: Outcome) -> Finding:
    """The outcome of the claim `name` (or of a check) with its statement."""
    numbers = {key: _plain(value) for key, value in found.numbers.items()}
    if isinstance(found, Check):
        return Finding(
            "check", "", found.statement, "passed" if found.passed else "failed", numbers, found.why
        )
    statement = claims()[name]["statement"]
    if isinstance(found, Remark):
        return Finding("remark", name, statement, "", numbers, found.why)
    return Finding("verdict", name, statement, found.verdict, numbers, found.why)


def _plain(value: Any) -> Any:
    """The value as JSON holds it: NumPy's scalars as Python's, tuples as lists, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def rounded(*values: Any, digits: int = 3) -> list[float]:
    """Numbers for a finding: a value and the ends of its interval."""
    return [round(float(value), digits) for value in values]


def kind_of(word: str) -> str:
    """The word, or `needs more` for every `needs ...`: what is counted together."""
    return "needs more" if word.startswith(NEEDS) else word


def counts(words: Iterable[str]) -> dict[str, int]:
    """How many verdicts have which word, in the order of `WORDS`."""
    kinds = [kind_of(word) for word in words]
    return {word: kinds.count(word) for word in (*WORDS, "needs more") if word in kinds}
