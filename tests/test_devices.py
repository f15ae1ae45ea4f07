"""A profile that needs a GPU says so at once where there is none, instead of training for days."""

import re

import nbformat
import papermill
import pytest
import torch
from papermill.exceptions import PapermillExecutionError

from rfdetr.errors import UserError
from rfdetr.experiments.base import devices
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.sources import package_root

NOTEBOOKS = package_root() / "notebooks"
TRAINS = "supernet.train_supernet(chapter.profile"


def test_the_profiles_of_the_papers_size_need_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, profile in PROFILES.items():
        if "embed_dim" in profile.recipe.model:  # a network made small
            devices.require(profile)
            continue
        with pytest.raises(UserError, match=rf"profile {name} .* steps of .* needs an NVIDIA GPU"):
            devices.require(profile)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        devices.require(profile)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_every_chapter_that_trains_it_asks_first():
    asked = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
        if TRAINS in code:
            asked[path.stem] = code.index("devices.require(chapter.profile)") < code.index(TRAINS)
    assert asked == dict.fromkeys(["04_supernet_training", "05_search", "B_query_drop"], True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the chapter would train")
def test_a_notebook_stops_in_one_line(tmp_path):
    given = {"profile": "t4", "output_dir": str(tmp_path / "store")}
    out = tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError, match="with the profile t4 this chapter trains"):
        papermill.execute_notebook(
            str(NOTEBOOKS / "B_query_drop.ipynb"), str(out), given, progress_bar=False, cwd=str(tmp_path)
        )
    errors = [
        output
        for cell in nbformat.read(out, 4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert len(errors) == 1 and len(errors[0].traceback) == 1
    assert re.fullmatch(r"UserError: with the profile t4 .*", errors[0].traceback[0])
    assert not (tmp_path / "store").exists()
