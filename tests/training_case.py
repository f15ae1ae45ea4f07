"""A tiny training run that tests start in this process and in others: `python training_case.py folder
[key=value ...]`.

`kill=N` ends the process with signal 9 right after step N; `term=N` sends it a termination signal.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from rfdetr import RFDETR, SearchSpace
from rfdetr.data.scenes import scenes
from rfdetr.training.config import TrainConfig
from rfdetr.training.loop import TrainResult, train

SPACE = SearchSpace((48, 64), (8, 16), (1, 2), (1, 2), (4, 8))
MODEL = {
    "num_classes": 10,
    "embed_dim": 24,
    "depth": 2,
    "heads": 2,
    "feature_layers": (1, 2),
    "base_patch": 8,
    "position_grid": 8,
    "hidden_dim": 16,
    "decoder_layers": 2,
    "queries": 8,
    "groups": 2,
    "self_heads": 2,
    "cross_heads": 2,
    "points": 2,
    "ffn_dim": 32,
}
CONFIG = TrainConfig(
    steps=8, batch_size=2, checkpoint_every=3, lr=1e-3, encoder_lr=1e-3, ema_tau=5.0, precision="fp32"
)


def network(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> RFDETR:
    torch.manual_seed(seed)
    return RFDETR(**{**MODEL, **sizes}).to(dtype)


def data(size: int = 12):
    return scenes("digits", "train", size=size, canvas=64)


def run(folder: str | Path, kill: int = 0, term: int = 0, dtype=torch.float32, **changes) -> TrainResult:
    def after(row):
        if row["step"] == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if row["step"] == term:
            os.kill(os.getpid(), signal.SIGTERM)

    model = network(dtype=dtype)
    return train(model, data(), SPACE, CONFIG.replace(**changes), folder, progress=after, accelerator="cpu")


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = dict(argument.split("=") for argument in sys.argv[2:])
    dtype = getattr(torch, options.pop("dtype", "float32"))
    run(sys.argv[1], dtype=dtype, **{name: int(value) for name, value in options.items()})
