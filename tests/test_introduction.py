"""The introduction: what it does by hand is what the package does, its words are explained."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import binary_cross_entropy_with_logits

from rfdetr.arch import SEARCH_GRID, Arch, round_resolution
from rfdetr.benchmark.flops import FlopCount
from rfdetr.data.dataset import Target
from rfdetr.experiments import ch00_claims
from rfdetr.experiments import ch00_introduction as intro
from rfdetr.model.config import ModelConfig
from rfdetr.plots import introduction as figures
from rfdetr.sources import package_root
from rfdetr.training.boxes import overlaps
from rfdetr.training.matcher import label_cost

ROOT = package_root()


def answers(seed: int, queries: int, objects: int) -> intro.Answer:
    """A picture with made-up objects and queries, some of which lie near an object."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate(
        [random.uniform(0.2, 0.8, (objects, 2)), random.uniform(0.1, 0.4, (objects, 2))], 1
    )
    near = boxes[random.integers(0, objects, queries)] * random.uniform(0.8, 1.25, (queries, 4))
    labels = torch.from_numpy(random.integers(0, 3, objects))
    target = Target(labels, torch.from_numpy(boxes).float(), None, image_id=7, size=(90, 120))
    logits = torch.from_numpy(random.normal(-1, 2, (queries, 3))).float()
    pixels = np.zeros((90, 120, 3), dtype=np.uint8)
    return intro.Answer(pixels, target, ("a", "b", "c"), logits, torch.from_numpy(near).float())


SOME = st.builds(answers, st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6))


def cell(name: str) -> str:
    """Source of a cell of the introduction."""
    cells = json.loads((ROOT / "notebooks/00_introduction.ipynb").read_text("utf-8"))["cells"]
    return next("".join(c["source"]) for c in cells if c["id"] == name)


