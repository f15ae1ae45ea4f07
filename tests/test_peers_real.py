"""The peers themselves, where the extra `peers` is installed: counts of the record, exports that equal
them.
"""

from importlib.util import find_spec

import pytest
import torch

from rfdetr.peers import catalogue, checking, counting, detectors, exporting
from rfdetr.peers.building import build
from rfdetr.peers.comparing import is_same, rows_of
from rfdetr.peers.deploying import deploy
from rfdetr.peers.liveliness import picture

pytest.importorskip("transformers", reason="the extra peers is not installed")
yolo_only = pytest.mark.skipif(find_spec("ultralytics") is None, reason="ultralytics is not installed")

EXPORTED = (
    "lw-detr-t",
    "lw-detr-s",
    "d-fine-n",
    "d-fine-s",
    "rt-detr-r18",
    "rt-detrv2-r18",
    *(
        pytest.param(name, marks=yolo_only)
        for name in (
            "yolov8-n",
            "yolov8-s",
            "yolo11-n",
            "yolo11-s",
            "yolov8-seg-n",
            "yolo11-seg-n",
            "yolov9-t",
            "yolo12-n",
            "yolo26-n",
        )
    ),
)


@pytest.mark.parametrize("name", EXPORTED)
def test_exports_equal_the_network(name, tmp_path):
    """Scores, boxes and masks within `checking.TOLERANCE` for a picture, and for another one."""
    artifact = exporting.export_peer(name, tmp_path / "peer.onnx", nms="evaluation")
    network = detectors.detector(name)
    other = lambda seed: picture(artifact.inputs[0].sized()[-2:], seed + 10)  # noqa: E731
    assert checking.compare(artifact, network, "evaluation", pictures=other) <= checking.TOLERANCE
    found = detectors.outputs(network, picture(artifact.inputs[0].sized()[-2:]), "evaluation")
    assert (found["logits"] > -7).sum() > 50  # there is something to compare


@pytest.mark.parametrize(
    "name",
    ["lw-detr-s", "d-fine-s", "rt-detr-r50-m", pytest.param("yolo11-seg-n", marks=yolo_only), "hiera-s"],
)
def test_counts_are_those_of_the_record(name):
    entry = catalogue.named(name)
    for convention, counted, recorded in rows_of(entry, counting.recount(name)):
        assert recorded is None or is_same(counted, recorded), convention


def test_deploying_does_not_change_what_d_fine_finds():
    images = picture((640, 640))
    entry = catalogue.named("d-fine-n")
    from rfdetr.peers.building import lively

    model = lively("d-fine-n")
    with torch.no_grad():
        before = model(pixel_values=images)
        after = deploy(entry, model)(pixel_values=images)
    torch.testing.assert_close(after.logits, before.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.pred_boxes, before.pred_boxes, atol=1e-5, rtol=1e-4)
    assert counting.millions(model) < counting.millions(build("d-fine-n"))
