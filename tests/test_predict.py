import json

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_ARCH, scramble
from PIL import Image

from rfdetr import RFDETR, Arch, UserError
from rfdetr.data.categories import CategoryMap
from rfdetr.data.images import read_image
from rfdetr.data.transforms import preprocess
from rfdetr.model.detections import Detections
from rfdetr.model.postprocess import postprocess

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((70, 50), (64, 64), (33, 120))]


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    names = ("digit", "line", "square", "dot")
    model = scramble(RFDETR(**TINY, segmentation=True, class_names=names, default_arch=TINY_ARCH), 1).eval()
    torch.nn.init.zeros_(model.class_head.bias)  # scores around 0.5 instead of the prior 0.01
    return model


def test_mixed_sizes_equal_one_by_one(segmenter):
    found = segmenter.predict(PICTURES, threshold=0.3, batch_size=2)
    assert len(found) == 3 and sum(map(len, found)) > 0
    for picture, detections in zip(PICTURES, found, strict=True):
        height, width = picture.shape[:2]
        with torch.no_grad():
            output = segmenter(preprocess(picture, 64)[None])
        (expected,) = postprocess(output, [(height, width)])
        keep = expected["scores"] >= 0.3
        assert len(detections) == int(keep.sum())
        np.testing.assert_allclose(detections.scores, expected["scores"][keep], atol=1e-5)
        np.testing.assert_array_equal(detections.labels, expected["labels"][keep])
        limit = torch.tensor([width, height, width, height])
        boxes = expected["boxes"][keep].clamp(min=0).minimum(limit)
        np.testing.assert_allclose(detections.boxes, boxes, atol=1e-3)
        assert detections.masks.shape == (len(detections), height, width)
        assert (detections.masks == expected["masks"][keep].numpy()).mean() > 0.999
        assert detections.size == (height, width)
        assert set(detections.names) <= set(segmenter.config.categories.names)


