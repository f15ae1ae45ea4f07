"""The report: a notebook that is executed on the run's folder and written as one HTML file."""

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.book.kernels import START, quiet_kernel
from rfdetr.files import atomic_path, write_atomic
from rfdetr.nas.html import page
from rfdetr.nas.words import title
from rfdetr.version import __version__

if TYPE_CHECKING:
    from rfdetr.nas.run import Run

TEMPLATE, PAGE = "report.ipynb", "report.html"


def write_report(run: "Run") -> Path | None:
    """The stage: execute the template (parameter: the run's folder) and write `report.html` into the run's
    folder; the executed notebook stays in the stage's.

    None, with the reason said, where the packages of the extra `book` are missing or a cell fails: the
    networks are there without it.
    """
    try:
        import ipykernel  # noqa: F401
        import matplotlib  # noqa: F401
        import papermill
        from papermill.exceptions import PapermillExecutionError
    except ImportError as error:
        run.say(f"no report: {error.name} is not installed (pip install 'rf-detr-nas-companion[book]')")
        return None

    def work(folder: Path) -> dict[str, Any]:
        source = files("rfdetr.nas").joinpath(TEMPLATE)
        with atomic_path(folder / TEMPLATE) as temporary:
            papermill.execute_notebook(
                str(source),
                str(temporary),
                parameters={"folder": str(run.root.resolve())},
                kernel_name="python3",
                progress_bar=False,
                start_timeout=START,
                config=quiet_kernel(),
            )
        notebook = json.loads((folder / TEMPLATE).read_text(encoding="utf-8"))
        write_atomic(folder / PAGE, page(notebook, title(run.options.data)))
        return {"page": PAGE}

    values = {"version": __version__, "options": run.options.to_dict()}
    try:
        run.stages.run("report", values, tuple(run.stages.done), work, "writing the report")
    except PapermillExecutionError as error:
        run.say(f"no report: {error.ename}: {error.evalue}; the same command tries again")
        return None
    written = run.root / PAGE
    write_atomic(written, (run.folder("report") / PAGE).read_bytes())
    return written
