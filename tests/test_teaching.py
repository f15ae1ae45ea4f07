"""Teaching: the broken supernet fails, its repair passes, answers are checked, figures at slide size."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rfdetr.errors import UserError
from rfdetr.experiments import ch_q_answers as answers
from rfdetr.experiments import ch_t_exercises as exercises
from rfdetr.experiments import ch_t_supernet as broken
from rfdetr.model.flex import resize_kernel
from rfdetr.plots.display import show
from rfdetr.sources import package_root

NOTEBOOK = package_root() / "notebooks/T_exercises.ipynb"
FAULTS = ("patch_kernel", "make_norm", "refine", "loss", "draw")


def cells():
    return {c["id"]: "".join(c["source"]) for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]}


@pytest.fixture(scope="module")
def repaired():
    """The class of the page's hidden solution."""
    names = {"broken": broken, "torch": torch, "nn": nn, "np": np, "resize_kernel": resize_kernel}
    exec(cells()["repair-solution"].split("table(")[0], names)
    return names["Repaired"]


def test_the_broken_supernet_fails_every_check():
    assert not broken.checks(broken.BrokenSupernet()).passed.any()


def test_the_shipped_solution_passes_every_check(repaired):
    assert broken.checks(repaired()).passed.all()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_own_check(fault, repaired):
    """With one fault put back, one check fails."""
    one = type("One", (repaired,), {fault: getattr(broken.BrokenSupernet, fault)})
    found = broken.checks(one())
    assert (~found.passed).sum() == 1 and not found.passed[FAULTS.index(fault)]


def test_every_exercise_of_the_page_is_solved_by_its_solution():
    source = cells()
    for name in exercises.EXERCISES:
        assert f'check("{name}")' in source[f"{name}-question"]
        said = []
        exec(source[f"{name}-solution"], {"exercises": exercises, "np": np, "say": said.append})
        assert said == [f"{name}: right."]


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "no answer yet"), (1, "not yet. Hint"), ("x", "is not a number")]
)
def test_answers_are_judged(answer, said):
    assert said in exercises.check("tokens", answer)
    with pytest.raises(UserError, match="there is no exercise 'token'; choose one of rounding"):
        exercises.check("token", 1)


def test_figures_are_kept_at_slide_size(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt
    from PIL import Image

    monkeypatch.setenv("RFDETR_SLIDES", str(tmp_path / "slides"))
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    for words in ("A curve: it rises", "Another"):
        show(plt.figure(figsize=(7.2, 4)), words)
    names = sorted(path.name for path in (tmp_path / "slides").iterdir())
    assert [name[2:] for name in names] == ["-a-curve-it-rises.png", "-another.png"]
    assert Image.open(tmp_path / "slides" / names[0]).width == 1920


def test_answers_to_questions_follow_their_tables():
    """Numbers of the page of questions on tables small enough to count by hand."""
    knobs = ["resolution", "patch_size", "windows", "decoder_layers", "queries"]
    rows = [(64, 8, 1, d, 10, 0.2 + 0.1 * d, 1.0 + d) for d in (0, 1, 2)] + [(96, 8, 1, 2, 10, 0.6, 8.0)]
    table = pd.DataFrame(rows, columns=[*knobs, "AP", "gflops"])
    depth = answers.by_depth(table[table["resolution"] == 64])
    assert depth["lost"].tolist() == pytest.approx([0.2, 0.1, 0.0])
    assert depth["saved"].tolist() == pytest.approx([2 / 3, 1 / 3, 0.0])
    single = answers.one_knob(table).set_index("knob")
    assert (single["lost"] >= -1e-9).all() and single["lost"].idxmin() == "decoder_layers"
    assert answers.alike(table, 0.39) == {"networks": 2, "all": 4, "cheapest": 3.0, "best": 8.0}
    timed = table[knobs].assign(arch=list("abcd"), latency_low_ms=[1.0, 2.0, 3.0, 4.0])
    equal = answers.equal_operations(timed, table.assign(gflops=[1.0, 1.01, 2.0, 9.0]))
    assert equal[["first", "second", "ratio"]].to_numpy().tolist() == [["a", "b", 2.0]]
    kinds = [("inherited", 0.5, 0), ("inherited", 0.7, 1), ("alone", 0.6, 0)]
    networks = pd.DataFrame(
        [(kind, seed, "a", ap, 800 if kind == "alone" else 1700, 30) for kind, ap, seed in kinds],
        columns=["kind", "seed", "arch", "AP", "steps", "updates"],
    )
    (alone,) = answers.other_trainings(networks).to_dict("records")
    assert (alone["inherited"], alone["AP"], alone["steps"]) == (0.5, 0.6, 800)


def test_counts_behind_the_answers():
    assert answers.weights_used()["share"].between(0.5, 1).all()
    assert answers.exposure(231)["each"] == 1
    hidden = answers.hidden_attention()
    assert hidden["hidden"].is_monotonic_increasing and hidden["tokens"].is_monotonic_increasing
    uses = answers.reuse("nano").set_index("part")["uses"]
    assert uses["backbone"] == pytest.approx(576 + 4, rel=0.01)  # tokens and class tokens
    assert answers.against("D-FINE")["size"].tolist() == ["S", "M", "L", "XL"]
