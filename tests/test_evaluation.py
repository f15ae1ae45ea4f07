"""COCO average precision against cases whose answer is known, and between the two engines."""

import math

import numpy as np
import pytest
import torch
from detections import DATA, noisy, perfect
from torch import nn

from rfdetr.arch import Arch
from rfdetr.data.categories import CategoryMap
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS, CocoResult, evaluate, evaluate_detections
from rfdetr.model.outputs import Output, Prediction


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("engine", ["pycocotools", "faster"])
def test_the_ground_truth_scores_one(kind, engine):
    result = evaluate_detections(DATA, perfect(DATA), kind, engine=engine)
    assert tuple(result.values) == METRICS and result.images == 40
    assert (
        result["AP"] == pytest.approx(1)
        and result["AP75"] == pytest.approx(1)
        and result["AR"] == pytest.approx(1)
    )
    assert math.isnan(result["APl"]) and "APl" in result.note  # no digit is larger than 96 px
    assert set(result.per_class) == set(DATA.class_names)
    assert all(value == pytest.approx(1) for value in result.per_class.values())


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("max_dets", [100, 10])
def test_both_engines_give_the_same_twelve_numbers(kind, max_dets):
    for seed in (0, 1):
        found = noisy(DATA, seed)
        slow = evaluate_detections(DATA, found, kind, max_dets=max_dets)
        fast = evaluate_detections(DATA, found, kind, max_dets=max_dets, engine="faster")
        assert 0.05 < slow["AP"] < 0.95
        for name in METRICS:
            np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=1e-9, err_msg=name)
        for name, value in slow.per_class.items():
            np.testing.assert_allclose(fast.per_class[name], value, atol=1e-9)


