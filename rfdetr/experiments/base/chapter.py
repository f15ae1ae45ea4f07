"""What every chapter does: check its parameters, say what its profile is worth, write its results with their
origin, and its findings.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from rfdetr.experiments.base.artifacts import Store, save_result
from rfdetr.experiments.base.findings import Findings, origin_sentence, save_findings
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.paper.verdicts import findings
from rfdetr.provenance import provenance

if TYPE_CHECKING:
    import pandas as pd


class Chapter:
    """One run of one chapter.

    name        file name of the notebook without its ending, e.g. `02_search_space`
    profile     a name in `PROFILES`; UserError for another one
    seed        of everything that is drawn
    output_dir  folder of the artifact store; empty means the default one

    In a notebook a profile without meaning announces itself at once, whoever runs the notebook.
    """

    def __init__(self, name: str, profile: str, seed: int = 0, output_dir: str = "") -> None:
        self.name = name
        self.profile: Profile = get_profile(profile)
        self.seed = seed
        self.store = Store(output_dir or None)
        self._origin = provenance(self.profile.name, seed)
        if not self.profile.meaningful:
            _warn(
                f"Made with the profile {self.profile.name}, which only tests that the code runs.",
                "The numbers on this page carry no meaning.",
            )

    def save(self, df: "pd.DataFrame", name: str = "result", **origin: Any) -> None:
        """Write a table and where it comes from; `origin` is added to the provenance."""
        save_result(self.store, self.name, df, {**self._origin, **origin}, name)

    def findings(self, *modules: ModuleType, **evidence: Any) -> Findings:
        """What the functions of these modules find in the evidence (`rfdetr.paper.verdicts`), written and
        returned. A profile without meaning has no verdicts and no remarks.
        """
        rows = findings(*modules, **evidence)
        if not self.profile.meaningful:
            rows = [row for row in rows if row.kind == "check"]
        save_findings(self.store, self.name, rows, self._origin, self.profile.meaningful)
        return Findings(tuple(rows), self.profile.meaningful, origin_sentence(self._origin))


def _warn(text: str, emphasis: str) -> None:
    """Show a warning in a notebook; nothing anywhere else."""
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import HTML, display
    except ImportError:
        return
    if get_ipython() is not None:
        title = '<p class="admonition-title">Warning</p>'
        display(
            HTML(f'<div class="admonition warning">{title}<p>{text} <strong>{emphasis}</strong></p></div>')
        )
