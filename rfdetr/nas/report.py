"""The report: a notebook that is executed on the run's folder and written as one HTML file."""

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.book.kernels import START, quiet_kernel
from rfdetr.files import atomic_path, write_atomic
from rfdetr.nas.html import page

if TYPE_CHECKING:
    from rfdetr.nas.run import Run

TEMPLATE = "report.ipynb"


def write_report(run: "Run") -> Path | None:
    """Execute the template (parameter: the run's folder) and write `report.html` and `report.ipynb` there.

    None, with the reason said, where the packages of the extra `book` are missing: the networks are there
    without it.
    """
    try:
        import papermill
        import plotly  # noqa: F401
    except ImportError as error:
        run.say(f"no report: {error.name} is not installed (pip install 'rf-detr-nas-companion[book]')")
        return None
    source = files("rfdetr.nas").joinpath(TEMPLATE)
    target = run.root / TEMPLATE
    with atomic_path(target) as temporary:
        papermill.execute_notebook(
            str(source),
            str(temporary),
            parameters={"folder": str(run.root.resolve())},
            kernel_name="python3",
            progress_bar=False,
            start_timeout=START,
            config=quiet_kernel(),
        )
    notebook = json.loads(target.read_text(encoding="utf-8"))
    written = run.root / "report.html"
    write_atomic(written, page(notebook, f"Search on {run.options.data}"))
    return written
