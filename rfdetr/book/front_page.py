"""The picture of the first page, made when the site is built and kept until the search or the drawing
changes.
"""

import hashlib
import io
from pathlib import Path

from rfdetr.book.cache import Project
from rfdetr.experiments.base import kept
from rfdetr.files import write_atomic

PICTURE = "book/front.png"
"""Where the first page finds it."""
_SEARCH = "full-search"
_DRAWING = ("experiments/front_page.py", "plots/front_page.py", "plots/pictures.py", "plots/style.py")


def front_picture(project: Project) -> bytes:
    """A PNG of the kept search's front and three of its networks, 1,150 px wide. UserError without it."""
    search = kept.load(_SEARCH)
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256((search.folder / "result.json").read_bytes())
    for name in _DRAWING:
        digest.update((package / name).read_bytes())
    path = project.build / "pictures" / f"front-{digest.hexdigest()[:12]}.png"
    if not path.is_file():
        write_atomic(path, _draw(search))
    return path.read_bytes()


def _draw(search: kept.Kept) -> bytes:
    import matplotlib as mpl

    from rfdetr.experiments.front_page import front_page
    from rfdetr.plots import front_page as drawing
    from rfdetr.plots import theme

    with mpl.rc_context(), io.BytesIO() as file:
        mpl.use("agg")
        theme()
        drawing.front_page(front_page(search)).savefig(file, format="png", dpi=160, metadata={"Software": ""})
        return file.getvalue()
