"""Chapters 09, F, G and I: their tables, and their pages with a whole, a partial and no kept benchmark."""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from domain_case import EVERY, GAIN, SIZES, baseline, folder, study, without

from rfdetr.arch import PRESETS
from rfdetr.data.scenes import scenes
from rfdetr.experiments import (
    ch04_share,
    ch09_analysis,
    ch09_convolution_reading,
    ch09_cost,
    ch09_reading,
    ch09_shown,
    ch09_tables,
    ch09_within,
    ch_f_claims,
    ch_f_tuning,
    ch_g_transfer,
    ch_h_architectures,
    ch_h_claims,
    ch_i_predictions,
)
from rfdetr.experiments.ch04_learning import BACKWARD
from rfdetr.experiments.ch09_intervals import FEW
from rfdetr.model.config import preset_config
from rfdetr.model.detections import Detections
from rfdetr.plots import domains as figures
from rfdetr.plots.pictures import _pairs
from rfdetr.sources import package_root

DOMAINS = ("bccd", "raccoon", "hit_uav", "deeppcb", "crowd", "giants")


@pytest.fixture(scope="module")
def whole():
    return study(DOMAINS, seeds=2)


def test_answers_are_given_where_there_are_enough_domains(whole):
    found = ch09_tables.answers(whole).set_index(["first", "second"])
    assert len(found) == len(ch09_tables.QUESTIONS) and (found["domains"] == len(DOMAINS)).all()
    for (first, second), row in found.iterrows():
        gain = GAIN.get(first, 0) - GAIN.get(second, 0)
        if {first, second} <= {"nas", "nas_tuned", "nas_continued", "scratch_nas"}:
            assert row["difference"] == pytest.approx(gain, abs=0.002)
            assert row["answer"] == ("yes" if gain > 0 else "no, the opposite")
    assert found.loc[("prior_nas", "nas"), "answer"] == "not resolved"
    few = ch09_tables.answers(study(DOMAINS[:3]))
    assert set(few["answer"]) == {f"needs {FEW} domains"}
    # Only what the result has is asked.
    some = ch09_tables.answers(study(DOMAINS[:2], ("nas", "fixed")))
    assert some["first"].tolist() == ["nas"]
    assert ch09_tables.compared(study(DOMAINS[:2], ("nas", "fixed")), "nas_tuned", "nas") is None


def test_tables_have_what_there_is(whole):
    means = ch09_tables.by_target(whole).set_index("kind")
    assert {"N", "S", "M"} <= set(means) and (means["domains"] == len(DOMAINS)).all()
    assert means.loc["nas", "N"] < means.loc["nas", "M"]
    assert means.loc["nas_tuned", "S"] - means.loc["nas", "S"] == pytest.approx(GAIN["nas_tuned"])
    # Made on other domains, a mean stands beside that of the searched networks there.
    tests = whole.tables["tests"]
    easy = tests[(tests["kind"] == "nas") & tests["domain"].isin(DOMAINS[:2]) & (tests["seed"] == 0)]
    rare = easy.assign(kind="nas_tuned", AP=easy["AP"] + 0.1)
    mixed = replace(whole, tables={"tests": pd.concat([tests[tests["kind"] != "nas_tuned"], rare])})
    row = ch09_tables.by_target(mixed).set_index("kind").loc["nas_tuned"]
    assert row["domains"] == 2 and row["mean"] - row["searched"] == pytest.approx(0.1)
    assert row["searched"] == pytest.approx(easy["AP"].mean())
    some = ch09_tables.per_domain(study(DOMAINS[:2], ("nas", "fixed")))
    assert list(some) == ["domain", "fixed", "nas", "seeds"] and some["seeds"].tolist() == [1, 1]
    gone = without(whole, "raccoon")
    assert "raccoon" not in set(ch09_tables.per_domain(gone)["domain"])
    assert (ch09_tables.twice(whole)["difference"] < 1e-4).all()


def test_printed_rows_are_those_of_the_tables():
    printed = ch09_tables.printed().set_index("size")
    assert printed.loc["L", "search"] == pytest.approx(-0.2) and printed.loc["N", "tuning"] == pytest.approx(
        0.8
    )
    families = ch09_tables.printed_families()
    assert not families.duplicated(["family", "size"]).any() and "GroundingDINO" not in set(
        families["family"]
    )
    ours = families[families["family"] == "RF-DETR"].set_index("size")["ap"]
    assert ours["2XL"] == 63.5 and len(ours) == 6
    gains = ch_f_tuning.printed_gains().set_index("size")
    assert gains.loc["N"].tolist() == pytest.approx([0.4, 0.1, 0.8, 1.1])
    assert np.isnan(gains.loc["S", "coco_masks"])
    assert -1 <= ch_f_tuning.rank_with_size(gains.reset_index())["rf100vl"] < 0


