"""What some networks of the miniature benchmark detect in every test picture of a few domains: the page with
predictions shows it without their weights.

Source: v1 Figure 6, v2 Figure 8.
"""

from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.experiments.base import kept
from rfdetr.experiments.ch09_domains import NAME, SIZES, Sizes
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

    Of the first seed. Of a domain whose network or packed pictures are not with the parts, those that are
    kept already.
    """
    import pandas as pd

    sizes = SIZES[finished.profile.name]
    before = kept.find(NAME)
    rows: list[Any] = []
    for domain in pictured(sizes):
        name = f"first-tune-{domain}"
        place = finished.plan.place(name, "cpu")
        if name not in finished.records:
            continue
        pictures = [place.needed(part, ".zip") for part in place.needs if part.startswith("data-")]
        if not all(path.is_file() for path in (place.file(".safetensors"), *pictures)):
            if before is not None:
                known = before.tables["detections"]
                rows += known[known.domain == domain].to_dict("records")
            continue
        test = open_domain(place, sizes, domain, "test")
        model = kept.read_network(place.file(".safetensors"))
        tests = finished.records[name]["value"]["tests"]
        archs = {(row["kind"], row["target"]): row["arch"] for row in tests}
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
