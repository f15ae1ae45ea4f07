"""Figures and tables of the book, drawn from tidy DataFrames; one module per subject.

Every figure function returns the figure; `show(figure, alt)` displays it with an alternative text.
"""

from rfdetr.plots.display import show
from rfdetr.plots.findings import show_findings
from rfdetr.plots.style import COLOURS, theme
from rfdetr.plots.tables import say, table

__all__ = ["COLOURS", "say", "show", "show_findings", "table", "theme"]
