"""The generated page "Z Audit": all claims with filters, and all disagreements with their recomputation."""

from collections.abc import Iterable
from html import escape

from rfdetr.book.audit import CHAPTERS, Audit
from rfdetr.book.coverage import PLACES
from rfdetr.paper.audit import AuditedClaim, AuditedEntry
from rfdetr.plots.findings import chip, numbers_html

AUDIT = "book/audit"

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


def page(found: Audit) -> str:
    """Markdown of the generated page."""
    said = ", ".join(f"{count} {word}" for word, count in found.counts().items())
    states = {
        s: sum(e.state == s for e in found.entries) for s in ("confirmed", "not confirmed", "words only")
    }
    recounted = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    parts = [
        _INTRODUCTION.format(claims=len(found.claims), entries=len(found.entries), counts=f"**{said}.**"),
        "## Claims\n",
        _raw(_filters(found) + _claims_table(found.claims)),
        "## Where the paper disagrees\n",
        f"Recomputed from the printed tables where numbers are involved: {recounted}.\n",
        _raw(_entries_table(found.entries)),
        "## Tables, figures and appendices\n",
        PLACES,
    ]
    return "\n".join(parts)


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```\n"


def _filters(found: Audit) -> str:
    groups = {
        "verdict": list(found.counts()),
        "kind": sorted({claim.kind for claim in found.claims}),
        "chapter": [*CHAPTERS, "none"],
    }
    boxes = "".join(
        f'<label>{name} <select data-filter="{name}"><option value="">all</option>'
        + "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
        + "</select></label> "
        for name, values in groups.items()
    )
    search = '<label>text <input type="search" data-filter="text"></label>'
    return f'<form class="audit-filters" onsubmit="return false">{boxes}{search} <output></output></form>'


def _claims_table(claims: Iterable[AuditedClaim]) -> str:
    return _table(("claim", "verdict", "statement", "why", "chapter"), map(_claim_row, claims), "audit")


def _claim_row(claim: AuditedClaim) -> str:
    word = claim.verdict or claim.state
    kind = "needs more" if claim.state == "needs" else word
    link, name = "", claim.id
    if claim.chapter:
        address = f"../notebooks/{claim.chapter}.html"
        link = f'<a href="{address}">{escape(claim.chapter.partition("_")[0])}</a>'
        name = f'<a href="{address}#{claim.id}">{claim.id}</a>' if claim.state != "not run" else claim.id
    why = escape(claim.why) + numbers_html(claim.numbers)
    if claim.command:
        why += f"<br><code>{escape(claim.command)}</code>"
    if claim.see:
        why += "<br>" + ", ".join(f'<a href="#{i}">{i}</a>' for i in claim.see)
    statement = f'{escape(claim.statement)}<br><span class="numbers">{escape(claim.where)}</span>'
    data = f'data-verdict="{escape(kind)}" data-kind="{claim.kind}" data-chapter="{claim.chapter or "none"}"'
    cells = "".join(f"<td>{text}</td>" for text in (name, chip(word), statement, why, link))
    return f'<tr id="{claim.id}" {data}>{cells}</tr>'


def _entries_table(entries: Iterable[AuditedEntry]) -> str:
    rows = []
    for entry in entries:
        sides = "".join(f"<li>{escape(side)}</li>" for side in entry.sides)
        shown = escape(entry.shown) + (f"<br><i>{escape(entry.reading)}</i>" if entry.reading else "")
        small = f'<span class="numbers">{escape(entry.versions)}, {entry.severity}</span>'
        cells = (entry.id, chip(entry.state), f"{escape(entry.title)}<br>{small}<ul>{sides}</ul>", shown)
        rows.append(f'<tr id="{entry.id}">' + "".join(f"<td>{text}</td>" for text in cells) + "</tr>")
    return _table(("id", "state", "what, and where", "recomputed"), rows)


def _table(heads: Iterable[str], rows: Iterable[str], kind: str = "") -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return (
        f'<table class="dataframe findings {kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
