"""The shared-prefix grid equals evaluating every sub-network alone, is resumable, and counts its cost."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY, scramble
from pycocotools import mask as rle

from rfdetr import RFDETR
from rfdetr.arch import Arch, ArchError, SearchSpace
from rfdetr.data.categories import CategoryMap
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS, evaluate
from rfdetr.search import grid

SPACE = SearchSpace((64, 72), (8, 12), (2,), (0, 1, 2), (4, 10))


@pytest.fixture(scope="module")
def data():
    return scenes("parity", "val", size=12, canvas=64)


def supernet(segmentation=False, num_classes=2):
    torch.manual_seed(0)
    sizes = TINY | {"num_classes": num_classes, "segmentation": segmentation}
    return scramble(RFDETR(**sizes).double()).eval()


def with_truth(data, model, space):
    """The same pictures with detections of many sub-networks as ground truth, so that the numbers are not all
    zero.
    """
    archs = space.distinct()
    annotations = []
    for index in range(len(data)):
        arch = archs[index * 5 % len(archs)]
        found = evaluate(model, data.subset([index]), arch, dtype=torch.float64).detections[0]
        for k in range(len(found["scores"])):
            x0, y0, x1, y1 = np.clip(found["boxes"][k], 0, 64).tolist()
            code = found["rles"][k] if "rles" in found else None
            area = (x1 - x0) * (y1 - y0) if code is None else float(rle.area(code))
            if k % 2 or not area:
                continue
            annotation = {
                "id": len(annotations),
                "image_id": found["image_id"],
                "category_id": data.category_ids.id_of(int(found["labels"][k])),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": area,
                "iscrowd": int(k == 4),
            }
            annotations.append(annotation if code is None else annotation | {"segmentation": code})
    changed = data.subset(len(data))
    changed.__dict__["coco"] = {**data.coco, "annotations": annotations}
    return changed


@pytest.mark.parametrize("segmentation", [False, True])
def test_equals_one_by_one(data, segmentation):
    model = supernet(segmentation)
    space = SPACE if not segmentation else SearchSpace((64,), (8, 16), (2,), (0, 1, 2), (4, 10))
    truth = with_truth(data, model, space)
    table = grid.evaluate_grid(model, truth, space, batch_size=5)
    columns = [*METRICS, *(f"mask_{name}" for name in METRICS)] if segmentation else list(METRICS)
    assert len(table) == len(space)
    for number, arch in enumerate(space.archs()):
        row = table.iloc[number]
        assert [row[k] for k in Arch.KNOBS] == list(arch.to_dict().values())
        alone = evaluate(model, truth, arch, dtype=torch.float64, batch_size=7).row()
        np.testing.assert_array_equal(row[columns].astype(float), [alone[name] for name in columns])
    for name in ("AP", "mask_AP") if segmentation else ("AP",):
        assert table[name].max() > 0.02 and table[name].nunique() > len(space) / 3


def test_nominal_points_of_one_subnetwork_share_their_numbers(data):
    space = SearchSpace((64, 66), (16,), (2,), (1,), (4, 10, 10))
    table = grid.evaluate_grid(supernet(), data, space, gflops=True)
    assert list(table["nominal_resolution"]) == [64, 64, 66, 66]
    assert set(table["resolution"]) == {64}
    assert table["gflops"].gt(0).all()
    pd_rows = table.drop(columns="nominal_resolution")
    assert pd_rows.iloc[:2].reset_index(drop=True).equals(pd_rows.iloc[2:].reset_index(drop=True))


def test_resumes_and_counts_each_unit_once(data, tmp_path, monkeypatch):
    model = supernet()
    calls = []
    whole = grid.GridEvaluator.unit

    def counted(self, triple, pairs):
        if len(calls) == 2:
            calls.append(None)
            raise KeyboardInterrupt
        calls.append(triple)
        return whole(self, triple, pairs)

    monkeypatch.setattr(grid.GridEvaluator, "unit", counted)
    with pytest.raises(KeyboardInterrupt):
        grid.evaluate_grid(model, data, SPACE, folder=tmp_path)
    seen = []
    table = grid.evaluate_grid(
        model, data, SPACE, folder=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    done = [triple for triple in calls if triple]
    assert sorted(done) == SPACE.triples() and len(done) == len(set(done))
    assert seen[-1] == (len(done), len(done))
    monkeypatch.setattr(grid.GridEvaluator, "unit", whole)
    assert table.equals(grid.evaluate_grid(model, data, SPACE))
    # A file that a full disk or an editor has cut is computed again; other weights have another folder.
    first = sorted(tmp_path.glob("*/*.json"))[0]
    first.write_text(first.read_text()[:40])
    assert table.equals(grid.evaluate_grid(model, data, SPACE, folder=tmp_path))
    json.loads(first.read_text())
    with torch.no_grad():
        model.query_features[0, 0, 0] += 1
    grid.evaluate_grid(model, data, SPACE, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_autocast_is_close_and_mode_is_restored(data):
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY | {"num_classes": 2})).train()
    space = SearchSpace((64,), (8,), (1,), (2,), (10,))
    threads = torch.get_num_threads()
    table = grid.evaluate_grid(model, data, space, dtype=torch.bfloat16, threads=1)
    assert model.training and torch.get_num_threads() == threads
    assert table["AR"].between(0, 1).all()


def test_wrong_input_is_named(data):
    with pytest.raises(UserError, match="segmentation=True"):
        grid.evaluate_grid(supernet(), data, SPACE, masks=True)
    with pytest.raises(ArchError, match="decoder layers"):
        grid.evaluate_grid(supernet(), data, SearchSpace((64,), (8,), (1,), (3,), (4,)))
    with pytest.raises(UserError, match="classes"):
        grid.evaluate_grid(supernet(num_classes=5), data, SPACE)


def test_other_class_order(data):
    model = supernet()
    other = CategoryMap.from_names(data.category_ids.names[::-1], first_id=7)
    model.config = model.config.replace(categories=other)
    space = SearchSpace((64,), (8,), (2,), (0, 2), (10,))
    table = grid.evaluate_grid(model, data, space)
    alone = evaluate(model, data, space.archs()[1], dtype=torch.float64).row()
    np.testing.assert_array_equal(table[list(METRICS)].iloc[1], list(alone.values()))
