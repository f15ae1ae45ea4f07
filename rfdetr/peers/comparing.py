"""A peer counted again, beside its record and its printed numbers."""

from collections.abc import Mapping
from typing import Any

from rfdetr.peers import catalogue
from rfdetr.peers.counting import recount

SAME = 1e-3
"""Relative difference up to which a count is that of the record, which has three decimals."""
_PLAIN = ("params_m", "gflops_with_attention", "gflops_no_attention")


def compared(entry: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Lines for the terminal: every count with the record's, the printed numbers and the cause where they
    differ; and whether all counts are those of the record.
    """
    found = recount(catalogue.key(entry))
    rows = rows_of(entry, found)
    lines = [f"{catalogue.key(entry)} ({entry['package']} {installed(entry['package'])})"]
    for name, counted, recorded in rows:
        text = "" if recorded is None else f"   record {recorded:.3f}"
        lines.append(f"  {name:32}{counted:12.3f}{text}")
    if printed := entry.get("published"):
        whole = f" ({printed['of']})" if "of" in printed else ""
        lines.append(f"  printed: {printed['params_m']} M, {printed['gflops']} GFLOPs{whole}")
    if cause := catalogue.cause(entry):
        lines.append(f"  cause of the difference: {cause}")
    return lines, all(recorded is None or is_same(counted, recorded) for _, counted, recorded in rows)


def rows_of(entry: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, float, float | None]]:
    """(convention, counted now, in the record or None), of what `counting.recount` found."""
    plain: list[tuple[str, float, float | None]] = [(name, found[name], entry[name]) for name in _PLAIN]
    recorded = entry.get("variants", {})
    return plain + [(name, value, recorded.get(name)) for name, value in found.get("variants", {}).items()]


def is_same(counted: float, recorded: float) -> bool:
    """Whether a count is the record's, up to its rounding."""
    return abs(counted - recorded) <= max(SAME * abs(recorded), 6e-4)


def installed(package: str) -> str:
    """Version of a package."""
    from importlib.metadata import version

    return version(package)