def test_cost_scales_with_what_is_assumed():
    one, two = (ch09_cost.estimate(*args) for args in ((1000, 300, 8.0, 0.5), (2000, 600, 4.0, 1.0)))
    assert (two["hours"] / one["hours"]).to_numpy() == pytest.approx(4)
    assert (two["price"] / one["price"]).to_numpy() == pytest.approx(8)
    whole = one[one["stage"] == "all"].set_index("grid")["hours"]
    assert whole["the printed grid"] > whole["the grid of the profile t4"]
    rest = one[one["stage"] != "all"].groupby("grid")["hours"].sum()
    assert rest.to_dict() == pytest.approx(whole.to_dict())


def test_trainings_are_counted_with_all_groups_of_queries():
    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.experiments.ch02_search_space import supernet_config

    images, passes = 100, 1 + BACKWARD
    epochs = ch09_cost.printed_epochs()
    found = ch09_cost.estimate(images, 30, 8.0, 1.0).set_index(["grid", "stage"])["peta"]
    for name, (space, _) in ch09_cost.GRIDS.items():
        config = supernet_config(space)
        deployed = analytic_table(config, space.archs())["gflops"].mean() * passes * images * epochs / 1e6
        # Thirteen groups of queries go through selection, decoder and heads, and only one is deployed.
        assert 1.1 < found[name, "training with weight sharing"] / deployed < 13
    tuned = [
        ch04_share.training_operations(preset_config(name), [PRESETS[name].arch], groups)[0]
        for groups in (13, 1)
        for name in ch09_cost.SIZES
    ]
    stage = f"fine-tuning of {len(ch09_cost.SIZES)} sizes"
    assert found["the printed grid", stage] == pytest.approx(sum(tuned[:3]) * passes * images * epochs / 1e15)
    assert sum(tuned[:3]) > sum(tuned[3:])


def test_transfer_of_all_targets(whole):
    matrix = ch_g_transfer.matrices(whole)
    assert len(matrix) == 3 * len(DOMAINS) * (len(DOMAINS) + 2)
    own = matrix[matrix["chosen_on"] == matrix["used_on"]]
    assert (own["difference"] == 0).all()
    losses = ch_g_transfer.summary(matrix)
    assert losses["pairs"].tolist() == [6, 6, 30] * 3 and (losses["worst"] >= losses["mean"]).all()
    # Choices were made on the pictures that they are tested on: nobody gains.
    assert (losses["mean"] >= 0).all() and (losses["gain"] == 0).all()
    assert (losses["low"] <= losses["mean"]).all() and (losses["mean"] <= losses["high"]).all()
    few = ch_g_transfer.summary(ch_g_transfer.matrices(study(DOMAINS[:3])))
    assert few["low"].isna().all() and not few["resolved"].any() and len(few) == 9
    alone = ch_g_transfer.summary(ch_g_transfer.matrices(study(DOMAINS[:1])))
    assert alone["chosen"].tolist() == ["fixed"] * 3
    best = ch_g_transfer.one_for_all(whole)
    assert best["own_loss"].to_numpy() == pytest.approx(0, abs=1e-4) and (best["mean_loss"] > 0).all()
    gone = ch_g_transfer.matrices(without(whole, "bccd"))
    assert "bccd" not in {*gone["chosen_on"], *gone["used_on"]}


def test_gains_by_target_and_by_length(whole):
    gains = ch_f_tuning.by_target(whole)
    alone = gains[gains["how"] == "the network alone"]
    assert alone["difference"].to_numpy() == pytest.approx(GAIN["nas_tuned"], abs=1e-9)
    lengths = ch_f_tuning.by_length(whole)
    assert (lengths.groupby(["domain", "seed"])["steps"].min() == 0).all()
    longer = ch_f_tuning.longer(whole)
    assert longer["domains"].tolist() == [len(DOMAINS)]
    assert ch_f_claims.c049(longer).verdict == "consistent"
    assert ch_f_claims.c049(longer.assign(low=-0.03, high=-0.01)).verdict == "contradicted"
    assert ch_f_claims.c049(longer.assign(domains=2)).verdict.startswith("needs")
    searched = study(DOMAINS[:2], ("nas", "fixed"))
    assert ch_f_tuning.longer(searched) is None and ch_f_tuning.by_target(searched).empty
    assert ch_f_tuning.by_length(searched).empty


