"""The parts of the report, one function each: they compute from a run's folder and show in the notebook."""

import platform
from typing import TYPE_CHECKING, Any

from rfdetr.nas import words
from rfdetr.nas.findings import Findings
from rfdetr.nas.words import difference as with_interval
from rfdetr.nas.words import interval
from rfdetr.plots import run as figures
from rfdetr.plots.display import show
from rfdetr.plots.style import theme
from rfdetr.plots.tables import say, table

if TYPE_CHECKING:
    from PIL import Image


def summary(found: Findings) -> None:
    """Title and one paragraph."""
    theme()
    best, fast = found.best, found.networks[0]
    plan, search = found.stage("plan")["result"], found.stage("search")["result"]
    say(f"# Search on {found.options['data']}")
    text = (
        f"One network was trained for {plan['steps']:,} steps on {found.shape('train')['images']} pictures;"
        f" {search['sub_networks']:,} of its sub-networks were looked at without training any of them again."
        f" The most accurate one chosen, **{best['arch']}**, reaches {found.metric}"
        f" **{interval(best['test'])}** on {best['test']['images']} test pictures in {best['latency_ms']:.3g}"
        f" ms ({found.options['runtime']}, {found.options['threads']} thread(s), batch 1)."
    )
    if fast["arch"] != best["arch"]:
        text += (
            f" The fastest, {fast['arch']}, reaches {interval(fast['test'])} in {fast['latency_ms']:.3g} ms."
        )
    say(text)


def front(found: Findings) -> None:
    """The interactive scatter."""
    data = found.table
    count = int(data["front"].sum())
    show(
        figures.front(data, found.metric, found.networks),
        alt=(
            f"{found.metric} against latency of {len(data)} sub-networks, {count} of them on the front,"
            " chosen ones marked"
        ),
    )
    missing = int(data["latency_ms"].isna().sum()) if "latency_ms" in data else 0
    if "predicted_ms" in data:
        say(
            f"Latencies: {len(data) - missing} measured, all predicted by a model of these; the prediction"
            " decides."
        )


def networks(found: Findings) -> None:
    """Table of the chosen networks."""
    import pandas as pd

    rows = [
        {
            "network": e["arch"],
            "chosen for": "; ".join(e["targets"]),
            "ms": e["latency_ms"],
            "validation": interval(e["val"]),
            "test": interval(e["test"]),
            "lost by not choosing on it": (e["val"]["AP"] or 0) - (e["test"]["AP"] or 0),
            "weights": "fine-tuned" if e["tuned"] else "inherited",
        }
        for e in found.networks
    ]
    table(
        pd.DataFrame(rows),
        f"{found.metric} of the chosen networks",
        decimals={"ms": 2, "lost by not choosing on it": 3},
    )


def fine_tuning(found: Findings) -> None:
    """What training the chosen ones further did."""
    import pandas as pd

    stage = found.stage("fine-tune")
    if not stage:
        return
    rows = [
        {
            "network": row["arch"],
            "inherited": row["inherited"],
            "fine-tuned": row["tuned"],
            "difference": with_interval(row),
            "verdict": words.fine_tuning(row),
        }
        for row in stage["result"]["networks"]
    ]
    table(
        pd.DataFrame(rows),
        f"Fine-tuning one by one: {found.metric} on validation, paired intervals",
        decimals=3,
    )


def baseline(found: Findings) -> None:
    """The fixed architecture that was trained alone, where there is one."""
    import pandas as pd

    stage = found.stage("baseline")
    if not stage:
        return
    result = stage["result"]
    say(
        f"**Was the search worth it?** One fixed architecture, {result['arch']}, was trained alone at the"
        f" same cost ({result['steps']:,} steps): {found.metric} {interval(result['test'])} on test."
    )
    rows = [
        {
            "network": row["arch"],
            "minus the fixed one": with_interval(row),
            "verdict": (
                ("better" if row["difference"] > 0 else "worse") if row["resolved"] else "not resolved"
            ),
        }
        for row in result["against"]
    ]
    table(
        pd.DataFrame(rows),
        "Chosen networks against the fixed one, test pictures, paired intervals; one training each",
    )


def by_class(found: Findings) -> None:
    """AP per class of every chosen network."""
    import pandas as pd

    names = list(found.networks[0]["test"]["per_class"])
    counts = found.objects_per_class()
    data = pd.DataFrame({"class": names, "test objects": [counts.get(name, 0) for name in names]})
    for entry in found.networks:
        data[entry["arch"]] = [entry["test"]["per_class"].get(name) for name in names]
    table(data, f"{found.metric} by class", decimals=3)


def by_size(found: Findings) -> None:
    """AP by object size of every chosen network."""
    import pandas as pd

    kinds = {
        "APs": "small (under 32 x 32 px)",
        "APm": "medium",
        "APl": "large (over 96 x 96 px)",
        "AP50": "AP50",
    }
    data = pd.DataFrame({"objects": list(kinds.values())})
    for entry in found.networks:
        data[entry["arch"]] = [entry["test"]["numbers"][kind] for kind in kinds]
    table(data, f"{found.metric} by size in the original picture", decimals=3)


