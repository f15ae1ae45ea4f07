"""Memory of a training on the processor: kept between steps instead of fetched anew."""

import ctypes
import sys

# Of malloc.h: options of mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_BLOCK, _REST = 2**30, 2**31 - 1


def keep_memory() -> bool:
    """Let the C library keep freed blocks of up to a gigabyte; False where it is not glibc.

    Otherwise every large tensor is a new mapping whose pages the system clears at the first touch: a
    twentieth of a step's time in small networks. The highest use of memory stays the same; it is given back
    at the end of the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BLOCK) and mallopt(_TRIM_THRESHOLD, _REST))
