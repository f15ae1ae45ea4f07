"""Chapter I: a remark; pictures decide nothing."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Remark

if TYPE_CHECKING:
    import pandas as pd


def c178(counted: "pd.DataFrame") -> Remark:
    """False detections per picture of this page's networks. counted: from `ch_i_predictions.counts`."""
    mean = counted.groupby("network", sort=False)["false_per_picture"].mean()
    return Remark(
        "A look at some images, not a count; with COCO and the official weights it could be made one. Counted"
        " here: false detections per picture of this page's networks, which are not those of the claim.",
        {str(name): round(float(value), 2) for name, value in mean.items()},
    )
