"""One value for categories: a network's classes and the data's are matched by name, wherever they meet."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, scramble
from hypothesis import given
from hypothesis import strategies as st
from published import published_shapes

import rfdetr
from rfdetr import RFDETR, ModelConfig, UserError
from rfdetr.data.categories import UNUSED, CategoryMap
from rfdetr.model.config import preset_config
from rfdetr.model.weights import with_classes

OFFICIAL = CategoryMap.official()
NAMES = st.lists(st.text(max_size=4), max_size=8)


def maps(names, draw):
    """Any map with these names: ids anywhere, class indexes with gaps."""
    count = len(names)
    ids = draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count, unique=True))
    indexes = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count, unique=True))
    return CategoryMap(tuple(ids), tuple(names), tuple(indexes), num_classes=draw(st.integers(21, 30)))


@given(st.data())
def test_a_network_and_data_are_matched_by_name(data):
    known = data.draw(NAMES)
    some = [name for name in known if data.draw(st.booleans())]
    network = maps(known, data.draw)
    target = maps(data.draw(st.permutations(some)), data.draw)
    table = network.onto(target)
    assert table.shape == (network.num_classes,)
    matched = {index: there for index, there in enumerate(table.tolist()) if there != UNUSED}
    assert all(network.name_of(index) == target.name_of(there) for index, there in matched.items())
    assert sorted(matched.values()) == sorted(target.indexes)  # every category of the data, each once


@given(st.data())
def test_a_class_that_the_network_lacks_is_named(data):
    known = data.draw(NAMES)
    network, target = maps(known, data.draw), maps([*known, "a new one"], data.draw)
    with pytest.raises(UserError, match=r"does not know .* a new one.*train --weights"):
        network.onto(target)
    others = [i for i in target.ids if i != target.ids[-1]]
    assert sorted(network.onto(target, others)[network.onto(target, others) != UNUSED]) == sorted(
        target.index_of(i) for i in others
    )


@given(st.data())
def test_a_map_survives_json_and_the_configuration_of_a_network(data):
    categories = maps(data.draw(NAMES), data.draw)
    assert CategoryMap(**json.loads(json.dumps(categories.to_dict()))) == categories
    config = ModelConfig.from_dict({"categories": categories})
    assert config.num_classes == categories.num_classes
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_files_of_earlier_versions_keep_their_classes():
    for known in (CategoryMap.official(), CategoryMap.coco80()):
        names = [known.name_of(index) for index in range(known.num_classes)]
        assert ModelConfig.from_dict({"num_classes": len(names), "class_names": names}).categories == known
    own = ModelConfig.from_dict({"num_classes": 3, "class_names": ["a", "unused-1", "b"]}).categories
    assert own == CategoryMap((1, 2), ("a", "b"), (0, 2), num_classes=3)


def test_the_kept_network_knows_its_classes():
    from rfdetr.data.scenes import scenes
    from rfdetr.experiments.base.kept import load

    data = scenes("digits", "val", size=1)
    assert load("full-search").network().config.categories == data.category_ids


def test_a_checkpoint_keeps_ids_and_an_earlier_one_finds_them_in_its_provenance(tmp_path):
    from training_case import CONFIG, SPACE, data, network

    from rfdetr.training.checkpoint import model_from_checkpoint
    from rfdetr.training.loop import train

    dataset = data()
    shifted = CategoryMap(tuple(i + 5 for i in dataset.category_ids.ids), dataset.category_ids.names)
    dataset.category_ids = shifted
    model = network(num_classes=len(shifted), categories=shifted)
    train(model, dataset, SPACE, replace(CONFIG, steps=1), tmp_path)
    path = tmp_path / "checkpoint.pt"
    assert model_from_checkpoint(path).config.categories == shifted
    content = torch.load(path, weights_only=True)
    del content["model"]["categories"]
    content["model"]["class_names"] = list(shifted.names)
    torch.save(content, path)
    assert model_from_checkpoint(path).config.categories == shifted


def fine_tuned(num_classes, **entries):
    state = {k: torch.zeros(s) for k, s in published_shapes(preset_config("nano", num_classes)).items()}
    return rfdetr.load_official("nano", {"model": state, **entries})


@pytest.mark.parametrize(
    ("num_classes", "entries", "expected"),
    [
        # As many names as classes; one class more than names, as category ids from 1 give it; by index.
        (3, {"args": argparse.Namespace(class_names=["a", "b", "c"])}, ((0, 1, 2), ("a", "b", "c"))),
        (4, {"args": argparse.Namespace(class_names=["a", "b", "c"])}, ((1, 2, 3), ("a", "b", "c"))),
        (91, {"args": {"class_names": ["helmet", "vest"]}}, ((1, 2), ("helmet", "vest"))),
        (3, {"hyper_parameters": {"class_names": {0: "a", 2: "b"}}}, ((0, 2), ("a", "b"))),
        (91, {"args": argparse.Namespace(lr=1e-4)}, (OFFICIAL.indexes, OFFICIAL.names)),
        (91, {"args": {"class_names": list(OFFICIAL.names)}}, (OFFICIAL.indexes, OFFICIAL.names)),
        (3, {"args": {"class_names": ["a"] * 9}}, None),
        (3, {"args": {"class_names": 7}}, None),
        (3, {}, None),
    ],
)  # fmt: skip
def test_fine_tuned_files_of_the_published_package_have_their_own_names(num_classes, entries, expected):
    categories = fine_tuned(num_classes, **entries).config.categories
    found = categories and (categories.indexes, categories.names)
    assert found == expected


def test_the_names_of_a_saved_folder_are_read(tmp_path):
    from safetensors.torch import save_file

    config = preset_config("nano", 2)
    save_file(
        {k: torch.zeros(s) for k, s in published_shapes(config).items()}, tmp_path / "model.safetensors"
    )
    labels = tmp_path / "config.json"
    labels.write_text(json.dumps({"id2label": {"0": "bolt", "1": "nut"}}))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert rfdetr.load_official("nano", source).config.categories.names == ("bolt", "nut")
    for text in ('{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}', "[]", "{"):
        labels.write_text(text)
        assert rfdetr.load_official("nano", tmp_path).config.categories is None


def test_known_classes_keep_their_rows_in_a_new_order():
    old = CategoryMap.from_names(["a", "b", "c", "d"])
    model = scramble(RFDETR(**TINY, categories=old)).eval()
    new, report = with_classes(model, categories=CategoryMap((9, 4), ("d", "b")))
    rows = [3, 1]
    torch.testing.assert_close(new.class_head.weight, model.class_head.weight[rows])
    torch.testing.assert_close(new.selection.classes.bias, model.selection.classes.bias[:, rows])
    assert not report.initialised and len(report.resized) == 4
    fresh, report = with_classes(model, categories=CategoryMap((9, 4), ("d", "x")))
    assert len(report.initialised) == 4 and np.isclose(fresh.class_head.bias.sigmoid().detach(), 0.01).all()
