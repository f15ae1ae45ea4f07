"""AP from blocks of images: any subset, in any order, equals the evaluation of these images alone."""

import io

import numpy as np
import pytest
import torch
from conftest import TINY, scramble
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fast_ap import from_results, joined, make_results, make_truth, reference
from test_grid import with_truth

from rfdetr import RFDETR, Arch
from rfdetr.arch import SearchSpace
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.evaluation import bootstrap
from rfdetr.evaluation.coco import METRICS, evaluate
from rfdetr.search import blocks, fast_ap, grid, matches


def table_of(truth, ground, rng, networks=3):
    return joined([from_results(ground, make_results(rng, truth, 25)) for _ in range(networks)])


def on(table, images):
    part = table.take(np.isin(table.image, images))
    part.count = table.count
    return part


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 7), max_size=3), piece=st.integers(1, 900)
)
def test_blocks_add_up_bit_for_bit(seed, cuts, piece):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 7, 3, 6)
    ground = fast_ap.GroundTruth(truth)
    table = table_of(truth, ground, rng)
    parts = [part for part in np.split(rng.permutation(7), sorted(cuts)) if len(part)]
    found = [fast_ap.match(ground, on(table, part), part) for part in parts]
    before, matches._PIECE = matches._PIECE, piece
    try:
        together = matches.join(found)
        whole = matches.numbers(ground.objects, together)
        np.testing.assert_array_equal(whole, fast_ap.evaluate(ground, table))
        np.testing.assert_array_equal(whole, blocks.whole(ground, found[::-1]))
        np.testing.assert_array_equal(matches.average_precision(ground.objects, together), whole[:, 0])
    finally:
        matches._PIECE = before


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6))
def test_a_subset_of_images_is_evaluated_as_pycocotools_does(seed, count):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 6, 2, 8)
    ground = fast_ap.GroundTruth(truth)
    results = make_results(rng, truth, 20)
    chosen = np.sort(rng.permutation(6)[:count])
    ids = set(ground.images[chosen].tolist())
    smaller = {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
    }
    inside = [r for r in results if r["image_id"] in ids]
    if inside:
        found = fast_ap.match(ground, from_results(ground, results)).on(chosen)
        np.testing.assert_array_equal(matches.numbers(ground.objects, found)[0], reference(smaller, inside))


def test_files_keep_everything_and_are_small():
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 40, 3, 6)
    ground = fast_ap.GroundTruth(truth)
    found = fast_ap.match(ground, table_of(truth, ground, rng, 8))
    assert found.nbytes <= 16 * len(found) + 10_000
    kept = io.BytesIO()
    found.write(kept)
    assert kept.tell() < found.nbytes
    kept.seek(0)
    again = matches.Matches.load(kept)
    assert again.count == found.count and again.score.dtype == found.score.dtype
    np.testing.assert_array_equal(
        matches.numbers(ground.objects, again), matches.numbers(ground.objects, found)
    )


def test_missing_and_repeated_images_are_named():
    rng = np.random.default_rng(1)
    truth = make_truth(rng, 4, 2, 6)
    ground = fast_ap.GroundTruth(truth)
    table = table_of(truth, ground, rng)
    half = fast_ap.match(ground, on(table, [0, 1]), np.array([0, 1]))
    with pytest.raises(UserError, match="2 of 4 images are not evaluated yet"):
        blocks.whole(ground, [half])
    with pytest.raises(UserError, match="image 3 is in none of the evaluated blocks"):
        half.on(np.array([1, 3]))
    with pytest.raises(UserError, match="of different images"):
        matches.join([half, half])


@pytest.mark.parametrize(
    ("images", "expected"),
    [(2000, (20, 50, 100, 200, 500, 1000, 2000)), (127, (20, 50, 100, 127)), (110, (20, 50, 110)), (7, (7,))],
)
def test_levels_end_with_all_images(images, expected):
    steps = blocks.levels(images)
    assert steps == expected
    assert [i for block in blocks.blocks(steps) for i in block] == list(range(images))