def test_every_kind_of_picture_gives_the_same_detections(segmenter, tmp_path):
    picture = PICTURES[0]
    file = tmp_path / "a.png"
    Image.fromarray(picture).save(file)
    rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    turned = Image.fromarray(np.rot90(picture).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    kinds = [
        picture,
        file,
        str(file),
        Image.fromarray(picture),
        rgba,
        picture.astype(np.uint16) * 257,
        tmp_path / "turned.png",
        picture / 255,
        torch.from_numpy(picture).permute(2, 0, 1),
        torch.from_numpy(picture).permute(2, 0, 1) / 255,
    ]
    found = segmenter.predict(kinds, threshold=0.2)
    assert len(found[0]) > 3
    for detections in found:
        np.testing.assert_array_equal(detections.image, picture)
        np.testing.assert_allclose(detections.boxes, found[0].boxes, atol=1e-3)
    assert found[1].source == str(file) and found[0].source is None
    assert len(segmenter.predict(file, threshold=0.2)) == len(segmenter.predict(picture, threshold=0.2)) == 1
    assert len(segmenter.predict(np.stack([picture, picture]))) == 2
    assert len(segmenter.predict(torch.zeros(2, 3, 9, 7))) == 2
    assert len(segmenter.predict(path for path in [file, file, file])) == 3
    assert segmenter.predict([]) == []


def test_grey_pictures_of_8_and_16_bits(tmp_path):
    grey = PICTURES[0][..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    for source in (grey, grey[..., None], tmp_path / "8.png", tmp_path / "16.png"):
        np.testing.assert_array_equal(read_image(source), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_pillow_mode_is_read(mode):
    image = Image.fromarray(PICTURES[0]).convert(mode)
    found = read_image(image)
    assert found.shape == (70, 50, 3) and found.dtype == np.uint8
    if mode in ("P", "RGBA", "CMYK"):
        np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


def test_unreadable_pictures_are_named(segmenter, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(PICTURES[0]).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    for name in ("text.png", "cut.jpg", "absent.png"):
        with pytest.raises(UserError, match=name):
            segmenter.predict([PICTURES[0], tmp_path / name])
    with pytest.raises(UserError, match="is a folder"):
        segmenter.predict(tmp_path)
    for array, message in (
        (np.full((4, 4, 3), 200.0), r"must be in 0\.\.1, got 200\.\.200"),
        (np.full((4, 4, 3), np.nan), "must be in 0"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (torch.zeros(8, 8, 3), "expected .channels, height, width."),
        (np.zeros((3, 8, 8), np.uint8), "move the channels last"),
        (np.zeros((8, 8, 2), np.uint8), "is no picture"),
    ):
        with pytest.raises(UserError, match=message):
            segmenter.predict([array])
    with pytest.raises(UserError, match="NoneType"):
        segmenter.predict(None)
    with pytest.raises(UserError, match=r"cut\.jpg is damaged"), Image.open(tmp_path / "cut.jpg") as lazy:
        segmenter.predict(lazy)
    with pytest.raises(UserError, match="max_detections"):
        segmenter.predict(PICTURES, max_detections=0)
    with pytest.raises(UserError, match="threshold"):
        segmenter.predict(PICTURES, threshold=50)


def test_mode_and_gradients_are_restored(segmenter):
    segmenter.train()
    segmenter.backbone.eval()
    segmenter.predict(PICTURES[0])
    assert segmenter.training and segmenter.decoder.training and not segmenter.backbone.training
    with pytest.raises(UserError):
        segmenter.predict("absent.png")
    assert segmenter.training
    segmenter.eval()


def test_another_architecture_and_the_cut_out_network_agree(segmenter):
    arch = Arch(48, 6, 2, 1, 7)
    whole = segmenter.predict(PICTURES, arch, threshold=0.2)
    cut = segmenter.subnet(arch).predict(PICTURES, threshold=0.2)
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-2)
    assert all(len(d) <= 2 for d in segmenter.predict(PICTURES, threshold=0.0, max_detections=2))


def square(label=1, names=None, masks=True):
    names = CategoryMap.from_names(names) if isinstance(names, tuple) else names
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 5:15, 10:20] = True
    image = np.zeros((20, 30, 3), np.uint8)
    boxes, scores = np.array([[10, 5, 20, 15]], np.float32), np.array([0.75], np.float32)
    return Detections(boxes, scores, np.array([label]), (20, 30), mask if masks else None, names, image=image)


def test_coco_results_use_original_category_ids():
    from pycocotools import mask as coco_mask

    official = CategoryMap.official()
    (entry,) = json.loads(json.dumps(square(18, official).to_coco(7)))
    assert entry["category_id"] == 18 and entry["bbox"] == [10, 5, 10, 10] and entry["image_id"] == 7
    np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), square().masks[0])
    assert square(0, official).to_coco(7) == []
    assert square(79, CategoryMap.coco80()).to_coco(7)[0]["category_id"] == 90
    assert square(79, CategoryMap.coco80()).names == square(90, official).names == ["toothbrush"]
    assert square(1, ("a", "b"), masks=False).to_coco(7)[0]["category_id"] == 2
    assert square(1, CategoryMap((0, 9), ("a", "b"))).to_coco(7)[0]["category_id"] == 9
    assert square(0, CategoryMap((0, 9), ("a", "b"))).to_coco(7)[0]["category_id"] == 0
    assert square(1).to_coco(7)[0]["category_id"] == 2 and square(1).names == ["class 1"]


def test_plot_draws_box_label_and_mask(tmp_path):
    drawn = np.asarray(square(1, ("a", "b")).plot(tmp_path / "out.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), drawn)
    assert drawn[14, 12].any() and drawn[12, 14].any() and not drawn[18, 2].any()
    assert (drawn[14, 12] > drawn[12, 14]).all()
    with pytest.raises(UserError, match=r"\.png"):
        square().plot(tmp_path / "out.what")
    without = square()
    without.image = None
    with pytest.raises(UserError, match="keep_images"):
        without.plot()


def test_filter_and_iteration():
    detections = square(1, ("a", "b"))
    ((_, score, label, name),) = detections
    assert (score, label, name) == (0.75, 1, "b")
    nothing = detections.filter(detections.scores > 0.8)
    assert len(nothing) == 0 and nothing.masks.shape == (0, 20, 30) and nothing.to_coco(1) == []


def test_the_supervision_package_takes_the_detections():
    supervision = pytest.importorskip("supervision")
    found = square(1, ("a", "b")).to_supervision()
    assert isinstance(found, supervision.Detections) and found.area.tolist() == [100]
    assert found["class_name"].tolist() == ["b"]
    empty = square().filter(np.zeros(1, bool)).to_supervision()
    assert len(empty) == 0 and empty.mask.shape == (0, 20, 30)


def test_supervision_gets_the_same_numbers(monkeypatch):
    """The optional package is stood in for by its constructor's signature."""
    import sys
    import types

    module = types.ModuleType("supervision")
    module.Detections = lambda **fields: fields
    monkeypatch.setitem(sys.modules, "supervision", module)
    fields = square(1, ("a", "b")).to_supervision()
    assert fields["class_id"].tolist() == [1] and fields["data"]["class_name"].tolist() == ["b"]
    assert fields["xyxy"].shape == (1, 4) and fields["mask"].shape == (1, 20, 30)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"\[supervision\]"):
        square().to_supervision()
