"""What every chapter does: check its parameters, write its results with their origin, write its verdicts."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rfdetr.experiments.base.artifacts import Store, save_result
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.verdicts import Verdict, save_verdicts
from rfdetr.provenance import provenance

if TYPE_CHECKING:
    import pandas as pd


class Chapter:
    """One run of one chapter.

    name        file name of the notebook without its ending, e.g. `02_search_space`
    profile     a name in `PROFILES`; UserError for another one
    seed        of everything that is drawn
    output_dir  folder of the artifact store; empty means the default one
    """

    def __init__(self, name: str, profile: str, seed: int = 0, output_dir: str = "") -> None:
        self.name = name
        self.profile: Profile = get_profile(profile)
        self.seed = seed
        self.store = Store(output_dir or None)
        self._origin = provenance(self.profile.name, seed)

    def save(self, df: "pd.DataFrame", name: str = "result", **origin: Any) -> None:
        """Write a table and where it comes from; `origin` is added to the provenance."""
        save_result(self.store, self.name, df, {**self._origin, **origin}, name)

    def verdicts(self, verdicts: Iterable[Verdict]) -> "pd.DataFrame":
        """Write the verdicts and return them as a table: claim, statement, verdict, why."""
        import pandas as pd

        found = list(verdicts)
        save_verdicts(self.store, self.name, found, self._origin)
        # A claim that the ledger lacks is its own statement.
        rows = [(v.claim if v.claim != v.statement else "", v.statement, v.verdict, v.why) for v in found]
        return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "why"])
