"""Chapter F: the verdict that needs trainings on small data; Tables 15 and 16 are in
`paper.arithmetic.fine_tuning`.
"""

from typing import TYPE_CHECKING

from rfdetr.experiments.ch09_intervals import FEW
from rfdetr.paper.verdicts import Verdict, by_interval, rounded

if TYPE_CHECKING:
    import pandas as pd


def c049(longer: "pd.DataFrame | None") -> Verdict:
    """What training the supernet on, with weight sharing, still adds on small data.

    longer: the row "all" of `ch09_analysis.comparison` of nas_continued and nas, with `domains`; from the
    kept benchmark, whose trainings before took about a hundred epochs of a small set.
    """
    domains = 0 if longer is None or longer.empty else int(longer["domains"].iloc[0])
    if longer is None or domains < FEW:
        return Verdict(
            f"needs trainings on at least {FEW} domains (results/fourteen-domains)",
            {"domains": domains},
            "RF100-VL itself needs a key of its host.",
        )
    row = longer.iloc[0]
    return Verdict(
        by_interval(float(row["low"]), float(row["high"])),
        {"AP, difference and 95 %": rounded(row["difference"], row["low"], row["high"]), "domains": domains},
        "Sub-networks of the supernet after further steps with weight sharing, minus the same before;"
        " Student's interval over domains. The number of epochs differs from domain to domain.",
    )