def shown_scenes():
    """Scenes with all objects found, but for the first picture, where one is missed and one invented."""
    data = scenes("giants", "test", size=5, canvas=64)
    found = []
    for index in range(5):
        target = data[index][1]
        half = target.boxes[:, 2:] / 2
        boxes = torch.cat([target.boxes[:, :2] - half, target.boxes[:, :2] + half], 1).numpy() * 64
        labels, scores = target.labels.numpy(), np.full(len(boxes), 0.9, dtype=np.float32)
        if index == 0:
            boxes = np.concatenate([boxes[1:], [[0, 0, 3, 3]]]).astype(np.float32)
            labels, scores = np.append(labels[1:], 0), np.append(scores[1:], np.float32(0.95))
        found.append(Detections(boxes, scores, labels, (64, 64), categories=data.category_ids))
    words = ch_i_predictions.WORDS.values()
    return ch_i_predictions.Shown("giants", data, dict.fromkeys(words, found))


def test_pictures_are_chosen_and_counted_by_rule():
    shown = shown_scenes()
    ap = ch_i_predictions.per_picture(shown, "searched, M")
    assert ap[0] < ap[1:].min() and ap[1:] == pytest.approx(1)
    rules = ch_i_predictions.chosen(shown, 0)
    assert rules["worst"] == 0 and ap[rules["median"]] == pytest.approx(1)
    assert rules == ch_i_predictions.chosen(shown, 0)
    counts = ch_i_predictions.counts([shown])
    assert (counts["missed"] == 1).all() and (counts["false"] == 1).all()
    assert (counts["found"] + counts["missed"] == counts["objects"]).all()
    pairs = _pairs(shown.found["searched, M"][0], np.array([[0, 0, 3.0, 3.0]]), np.array([0]), 0.5)
    assert pairs.count(0) == 1 and len(pairs) == len(shown.found["searched, M"][0])


def test_kept_detections_come_back_in_their_pictures():
    data = ch_i_predictions.pictures("raccoon")
    rows = [
        {"domain": "raccoon", "kind": kind, "target": target, "image": 3, "label": 0, "score": 0.8,
         "left": 0.25, "top": 0.5, "right": 0.75, "bottom": 1.0}
        for kind, target in ch09_shown.SHOWN
    ]  # fmt: skip
    result = study(["raccoon"])
    result = type(result)({**result.tables, "detections": pd.DataFrame(rows)}, result.record, result.folder)
    (shown,) = ch_i_predictions.real(result)
    height, width = data[3][0].shape[:2]
    for found in shown.found.values():
        assert [len(one) for one in found] == [int(i == 3) for i in range(len(data))]
        assert found[3].boxes[0].tolist() == pytest.approx([width / 4, height / 2, 3 * width / 4, height])
    assert list(ch_i_predictions.real(None)) == []


@pytest.mark.parametrize("name", ch09_shown.PICTURED)
def test_the_pictures_of_the_repository(name):
    data = ch_i_predictions.pictures(name)
    assert data.split == "test" and data.name == name
    assert max(data[0][0].shape[:2]) == 160 and len(data[0][1]) > 0
    readme = (package_root() / "results" / "test-pictures" / "README.md").read_text("utf-8")
    assert f"| `{name}.zip` | {len(data)} |" in readme


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """All that the study plans, in a folder of its form, read as the chapters read it."""
    return folder(tmp_path_factory.mktemp("results"))


def drawn(tables):
    """The figures of these tables, of a size that a page can show."""
    import matplotlib.pyplot as plt

    shown = [
        figures.differences(tables["differences"], "domain", "difference in AP"),
        figures.differences(tables["steps"], "domain", "gain in AP", "step"),
        figures.queries_and_objects(tables["queries"]),
        figures.transfer(tables["transfer"]),
    ]
    if len(tables["lengths"]):
        shown.append(figures.lengths(tables["lengths"]))
    for figure in shown:
        figure.canvas.draw()
        assert 100 < figure.bbox.height < 2000
    plt.close("all")


def walk(result, draw=True):
    """Every table of these chapters that is read from the kept benchmark, and its figures drawn."""
    tables = {
        "means": ch09_tables.by_target(result),
        "domains": ch09_tables.per_domain(result),
        "answers": ch09_tables.answers(result),
        "differences": ch09_tables.compared(result, "nas", "fixed"),
        "twice": ch09_tables.twice(result),
        "gains": ch_f_tuning.by_target(result),
        "lengths": ch_f_tuning.by_length(result),
        "transfer": ch_g_transfer.matrices(result),
        "best": ch_g_transfer.one_for_all(result),
        "queries": ch09_analysis.queries_and_objects(result),
        "low_latency": ch_h_architectures.low_latency_queries(result.tables["tests"], result.record["fixed"]),
        "unseen": ch09_within.unseen_by_domain(result),
        "unseen_sides": ch09_within.unseen_by_side(result),
        "depths": ch09_within.depths(result),
        "steps": ch09_within.depth_steps(result),
    }
    tables["losses"] = ch_g_transfer.summary(tables["transfer"])
    if draw:
        drawn(tables)
    longer = ch_f_tuning.longer(result)
    return tables, {"c049": ch_f_claims.c049(longer), "c175": ch_h_claims.c175(tables["low_latency"])}


