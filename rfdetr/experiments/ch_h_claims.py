"""Chapter H: the verdict that needs searched models of many data sets; Table 17 is in
`paper.arithmetic.characteristics`.
"""

from typing import TYPE_CHECKING

from rfdetr.experiments.ch09_intervals import FEW, mean_over
from rfdetr.paper.verdicts import Verdict, by_interval, rounded

if TYPE_CHECKING:
    import pandas as pd


def c175(low_latency: "pd.DataFrame | None") -> Verdict:
    """Queries chosen on the domains minus those that the base chooses, at the smallest target.

    low_latency: from `ch_h_architectures.low_latency_queries`.
    """
    domains = 0 if low_latency is None else len(low_latency)
    if low_latency is None or domains < FEW:
        return Verdict(
            f"needs searched models of at least {FEW} domains (results/fourteen-domains)",
            {"domains": domains},
            "The authors' models of the 100 data sets are not public.",
        )
    less = mean_over((low_latency["queries"] - low_latency["base"]).to_numpy(dtype=float))
    return Verdict(
        by_interval(-less.high, -less.low),
        {
            "queries, difference and 95 %": rounded(less.mean, less.low, less.high, digits=1),
            "domains": domains,
        },
        "Chosen on each domain for the smallest target, minus what the base chooses on its own validation"
        " scenes; Student's interval over domains.",
    )
