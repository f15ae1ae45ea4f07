"""Printed numbers of the published configurations, by model and size (Tables 2, 3, 12 and 13)."""

from collections.abc import Mapping
from types import MappingProxyType

from rfdetr.paper import tables

# The printed size -> the name of the preset (with `seg-` in front for segmentation).
SIZE_NAMES = {
    "N": "nano",
    "S": "small",
    "M": "medium",
    "L": "large",
    "XL": "xlarge",
    "2XL": "2xlarge",
    "Max": "max",
}
_COLUMNS = ("params_m", "gflops", "latency_ms", "ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")


def numbers(row: Mapping[str, str]) -> Mapping[str, float | None]:
    """The numbers of a row, None where nothing is printed."""
    return MappingProxyType({c: float(row[c]) if row[c] else None for c in _COLUMNS})


def published(model: str, size: str, table_numbers: tuple[int, int]) -> Mapping[str, float | None]:
    """The numbers of a searched configuration; KeyError where the tables do not have it."""
    for number in table_numbers:
        for row in tables.rows(number):
            if row["model"] == model and row["variant"] == "nas" and row["size"] == size:
                return numbers(row)
    raise KeyError(f"{model} {size} is not in Tables {table_numbers}")
