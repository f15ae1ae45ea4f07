"""Chapter 01: verdicts on the architecture, and checks of this implementation."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Check, Remark, Verdict, computed

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-9
"""A difference below this is rounding of double precision."""
REFERENCES = "the reference outputs of the published implementation"


def c115(lists: "pd.DataFrame") -> Verdict:
    """Which list of windowed blocks the printed FLOPs of nano fit. lists: from `windowed_blocks_test`."""
    fits = lists.set_index("list").difference.abs()
    printed, released = float(fits["Appendix A"]), float(fits["released models"])
    return Verdict(
        computed(printed < released),
        {"Appendix A, %": round(printed, 2), "released models, %": round(released, 2)},
        "Difference of the counted GFLOPs of nano from Table 2 with either list. Table 2 fits "
        + ("the printed list" if printed < released else "nine windowed and three global blocks")
        + "; LW-DETR's list was not tested.",
    )


def c174(blocks: "pd.DataFrame") -> Verdict:
    """Behind a global block all windows move, class tokens included. blocks: from `block_table`."""
    wide, inside = (blocks[blocks.kind == kind] for kind in ("global", "windowed"))
    reached = int(wide.windows_reached.min()) if len(wide) else 0
    everywhere = reached > 1 and reached == int(wide.windows_reached.max())
    return Verdict(
        computed(everywhere and bool((inside.windows_reached == 1).all())),
        {"windows reached, global": reached, "windowed": int(inside.windows_reached.max())},
        "One patch was moved, and the windows whose output moves were counted behind every block. Shown on"
        " this implementation, whose outputs are those of the published one.",
    )


def _parity(parity: "pd.DataFrame", quantities: tuple[str, ...], why: str) -> Verdict:
    rows = parity[parity.quantity.isin(quantities)]
    if rows.empty:
        return Verdict(f"needs {REFERENCES}", {}, "They are not in this copy.")
    largest = float((rows.difference / rows.limit).max())
    return Verdict(computed(largest <= 1), {"largest difference": float(rows.difference.max())}, why)


def c031(parity: "pd.DataFrame") -> Verdict:
    """Masks as dot products against the published implementation's. parity: from `ch01_exactness.parity`."""
    return _parity(
        parity,
        ("masks",),
        "Masks made as dot products of query and pixel embeddings equal the published implementation's, same"
        " weights and image; one block of the head per decoder layer.",
    )


def c041(parity: "pd.DataFrame") -> Verdict:
    """Proposals kept and ranked by their largest class score are the published implementation's."""
    return _parity(
        parity,
        ("enc_logits", "enc_boxes"),
        "Tokens ranked here by their largest class score give the published implementation's proposals, in"
        " its order; fewer queries are the first of them.",
    )


def c039(cuts: "pd.DataFrame") -> Remark:
    """By construction. cuts: from `cut_decoder`."""
    zero = cuts[cuts.decoder_layers == 0]
    return Remark(
        "A matter of construction: with no decoder layer the encoder's proposals are the output, as the check"
        " below confirms for this code. Their tokens have attended to each other in the backbone; what is"
        " missing is attention between the selected queries, and from them to the map.",
        {"difference from the proposals": float(zero.difference.max()) if len(zero) else None},
    )


def check_parity(parity: "pd.DataFrame") -> Check:
    """Every output against the reference outputs."""
    within = bool(len(parity) and (parity.difference <= parity.limit).all())
    return Check(
        "With the same weights and image this implementation computes what the published one does",
        within,
        {"largest difference": float(parity.difference.max()) if len(parity) else None,
         "allowed": float(parity.limit.max()) if len(parity) else None},
        "Computed in double precision against references stored in single precision: package 1.11.2, nano and"
        " seg-nano; the projector on every 16th channel." if len(parity) else "The references are missing"
        " here.",
    )  # fmt: skip


def check_subnets(subnets: "pd.DataFrame") -> Check:
    """Sub-networks against the supernet. subnets: from `subnet_equality`."""
    return Check(
        "A sub-network that is cut out computes what the supernet computes",
        bool((subnets.difference < ROUNDING).all()),
        {"largest difference": float(subnets.difference.max()), "sub-networks": len(subnets)},
        "In double precision.",
    )


def check_cuts(cuts: "pd.DataFrame") -> Check:
    """A cut decoder against the layers of the full one."""
    return Check(
        "A decoder cut to d layers, or to none, gives what layer d of the full one, or the encoder, gives",
        bool((cuts.difference < ROUNDING).all()),
        {"largest difference": float(cuts.difference.max()), "depths": len(cuts)},
        "In double precision.",
    )
