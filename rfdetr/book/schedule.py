"""Which chapter is executed when: several at a time, first those that take long or that others wait for.

What must not be disturbed is no matter of the order: chapters measure in `rfdetr.quiet.alone`, which stops
the other chapters for as long as that takes, so a long training and a latency may be in one chapter.
"""

import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rfdetr.book.cache import Chapter, code_cells, read_notebook
from rfdetr.book.execute import Outcome
from rfdetr.provenance import gpus, memory_gib, usable_cpus

MADE_ONCE = (r"\bsupernet\.train_supernet\b", r"\bch09_fresh\.(searched|fine_tuned)\b")
"""What the code of a chapter says that uses an artifact which chapters share. The first one of the book makes
it, and the others wait for that chapter: otherwise they would wait in the artifact store, in a place.
"""
SECONDS = {
    "04_supernet_training": 370,
    "S_own_data": 260,
    "05_search": 190,
    "06_latency_protocol": 120,
    "08_coco_segmentation": 110,
    "09_rf100vl": 90,
    "I_predictions": 60,
    "B_query_drop": 40,
    "Q_questions": 27,
}
"""About how long chapters take in the profile cpu on two cores, where it is more than a few seconds. Only the
order depends on it.
"""
_FEW = 6.0
_MOST = 4
_GIB = 3.0  # of memory for each chapter; the largest takes two


def default_jobs() -> int:
    """Chapters at a time: one for each processor and 3 GiB, at most four; one where a GPU computes."""
    if gpus()[0]:
        return 1
    return max(1, min(_MOST, usable_cpus(), int(memory_gib() / _GIB)))


def needs(chapters: Sequence[Chapter]) -> dict[str, set[str]]:
    """Names of the chapters for which each chapter waits, by its name."""
    first: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for chapter in chapters:
        code = "\n".join(cell.source for cell in code_cells(read_notebook(chapter.path)))
        named = [pattern for pattern in MADE_ONCE if re.search(pattern, code)]
        found[chapter.name] = {first.setdefault(name, chapter.name) for name in named} - {chapter.name}
    return found


def urgency(waits: Mapping[str, set[str]]) -> dict[str, float]:
    """Seconds of each chapter and of the longest row of chapters that wait for it, one after the other."""
    found: dict[str, float] = {}
    for name in reversed(list(waits)):  # who waits comes later in the book
        later = [found[other] for other, needed in waits.items() if name in needed]
        found[name] = SECONDS.get(name, _FEW) + max(later, default=0.0)
    return found


@dataclass
class _Row:
    """Chapters that are still to be begun."""

    left: list[Chapter]
    waits: Mapping[str, set[str]]
    urgency: Mapping[str, float]
    open: set[str] = field(default_factory=set)

    def next(self) -> Chapter | None:
        """The most urgent one that waits for none that is not done; None if there is none now."""
        ready = [chapter for chapter in self.left if not self.waits[chapter.name] & self.open]
        if not ready:
            return None
        chosen = max(ready, key=lambda chapter: self.urgency[chapter.name])
        self.left.remove(chosen)
        return chosen


def run(
    chapters: Iterable[Chapter],
    jobs: int,
    work: Callable[[Chapter], Outcome],
    finished: Callable[[Outcome], None],
    stop: Callable[[Iterable[threading.Thread]], None],
) -> None:
    """Do the chapters, `jobs` at a time.

    work      executes one chapter, in a thread of its own
    finished  is called with each outcome, in this thread
    stop      ends what the given threads do, when an exception (an interrupt, too) leaves `run`

    A chapter that fails frees those that wait for it: each says by itself what it misses.
    """
    chapters = list(chapters)
    waits = needs(chapters)
    row = _Row(chapters.copy(), waits, urgency(waits), {chapter.name for chapter in chapters})
    results: queue.SimpleQueue[tuple[str, Outcome | BaseException]] = queue.SimpleQueue()
    threads: dict[str, threading.Thread] = {}

    def one(chapter: Chapter) -> None:
        try:
            results.put((chapter.name, work(chapter)))
        except BaseException as error:
            results.put((chapter.name, error))

    try:
        while row.open:
            while len(threads) < jobs and (chapter := row.next()):
                thread = threading.Thread(target=one, args=(chapter,), daemon=True)
                threads[chapter.name] = thread
                thread.start()
            name, result = results.get()
            threads.pop(name).join()
            row.open.remove(name)
            if isinstance(result, BaseException):
                raise result
            finished(result)
    except BaseException:
        stop(threads.values())
        raise
