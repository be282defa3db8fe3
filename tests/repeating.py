"""What many repetitions of an action leave behind in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

TIMES = 200
LEAK = 4 << 20  # bytes that this many failures may leave behind: what the allocator keeps


def resident() -> int:
    """Return the memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def repeat(action: Callable[[], object]) -> int:
    """Do it many times, and return how much the process has grown since the first tenth."""
    for _ in range(TIMES // 10):
        action()
    before = resident()
    for _ in range(TIMES):
        action()
    return resident() - before
