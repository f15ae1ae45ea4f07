"""What the report of a search is made of: outcomes of test pictures, and the page."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rfdetr.data.dataset import Target
from rfdetr.data.masks import decode_segmentation
from rfdetr.data.scenes import scenes
from rfdetr.evaluation.outcomes import best_threshold, confusion, outcome, precision_recall
from rfdetr.model.detections import encode_masks
from rfdetr.nas import html
from rfdetr.nas.choose import keep_detections, read_detections
from rfdetr.plots.run import drawn
from rfdetr.plots.scatter import Axis, Layer, Scatter


def target(boxes, labels, size=(100, 200)):
    corners = np.array(boxes, dtype=float).reshape(-1, 4)
    scale = np.array([size[1], size[0]])
    centre, extent = (corners[:, :2] + corners[:, 2:]) / 2 / scale, (corners[:, 2:] - corners[:, :2]) / scale
    values = torch.from_numpy(np.concatenate([centre, extent], axis=1)).float()
    return Target(torch.tensor(labels, dtype=torch.int64), values, None, 1, size)


def found(boxes, labels, scores):
    return {
        "image_id": 1,
        "boxes": np.array(boxes, dtype=float).reshape(-1, 4),
        "labels": np.array(labels, dtype=int),
        "scores": np.array(scores, dtype=float),
    }


def test_hits_misses_confusions_and_false_alarms_are_told_apart():
    truth = target([[0, 0, 50, 50], [100, 0, 150, 50], [100, 50, 150, 100]], [0, 1, 1])
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50], [0, 60, 20, 90], [0, 0, 50, 49], [0, 0, 50, 50]]
    one = outcome(truth, found(boxes, [0, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.2]), 0.5)
    assert one.hits.tolist() == [True, False, False, False]  # the fourth is a duplicate
    assert one.missed.tolist() == [False, True, True]
    matrix = confusion([one], 2)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    assert matrix[:2].sum() == len(one.truth)


def test_an_empty_picture_and_no_detections_are_no_trouble():
    empty, nothing = target([], []), found([], [], [])
    assert confusion([outcome(empty, nothing, 0.5)], 3).sum() == 0
    assert best_threshold([nothing], [empty])[1] == 0.0


def test_perfect_detections_have_full_precision_everywhere():
    dataset = scenes("digits", "val", size=6)
    targets, detections = [dataset[i][1] for i in range(6)], []
    for t in targets:
        centre, size = t.boxes[:, :2].numpy(), t.boxes[:, 2:].numpy()
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * t.size[0]
        detections.append({**found(boxes, t.labels.numpy(), np.full(len(t), 0.9)), "image_id": t.image_id})
    recall, precision = precision_recall(dataset, detections)
    assert len(recall) == 101 and np.nanmin(precision) == pytest.approx(1.0)
    assert best_threshold(detections, targets) == (0.5, 1.0)


def test_masks_of_detections_are_kept_and_drawn(tmp_path):
    mask = np.zeros((100, 200), dtype=bool)
    mask[20:40, 110:140] = True
    boxes, labels, scores = [[100, 0, 150, 50], [0, 0, 50, 50]], [1, 0], [0.9, 0.001]
    result = SimpleNamespace(
        detections=[{**found(boxes, labels, scores), "rles": encode_masks(np.stack([mask, ~mask]))}]
    )
    keep_detections(tmp_path / "test.json", result)
    (kept,) = read_detections(tmp_path / "test.json")
    assert len(kept["scores"]) == len(kept["rles"]) == 1  # the other one's score is too low
    again = decode_segmentation(kept["rles"][0], 100, 200)
    np.testing.assert_array_equal(again, mask)
    one = outcome(target([[100, 0, 150, 50]], [1]), kept, 0.5)
    picture = np.full((100, 200, 3), 90, np.uint8)
    plain, covered = (
        np.asarray(drawn(picture, one, ("a", "b"), side=200, masks=masks)) for masks in ((), [again])
    )
    changed = (plain != covered).any(axis=2)
    assert changed[25:35, 115:135].all() and not changed[:, :100].any() and (picture == 90).all()


# -- report


def test_a_page_needs_no_network_and_runs_no_html_from_markdown():
    alt = "a </script> b"
    layer = Layer("networks", [1.0, 2.0], [0.1, 0.2], about={"": [alt, "c"]})
    chart = Scatter([layer], Axis("ms", log=True), Axis("AP")).html(alt)
    drawn = {"data": {"text/html": chart}, "metadata": {"text/html": {"alt": alt}}}
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "<script>alert(1)</script>"]},
            {"cell_type": "code", "source": "1", "outputs": [drawn]},
        ]
    }
    text = html.page(notebook, "a < b")
    assert "<script>alert(1)" not in text and "a &lt; b" in text and "viewport" in text
    # The data and the script that draws them; the text in the data ends neither.
    assert text.count("</script>") == 2 and json.dumps(alt).replace("</", "<\\/") in text
    assert not re.search(r"""(src|href)=|@import|url\(|fetch\(""", text)
