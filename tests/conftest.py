"""Shared tiny networks: every part of the real one, a few thousand weights."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from rfdetr import RFDETR, Arch

torch.set_num_threads(1)
# Shared machines are slow at times: a deadline would fail without a reason. Same examples on every run.
settings.register_profile("project", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("project")

TINY = {
    "num_classes": 4,
    "embed_dim": 48,
    "depth": 4,
    "heads": 3,
    "feature_layers": (1, 2, 3, 4),
    "base_patch": 8,
    "position_grid": 8,
    "hidden_dim": 32,
    "decoder_layers": 2,
    "queries": 10,
    "groups": 2,
    "self_heads": 4,
    "cross_heads": 4,
    "points": 2,
    "ffn_dim": 64,
}
TINY_ARCH = Arch(64, 8, 2, 2, 10)


def scramble(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random values everywhere, so that no zero-initialised layer hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.dtype)
            parameter.add_(0.1 * noise)
    return model


@pytest.fixture(autouse=True, scope="session")
def data_home(tmp_path_factory):
    """Converted datasets go to a folder of the test run, not into the user's cache."""
    os.environ["RFDETR_DATA"] = str(tmp_path_factory.mktemp("data-home"))


@pytest.fixture
def tiny():
    """A tiny detection supernet in float64, evaluation mode, scrambled weights."""
    torch.manual_seed(0)
    return scramble(RFDETR(**TINY).double()).eval()


@pytest.fixture
def tiny_segmenter():
    """The same with a mask head."""
    torch.manual_seed(0)
    return scramble(RFDETR(**TINY, segmentation=True).double()).eval()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of a finished tiny training, to be read only."""
    from rfdetr.cli import main

    folder = tmp_path_factory.mktemp("run")
    small = ["--profile", "smoke", "--steps", "2", "--batch-size", "2"]
    assert main(["train", "--data", "digits", "--out", str(folder), *small]) == 0
    return folder
