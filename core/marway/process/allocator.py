"""The C library's memory, where large values come and go with each request."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Final

__all__ = ["give_back_freed_memory", "keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_FROM_HEAP_BYTES: Final = 32 * 1024 * 1024  # the most that glibc takes


@functools.cache  # once is enough for a process, and whoever has a large value may ask
def keep_freed_memory(most_bytes: int) -> None:
    """Have the C library keep memory that was freed for what comes next; another library than glibc is left alone.

    By itself glibc gives it back as soon as it is a few MiB, and the next large value then pays for each of its pages
    anew: for a body of 5 MiB three times what reading it costs. Values of up to 32 MiB are kept, which is where glibc's
    own adjustment ends (mallopt(3)); larger ones go back to the kernel at once, as always.

    Args:
        most_bytes: How much free memory this process may keep.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, most_bytes)


def give_back_freed_memory() -> None:
    """Have the C library give to the kernel what is free now, also between what is not; glibc only.

    For whoever has had large values and has had none for a while. It takes some milliseconds.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
