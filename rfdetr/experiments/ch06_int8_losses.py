"""What the kept study of INT8 says: losses with intervals over scenes, by knob, and in sentences."""

from typing import TYPE_CHECKING

import numpy as np

from rfdetr.experiments.ch06_int8 import CHANGES, LIMIT, PRECISIONS

if TYPE_CHECKING:
    import pandas as pd


def losses(networks: "pd.DataFrame") -> "pd.DataFrame":
    """What each precision costs, in AP.

    Columns: name, knob, arch, fp32 AP, for each other precision `<precision> loss`, `low`, `high` (95 % over
    scenes), and int8 against the reference: `more` (loss minus the reference's), `more low`, `more high`.
    """
    frame = networks[["name", "knob", "arch", "fp32 AP"]].copy()
    for precision in PRECISIONS[1:]:
        frame[f"{precision} loss"] = networks["fp32 AP"] - networks[f"{precision} AP"]
        for end in ("low", "high"):
            frame[f"{precision} {end}"] = networks[f"{precision} {end}"]
    reference = frame.loc[frame.name == "reference", "int8 loss"]
    # Empty where the reference is not done yet.
    frame["more"] = frame["int8 loss"] - (float(reference.iloc[0]) if len(reference) else np.nan)
    for end in ("more low", "more high"):
        frame[end] = networks.get(end, np.nan)
    return frame


def said(networks: "pd.DataFrame") -> str:
    """What the losses under INT8 say, in sentences for the page."""
    frame = losses(networks)
    lost = frame["int8 loss"]
    text = (
        f"All in INT8, these {len(frame)} sub-networks lose from {lost.min():+.4f} to {lost.max():+.4f} AP;"
        f" {int((lost > LIMIT).sum())} of them lose more than {LIMIT}, and for"
        f" {int((frame['int8 low'] > 0).sum())} the loss is resolved from nothing over these scenes."
    )
    apart = frame[(frame["more low"] > 0) | (frame["more high"] < 0)]
    if frame["more low"].isna().all():
        return text
    if apart.empty:
        return f"{text} No single knob changes the loss of the reference beyond its interval: not resolved."
    names = ", ".join(f"{row['name']} ({row.more:+.4f})" for _, row in apart.iterrows())
    return f"{text} Beyond its interval, another loss than the reference's have {names}; the others have not."


def by_knob(networks: "pd.DataFrame") -> "pd.DataFrame":
    """For each knob, over its values and the reference: smallest and largest loss under INT8, in AP.

    Columns: knob, networks, least, most, range (most - least: how far the knob alone moves the loss),
    resolved (values whose loss differs from the reference's beyond the 95 % interval over scenes).
    """
    import pandas as pd

    frame = losses(networks).set_index("name")
    rows = []
    for knob in CHANGES:
        part = frame[(frame.knob == knob) | (frame.index == "reference")]
        if len(part) > 1:
            lost = part["int8 loss"]
            apart = (part["more low"] > 0) | (part["more high"] < 0)
            rows.append((knob, len(part), lost.min(), lost.max(), lost.max() - lost.min(), int(apart.sum())))
    return pd.DataFrame(rows, columns=["knob", "networks", "least", "most", "range", "resolved"])
