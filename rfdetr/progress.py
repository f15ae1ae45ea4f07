"""One progress bar for all long work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rfdetr.interrupts import check

Report = Callable[[int, int], None]
"""Called with (done, total)."""


@contextmanager
def progress_bar(
    progress: bool | Report, total: int, description: str, unit: str = "it", leave: bool = True
) -> Iterator[Report]:
    """`report(done, total)` for the length of the block; a report is also where an interrupt is noticed.

    progress   True: a bar on standard error. False: nothing. A callable: called itself
    total      of the bar; a report of another total, or of less done than before, starts the bar again
    """
    if not progress:
        yield lambda done, total: check()
        return
    if callable(progress):

        def tell(done: int, total: int) -> None:
            check()
            progress(done, total)

        yield tell
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=description, unit=unit, leave=leave) as bar:

        def report(done: int, total: int) -> None:
            check()
            if bar.total != total or done < bar.n:
                bar.reset(total)
            bar.update(done - bar.n)

        yield report
