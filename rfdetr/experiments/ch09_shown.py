"""What some networks of the miniature benchmark detect in every test picture of a few domains: the page with
predictions shows it without their weights.

Source: v1 Figure 6, v2 Figure 8.
"""

from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.experiments.base import kept
from rfdetr.experiments.ch09_domains import SIZES, Sizes
from rfdetr.experiments.ch09_parts import open_domain

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.studies import Finished

PICTURED = ("bccd", "raccoon", "hit_uav")
"""Real domains whose test pictures are in the repository (`results/test-pictures`)."""
SHOWN = (("nas", "N"), ("nas", "M"), ("fixed", "M"))
"""Two sub-networks that the domain's search chose, and one that the base would take: kind and target."""
LEAST = 0.2
"""Detections with a lower score are not kept."""
COLUMNS = ("domain", "kind", "target", "image", "label", "score", "left", "top", "right", "bottom")


def pictured(sizes: Sizes) -> tuple[str, ...]:
    """The domains of which detections are kept."""
    return tuple(name for name in PICTURED if name in sizes.real) or sizes.embedded[:1]


def detections(finished: "Finished") -> "pd.DataFrame":
    """One row per detection: `COLUMNS`. image: index in the test split; corners relative to the picture.

    Of the first seed. A domain that is not done, or whose packed pictures are not with the parts, is left
    out.
    """
    import pandas as pd

    sizes = SIZES[finished.profile.name]
    rows: list[dict[str, Any]] = []
    for domain in pictured(sizes):
        name = f"first-tune-{domain}"
        record = finished.records.get(name)
        place = finished.plan.place(name, "cpu")
        if record is None or not all(
            place.needed(part, ".zip").is_file() for part in place.needs if part.startswith("data-")
        ):
            continue
        test = open_domain(place, sizes, domain, "test")
        model = kept.read_network(place.file(".safetensors"))
        archs = {(row["kind"], row["target"]): row["arch"] for row in record["value"]["tests"]}
        for image in range(len(test)):
            pixels = test[image][0]
            height, width = pixels.shape[:2]
            for kind, target in SHOWN:
                found = model.predict([pixels], Arch.parse(archs[kind, target]), threshold=LEAST)[0]
                head = {"domain": domain, "kind": kind, "target": target, "image": image}
                for box, score, label, _ in found:
                    left, top, right, bottom = (
                        round(float(v), 4) for v in box / [width, height, width, height]
                    )
                    corners = {"left": left, "top": top, "right": right, "bottom": bottom}
                    rows.append({**head, "label": label, "score": round(score, 3), **corners})
    return pd.DataFrame(rows, columns=list(COLUMNS))
