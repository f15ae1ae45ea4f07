"""Chapter I's masks: pictures with polygons in the repository, a segmenter for a moment, hits by mask."""

import zipfile

import numpy as np
import pytest

from rfdetr.data.registry import SHARES, load_dataset
from rfdetr.data.scenes import scenes
from rfdetr.experiments import ch09_reading, ch_i_masks, ch_i_predictions
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.ch_i_predictions import Shown
from rfdetr.model.detections import Detections
from rfdetr.plots.pictures import _pairs
from rfdetr.sources import package_root


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def sweets(store):
    return ch_i_masks.pictures(store, "kuih")


@pytest.mark.parametrize("name", ch_i_masks.SETS)
def test_the_pictures_of_the_repository_have_masks_where_their_boxes_are(name, store):
    splits = ch_i_masks.pictures(store, name)
    readme = (package_root() / "results" / "test-pictures" / "README.md").read_text("utf-8")
    counts = f"{len(splits['train'])} + {len(splits['test'])}"
    assert f"| `{ch_i_masks.file_of(name)}` | {counts} |" in readme
    apart = []
    for split, dataset in splits.items():
        assert dataset.split == split and dataset.has_masks and dataset.name == name
        for index in range(len(dataset)):
            pixels, target = dataset[index]
            assert pixels.shape == (128, 128, 3) and len(target)
            for box, mask in zip(target.boxes.numpy(), target.masks.numpy(), strict=True):
                ys, xs = np.nonzero(mask)
                ends = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                wanted = 128 * np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
                # Never outside the box; a thin tip of an outline may fill no pixel.
                assert (ends[:2] > wanted[:2] - 1.5).all() and (ends[2:] < wanted[2:] + 1.5).all()
                apart.append(np.abs(ends - wanted).max())
    assert np.median(apart) < 1 and max(apart) < 8
    ids = [{image["id"] for image in dataset.coco["images"]} for dataset in splits.values()]
    assert all(len(found) == len(dataset) for found, dataset in zip(ids, splits.values(), strict=True))


def test_no_file_no_pictures(store, tmp_path):
    assert ch_i_masks.pictures(store, "kuih", tmp_path) is None


def test_the_middles_of_pictures(tmp_path):
    source = scenes("digits", "test", size=8, canvas=96)
    middle = ch_i_masks.Centres(source, 48)
    assert 0 < len(middle) <= 8 and middle.has_masks and middle.class_names == source.class_names
    whole = {source[i][1].image_id: source[i] for i in range(8)}
    for index in range(len(middle)):
        pixels, target = middle[index]
        picture, truth = whole[target.image_id]
        assert np.array_equal(pixels, picture[24:72, 24:72]) and target.size == (48, 48)
        assert 0 < len(target) <= len(truth) and target.masks.shape[1:] == (48, 48)
    large = ch_i_masks.Centres(source, 200)
    assert len(large) == 8 and all(np.array_equal(large[i][0], source[i][0]) for i in range(8))
    ch_i_masks.pack([middle], tmp_path / "test-pictures" / ch_i_masks.file_of("middle"))
    with zipfile.ZipFile(tmp_path / "test-pictures" / ch_i_masks.file_of("middle")) as file:
        file.extractall(tmp_path / "middle")
    again = load_dataset(tmp_path / "middle", "test", shares=dict.fromkeys(SHARES, 0.0), masks=True)
    assert len(again) == len(middle)
    for index in range(len(middle)):
        (_, target), (_, truth) = again[index], middle[index]
        assert target.labels.equal(truth.labels) and target.masks.equal(truth.masks)
        np.testing.assert_allclose(target.boxes.numpy(), truth.boxes.numpy(), atol=2e-3)