def test_a_complete_benchmark_has_all_rows(complete):
    covered = ch09_reading.coverage(complete)
    assert len(covered) == 20 and (covered[["searched", "fine_tuned", "from_scratch"]] == 3).all(axis=None)
    assert covered["other_lengths"].sum() == 4 and covered["real_prior"].sum() == 3
    assert "20 of 20" in ch09_reading.words(complete) and "Not in" not in ch09_reading.words(complete)
    assert ch09_reading.seed_words(complete).startswith("3 seeds")
    tables, verdicts = walk(complete)
    assert tables["domains"]["domain"].tolist() == list(EVERY)
    assert (tables["means"]["domains"] == 20).all() and len(tables["means"]) == 7
    answers = tables["answers"].set_index("first")
    assert len(answers) == 7 and answers.loc["prior_nas", "answer"] == f"needs {FEW} domains"
    assert (answers.drop(index="prior_nas")["over"] == "domains").all()
    assert len(tables["differences"]) == 21 and len(tables["transfer"]) == 3 * 20 * 22
    assert tables["losses"]["pairs"].tolist() == [20, 20, 380] * 3
    assert len(tables["lengths"]) == 4 * 5 and len(tables["queries"]) == len(tables["depths"]) == 20
    assert len(tables["steps"]) == 3 * 21 and len(tables["unseen"]) == 21
    # The kept costs are rounded, and still no choice is dearer than its target.
    assert (tables["best"]["own_loss"] >= -1e-6).all()
    assert not any(verdict.verdict.startswith("needs") for verdict in verdicts.values())


def test_domains_may_go_one_by_one(complete):
    """Nothing fails with any number of domains, and with few of them nothing general is said."""
    result = complete
    # The four with several lengths of training stay longest, so that every table shrinks to nothing.
    for left, gone in zip(range(19, 0, -1), EVERY[:0:-1], strict=True):
        result = without(result, gone)
        assert gone in ch09_reading.words(result).split("Not in this copy")[1]
        if left not in (19, 12, *range(FEW + 1)):
            continue
        tables, verdicts = walk(result, draw=left in (12, 2, 1))
        assert len(tables["domains"]) == len(tables["queries"]) == left
        general = tables["answers"].set_index("first").loc["nas"]
        assert bool(general["resolved"].any()) == (left >= FEW)
        needs = {verdict.verdict.startswith("needs") for verdict in verdicts.values()}
        assert needs == {left < FEW}
        assert bool(ch09_reading.few_words(left)) == (left < FEW)
        assert tables["losses"]["low"].isna().all() == (left < FEW)


def test_what_the_plan_lacks_is_named_with_its_command(complete, whole):
    assert ch09_reading.missing_words(complete) == "" == ch09_reading.missing_words(None)
    some = ch09_reading.missing_words(study(DOMAINS[:3], ("nas", "fixed", "epochs")))
    lines = dict(zip(ch09_reading.PARTS, some.splitlines()[2:], strict=True))
    for what, (_, names) in ch09_reading.PARTS.items():
        assert all(f"--part {name}" in lines[what] for name in names), what
    assert "bccd" not in lines["searched"] and "deeppcb" in lines["searched"]
    assert (
        f"all {len(EVERY)} planned domains" in lines["from_scratch"] and "bccd" not in lines["from_scratch"]
    )
    # Only what is planned of it is missing.
    assert "deeppcb" in lines["other_lengths"] and "chess_pieces" not in lines["other_lengths"]
    assert f"all {len(SIZES.priors)} planned domains" in lines["real_prior"]
    assert "bccd (has 1)" in lines["seeds"] and "deeppcb" not in lines["seeds"]
    # `whole` has two of three seeds of six domains, and everything else of them.
    rest = ch09_reading.missing_words(whole, "fine_tuned", "seeds").splitlines()[2:]
    assert "bccd" not in rest[0] and "chess_pieces" in rest[0] and "bccd (has 2)" in rest[1]


