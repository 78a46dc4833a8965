"""A wall clock that jumps, for processes that a test starts: a library that is loaded before their own.

It moves what they are told of the wall clock, and leaves the monotonic clock and all waiting alone, as a machine does
whose clock is set. (libfaketime moves both, or breaks `clock_nanosleep`.)
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

__all__ = ["JumpingClock"]

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *ahead;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("JUMPING_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) ahead = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, clock, at);
  if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


class JumpingClock:
    """A clock that shows the machine's time until it is told otherwise.

    Args:
        directory: For the library and what it reads.

    Attributes:
        environment: For processes that are to go by it.
    """

    def __init__(self, directory: Path) -> None:
        self._ahead = directory / "ahead"
        self.jump_to(0)
        library = directory / "jumping_clock.so"
        (directory / "jumping_clock.c").write_text(_SOURCE)
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(directory / "jumping_clock.c")],
            check=True,
            timeout=60,
        )
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._ahead)}

    @staticmethod
    def reason_not() -> str | None:
        """Return why there can be none here, or None."""
        return None if shutil.which("cc") else "there is no C compiler to make a clock that jumps"

    def jump_to(self, ahead_s: int) -> None:
        """Have it show so many seconds more than the machine's, or less; in the same file, which is mapped."""
        with self._ahead.open("r+b" if self._ahead.exists() else "wb") as file:
            file.write(struct.pack("=q", ahead_s))
