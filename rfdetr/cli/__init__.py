"""Command line: `python -m rfdetr train | evaluate | search | export | predict | benchmark | t4 | peers |
data | book | audit`.

Exit codes: 0 good, 1 a failure (a chapter or check that did not pass), 2 wrong input, 130 interrupted.
"""

import sys
from typing import Any

import typer

from rfdetr.arch import ArchError
from rfdetr.cli.audit import audit
from rfdetr.cli.book import book
from rfdetr.cli.data import app as data_app
from rfdetr.cli.measure import benchmark, export, t4
from rfdetr.cli.nas import nas
from rfdetr.cli.peers import app as peers_app
from rfdetr.cli.predict import predict
from rfdetr.cli.results import results
from rfdetr.cli.search import search
from rfdetr.cli.select import select
from rfdetr.cli.train import evaluate, train
from rfdetr.errors import UserError
from rfdetr.interrupts import Interrupted, interruptible

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "RF-DETR with its neural architecture search: train a supernet, search it, measure it, read the book."
    ),
)
app.add_typer(data_app, name="data")
app.add_typer(peers_app, name="peers")
for _command in (nas, train, evaluate, search, select, results, export, predict, benchmark, t4, book, audit):
    app.command()(_command)

# Newer releases of typer carry their own copy of click, so the class is taken from where it surely is.
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; user errors are one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # letters that a console cannot show become "?", and no traceback
            stream.reconfigure(errors="replace")
    try:
        with interruptible():
            code = app(args=arguments, prog_name="python -m rfdetr", standalone_mode=False)
    except (UserError, ArchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(f"error: {error.filename}: {error.strerror}: check path, permissions and disk", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Interrupted, typer.Abort):
        return _interrupted()
    except _USAGE_ERROR as error:
        error.show()
        return 2
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    if code == 130:  # typer makes an exit code of a second interrupt
        return _interrupted()
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    print("\ninterrupted; what was finished is kept, the same command goes on", file=sys.stderr)
    return 130
