"""What every chapter does: check its parameters, write its results with their origin, write its verdicts."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.experiments.profiles import Profile, get_profile
from rfdetr.experiments.store import Store, Verdict, provenance, save_result, save_verdicts

if TYPE_CHECKING:
    import pandas as pd


class Chapter:
    """One run of one chapter.

    name        file name of the notebook without its ending, e.g. `02_search_space`
    profile     a name in `PROFILES`; UserError for another one
    seed        of everything that is drawn
    output_dir  folder of the artifact store; empty means the default one

    Shows a notice when the profile's numbers carry no meaning.
    """

    def __init__(self, name: str, profile: str, seed: int = 0, output_dir: str = "") -> None:
        self.name = name
        self.profile: Profile = get_profile(profile)
        self.seed = seed
        self.store = Store(output_dir or None)
        self._origin = provenance(self.profile.name, seed)
        if not self.profile.meaningful:
            notice(
                f"Profile “{self.profile.name}”",
                f"This page was made with the profile “{self.profile.name}”: {self.profile.description}. "
                "Read the text and the figures as an example of the layout only.",
            )

    def save(self, df: "pd.DataFrame", name: str = "result", **origin: Any) -> Path:
        """Write a table and where it comes from; `origin` is added to the provenance. Returns the path of the CSV."""
        return save_result(self.store, self.name, df, {**self._origin, **origin}, name)

    def verdicts(self, verdicts: Iterable[Verdict]) -> "pd.DataFrame":
        """Write the verdicts and return them as a table: claim, statement, verdict, why."""
        import pandas as pd

        found = list(verdicts)
        save_verdicts(self.store, self.name, found, self._origin)
        # A claim that the ledger lacks is its own statement.
        rows = [(v.claim if v.claim != v.statement else "", v.statement, v.verdict, v.why) for v in found]
        return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "why"])


def notice(title: str, text: str, kind: str = "warning") -> None:
    """Show an admonition in the chapter. kind: `note`, `warning` or `tip`."""
    from IPython.display import HTML, display

    # A plain Markdown output cannot hold a directive; these are the classes that one would get.
    display(
        HTML(
            f'<div class="admonition {escape(kind)}"><p class="admonition-title">{escape(title)}</p>'
            f"<p>{escape(text)}</p></div>"
        )
    )
