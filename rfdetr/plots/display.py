"""Show a figure in a chapter, with the text that stands for it where it cannot be seen."""

from typing import Any


def show(figure: Any, alt: str) -> None:
    """Display a matplotlib or plotly figure with an alternative text.

    alt   what the figure shows, in one or two sentences; the site gives it to screen readers

    ValueError for an empty text. A matplotlib figure is closed, so that it does not appear a second time.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alternative text: say in a sentence what it shows")
    from IPython.display import display

    if hasattr(figure, "to_plotly_json"):
        meta = figure.layout.meta or {}
        figure.update_layout(meta={**meta, "alt": alt})
        display(figure)
        return
    import matplotlib.pyplot as plt

    # Grids of seaborn hold the figure.
    figure = getattr(figure, "figure", figure)
    display(figure, metadata={mime: {"alt": alt} for mime in ("image/png", "image/svg+xml")})
    plt.close(figure)
