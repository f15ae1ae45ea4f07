"""Read the paper's tables, search grid, recipe, claims and inconsistencies.

The files beside this module are transcriptions of arXiv 2511.09554; nothing here was measured by us.
Numbers enter the code and the chapters only through these functions.
"""

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent


def _path(number: int, version: int) -> Path:
    folder = FOLDER / "tables" / ("v1" if version == 1 else "")
    path = folder / f"table_{number:02d}.csv"
    if not path.is_file():
        have = sorted(int(p.stem[6:]) for p in folder.glob("table_*.csv"))
        raise KeyError(f"no Table {number} of v{version} in the paper's data; there are {have}")
    return path


@cache
def rows(number: int, version: int = 2) -> tuple[dict[str, str], ...]:
    """Printed rows of one table as strings, without pandas. `version` is the arXiv version (1 or 2)."""
    with _path(number, version).open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def table(number: int, version: int = 2) -> "pd.DataFrame":
    """One printed table as a DataFrame. A printed dash is NaN. Columns are described in paper/README.md."""
    import pandas as pd

    return pd.read_csv(_path(number, version))


@cache
def document(name: str) -> Any:
    """Parsed content of `search_grid`, `training_recipe`, `claims` or `inconsistencies`. Do not modify it."""
    import yaml

    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise KeyError(
            f"no paper document {name!r}; there are {sorted(p.stem for p in FOLDER.glob('*.yaml'))}"
        )
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def numbering() -> tuple[dict[str, str], ...]:
    """Tables, figures and appendices of both versions: v1_id, v2_id (empty where absent), kind, title."""
    with (FOLDER / "numbering.csv").open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def find_row(number: int, **where: str) -> dict[str, str]:
    """The one row of a table whose columns have the given printed values; KeyError if not exactly one."""
    found = [row for row in rows(number) if all(row[key] == value for key, value in where.items())]
    if len(found) != 1:
        raise KeyError(f"Table {number} has {len(found)} rows with {where}, expected one")
    return found[0]
