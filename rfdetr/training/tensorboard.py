"""Curves for TensorBoard, an optional package."""

import math
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.training.log import Row


class Board:
    """Writes the numbers of rows of the log and of evaluations as scalars into a folder.

    Raises UserError when TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out; log.csv"
                " and evaluations.csv hold the same numbers"
            ) from error
        self._folder, self._kind = folder, SummaryWriter
        self._writer: Any = None

    def write(self, row: Row) -> None:
        """The numbers of a row; those of an evaluation (which has an AP) under their architecture."""
        if self._writer is None:  # by the first row, so that only the process that writes makes files
            self._writer = self._kind(str(self._folder))
        group = f"val {row['arch']}" if "AP" in row else "train"
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name != "step" and number and math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, row["step"])
        self._writer.flush()
