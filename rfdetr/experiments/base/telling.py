"""Lines that say how far a long piece of a chapter is: on its page, and on the terminal meanwhile."""

import time
from collections.abc import Callable

_EVERY = 60.0  # seconds between two lines


def telling(unit: str) -> Callable[..., None]:
    """`tell(done, total, more="")`: prints "done of total unit", the time left, and what more there is.

    At most one line a minute, the first call and the last one always. What was done before the first call
    was done by a run that was stopped, and does not count for the time left.
    """
    started = time.monotonic()
    first: list[int] = []
    last = [-_EVERY]

    def tell(done: int, total: int, more: str = "") -> None:
        now = time.monotonic() - started
        first[:] = first or [max(done - 1, 0)]
        if now - last[0] < _EVERY and done < total:
            return
        last[0] = now
        own = done - first[0]
        ending = f", about {now / own * (total - done):.0f} s left" if own and done < total else ""
        print(f"{done} of {total} {unit} in {now:.0f} s{ending}" + (f"; {more}" if more else ""))

    return tell
