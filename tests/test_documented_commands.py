"""Every command line that README, help texts and the book show is run, taken from there, on small stand-ins.

The options are those shown. What makes them long or needs another machine is replaced by its like: published
weights by made-up ones in the published layout (with a narrow and flat backbone), COCO and BCCD by small
folders of the same layout, a T4 by the stand-in for TensorRT, a database by a file, many steps by two.
"""

import functools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import coco_folder
import numpy as np
import pytest
import torch
from documented import PROGRAM, ROOT, commands, helps, mentions, options, pages, subcommands
from fake_cuda import Device
from fake_tensorrt import install
from PIL import Image
from published import published_state, small_presets

from rfdetr.cli import main
from rfdetr.data import scenes
from rfdetr.data.manifests import load_manifest
from rfdetr.experiments.base import profiles
from rfdetr.export import graph
from rfdetr.model import config, identity, official
from rfdetr.search.pareto import published_latency

QUICK = {
    "train": {"--steps": "2", "--batch-size": "2"},
    "search": {
        "--resolutions": "96",
        "--patch-sizes": "16",
        "--windows": "1",
        "--decoder-layers": "1,2",
        "--queries": "4,8,12,16,20,24",
        "--measured": "1",
    },
    "benchmark": {"--samples": "4", "--pause": "0", "--seconds": "0.2"},
    "nas": {"--dry-run": ""},
    "t4": {"--samples": "8", "--sustained": "0", "--engines": "1", "--model": "nano", "--data": "coco2017"},
}
"""Options that a line does not show: small values. A whole `nas` is in test_nas_run.py."""
SMALLER = {
    "--steps": "2",
    "--batch-size": "2",
    "--measured": "1",
    "--max-latency-ms": "1e6",
    "--budget": "1",
}
"""Values that make a command long, or an answer depend on the machine."""
NEEDS = {
    "peers count": "[peers]",
    "data fetch rf100vl": "ROBOFLOW_API_KEY",
    "search runs/digits --runtime openvino": "[openvino]",
}
"""Beginnings of lines that need an extra or a key: without it they end at once and say so."""
SHOWN = {page: commands(text) for page, text in {**pages(), **helps()}.items()}
PAGES = [page for page, lines in SHOWN.items() if lines]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Published weights, data sets and profiles in small; a folder with pictures to start from."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        small_presets(patch)
        _weights(patch, root)
        _data(patch, root / "data")
        _profiles(patch)
        _traces(patch)
        _gpu(patch)
        patch.setattr("rfdetr.book.build.build_book", _book)
        yield root


def _weights(patch, root):
    def fetch(group, name):
        path = root / f"{name}.pth"
        if not path.exists():
            torch.save({"model": published_state(config.preset_config(name), torch.float32)}, path)
        return path

    patch.setattr(official, "fetch", fetch)


def _data(patch, home):
    """`RFDETR_DATA` as it is after COCO and BCCD were fetched; digits are few."""
    patch.setenv("RFDETR_DATA", str(home))
    for number, name in enumerate(("train2017", "val2017")):
        entries = coco_folder.pictures(home / "coco2017" / name, 3, seed=number)
        boxes = coco_folder.random_boxes(entries, seed=number)
        coco_folder.split(home / "coco2017", name, entries, boxes, masks=True)
    manifest = load_manifest("bccd")
    cells = home / f"bccd-{manifest.content_sha256[:12]}"
    for number, name in enumerate(("train", "valid", "test")):
        entries = coco_folder.pictures(cells / name, 3, seed=number)
        boxes = [(p, 1 + i % 3, box) for i, (p, _, box) in enumerate(coco_folder.random_boxes(entries))]
        names = dict(enumerate(manifest.classes, start=1))
        content = json.dumps(coco_folder.annotations(entries, boxes, names))
        (cells / name / "_annotations.coco.json").write_text(content)
    patch.setattr(scenes, "_DEFAULT_SIZE", dict.fromkeys(scenes._DEFAULT_SIZE, 4))


def _profiles(patch):
    """The profiles' networks are those of `smoke`, with the depths and queries of each."""
    small = profiles.PROFILES["smoke"].recipe.model
    changed = {}
    for name, profile in profiles.PROFILES.items():
        own = profile.recipe.model
        model = {**small, "decoder_layers": own["decoder_layers"], "queries": min(own["queries"], 60)}
        changed[name] = replace(profile, recipe=replace(profile.recipe, model=model))
    patch.setattr(profiles, "PROFILES", changed)


def _traces(patch):
    """Tracing is what takes long: every graph is traced once in this module, and not compared once more."""
    real, kept = graph.trace, {}

    @functools.wraps(real)
    def trace(subnet, depths, *rest):
        key = identity.fingerprint(subnet), subnet.arch, tuple(depths), rest
        if key not in kept:
            kept[key] = real(subnet, depths, *rest).SerializeToString()
        import onnx

        return onnx.load_from_string(kept[key])

    patch.setattr(graph, "trace", trace)
    patch.setattr("rfdetr.export.onnx.compare_with_eager", lambda artifact, subnet: 0.0)