def curves(found: Findings) -> None:
    """Precision over recall, and the confusion matrix."""
    arch = found.best["arch"]
    show(
        figures.precision_recall(found.precision_recall(arch)),
        alt=f"Precision against recall of {arch}, one line per class, at an overlap of one half",
    )
    show(
        figures.confusion(found.confusion(arch)),
        alt=f"Confusion matrix of {arch} at the score threshold {found.best['threshold']:.2f}",
    )
    say(f"Threshold {found.best['threshold']:.2f}, F1 {found.best['f1']:.2f}.")


def pictures(found: Findings) -> None:
    """Test pictures with the outcomes of two networks."""
    fast, best = found.networks[0], found.best
    pair = [fast] if fast["arch"] == best["arch"] else [fast, best]
    outcomes = [found.outcomes(entry["arch"]) for entry in pair]
    for index in found.shown_pictures(best["arch"]):
        image = found.test[index][0]
        titles = [f"{e['arch']}, {e['latency_ms']:.3g} ms" for e in pair]
        row = [
            figures.drawn(image, one[index], found.class_names(), title)
            for one, title in zip(outcomes, titles, strict=True)
        ]
        _picture(figures.side_by_side(row), _words(outcomes[-1][index], pair[-1]["arch"]))


def _words(one: Any, arch: str) -> str:
    hits, false = int(one.hits.sum()), int((~one.hits).sum())
    return (
        f"A test picture with {len(one.truth)} objects; {arch} finds {hits} and raises {false} false alarms"
    )


def _picture(picture: "Image.Image", alt: str) -> None:
    from IPython.display import display

    display(picture, metadata={"image/png": {"alt": alt}})


def data(found: Findings) -> None:
    """Statistics of the splits, and why the grid is what it is."""
    import pandas as pd

    rows = []
    for split in ("train", "val", "test"):
        shape = found.shape(split)
        rows.append(
            {
                "split": split,
                "pictures": shape["images"],
                "objects": shape["objects"],
                "objects on a picture (median, most)": (
                    f"{shape['per_image'][0]:.0f}, {shape['per_image'][3]:.0f}"
                ),
                "side of an object (10th, 50th, 90th percentile)": ", ".join(
                    f"{v:.1%}" for v in shape["side"]
                ),
            }
        )
    table(pd.DataFrame(rows), "Sides are shares of the picture's")
    if not found.options.get("weights"):
        say("\n".join(f"- {reason}" for reason in found.stage("look")["result"]["reasons"]))


def knobs(found: Findings) -> None:
    """Means by the values of each knob."""
    names = {
        "side": "tokens a side",
        "resolution": "resolution, px",
        "patch_size": "patch size, px",
        "windows": "windows a side",
    }
    rows = found.knob_means()
    rows["knob"] = [names.get(k, k.replace("_", " ")) for k in rows["knob"]]
    columns = {
        "knob": "knob",
        "value": "value",
        "metric": f"mean {found.metric}",
        "ms": "mean ms",
        "sub_networks": "sub-networks",
    }
    table(
        rows,
        "Means over all sub-networks with that value; values go together, so read tokens a side first",
        columns,
        {"metric": 3, "ms": 2},
    )


def training(found: Findings) -> None:
    """Losses and AP during the training."""
    show(
        figures.curves(found.curve(), found.evaluations(), found.metric),
        alt=(
            "Left: losses of the supernet over its steps. Right: accuracy on validation of some sub-networks."
        ),
    )


def use(found: Findings) -> None:
    """Commands and code."""
    path = found.path("export").relative_to(found.folder)
    best = found.best
    say(
        f"```\npython -m rfdetr predict {path / best['file']} photo.jpg --out pictures\n```\n\nor in"
        f' Python\n\n```python\nimport rfdetr\n\nnetwork = rfdetr.load("{path / best["file"]}")\nfound ='
        ' network.predict("photo.jpg",'
        f' threshold={best["threshold"]})\nfound.plot("photo-found.png")\n```\n\nEach file\'s card'
        f" (`{best['arch']}.md` beside it) has ten lines that need ONNX Runtime alone."
    )


def provenance(found: Findings) -> None:
    """Command, stages, seconds, versions."""
    import pandas as pd

    say(
        f"`{found.options.get('command') or 'python -m rfdetr nas'}` on {platform.platform()}, Python"
        f" {platform.python_version()}."
    )
    rows = [
        {"stage": name, "seconds": found.stage(name)["seconds"], "key": f"{found.stage(name)['key']}"}
        for name in found.stages
    ]
    table(pd.DataFrame(rows), "Stages; a stage with the same key is not made again")
