"""Preprocessing and augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rfdetr.data.categories import COCO_CATEGORIES, UNUSED, CategoryMap
from rfdetr.data.dataset import Target
from rfdetr.data.scenes import scenes
from rfdetr.data.transforms import augment, collate, crop_to, denormalize, hflip, preprocess, preprocess_batch
from rfdetr.errors import UserError


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_preprocess_is_resize_scale_normalise():
    image = picture(0, 120, 200)
    ours = denormalize(preprocess(image, 64))
    pillow = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)) / 255
    # Pillow's bilinear filter is antialiased too; it rounds to 8 bit after each pass.
    np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), pillow, atol=1.6 / 255)


def test_preprocess_does_not_touch_a_picture_of_the_right_size():
    image = picture(1, 32, 32)
    back = denormalize(preprocess(image, 32)) * 255
    assert np.array_equal(back.round().to(torch.uint8).permute(1, 2, 0).numpy(), image)
    grey = preprocess(np.full((16, 16, 3), 255, np.uint8), 16)
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(grey[:, 0, 0], expected)


def test_a_batch_is_its_pictures_one_by_one():
    images = [picture(i, *size) for i, size in enumerate([(40, 60), (64, 64), (40, 60), (100, 30)])]
    batch = preprocess_batch(images, 48)
    for image, row in zip(images, batch, strict=True):
        torch.testing.assert_close(preprocess(image, 48), row, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)]
)
def test_preprocess_names_what_is_wrong(bad):
    with pytest.raises(ValueError, match="uint8"):
        preprocess(bad, 32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.sampled_from(["digits", "crowd"]))
def test_flip_is_an_involution_and_moves_masks_with_boxes(index, domain):
    image, target = scenes(domain, size=401)[index]
    flipped, moved = hflip(image, target)
    back, again = hflip(flipped, moved)
    assert np.array_equal(back, image) and again.masks.equal(target.masks)
    torch.testing.assert_close(again.boxes, target.boxes)
    assert_boxes_enclose_masks(moved, 96, 96)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 10**6), st.sampled_from(["digits", "crowd", "specks"]))
def test_augmented_objects_stay_sensible(index, seed, domain):
    image, target = scenes(domain, size=401)[index]
    new_image, new = augment(image, target, np.random.default_rng(seed), crop=1.0)
    height, width = new_image.shape[:2]
    assert 0.6 * 96 - 1 <= height <= 96 and 0.6 * 96 - 1 <= width <= 96
    assert len(new.labels) == len(new.boxes) == len(new.masks) <= len(target)
    assert new.masks.shape[1:] == (height, width) and new.size == (96, 96)
    assert_boxes_enclose_masks(new, height, width)


def assert_boxes_enclose_masks(target, height, width):
    for mask, (cx, cy, w, h) in zip(target.masks.numpy(), target.boxes.tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        np.testing.assert_allclose(box, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1e-2)


def boxes_target(boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(torch.arange(len(boxes)), boxes, None, 1, (100, 100))


def test_crop_clips_keeps_and_drops():
    # cxcywh: untouched, half outside, a sliver inside, wholly outside.
    target = boxes_target(
        [[0.2, 0.2, 0.2, 0.2], [0.5, 0.2, 0.2, 0.2], [0.59, 0.2, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]]
    )
    image, cut = crop_to(picture(0, 100, 100), target, 0, 0, 50, 50)
    assert image.shape == (50, 50, 3) and cut.labels.tolist() == [0, 1]
    torch.testing.assert_close(cut.boxes, torch.tensor([[0.4, 0.4, 0.4, 0.4], [0.9, 0.4, 0.2, 0.4]]))


def test_crop_keeps_a_whole_object_however_small():
    target = boxes_target([[0.2, 0.2, 0.005, 0.005]])
    assert len(crop_to(picture(0, 100, 100), target, 0, 0, 50, 50)[1]) == 1


def test_augmentation_of_an_image_without_objects():
    target = Target(
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 4),
        torch.zeros(0, 50, 40, dtype=torch.bool),
        3,
        (50, 40),
    )
    image, new = augment(picture(0, 50, 40), target, np.random.default_rng(0), flip=1.0, crop=1.0)
    assert new.masks.shape == (0, *image.shape[:2]) and len(new) == 0


def test_collate():
    data = scenes("digits", size=8)
    images, targets = collate(data, [1, 5], 64)
    assert images.shape == (2, 3, 64, 64) and [t.image_id for t in targets] == [2, 6]
    torch.testing.assert_close(images[0], preprocess(data[1][0], 64))
    assert targets[0].boxes.equal(data[1][1].boxes)  # relative boxes need no resizing
    first = collate(data, [1, 5], 64, np.random.default_rng(3))
    again = collate(data, [1, 5], 64, np.random.default_rng(3))
    assert first[0].equal(again[0]) and not first[0].equal(images)


def test_digits_are_never_mirrored():
    data = scenes("digits", size=30)
    rng = np.random.default_rng(0)
    for i in range(30):
        image, target = data[i]
        same, _ = augment(image, target, rng, flip=data.flip, crop=0.0)
        assert np.array_equal(same, image)


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=30))
def test_category_map_is_a_bijection(ids):
    categories = CategoryMap.from_coco([{"id": i, "name": f"c{i}"} for i in ids])
    assert categories.num_classes == len(ids)
    for index, i in enumerate(sorted(ids)):
        assert categories.index_of(i) == index and categories.id_of(index) == i
        assert categories.name_of(index) == f"c{i}"
    assert categories.ids_of(np.arange(len(ids))).tolist() == sorted(ids)
    assert CategoryMap.from_coco(categories.to_coco()) == categories


def test_coco_gaps():
    coco, official = CategoryMap.coco80(), CategoryMap.official()
    assert len(coco) == len(official) == 80 and coco.num_classes == 80 and official.num_classes == 91
    gaps = {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert {i for i in range(91) if official.ids_of(np.array([i]))[0] == UNUSED} == gaps
    assert set(COCO_CATEGORIES) == set(range(1, 91)) - gaps
    for index, i in enumerate(coco.ids):
        assert coco.index_of(i) == index and coco.id_of(index) == i
        assert official.index_of(i) == i == official.id_of(i)
        assert official.name_of(i) == coco.name_of(index)
    assert (coco.name_of(0), coco.name_of(79), COCO_CATEGORIES[90]) == ("person", "toothbrush", "toothbrush")
    assert COCO_CATEGORIES[13] == "stop sign" and COCO_CATEGORIES[84] == "book"
    with pytest.raises(KeyError):
        official.id_of(0)


def test_category_map_refuses_what_is_no_bijection():
    with pytest.raises(UserError, match="category id 3 is used twice"):
        CategoryMap((1, 3, 3), ("a", "b", "c"))
    with pytest.raises(UserError, match="class index 1 is used twice"):
        CategoryMap((1, 2), ("a", "b"), indexes=(1, 1))
    with pytest.raises(UserError, match="another number of classes"):
        CategoryMap.from_names(["a", "b"]).ids_of(np.array([0, 2]))
