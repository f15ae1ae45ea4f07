"""The weights that a search starts from: DINOv2 in the backbone, and files that change."""

import pytest
import torch
from published import SMALL, small_presets
from test_dinov2 import DEPTH, DIM, HEADS, dinov2_state

from rfdetr import UserError
from rfdetr.data.scenes import scenes
from rfdetr.model import config
from rfdetr.nas.look import propose
from rfdetr.nas.network import start, weights_digest
from rfdetr.nas.options import NasOptions

FREE = {"resolutions": (), "patch_sizes": (), "windows": (), "queries": None}


def test_a_backbone_of_dinov2_in_a_network_of_published_size(monkeypatch, tmp_path):
    sizes = {**SMALL, "embed_dim": DIM, "depth": DEPTH, "heads": HEADS}
    small_presets(monkeypatch)
    monkeypatch.setitem(config.BACKBONES, "dinov2-s", sizes)
    torch.save(dinov2_state(), tmp_path / "dinov2.pth")
    options = NasOptions(data="digits", weights="random:nano", backbone=str(tmp_path / "dinov2.pth"))
    begin = start(options, scenes("digits", "train", size=3), propose(3, 4, 0.3, FREE))
    assert "DINOv2" in begin.origin and begin.recipe == "Appendix A" and begin.details
    bias = begin.model.state_dict()["backbone.patch_bias"]
    torch.testing.assert_close(bias.double(), dinov2_state()["patch_embed.proj.bias"], atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="--weights random:nano"):
        NasOptions(data="digits", weights="nano", backbone="dinov2")


def test_other_weights_under_the_same_name_are_noticed(tmp_path):
    file = tmp_path / "nano.pth"
    file.write_bytes(b"one")
    training = tmp_path / "run"
    training.mkdir()
    (training / "checkpoint.pt").write_bytes(b"one")
    names = (f"nano:{file}", str(file), str(training), f"nano:{tmp_path}")
    before = [weights_digest(name) for name in names]
    assert all(before) and before == [weights_digest(name) for name in names]
    file.write_bytes(b"two")
    (training / "checkpoint.pt").write_bytes(b"two")
    assert not set(before) & {weights_digest(name) for name in names}
    assert [weights_digest(name) for name in ("", "nano", "random:nano")] == ["", "", ""]