def test_the_twelve_numbers_are_those_of_pycocotools_own_summary(capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from rfdetr.evaluation.engines import to_coco_results

    found = noisy(DATA, 5)
    ours = evaluate_detections(DATA, found)
    assert capsys.readouterr().out == ""
    truth = COCO()
    truth.dataset = DATA.coco
    truth.createIndex()
    evaluator = COCOeval(truth, truth.loadRes(to_coco_results(found, DATA.category_ids)), "bbox")
    evaluator.evaluate(), evaluator.accumulate(), evaluator.summarize()
    theirs = np.where(evaluator.stats == -1, np.nan, evaluator.stats)
    np.testing.assert_allclose([ours[name] for name in METRICS], theirs, atol=1e-12)


def test_known_average_precision():
    """One class, one image with one object: a false positive ranked above the hit halves the precision."""
    data = scenes("giants", "test", size=60)
    index = next(i for i in range(60) if len(data[i][1]) == 1)
    one = data.subset([index])
    [truth] = perfect(one)
    found = {
        "image_id": truth["image_id"],
        "scores": np.array([0.9, 0.8]),
        "labels": np.repeat(truth["labels"], 2),
        "boxes": np.concatenate([truth["boxes"] * 0 + [0, 0, 3, 3], truth["boxes"]]),
    }
    assert evaluate_detections(one, [found])["AP"] == pytest.approx(0.5)
    assert evaluate_detections(one, [found])["AR1"] == 0


@pytest.mark.parametrize("engine", ["pycocotools", "faster"])
def test_nothing_detected_and_nothing_to_detect(engine):
    nothing = evaluate_detections(DATA, [], engine=engine)
    assert nothing["AP"] == 0 and nothing["AR"] == 0
    bare = [
        {"image_id": 1, "scores": [], "labels": [], "boxes": np.zeros((0, 4)), "masks": np.zeros((0, 96, 96))}
    ]
    assert evaluate_detections(DATA, bare, "segm", engine=engine)["AP"] == 0
    specks = scenes("specks", "test", size=60)
    empty = specks.subset([i for i in range(60) if not len(specks[i][1])])
    assert len(empty) > 0
    for found in ([], noisy(empty, 0)):
        result = evaluate_detections(empty, found, engine=engine)
        assert all(math.isnan(value) for value in result.values.values()) and "no ground-truth" in result.note


@pytest.mark.parametrize("engine", ["pycocotools", "faster"])
def test_annotation_id_zero_counts(engine):
    class Zero:
        coco = {  # noqa: RUF012
            **DATA.coco,
            "annotations": [
                {k: v for k, v in {**a, "id": a["id"] - 1}.items() if k not in ("area", "iscrowd")}
                for a in DATA.coco["annotations"]
            ],
        }
        category_ids, has_masks, fingerprint = DATA.category_ids, True, "zero"

    assert evaluate_detections(Zero(), perfect(DATA), engine=engine)["AP"] == pytest.approx(1)


def test_class_index_and_category_id_are_mapped_once():
    """A model with classes in another order, whose class index is the category id (as in the published
    checkpoints) and that has an index without meaning, is understood by its names.
    """
    data, categories = DATA.subset(10), DATA.category_ids
    order = list(reversed(categories.names))
    own = CategoryMap(tuple(range(1, len(order) + 1)), order, tuple(range(1, len(order) + 1)), len(order) + 2)
    assert evaluate(Oracle(data, 96, categories=own), data, resolution=96).ap == pytest.approx(1)
    found = [{**image, "labels": image["labels"] + 1} for image in perfect(DATA)]
    with pytest.raises(UserError, match="another number of classes"):
        evaluate_detections(DATA, found)


def test_wrong_arguments():
    with pytest.raises(UserError, match="image id 999"):
        evaluate_detections(DATA, [{**perfect(DATA)[0], "image_id": 999}])
    with pytest.raises(UserError, match="engine"):
        evaluate_detections(DATA, [], engine="quick")
    with pytest.raises(UserError, match="keypoints"):
        evaluate_detections(DATA, [], "keypoints")


class Oracle(nn.Module):
    """A "network" that recognises the scene by its pixels and answers with the ground truth."""

    def __init__(self, data, resolution, masks=False, categories=None):
        super().__init__()
        self.data, self.masks, self.calls, self.categories = data, masks, [], categories
        names = (categories or data.category_ids).names
        self.label = {
            name: i for i, name in zip((categories or data.category_ids).indexes, names, strict=True)
        }
        self.classes = (categories or data.category_ids).num_classes
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout()
        self.known = [preprocessed(data, i, resolution) for i in range(len(data))]

    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        self.calls.append(len(images))
        logits = torch.full((len(images), 8, self.classes), -20.0)
        if self.categories is not None:
            logits[:, -1, 0] = 20.0  # means nothing: left out, whatever its score
        boxes = torch.rand(len(images), 8, 4) * 0.1
        masks = torch.full((len(images), 8, 96, 96), -5.0)
        for b, image in enumerate(images):
            index = next(i for i, known in enumerate(self.known) if torch.equal(known, image))
            target = self.data[index][1]
            named = [self.label[self.data.class_names[i]] for i in target.labels.tolist()]
            logits[b, torch.arange(len(target)), named] = 9.0
            boxes[b, : len(target)] = target.boxes
            masks[b, : len(target)][target.masks] = 5.0
        heads = {}
        if self.masks:
            # One feature channel per query: the product with an identity matrix is the mask itself.
            heads = {
                "mask_features": masks,
                "mask_queries": torch.eye(8).expand(len(images), 8, 8),
                "mask_bias": torch.zeros(1),
            }
        prediction = Prediction(logits, boxes, **heads)
        return Output(encoder=prediction, projector=images, layers=[prediction])


def preprocessed(data, index, resolution):
    from rfdetr.data.transforms import preprocess

    return preprocess(data[index][0], resolution)


@pytest.mark.parametrize("masks", [False, True])
def test_evaluate_runs_the_whole_chain(masks):
    data = DATA.subset(10)
    model = Oracle(data, 96, masks=masks).train()
    seen = []
    result = evaluate(
        model, data, resolution=96, batch_size=4, progress=lambda done, total: seen.append((done, total))
    )
    assert isinstance(result, CocoResult) and result.ap == pytest.approx(1)
    assert model.calls == [4, 4, 2] and seen == [(1, 3), (2, 3), (3, 3)]
    assert model.training  # given back as it was
    if masks:
        assert result.masks["AP"] == pytest.approx(1) and result.row()["mask_AP50"] == pytest.approx(1)
    else:
        assert result.masks is None and "mask_AP" not in result.row()
        with pytest.raises(UserError, match="segmentation=True"):
            evaluate(model, data, resolution=96, masks=True)


def test_evaluate_at_another_resolution_than_the_image():
    data = DATA.subset(6)
    assert evaluate(Oracle(data, 64), data, resolution=64).ap == pytest.approx(1)


def test_evaluate_passes_the_arch_to_a_supernet_only():
    data, arch = DATA.subset(4), Arch(96, 8, 2, 2, 10)
    oracle, given = Oracle(data, 96), []

    class Supernet(nn.Module):
        def subnet(self, arch):
            raise AssertionError("not needed")

        def forward(self, images, arch):
            given.append(arch)
            return oracle.eval()(images)

    assert evaluate(Supernet(), data, arch).ap == pytest.approx(1) and given == [arch]
    assert evaluate(oracle, data, arch).ap == pytest.approx(1)  # a sub-network takes images alone


def test_evaluate_refuses_other_classes_and_a_missing_resolution():
    data = DATA.subset(4)
    other = Oracle(data, 96)
    other.categories = CategoryMap.from_names(["cat", "dog"])
    with pytest.raises(UserError, match=r"knows cat, dog, the data has .*--weights"):
        evaluate(other, data, resolution=96)
    other.categories, other.num_classes = None, 91
    with pytest.raises(UserError, match=r"91 classes and does not say which.*--categories"):
        evaluate(other, data, resolution=96)
    with pytest.raises(UserError, match="resolution"):
        evaluate(Oracle(data, 96), data)
