"""Options of `train` that say what to start from, and which of them go together."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError

DEFAULT_DATA, DEFAULT_PROFILE = "digits", "cpu"


@dataclass(frozen=True)
class Options:
    """Options of `train` that say what to start from; None where the command line says nothing.

    recipe: fields of `TrainConfig` that were given.
    """

    out: Path
    data: str | None = None
    profile: str | None = None
    preset: str | None = None
    weights: str | None = None
    backbone: str | None = None
    arch: str | None = None
    resolutions: str | None = None
    patch_sizes: str | None = None
    windows: str | None = None
    decoder_layers: int | None = None
    queries: int | None = None
    segmentation: bool | None = None
    seed: int | None = None
    resume: bool = True
    skip_missing: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)

    def given(self, *names: str) -> list[str]:
        """Those of the options that were given, as they are written on the command line."""
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]

    def check(self) -> None:
        """Raise UserError for options that do not go together."""
        sources = self.given("weights", "preset", "profile")
        if len(sources) > 1:
            raise UserError(
                f"{' and '.join(sources)} do not go together: each names a network to start from; give one"
            )
        grid = self.given("resolutions", "patch_sizes", "windows")
        if self.arch is not None and grid:
            raise UserError(
                f"--arch trains one architecture and {', '.join(grid)} a grid of them: give one or the other"
            )
        if self.backbone is not None and self.weights is not None:
            raise UserError(
                "--backbone and --weights do not go together: the weights hold a backbone already"
            )
