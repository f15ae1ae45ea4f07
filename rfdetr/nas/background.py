"""Parts of the report that say what it rests on: the data, and where the run comes from."""

from typing import Any

from rfdetr.nas.findings import Findings
from rfdetr.nas.look import shared_words
from rfdetr.plots.tables import say, table
from rfdetr.provenance import commit, environment, machine

_SIZES = 3  # picture sizes that are named


def data(found: Findings) -> None:
    """Statistics of the splits, pictures that they share, and why the grid is what it is."""
    import pandas as pd

    splits = found.statistics
    names = list(dict.fromkeys(name for numbers in splits.values() for name in numbers["classes"]))
    columns = {split: _split(numbers) for split, numbers in splits.items()}
    rows = [{"": label, **{s: c[label] for s, c in columns.items()}} for label in columns["train"]]
    table(
        pd.DataFrame(rows),
        "The splits; sides of objects are shares of the picture's",
        {"": "", **_own(splits)},
    )
    counts = pd.DataFrame(
        {"class": names, **{s: [n["classes"].get(c, 0) for c in names] for s, n in splits.items()}}
    )
    table(counts, "Objects of every class")
    look = found.stage("look")["result"]
    shared = shared_words(look["shared"])
    if shared:
        say(f"{shared[0].upper()}{shared[1:]}.")
    if found.options.get("weights"):
        say(f"The training grid is that of the given weights: {found.stage('plan')['result']['origin']}.")
    else:
        say("Why the training grid is what it is:\n\n" + "\n".join(f"- {r}" for r in look["reasons"]))


def _own(names: Any) -> dict[str, str]:
    return {name: name for name in names}


def _split(numbers: dict[str, Any]) -> dict[str, str]:
    """Facts about one split in words, by what they are about."""
    count, side, pixels = numbers["per_image"], numbers["relative_side"], numbers["side"]
    sizes = [f"{size.replace('x', ' x ')} ({n})" for size, n in list(numbers["sizes"].items())[:_SIZES]]
    others = len(numbers["sizes"]) - len(sizes)
    return {
        "pictures": f"{numbers['images']:,}",
        "without an object": f"{numbers['empty']:,}",
        "objects": f"{numbers['objects']:,}",
        "objects on a picture: median, 95 %, 99 %, most": ", ".join(
            f"{count[name]:.0f}" for name in ("median", "p95", "p99", "maximum")
        ),
        "side of an object: least, median, 95 %, most": ", ".join(
            f"{side[name]:.1%}" for name in ("minimum", "median", "p95", "maximum")
        ),
        "the same in px": ", ".join(
            f"{pixels[name]:.0f}" for name in ("minimum", "median", "p95", "maximum")
        ),
        "objects below 32 x 32 px": f"{numbers['small'] / max(numbers['objects'], 1):.0%}",
        "picture sizes, px": ", ".join(sizes) + (f", {others} others" if others else ""),
    }


def provenance(found: Findings) -> None:
    """Command, data, machine, versions; stages with seconds, memory and keys."""
    import pandas as pd

    around = environment()
    versions = ", ".join(f"{name} {version}" for name, version in around["versions"].items())
    say(
        f"- Command: `{found.options.get('command') or 'python -m rfdetr nas'}`\n"
        f"- Data: {found.options['data']}, fingerprints"
        f" {', '.join(found.stage('look')['values']['data'].values())}\n"
        f"- Machine: {machine()}{', ' + around['gpu'] if around['gpu'] else ''}; {around['system']}\n"
        f"- Code: commit {commit()}; {versions}"
    )
    rows = []
    for name in found.stages:
        stage = found.stage(name)
        rows.append(
            {
                "stage": name,
                "seconds": stage["seconds"],
                "most memory so far, GB": stage.get("peak_mb", 0) / 1024 or None,
                "key": stage["key"],
            }
        )
    total = sum(row["seconds"] for row in rows)
    table(pd.DataFrame(rows), f"Stages, {total / 60:.1f} min in all; one with the same key is not made again")
