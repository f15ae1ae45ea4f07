"""The claim of Table 10 (prompts of an open-vocabulary detector), from the printed numbers."""

from typing import TYPE_CHECKING

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, cell
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd


def c133(t10: "pd.DataFrame") -> Verdict:
    """Class names bring no AP over class indices."""
    names, indices = (cell(t10, "ap", prompt=p) for p in ("class_names", "class_indices"))
    return Verdict(
        agree(names - indices < HALF_DIGIT),
        {"names": names, "indices": indices},
        "One run each; at AP50 the names are ahead.",
    )
