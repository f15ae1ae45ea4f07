"""The generated page "Z Audit": all claims with filters, and all disagreements with their recomputation."""

import re
from collections.abc import Collection, Iterable
from html import escape

from rfdetr.book.audit import CHAPTERS, Audit
from rfdetr.book.coverage import PLACES
from rfdetr.book.filter_tables import filter_data, filtered_table, filters, raw
from rfdetr.paper.audit import AuditedClaim, AuditedEntry
from rfdetr.plots.findings import cells_html, chip, numbers_html

AUDIT = "book/audit"
_CLAIM = ("claim", "verdict", "statement", "why", "chapter")
_ENTRY = ("id", "state", "what, and where", "recomputed")

_INTRODUCTION = """# Z Audit

Every claim of the paper in the ledger of this project ({claims} of them) and every place known where the
paper disagrees with itself, its other version or the published code ({entries}). A claim is decided by a
function in its chapter, or by arithmetic on the printed tables; its identifier leads to the row of the
chapter that decided it. What no code here decides is named with what it needs.
[How the words are meant](about.md).

The same as {{download}}`a table <audit.csv>` and as {{download}}`JSON <audit.json>`; on the command line
`python -m rfdetr audit`.

{counts}
"""


def page(found: Audit, anchors: Collection[str] = ()) -> str:
    """Markdown of the generated page. `anchors` are the claims that have a row in their chapter."""
    said = ", ".join(f"{word}: {count}" for word, count in found.counts().items())
    states = {
        s: sum(e.state == s for e in found.entries) for s in ("confirmed", "not confirmed", "words only")
    }
    recounted = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    parts = [
        _INTRODUCTION.format(claims=len(found.claims), entries=len(found.entries), counts=f"**{said}.**"),
        "## Claims\n",
        raw(_claims(found, anchors)),
        "## Where the paper disagrees\n",
        f"Recomputed from the printed tables where numbers are involved: {recounted}.\n",
        raw(_entries(found.entries)),
        "## Tables, figures and appendices\n",
        PLACES,
    ]
    return "\n".join(parts)


def _claims(found: Audit, anchors: Collection[str]) -> str:
    choices: dict[str, list[str]] = {
        "verdict": [*found.counts()],
        "section": sorted({p for claim in found.claims for p in sections(claim.where)}, key=_order),
        "kind": sorted({claim.kind for claim in found.claims}),
        "chapter": [*map(_short, CHAPTERS), "none"],
    }
    return filters("claims-table", choices) + filtered_table(
        "claims-table", _CLAIM, (_claim_row(claim, claim.id in anchors) for claim in found.claims)
    )


def _short(chapter: str) -> str:
    """Number or letter of a chapter."""
    return chapter.partition("_")[0]


_PLACE = re.compile(r"(Abstract)|(Section|Table|Figure|Appendix)(?:s|es|ices)? (\w+)(?:(?:,| and) (\w+)\b)*")


def sections(where: str) -> list[str]:
    """Parts of the paper that a claim's place names: "Sections 1 and 4 (v1, v2); Table 2" names three."""
    found: dict[str, None] = {}
    for part in re.split(r"[;,] (?=[A-Z][a-z])", re.sub(r"\([^)]*\)", "", where)):
        match = _PLACE.match(part.strip())
        if match and match[1]:
            found["Abstract"] = None
        elif match:
            names = re.findall(r"\b(\d+|[A-Z])\b", match[0])
            found |= dict.fromkeys(f"{match[2]} {name}" for name in names)
    return list(found)


def _order(place: str) -> tuple[int, int, str]:
    kind, _, name = place.partition(" ")
    kinds = ("Abstract", "Section", "Table", "Figure", "Appendix")
    return kinds.index(kind), int(name) if name.isdigit() else 0, name


def _claim_row(claim: AuditedClaim, anchor: bool) -> str:
    word = claim.verdict or claim.state
    kind = "needs more" if claim.state == "needs" else word
    link, name = "", claim.id
    if claim.chapter:
        address = f"../notebooks/{claim.chapter}.html"
        link = f'<a href="{address}">{escape(_short(claim.chapter))}</a>'
        name = f'<a href="{address}#{claim.id}">{claim.id}</a>' if anchor else claim.id
    why = escape(claim.why) + numbers_html(claim.numbers)
    if claim.command:
        why += f"<br><code>{escape(claim.command)}</code>"
    if claim.see:
        why += "<br>" + ", ".join(f'<a href="#{i}">{i}</a>' for i in claim.see)
    statement = f'{escape(claim.statement)}<br><span class="numbers">{escape(claim.where)}</span>'
    data = filter_data(
        verdict=kind,
        section="|".join(sections(claim.where)),
        kind=claim.kind,
        chapter=_short(claim.chapter) or "none",
    )
    cells = (name, chip(word), statement, why, link)
    return f'<tr id="{claim.id}" {data}>{cells_html(_CLAIM, cells)}</tr>'


def _entries(entries: Iterable[AuditedEntry]) -> str:
    rows, entries = [], list(entries)
    for entry in entries:
        sides = "".join(f"<li>{escape(side)}</li>" for side in entry.sides)
        shown = escape(entry.shown) + (f"<br><i>{escape(entry.reading)}</i>" if entry.reading else "")
        small = f'<span class="numbers">{escape(entry.versions)}, {entry.severity}</span>'
        cells = (entry.id, chip(entry.state), f"{escape(entry.title)}<br>{small}<ul>{sides}</ul>", shown)
        data = filter_data(
            state=entry.state, severity=entry.severity, version=entry.versions.replace(",", "|")
        )
        rows.append(f'<tr id="{entry.id}" {data}>{cells_html(_ENTRY, cells)}</tr>')
    choices: dict[str, list[str]] = {
        "state": sorted({entry.state for entry in entries}),
        "severity": [s for s in ("high", "medium", "low") if s in {e.severity for e in entries}],
        "version": ["v1", "v2"],
    }
    return filters("entries-table", choices) + filtered_table("entries-table", _ENTRY, rows)