def test_the_baseline_stands_beside_the_benchmark(complete, whole):
    for result, seeds in ((complete, 1), (whole, 2), (without(whole, "raccoon"), 1)):
        beside = baseline(result, seeds=seeds)
        count = beside.tables["tests"]["domain"].nunique()
        table = ch09_convolution_reading.per_domain(result, beside)
        assert len(table) == count and (table["seeds"] == seeds).all()
        assert (table["convolution"] > table["convolution_deployed"]).all()
        rows = ch09_convolution_reading.means(result, beside).set_index("kind")
        assert rows.index[0] == "convolution" and rows.loc["convolution", "N"] == rows.loc["convolution", "M"]
        assert (rows["domains"] == count).all() and {"fixed", "nas", "nas_tuned"} < set(rows.index)
        found = ch09_convolution_reading.compared(result, beside).set_index(["against", "target"])
        row = found.loc[("searched", "S")]
        assert row["difference"] == pytest.approx(-0.1, abs=1e-3) and row["domains"] == count
        assert row["answer"] == ("no, the opposite" if count >= FEW else f"needs {FEW} domains")
        assert found.loc[("searched, from scratch", "S"), "difference"] > row["difference"]
        each = ch09_convolution_reading.differences(result, beside)
        assert len(each) == 3 * (count + 1)
        text = ch09_convolution_reading.said(found.reset_index())
        assert ("the searched one is better" in text) == (count >= FEW) and text.count("target") == 3
    times = ch09_convolution_reading.latencies(beside).set_index(["network", "protocol"])
    assert times.loc[("searched, S", "buffered"), "median_ms"] == pytest.approx(2.1)
    ratios = ch09_convolution_reading.ratios(beside).set_index("network")["ratio"]
    assert ratios["searched, S"] == pytest.approx(2) and ratios["convolution, deployed"] == pytest.approx(
        4 / 3
    )
    assert "Not there" in ch09_convolution_reading.words(beside)
    assert "Not there" not in ch09_convolution_reading.words(baseline(complete))
    assert ch09_convolution_reading.per_domain(study(["crowd"]), beside)["convolution"].notna().all()
    nothing = ch09_convolution_reading.compared(study(["crowd"]), beside)
    assert nothing.empty and ch09_convolution_reading.said(nothing) == ""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


PAGES = ("09_rf100vl", "F_fine_tuning", "G_fixed_architecture", "H_discovered_architectures", "I_predictions")


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *((name, "complete") for name in PAGES),
        *((name, "one domain gone") for name in PAGES),
        *((name, "searched in part") for name in PAGES[:3]),
        *((name, "none") for name in PAGES[:3]),
        (PAGES[4], "none"),
    ],
)
def test_a_page_says_what_is_missing(name, case, whole, complete, store, monkeypatch):
    """The code of the page, with every state of the kept benchmark."""
    import IPython.display
    import matplotlib.pyplot as plt

    result = {
        "none": None,
        "searched in part": study(DOMAINS[:3], ("nas", "fixed")),
        "one domain gone": without(whole, "raccoon"),
        "complete": complete,
    }[case]
    texts: list[str] = []
    monkeypatch.setattr(
        IPython.display, "display", lambda shown, **_: texts.append(str(getattr(shown, "data", "")))
    )
    monkeypatch.setattr(ch09_reading, "load", lambda: result)
    beside = None if case in ("none", "searched in part") else baseline(result)
    monkeypatch.setattr(ch09_convolution_reading, "load", lambda: beside)
    cells = nbformat.read(package_root() / "notebooks" / f"{name}.ipynb", 4).cells
    scope: dict[str, object] = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}:{cell.id}", "exec"), scope)
        if cell.id == "parameters":
            scope |= {"profile": "smoke", "output_dir": str(store)}
    plt.close("all")
    page = "\n".join(texts)
    assert "made-with" in page
    if case == "complete":
        # The two domains that are run afresh remain few.
        fresh = name in PAGES[:3]
        assert "Not in this copy" not in page and page.count("nothing can be said") == fresh
        assert "Of the plan not done" not in page and "baseline is not in" not in page
        return
    gone = set(DOMAINS) - set([] if result is None else result.tables["tests"]["domain"])
    if name == "F_fine_tuning" and case == "searched in part":
        gone = set(DOMAINS)
    if result is not None and name != "I_predictions":  # which shows pictures of what there is
        assert page.count("Of the plan not done") == 1
    if name == "09_rf100vl":
        assert ("baseline is not in this copy" in page) == (beside is None)
    assert page.count("Not in this copy") == 1
    said = page.split("Not in this copy")[1]
    assert case == "none" or all(domain in said for domain in gone)
