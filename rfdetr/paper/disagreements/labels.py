"""Disagreements about labels, places, versions and the published package (I14 to I16, I34, I67 to I77)."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper import tables
from rfdetr.paper.arithmetic.cells import ap, rows
from rfdetr.paper.arithmetic.recipe import c111, stated
from rfdetr.paper.arithmetic.rf100vl import ours
from rfdetr.paper.disagreements.recount import Recount, listed, numbers, side, signed

if TYPE_CHECKING:
    import pandas as pd


def i14(inconsistencies: list[dict[str, Any]]) -> Recount:
    """The words with which the batch is compared with LW-DETR's."""
    found = next(iter(c111(inconsistencies).numbers.values()))
    return Recount(len(found) > 1, f"compared with LW-DETR's: {listed(found)}")


def i15(sides: list[dict[str, Any]]) -> Recount:
    """The table that the text names, and the one that is about the ablation."""
    cited = int(numbers(side(sides, "Section 4"))[0])
    title = {int(r["v2_id"]): r["title"] for r in tables.numbering() if r["kind"] == "table" and r["v2_id"]}
    right = [number for number, text in title.items() if "Neural Architecture Search" in text]
    return Recount(
        cited not in right,
        f"Table {cited} is “{title[cited]}”, Table {listed(right)} is “{title[right[0]]}”",
    )


def i34(t18: "pd.DataFrame") -> Recount:
    """What Table 18 is about."""
    title = next(r["title"] for r in tables.numbering() if r["kind"] == "table" and r["v2_id"] == "18")
    return Recount("COCO" not in title and len(t18) > 0, f"Table 18 is “{title}”")


def i67(t2: "pd.DataFrame", t4: "pd.DataFrame") -> Recount:
    """Rows of one model with equal parameters and two names of the size."""
    both = t2.merge(t4, on=["model", "params_m", "gflops"], suffixes=("_2", "_4"))
    renamed = both[both["size_2"] != both["size_4"]]
    return Recount(
        len(renamed) > 0,
        "; ".join(
            f"{r['model']} with {r['params_m']:g} million is {r['size_2']} in Table 2 and {r['size_4']} in 4"
            for r in renamed.to_dict("records")
        ),
    )


def i68(t3: "pd.DataFrame", t13: "pd.DataFrame", t16: "pd.DataFrame") -> Recount:
    """Segmentation rows that are printed without -Seg."""
    found = []
    for number, table in ((3, t3), (13, t13), (16, t16)):
        own = rows(table, model="RF-DETR-Seg")
        bare = list(dict.fromkeys(own.loc[~own["model_printed"].str.contains("-Seg"), "size"]))
        found.append(f"Table {number}: {listed(bare) or 'none'}")
    return Recount(any("none" not in text for text in found), "without -Seg in " + "; ".join(found))


def i69(t2: "pd.DataFrame", t12: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """The sizes of Table 12 and those that captions name."""
    printed = list(dict.fromkeys(rows(t12, model="RF-DETR")["size"]))
    captions = [side(sides, place) for place in ("Captions of Tables 2", "Captions of Tables 12")]
    missing = [[s for s in printed if s not in text] for text in captions]
    also = [s for s in rows(t2, model="RF-DETR")["size"] if s in printed]
    return Recount(
        all(missing),
        f"RF-DETR rows of Table 12: {listed(printed)}; the two captions leave out {listed(missing[0])} and"
        f" {listed(missing[1])}; {listed(also)} is in Table 2 too",
    )


def _tuned(t2: "pd.DataFrame", t15: "pd.DataFrame") -> dict[str, float]:
    """AP with fine-tuning: Table 2 plus the differences of Table 15."""
    delta = t15[t15["variant"] == "nas_fine_tuned"].set_index("size")["ap"].astype(float)
    return {s: round(ap(t2, "RF-DETR", s, "nas") + float(delta[s]), 1) for s in ("N", "S", "M")}


def i72(t2: "pd.DataFrame", t15: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """The documentation's AP against the searched and the fine-tuned ones."""
    tuned, plain = _tuned(t2, t15), {s: ap(t2, "RF-DETR", s, "nas") for s in ("N", "S", "M")}
    documented = dict(zip(plain, numbers(side(sides, "documentation"))[::2], strict=True))
    return Recount(
        documented == tuned != plain,
        f"Table 2 {listed(list(plain.values()))}; with Table 15 {listed(list(tuned.values()))}; documented"
        f" {listed(list(documented.values()))}",
    )


def i73(t18: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """The documentation's RF100-VL numbers against the fixed and the searched ones."""
    fixed, searched = ours(t18, "fixed_architecture"), ours(t18, "nas")
    text = side(sides, "documentation").split("the fixed")[0].replace("2XL", "XXL")
    documented = dict(zip(fixed, numbers(text), strict=False))
    apart = {s: documented[s] - searched[s] for s in documented}
    return Recount(
        documented == fixed != searched,
        f"documented {listed(list(documented.values()))} are the fixed rows; minus the searched ones:"
        f" {signed(apart)}",
    )


def i75(t2: "pd.DataFrame", t4: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """YOLOv11 in the paper and in the documentation."""
    found = []
    for table, place in ((t2, "documentation, COCO"), (t4, "documentation, RF100-VL")):
        printed = [ap(table, "YOLOv11", s) for s in ("N", "S", "M")]
        documented = numbers(side(sides, place))
        found.append((printed, documented))
    return Recount(
        all(a != b for a, b in found),
        "; ".join(f"paper {listed(a)}, documentation {listed(b)}" for a, b in found),
    )


def i76(training_recipe: dict[str, Any], sides: list[dict[str, Any]]) -> Recount:
    """The threshold of the captions and that of the benchmark's read-me."""
    entry = next(e for e in training_recipe["measurement"] if e["name"] == "nms_confidence_threshold")
    other = float(side(sides, "README").partition("=")[2])
    return Recount(entry["value"] != other, f"captions {entry['value']:g}, read-me {other:g}")


def i77(training_recipe: dict[str, Any]) -> Recount:
    """Batch and learning rates of the paper and of the package's defaults."""
    public = training_recipe["published_code_defaults"]
    batch = public["batch_size"] * public["grad_accum_steps"]
    printed = stated(training_recipe, "batch_size")["value"]
    rate = stated(training_recipe, "learning_rate")["value"]
    return Recount(
        batch != printed,
        f"batch {printed} and {public['batch_size']} · {public['grad_accum_steps']} = {batch}; learning rate"
        f" {rate:g} and {public['lr']:g}, encoder {public['lr_encoder']:g}",
    )
