from pathlib import Path

import pytest
import torch

from rfdetr import PRESETS, RFDETR, networks
from rfdetr.errors import UserError

TINY = {"embed_dim": 32, "depth": 2, "heads": 2, "feature_layers": (1, 2), "hidden_dim": 32, "ffn_dim": 64}


def test_random_networks_are_the_same_every_time_and_leave_the_generator_alone(monkeypatch) -> None:
    monkeypatch.setattr(
        "rfdetr.model.detector.build", lambda name: RFDETR(3, **TINY) if name == "nano" else 1 / 0
    )
    state = torch.random.get_rng_state()
    first, second = networks.open_network("random:nano"), networks.open_network("random:nano")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_path_that_exists_goes_before_a_published_name(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "rfdetr.model.official.load_official",
        lambda name, file=None: f"published {name}" + (f" from {file}" if file else ""),
    )
    monkeypatch.setattr("rfdetr.training.checkpoint.model_from_checkpoint", lambda path: path)
    assert networks.open_network("nano") == "published nano"
    assert networks.open_network("seg-nano:w/x.pth") == "published seg-nano from w/x.pth"
    (tmp_path / "nano").mkdir()
    assert networks.open_network("nano") == Path("nano")
    file = tmp_path / "other.pt"
    file.touch()
    assert networks.open_network(file) == file


@pytest.mark.parametrize("target", ["nowhere.pt", "random:pico", "Nano", "pico:x.pth"])
def test_what_can_be_opened_is_listed(target) -> None:
    with pytest.raises(UserError) as error:
        networks.open_network(target)
    assert all(name in str(error.value) for name in PRESETS)


def test_weights_of_the_published_package_are_told_how_to_be_given(tmp_path) -> None:
    import argparse

    from safetensors.torch import save_file

    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "weights.pth")
    torch.save({"model": {}}, tmp_path / "plain.pth")
    (tmp_path / "folder").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "folder" / "model.safetensors")
    for target in ("weights.pth", "plain.pth", "folder", "folder/model.safetensors"):
        with pytest.raises(UserError) as error:
            networks.open_network(tmp_path / target)
        assert f"nano:{tmp_path / target}" in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        networks.open_network(tmp_path / "empty")
    assert "nano:" not in str(error.value)
