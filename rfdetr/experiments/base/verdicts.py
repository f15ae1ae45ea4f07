"""What a chapter found about the claims of the paper, and the file that the status board reads."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rfdetr.experiments.base.artifacts import Store
from rfdetr.files import write_json

VERDICTS = ("reproduced", "consistent", "not resolved", "contradicted")
_NEEDS = "needs "


@dataclass(frozen=True)
class Verdict:
    """What a chapter found about one claim of the paper.

    claim    id in the claims ledger (C001 ...) or, for a claim that the ledger lacks, the claim in words
    verdict  reproduced, consistent, not resolved, contradicted, or `needs ...` saying what is missing
    numbers  the numbers that decided it
    why      one sentence
    """

    claim: str
    verdict: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    def __post_init__(self) -> None:
        needs = self.verdict.startswith(_NEEDS) and self.verdict[len(_NEEDS) :].strip()
        if self.verdict not in VERDICTS and not needs:
            raise ValueError(
                f"a verdict is one of {', '.join(VERDICTS)} or 'needs ...', not {self.verdict!r}"
            )
        if self.claim[:1] == "C" and self.claim[1:].isdigit() and self.claim not in _claims():
            raise ValueError(f"no claim {self.claim} in the ledger; it has {len(_claims())} claims")
        if not self.claim.strip():
            raise ValueError("a verdict needs a claim")

    @property
    def statement(self) -> str:
        """The claim in words."""
        return _claims().get(self.claim, self.claim)


@cache
def _claims() -> dict[str, str]:
    from rfdetr.paper.tables import document

    return {claim["id"]: claim["statement"] for claim in document("claims")}


def save_verdicts(
    store: Store, chapter: str, verdicts: Iterable[Verdict], provenance: Mapping[str, Any]
) -> Path:
    """Write a chapter's verdicts as `verdicts.json`, which the book's status board lists; returns its
    path.
    """
    path = store.results(str(provenance["profile"]), chapter) / "verdicts.json"
    rows = [{**asdict(verdict), "statement": verdict.statement} for verdict in verdicts]
    write_json(path, {"chapter": chapter, "verdicts": rows, "provenance": dict(provenance)})
    return path
