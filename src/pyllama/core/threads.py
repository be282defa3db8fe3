"""How many threads are worth using: the cores this process may really run on.

libllama's workers spin while they wait for each other, so one thread too many is worse than one
too few; its own default of 4 makes a machine with 2 cores many times slower.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from pyllama.core.library import lib


def n_usable_cores() -> int:
    """Return the number of physical cores that affinity and container quota leave this process.

    Returns
    -------
    int
        At least 1, at most the 512 threads that ggml can use.
    """
    getaffinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cpus = sorted(getaffinity(0)) if getaffinity else list(range(os.cpu_count() or 1))
    cores = {_core(cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota(), lib.GGML_MAX_N_THREADS))


def _core(cpu: int) -> str:
    """Return the list of CPUs that share the core of *cpu*; hyper-threads name the same one."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Return the CPUs that the control group grants, rounded up; many if it sets no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # no control group of version 2, or "max"
        return 2**31
