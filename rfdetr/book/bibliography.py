"""Labels of the list of references: as the text cites them, [Yu et al., 2020a]."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

NAME = "companion"
"""Name of the style in `_config.yml`."""


def label(entry: Any) -> str:
    """Authors and year of an entry of pybtex: Kuhn, 1955; Yu and Huang, 2019; Robinson et al., 2025."""
    names = [" ".join([*person.prelast_names, *person.last_names]) for person in entry.persons["author"]]
    names = [name.replace("{", "").replace("}", "") for name in names]
    said = " and ".join(names) if len(names) < 3 and names[-1] != "others" else f"{names[0]} et al."
    return f"{said}, {entry.fields['year']}"


def labels(entries: Iterable[Any]) -> Iterator[str]:
    """Labels of entries in their order; those that would be the same get letters."""
    found = [label(entry) for entry in entries]
    count, used = Counter(found), Counter[str]()
    for text in found:
        yield text + chr(ord("a") + used[text]) * (count[text] > 1)
        used[text] += 1


def register() -> None:
    """Make the style known to sphinxcontrib-bibtex."""
    from pybtex.plugin import register_plugin
    from pybtex.style.formatting.alpha import Style
    from pybtex.style.labels import BaseLabelStyle

    class AuthorYear(BaseLabelStyle):
        """Author and year."""

        def format_labels(self, sorted_entries: Any) -> Iterator[str]:
            return labels(sorted_entries)

    class Companion(Style):
        """The usual style with other labels."""

        default_label_style = "author_year"

    register_plugin("pybtex.style.labels", "author_year", AuthorYear)
    register_plugin("pybtex.style.formatting", NAME, Companion)
