"""The parts of the report, one function each: they compute from a run's folder and show in the notebook."""

from collections.abc import Mapping
from typing import Any

from rfdetr.nas import words
from rfdetr.nas.findings import Findings
from rfdetr.nas.words import NETWORKS, counted, interval, number
from rfdetr.nas.words import difference as with_interval
from rfdetr.plots import run as figures
from rfdetr.plots.display import in_a_row, show
from rfdetr.plots.style import theme
from rfdetr.plots.tables import say, table


def summary(found: Findings) -> None:
    """Title and one paragraph."""
    theme()
    best, fast = found.best, found.networks[0]
    steps, search = found.stage("train")["result"]["steps"], found.stage("search")["result"]
    say(f"# {words.title(found.options['data'])}")
    text = (
        f"One network was trained for {steps:,} steps on {found.statistics['train']['images']:,} pictures;"
        f" {search['sub_networks']:,} of its sub-networks were looked at without training any of them again."
        f" The most accurate one chosen, **{best['arch']}**, reaches {found.metric_words}"
        f" **{interval(best['test'])}** on {counted(best['test']['images'], 'test picture', 'test pictures')}"
        f" ({'with a 95 % interval; ' if 'low' in best['test'] else ''}{_weights(best)}) and takes"
        f" {_ms(best)} ({found.options['runtime']}, {counted(found.options['threads'], 'thread', 'threads')},"
        " batch 1)."
    )
    if words.nothing(best["test"]["AP"]):
        text += (
            " **That is next to nothing: it finds hardly any object.** Look at the pictures and the losses"
            " below; a longer training (`--hours`, `--steps`) or larger pictures (`--resolutions`) are what"
            " helps most often."
        )
    if fast["arch"] != best["arch"]:
        text += f" The fastest, {fast['arch']}, reaches {interval(fast['test'])} and takes {_ms(fast)}."
    if fixed := found.stage("baseline"):
        text += (
            f" Against one fixed architecture, trained alone {_cost(fixed['result'])}, which reaches"
            f" {interval(fixed['result']['test'])}, the search was {words.worth(fixed['result'])}."
        )
    refused = found.stage("choose")["result"]["refused"]
    say(text + "".join(f"\n\nNo network for {reason}." for reason in refused))


def _weights(entry: Mapping[str, Any]) -> str:
    return "trained further after the choice" if entry["tuned"] else "weights of the supernet"


def _ms(entry: Mapping[str, Any]) -> str:
    return f"{entry['latency_ms']:.3g} ms" + ("" if entry["timed"] else " by prediction")


def _whole(text: str) -> str:
    """For a cell of a table that must not break into lines, however narrow the page is."""
    return text.replace(" ", "\u00a0")


def _cost(result: Mapping[str, Any]) -> str:
    return "at the same cost" if result["share"] >= 1 else f"at {result['share']:.0%} of the search's cost"


def front(found: Findings) -> None:
    """The interactive scatter."""
    data = found.table
    count = int(data["front"].sum())
    show(
        figures.front(data, found.metric, found.networks),
        alt=(
            f"{found.metric_words} against latency of {len(data)} sub-networks, {count} of them on the front,"
            " chosen ones marked"
        ),
    )
    missing = int(data["latency_ms"].isna().sum()) if "latency_ms" in data else 0
    say(
        f"Latencies: {len(data) - missing} measured here"
        + (f", {missing} predicted by a model of these." if missing else ".")
    )


def networks(found: Findings) -> None:
    """Table of the chosen networks."""
    import pandas as pd

    rows = [
        {
            "network": e["arch"],
            "chosen for": "; ".join(map(_whole, e["targets"])),
            "latency": _whole(_ms(e)),
            "validation": _whole(interval(e["val"])),
            "test": _whole(interval(e["test"])),
            **({"boxes, test": number(e["test"]["box_AP"])} if "box_AP" in e["test"] else {}),
            "weights": _weights(e),
        }
        for e in found.networks
    ]
    for row, entry in zip(rows, found.networks, strict=True):
        if deployed := entry.get("deployed"):
            row[f"test, run in {found.options['precision']}"] = number(deployed["AP"])
    table(pd.DataFrame(rows), f"{found.metric_words} of the chosen networks")
    inherited = [found.inherited(e["arch"]) for e in found.networks]
    pairs = [(e["val"]["AP"], e["test"]["AP"]) for e in inherited]
    gaps = [f"{val - test:+.3f}" for val, test in pairs if None not in (val, test)]
    if gaps:
        say(
            f"Validation minus test, with the weights that the choice was made by: {', '.join(gaps)}. A part"
            " is the luck that choosing takes along, a part that the two splits differ."
        )