def _gpu(patch):
    """A GPU on which everything takes as long as D-FINE-S; nobody waits for it to cool down."""
    from rfdetr.benchmark import latency, t4

    patch.setattr(Device, "name", staticmethod(lambda index: "Tesla T4"))
    install(patch, Device(pass_ms=published_latency("d-fine-s")))

    def quick(loaded, protocol, **given):
        given["pause_ms"] /= 1000
        return latency.time_artifact(loaded, protocol, watch=False, runs=1, **given)

    patch.setattr(t4, "time_artifact", quick)


def _book(profile, chapters, parameters, **_):
    from types import SimpleNamespace

    assert all((ROOT / "notebooks" / f"{chapter}.ipynb").is_file() for chapter in chapters or ())
    return SimpleNamespace(exit_code=0)


def adapted(words):
    """The words after the program's name, with small values."""
    name, known = options(words)
    words = [re.sub(r"^postgresql://.*", "sqlite:///shared.db", word) for word in words]
    words = [{"PATH": "coco", "FOLDER": "cells", "rf100vl/NAME": "cells"}.get(word, word) for word in words]
    for position, word in enumerate(words[:-1]):
        if word in SMALLER:
            words[position + 1] = SMALLER[word]
    for option, value in QUICK.get(name[0] if name else "", {}).items():
        if option in known and option not in words:
            words += [option, value] if value else [option]
    if "--budget" in words:  # a model of the latency needs some
        words[words.index("--measured") + 1] = "12"
    return words


def papermill(words):
    """The notebook is there and has the parameters that the line gives."""
    import papermill as pm

    notebook = next(word for word in words if word.startswith("notebooks/"))
    known = pm.inspect_notebook(ROOT / notebook)
    given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
    return 0 if set(given) <= set(known) else 2


def make(words):
    """The Makefile has the target; `NAME=value` is one of its variables."""
    text = (ROOT / "Makefile").read_text()
    goals = [word for word in words if "=" not in word]
    variables = [word.partition("=")[0] for word in words if "=" in word]
    there = all(re.search(rf"^{goal}:", text, re.MULTILINE) for goal in goals)
    return 0 if there and all(f"\n{name} ?=" in text for name in variables) else 2


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(world, page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    for name in ("photo.jpg", "image.jpg"):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    Path("coco").symlink_to(world / "data" / "coco2017")
    Path("cells").symlink_to(next((world / "data").glob("bccd-*")))
    lines = SHOWN[page]
    if not any(line[3:4] == ["train"] and "runs/digits" in line for line in lines):
        shutil.copytree(trained(world), "runs/digits")
    for line in lines:
        capsys.readouterr()
        if tuple(line[:3]) == PROGRAM:
            code = main(adapted(line[3:]))
        else:
            code = {"papermill": papermill, "make": make}[line[0]](line[1:])
        captured = capsys.readouterr()
        lacking = next((v for k, v in NEEDS.items() if " ".join(line[3:]).startswith(k)), None)
        if lacking and code == 2 and lacking in captured.err:
            continue
        assert code == 0, f"{page}: {' '.join(line)}\n{captured.out}{captured.err}"


@functools.cache
def trained(world):
    """The folder of a finished training on digits."""
    folder = world / "digits"
    assert main([*adapted(["train", "--data", "digits"]), "--out", str(folder)]) == 0
    return folder


def test_every_command_is_shown_and_has_help(capsys):
    shown = {options(line[3:])[0] for lines in SHOWN.values() for line in lines if tuple(line[:3]) == PROGRAM}
    assert None not in shown
    for words in subcommands():
        assert main([*words, "--help"]) == 0
        assert "Usage: python -m rfdetr" in capsys.readouterr().out
    for needed in ("train", "evaluate", "search", "select", "export", "benchmark", "predict", "t4", "book"):
        assert (needed,) in shown, needed


@pytest.mark.parametrize("page", [*pages(), *helps()])
def test_options_that_prose_mentions_exist(page):
    for name, option in mentions({**pages(), **helps()}[page]):
        assert option in options([name])[1] | {"--help"}, f"{page}: {name} {option}"


def test_a_page_whose_command_does_not_run_is_found():
    text = "Text `train --weights nano --data PATH`, `train --out`.\n"
    text += "```\npython -m rfdetr evaluate x \\\n  --arch y  # why\n```\n"
    text += '\n```\nsbatch --wrap "python -m rfdetr search nano \\\n    --worker"\nls\n```\n'
    found = [" ".join(line[3:]) for line in commands(text)]
    assert found == ["train --weights nano --data PATH", "evaluate x --arch y", "search nano --worker"]
    assert options(["sarch", "nano"]) == (None, set())
    assert list(mentions("`export --format onnx | openvino`, `train --out`")) == [
        ("export", "--format"),
        ("train", "--out"),
    ]
