"""INT8 files of ONNX Runtime's own quantiser, from a file to a search."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
from lab_fixtures import exported, network

from rfdetr.benchmark.inputs import image_inputs
from rfdetr.benchmark.int8_layers import parts_of, rank_parts
from rfdetr.benchmark.prepare import prepare
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.benchmark.runtimes.onnxruntime import as_built
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.export.artifact import load_artifact
from rfdetr.export.int8_onnx import to_int8_onnx
from rfdetr.search import run


@pytest.fixture(scope="module")
def images():
    return scenes("digits", "train", size=4)


@pytest.fixture(scope="module")
def quantised(images, tmp_path_factory):
    return prepare(exported(True), "onnxruntime", "int8", tmp_path_factory.mktemp("int8"), images)


def products(file):
    with load_runtime("onnxruntime", file) as runtime:
        return json.loads(runtime.info.details["products"]), runtime.info.precision


def test_a_quantised_file_is_an_artifact_of_its_own(quantised, images, capsys):
    source = exported(True)
    assert quantised.precision == "int8" and quantised.metadata["fp32_sha256"] == source.sha256
    assert (quantised.inputs, quantised.outputs) == (source.inputs, source.outputs)
    assert quantised.arch == source.arch and quantised.categories == source.categories
    assert quantised.metadata["calibration_images"] == "4"
    # Found again, and not made anew; a quantised file is taken as it is.
    again = prepare(source, "onnxruntime", "int8", quantised.file.parent, images, log=pytest.fail)
    assert again.sha256 == quantised.sha256
    assert prepare(quantised, "onnxruntime", "int8", quantised.file.parent) is quantised
    assert [path.name for path in quantised.file.parent.iterdir()] == [quantised.file.name]
    feed = image_inputs(scenes("digits", "test", size=1), 48)[0]
    with load_runtime("onnxruntime", quantised) as low, load_runtime("onnxruntime", source) as full:
        a, b = low.run(feed), full.run(feed)
    assert not np.array_equal(a["logits"], b["logits"]) and np.isfinite(a["logits"]).all()
    assert abs(a["logits"].mean() - b["logits"].mean()) < b["logits"].std()


def test_what_is_executed_is_read_from_the_optimised_graph(quantised):
    found, word = products(quantised)
    assert found["int8"] > found["fp32"] > 0 and word == as_built(found)
    assert as_built({"int8": 9, "fp32": 1}) == "int8" and as_built({"int8": 8, "fp32": 2}) == "mixed"
    assert as_built({}) == "unknown"
    with load_runtime("onnxruntime", exported(True)) as runtime:
        assert runtime.info.precision == "fp32" and "products" not in runtime.info.details


def test_parts_that_are_kept_are_not_quantised(quantised, images, tmp_path):
    source = exported(True)
    feeds = image_inputs(images, 48, 2)
    heads = parts_of(source)["heads"]
    kept = to_int8_onnx(source, tmp_path / "kept.onnx", feeds, keep=heads)
    assert json.loads(kept.metadata["kept_in_fp32"]) == sorted(heads)
    before, after = products(quantised)[0], products(kept)[0]
    assert after["int8"] == before["int8"] - len(heads) and after["fp32"] == before["fp32"] + len(heads)
    names = {node.name for node in onnx.load(source.file).graph.node}
    assert set(heads) <= names
    ranking = rank_parts(source, feeds, feeds, tmp_path, only=("heads", "embedding"), runtime="onnxruntime")
    errors = [error for _, _, error in ranking.parts]
    assert errors == sorted(errors) and {name for name, _, _ in ranking.parts} == {"heads", "embedding"}
    assert ranking.int8 > 0 and all(error != ranking.int8 for error in errors)


def test_wrong_conversions_are_named(quantised, images, tmp_path):
    feeds = image_inputs(images, 48, 1)
    for arguments, words in (
        ((quantised, tmp_path / "a.onnx", feeds), "only FP32 ONNX files"),
        ((exported(True), tmp_path / "a.onnx", []), "needs images"),
        ((exported(True), tmp_path / "a.onnx", feeds, ["x/y"]), "no node x/y"),
    ):
        with pytest.raises(UserError, match=words):
            to_int8_onnx(*arguments)
    with pytest.raises(UserError, match="--coco DATA"):
        prepare(exported(True), "onnxruntime", "int8", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_search_for_int8_needs_no_further_package(images, tmp_path):
    from rfdetr.arch import SearchSpace

    given = {"runtime": "onnxruntime", "precision": "int8", "images": images, "measured": 2}
    space = SearchSpace((48,), (8,), (1,), (0, 2), (8,))
    data = scenes("digits", "val", size=4)
    found = run.search(network(), data, space, tmp_path, progress=False, intervals=False, **given)
    assert found.front["precision"].isin(["int8", "mixed"]).all()
    sha = set(pd.read_csv(tmp_path / "latency.csv")["sha256"])
    files = [load_artifact(path) for path in (tmp_path / "onnx").glob("*-int8.onnx")]
    assert {file.sha256 for file in files} >= sha and any("of the very file" in note for note in found.notes)
