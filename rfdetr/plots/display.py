"""Show a figure in a chapter, with the text that stands for it where it cannot be seen."""

import base64
import io
import itertools
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

from rfdetr.plots.scatter import Scatter

SLIDES = "RFDETR_SLIDES"
"""Variable with a folder: every figure that is shown is written there, too, at slide size."""
_SLIDE_WIDTH = 1920  # px
_numbers = itertools.count(1)


def show(figure: Any, alt: str) -> None:
    """Display a figure of matplotlib or a `Scatter` with an alternative text.

    alt   what the figure shows, in one or two sentences; the site gives it to screen readers

    ValueError for an empty text. A matplotlib figure is closed, so that it does not appear a second time.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alternative text: say in a sentence what it shows")
    from IPython.display import HTML, display

    if isinstance(figure, Scatter):
        display(HTML(figure.html(alt)), metadata={"text/html": {"alt": alt}})
        return
    import matplotlib.pyplot as plt

    # Grids of seaborn hold the figure.
    figure = getattr(figure, "figure", figure)
    if os.environ.get(SLIDES):
        _write_slide(figure, alt, Path(os.environ[SLIDES]))
    display(figure, metadata={mime: {"alt": alt} for mime in ("image/png", "image/svg+xml")})
    plt.close(figure)


def in_a_row(pictures: "Sequence[tuple[Image.Image, str]]") -> None:
    """Display photographs, each with its alternative text, side by side where there is room, else below each
    other.
    """
    from IPython.display import HTML, display

    parts = []
    for picture, alt in pictures:
        data = io.BytesIO()
        picture.convert("RGB").save(data, "JPEG", quality=88)
        source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
        style = "max-width: 100%; height: auto; margin: 0 4px 4px 0"
        parts.append(
            f'<img alt="{escape(alt)}" width="{picture.width}" height="{picture.height}" style="{style}"'
            f' src="{source}">'
        )
    display(HTML(f"<div>{''.join(parts)}</div>"))


def _write_slide(figure: Any, alt: str, folder: Path) -> None:
    """A matplotlib figure as a PNG of 1,920 px, named by its number in this process and its first words."""
    words = "-".join(re.findall(r"[a-z0-9]+", alt.lower())[:5])
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(
        folder / f"{next(_numbers):02}-{words}.png", dpi=_SLIDE_WIDTH / figure.get_size_inches()[0]
    )
