"""How a search's front is shown on a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.search.result import SearchResult


def show(result: "SearchResult") -> None:
    """Print the front and what should be known about it."""
    print(front_text(result.front, result.metric))
    for note in result.notes:
        print(f"- {note}")
    print(f"{len(result.table)} sub-networks: {result.path}; README.md beside it says what else is kept")


def front_text(front: "pd.DataFrame", metric: str) -> str:
    """A front for a terminal, cheapest first, by the short names that other commands take."""
    import pandas as pd

    own = f"deployed_{metric}"
    deployed = own in front
    decides, title = (own, f"deployed {metric}") if deployed else (metric, metric)
    rows = []
    for _, row in front.iterrows():
        entry = {"arch": row["arch"], title: f"{row[decides]:.3f}"}
        if f"{decides}_low" in front:
            entry["95 %"] = f"{row[f'{decides}_low']:.3f} to {row[f'{decides}_high']:.3f}"
        if deployed:
            entry[f"fp32 {metric}"] = f"{row[metric]:.3f}"
        if "images" in front and front["images"].nunique() > 1:
            entry["images"] = str(int(row["images"]))
        other = "AP50" if metric == "AP" else "AP"
        if not deployed and other in front and row[other] == row[other]:
            entry[other] = f"{row[other]:.3f}"
        entry["GFLOPs"] = f"{row['gflops']:.2f}"
        entry["ms"] = f"{row['time_ms']:.3g}" + ("~" if bool(row["noisy"]) else "")
        if deployed:
            entry["executed"] = str(row["precision"])
        entry["trained"] = "" if row["trained"] else "untrained"
        if "same_as" in front:
            entry["same"] = f"= {row['same_as']}" if row["same_as"] else ""
        rows.append(entry)
    return pd.DataFrame(rows).to_string(index=False) if rows else "no sub-network has an accuracy"