@settings(deadline=None, max_examples=40)
@given(SOME)
def test_average_precision_by_hand_is_that_of_pycocotools(answer):
    by_hand = {
        "AP50": intro.average_precision(intro.ranking(answer)),
        "AP": intro.by_threshold(answer).AP.mean(),
    }
    assert by_hand == pytest.approx(intro.evaluated(answer), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(SOME)
def test_the_lines_of_the_page_are_the_training(answer):
    """The cells with the matching and the loss, run as they are printed."""
    names = {
        **{"torch": torch, "label_cost": label_cost, "overlaps": overlaps},
        **{"linear_sum_assignment": linear_sum_assignment},
        "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
        **{"logits": answer.logits, "boxes": answer.boxes, "target": answer.target},
    }
    exec(cell("five"), names)
    exec(cell("loss"), names)
    lines = pd.DataFrame({"query": names["query"], "object": names["place"]})
    assert ch00_claims.check_matching(lines, intro.pairs(answer)).passed
    loss = pd.DataFrame({"by_hand": [float(names["loss"])], "training": [intro.training_loss(answer)]})
    assert ch00_claims.check_loss(loss).passed
    costs = names["costs"].numpy()
    assert intro.greedy(costs) >= costs[names["query"], names["place"]].sum() - 1e-5


def test_doubles_cost_precision_and_late_ones_do_not():
    """The exercise's two answers."""
    answer = answers(1, 5, 5)
    boxes, sure = answer.target.boxes, torch.full((5, 3), 2.0)
    right = intro.Answer(answer.pixels, answer.target, answer.names, sure, boxes)

    def with_doubles(later: float) -> float:
        doubled = torch.cat([sure - torch.arange(5)[:, None], sure - torch.arange(5)[:, None] - later])
        found = intro.Answer(right.pixels, right.target, right.names, doubled, torch.cat([boxes, boxes]))
        return intro.evaluated(found)["AP50"]

    assert intro.evaluated(right)["AP50"] == pytest.approx(1)
    assert with_doubles(0.1) < 0.8 < with_doubles(20) == pytest.approx(1)


def test_figures_are_drawn_for_more_queries_than_objects_and_fewer():
    for queries, objects in ((8, 3), (2, 5)):
        answer = answers(3, queries, objects)
        figures.matching(answer, intro.pairs(answer)).canvas.draw()
        figures.detections(answer, intro.ranking(answer)).canvas.draw()


@given(st.integers(64, 960), st.sampled_from((8, 12, 16)), st.sampled_from((1, 2, 4)))
def test_notation_is_that_of_the_code(resolution, patch, windows):
    """Every name exists, its unit is that of the class's own words, and the formulas hold."""
    kinds = {kind.__name__: kind for kind in (Arch, ModelConfig, FlopCount)}
    for _, _, code, unit in intro.NOTATION:
        holder, attribute = code.split(".")
        assert attribute in {*kinds[holder].__dataclass_fields__, *vars(kinds[holder])}, code
        if unit == "px":
            words = kinds[holder].__doc__.splitlines()
            line = next(text for text in words if attribute in text.split(",")[0].split())
            assert "px" in line, code
    arch = Arch(round_resolution(max(resolution, patch * windows), patch, windows), patch, windows, 1, 1)
    symbols = {symbol.split(" = ")[0]: code for _, symbol, code, _ in intro.NOTATION if symbol}
    value = {s: getattr(arch, code.split(".")[1]) for s, code in symbols.items() if code.startswith("Arch")}
    assert value["n"] * value["P"] == value["R"] and value["N"] == value["n"] ** 2
    assert value["n"] % value["w"] == 0


def test_notation_shows_the_values_of_a_configuration():
    df = intro.notation("nano").set_index("code")
    assert (df.value["Arch.resolution"], df.value["ModelConfig.groups"]) == (384, 13)
    assert df.value["FlopCount.params"] == pytest.approx(30.5e6, rel=0.01)


def test_what_sharing_saves_is_counted():
    count = intro.sharing()
    assert count["points"] == len(SEARCH_GRID) > count["networks"]
    assert count["smallest"] * count["networks"] < count["all"] < count["largest"] * count["networks"]
    assert count["supernet"] > count["largest"]


def texts() -> dict[str, str]:
    """Prose and code of every page but the glossary."""
    pages = {p.name: p.read_text("utf-8") for p in (ROOT / "book").glob("*.md") if p.name != "glossary.md"}
    return pages | {p.name: p.read_text("utf-8") for p in (ROOT / "notebooks").glob("*.ipynb")}


def test_glossary_explains_words_that_the_book_uses():
    lines = (ROOT / "book/glossary.md").read_text("utf-8").split("{glossary}")[1].splitlines()
    terms = {line.strip().lower() for line in lines if line and not line.startswith((" ", "`"))}
    used = "\n".join(texts().values()).lower()
    unused = {t for t in terms if not any(part.rstrip("s") in used for part in re.split(", ", t))}
    assert not unused
    linked = {found.lower() for found in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", used)}
    assert linked and not linked - terms
    stumbled_over = (
        "hypervolume, tpe, nsga-ii, generalised iou, ema, group, bootstrap interval, layerscale, ap"
    )
    assert not set(stumbled_over.split(", ")) - terms


def test_the_first_page_opens_with_the_front_of_a_search():
    """Three networks in order of cost and accuracy."""
    from rfdetr.book.front_page import PICTURE
    from rfdetr.experiments.front_page import along

    table = pd.DataFrame({"gflops": [4.0, 1.0, 2.0, 3.0], "AP": [0.8, 0.2, 0.5, 0.7]})
    assert along(table, (0.6, 0.85, 1.0)).gflops.tolist() == [2.0, 3.0, 4.0]
    assert PICTURE.endswith(re.search(r"\{figure\} (\S+)", (ROOT / "book/index.md").read_text())[1])


def test_the_picture_is_kept_until_the_search_changes(tmp_path):
    from rfdetr.book.cache import Project
    from rfdetr.book.front_page import front_picture

    project = Project(tmp_path)
    first = front_picture(project)
    assert first.startswith(b"\x89PNG") and len(first) < 300_000
    (kept,) = (tmp_path / "build/pictures").iterdir()
    kept.write_bytes(b"kept")
    assert front_picture(project) == b"kept"