def awkward(data):
    """The same data with all that COCO's rules are about: crowds, objects of which each area range ignores
    some, images without objects.
    """
    areas = (20.0, 31.9**2, 32.0**2, 50.0**2, 96.0**2, 150.0**2)
    empty = {image["id"] for image in data.coco["images"][1::3]}
    annotations = [
        {**a, "area": areas[i % len(areas)], "iscrowd": int(i % 5 == 2)}
        for i, a in enumerate(data.coco["annotations"])
        if a["image_id"] not in empty
    ]
    changed = data.subset(len(data))
    changed.__dict__["coco"] = {**data.coco, "annotations": annotations}
    return changed


@pytest.mark.parametrize("kind", ["plain", "awkward"])
@pytest.mark.parametrize("segmentation", [False, True])
def test_the_blocks_of_a_network_are_its_evaluation(segmentation, kind):
    """The path of a search: passes over blocks of images; the twelve numbers are those of `evaluate`."""
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY | {"num_classes": 2, "segmentation": segmentation}).double()).eval()
    space = SearchSpace((64,), (8, 16), (2,), (0, 1, 2), (4, 10))
    data = with_truth(scenes("parity", "val", size=12, canvas=64), model, space)
    # Blocks in another order, and one of a single image, which has no objects in the second kind.
    cuts = (range(5, 12), range(2, 5), range(1, 2), range(1))
    if kind == "awkward":
        data = awkward(data)
        of_image = [a["image_id"] for a in data.coco["annotations"]]
        assert data.coco["images"][1]["id"] not in of_image and data.coco["images"][0]["id"] in of_image
    evaluator = grid.GridEvaluator(model, data, batch_size=4)
    truth, seen = evaluator.images.truth, []
    for triple, pairs in grid.units(space).items():
        parts = [evaluator.block(triple, pairs, images) for images in cuts]
        order = parts[0][0]
        assert sorted(order) == pairs and parts[0][2]["encoder"] > 0
        for prefix, what in (("", "boxes"), ("mask_", "masks")) if segmentation else (("", "boxes"),):
            found = blocks.whole(truth, [part[1][prefix] for part in parts])
            seen.append(found)
            for pair, values in zip(order, found, strict=True):
                alone = evaluate(model, data, Arch(*triple, *pair), dtype=torch.float64)
                np.testing.assert_array_equal(values, [getattr(alone, what)[name] for name in METRICS])
        nested = blocks.nested_ap(truth, [part[1][""] for part in parts])
        whole = blocks.whole(truth, [part[1][""] for part in parts])[:, 0]
        assert nested.shape == (len(cuts), len(order)) and (nested[-1] == whole).all()
    # Each of the twelve numbers says something: of large objects there are some in the second kind alone.
    large = METRICS.index("APl")
    defined = ~np.isnan(np.concatenate(seen)).all(axis=0)
    assert defined.all() if kind == "awkward" else not defined[large]
    assert (np.nan_to_num(np.concatenate(seen))[:, defined] > 0).any(axis=0).all()


def test_paired_differences_are_those_of_the_bootstrap_over_detections():
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY | {"num_classes": 2}).double()).eval()
    space = SearchSpace((64,), (8, 16), (2,), (2,), (10,))
    data = with_truth(scenes("parity", "val", size=9, canvas=64), model, space)
    evaluator = grid.GridEvaluator(model, data)
    work = grid.units(space)
    found = [
        matches.join([evaluator.block(t, p, r)[1][""] for r in (range(4), range(4, 9))])
        for t, p in work.items()
    ]
    kept = [
        bootstrap.Matches(data, evaluate(model, data, arch, dtype=torch.float64).detections)
        for arch in space.distinct()
    ]
    ours = blocks.paired_difference(evaluator.images.truth, (found[0], 0), (found[1], 0), resamples=50)
    theirs = bootstrap.paired_difference(*kept, resamples=50)
    np.testing.assert_allclose(ours.samples, theirs.samples, atol=1e-12)
    assert ours.diff == pytest.approx(theirs.diff) and ours.samples.std() > 0
    with pytest.raises(UserError, match="same images"):
        one = evaluator.block(space.triples()[0], [(2, 10)], range(3))[1][""]
        blocks.paired_difference(evaluator.images.truth, (one, 0), (found[1], 0), resamples=5)