def fine_tuning(found: Findings) -> None:
    """What training the chosen ones further did."""
    import pandas as pd

    stage = found.stage("fine-tune")
    if not stage:
        return
    if not stage["result"]["networks"]:
        say("The chosen networks were not trained further: the hours had no time left for it.")
        return
    rows = [
        {
            "network": row["arch"],
            "inherited": row["inherited"],
            "fine-tuned": row["tuned"],
            "difference": _whole(with_interval(row)),
            "verdict": words.fine_tuning(row),
        }
        for row in stage["result"]["networks"]
    ]
    table(
        pd.DataFrame(rows),
        f"Fine-tuning one by one: {found.metric_words} on validation, paired intervals",
        decimals=3,
    )


def baseline(found: Findings) -> None:
    """The fixed architecture that was trained alone, where there is one."""
    import pandas as pd

    stage = found.stage("baseline")
    if not stage:
        return
    result = stage["result"]
    worth = words.worth(result)
    say(
        f"**Was the search worth it?** {worth[0].upper()}{worth[1:]}.\n\nThe fixed architecture,"
        f" {result['arch']}, was trained alone {_cost(result)} ({result['steps']:,} steps):"
        f" {found.metric_words} {interval(result['test'])} on test, {result['latency_ms']:.3g} ms."
    )
    rows = [
        {
            "network": row["arch"],
            "latency": _whole(f"{row['latency_ms']:.3g} ms"),
            "minus the fixed one": _whole(with_interval(row)),
            "verdict": words.verdict(row),
        }
        for row in result["against"]
    ]
    table(
        pd.DataFrame(rows),
        "Chosen networks against the fixed one: test pictures, paired intervals, one training each",
    )


def by_class(found: Findings) -> None:
    """AP per class of every chosen network."""
    import pandas as pd

    names = list(found.networks[0]["test"]["per_class"])
    counts = found.statistics["test"]["classes"]
    data = pd.DataFrame({"class": names, "test objects": [counts.get(name, 0) for name in names]})
    for entry in found.networks:
        data[entry["arch"]] = [entry["test"]["per_class"].get(name) for name in names]
    table(data, f"{found.metric_words} by class", decimals=3)


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
    table(data, f"{found.metric_words} by size in the original picture", decimals=3)


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
        shown = []
        for entry, one in zip(pair, outcomes, strict=True):
            drawn = figures.drawn(
                image,
                one[index],
                found.class_names(),
                f"{entry['arch']}, {_ms(entry)}",
                masks=found.masks(entry["arch"], index),
            )
            shown.append((drawn, _words(one[index], entry["arch"])))
        in_a_row(shown)


def _words(one: Any, arch: str) -> str:
    hits, false = int(one.hits.sum()), int((~one.hits).sum())
    return (
        f"A test picture with {counted(len(one.truth), 'object', 'objects')}; {arch} finds {hits} and raises"
        f" {counted(false, 'false alarm', 'false alarms')}"
    )


def knobs(found: Findings) -> None:
    """Means by the values of each knob."""
    means = found.knob_means()
    names = {
        "side": "tokens a side",
        "resolution": "resolution, px",
        "patch_size": "patch size, px",
        "windows": "windows a side",
        "decoder_layers": "decoder layers",
        "queries": "queries",
    }
    show(
        figures.knobs(means, names, found.metric),
        alt=f"Mean {found.metric_words} and mean latency by the values of each knob, one panel a knob",
    )
    sides = means[means["knob"] == "side"]
    best = sides.sort_values("metric").iloc[-1]
    text = (
        "Means over all sub-networks with that value. Values go together (a larger picture has more tokens),"
        " so read tokens a side first"
    )
    known = best["metric"] > 0  # else no value is better than another
    say(f"{text}: most accurate on average are {best['value']:.0f} a side." if known else f"{text}.")


def training(found: Findings) -> None:
    """Losses and AP during the training."""
    show(
        figures.curves(found.curve(), found.evaluations(), found.metric),
        alt=("Above: losses of the supernet over its steps. Below: accuracy on validation of sub-networks."),
    )


def use(found: Findings) -> None:
    """Commands and code."""
    best = found.best
    file = f"{NETWORKS}/{best['file']}"
    say(
        f"The networks are in the folder `{NETWORKS}` of the run. There\n\n```\npython -m rfdetr predict"
        f" {best['file']} photo.jpg --out pictures\n```\n\nor, from the run's folder, in"
        f' Python\n\n```python\nimport rfdetr\n\nnetwork = rfdetr.load_exported("{file}")\nfound ='
        f' network.predict_one("photo.jpg", threshold={best["threshold"]:g})\nprint(found.names, found.boxes,'
        ' found.scores)\nfound.plot("photo-found.png")\n```\n\nEach file\'s card'
        f" (`{best['arch']}.md` beside it) has ten lines that need ONNX Runtime alone."
    )