def test_packing_keeps_the_objects(sweets, tmp_path):
    some = [dataset.subset(range(0, 8, 2)) for dataset in sweets.values()]
    for name in ("a", "b"):
        ch_i_masks.pack(some, tmp_path / "test-pictures" / f"{name}.zip")
    one, two = ((tmp_path / "test-pictures" / f"{name}.zip").read_bytes() for name in ("a", "b"))
    assert one == two
    (tmp_path / "test-pictures" / "a.zip").rename(tmp_path / "test-pictures" / ch_i_masks.file_of("kuih"))
    again = ch_i_masks.pictures(Store(tmp_path / "store"), "kuih", tmp_path)
    for split, source in zip(("train", "test"), some, strict=True):
        for index in range(4):
            (picture, target), (pixels, truth) = again[split][index], source[index]
            assert np.abs(picture.astype(int) - pixels).mean() < 4
            assert target.labels.equal(truth.labels)
            np.testing.assert_allclose(target.boxes.numpy(), truth.boxes.numpy(), atol=2e-3)
            assert (target.masks != truth.masks).float().mean() < 0.01


def exact(dataset, shift=0):
    """All objects found, with masks moved by some pixels."""
    found = []
    for index in range(len(dataset)):
        _, target = dataset[index]
        half = target.boxes[:, 2:] / 2
        corners = np.concatenate([target.boxes[:, :2] - half, target.boxes[:, :2] + half], 1) * 128
        masks = np.roll(target.masks.numpy(), shift, axis=2)
        scores = np.full(len(target), 0.9, dtype=np.float32)
        found.append(
            Detections(corners.astype(np.float32), scores, target.labels.numpy(), (128, 128), masks=masks,
                       categories=dataset.category_ids)
        )  # fmt: skip
    return found


def test_hits_are_those_of_the_masks(sweets):
    test = sweets["test"]
    shown = Shown("kuih", test, {"exact": exact(test), "elsewhere": exact(test, 64)})
    counted = ch_i_predictions.counts([shown]).set_index("network")
    assert counted.loc["exact", "missed"] == counted.loc["exact", "false"] == 0
    # Boxes are right in both.
    assert counted.loc["elsewhere", "missed"] > 0.9 * counted.loc["elsewhere", "objects"]
    assert ch_i_predictions.per_picture(shown, "exact") == pytest.approx(1)
    assert set(ch_i_predictions.chosen(shown, 0, "exact")) == {"median", "worst", "random"}
    for index in range(4):
        _, target = test[index]
        truth = target.masks.numpy()
        for label, hits in (("exact", True), ("elsewhere", False)):
            one = shown.found[label][index]
            pairs = _pairs(one, one.boxes, target.labels.numpy(), 0.5, truth)
            assert all((pair is not None) == hits for pair in pairs)
            assert None not in _pairs(one, one.boxes, target.labels.numpy(), 0.5)
            nothing = one.filter(one.scores > 1)
            assert _pairs(nothing, one.boxes, target.labels.numpy(), 0.5, truth) == []
            assert _pairs(one, one.boxes[:0], target.labels.numpy()[:0], 0.5, truth[:0]) == [None] * len(one)


def test_a_segmenter_is_trained_once_and_shows_masks(sweets, store):
    base = ch09_reading.load()
    profile = PROFILES["smoke"]
    model = ch_i_masks.trained(profile, 0, store, base, sweets["train"])
    assert model.config.segmentation and model.config.num_classes == len(sweets["train"].class_names)
    count = len(list(store.root.glob("masks-*")))
    ch_i_masks.trained(profile, 0, store, base, sweets["train"])
    assert len(list(store.root.glob("masks-*"))) == count
    shown = ch_i_masks.predicted(model, sweets["test"].subset(3), profile)
    objects = sum(len(sweets["test"][index][1]) for index in range(3))
    for label, found in shown.found.items():
        count = sum(len(shown.drawn(index)[label]) for index in range(3))
        assert count == min(objects, sum(map(len, found)))
        assert len(found) == 3 and all(one.masks.shape[1:] == (128, 128) for one in found)
    for sizes in ch_i_masks.MASKED.values():
        drawn = set(sizes.training.triples())
        assert all(arch.encoder in drawn for arch in sizes.shown.values())
