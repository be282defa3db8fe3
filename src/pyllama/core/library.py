"""The one door to the C library: ``ffi``, ``lib``, and their loading.

Only core/ (and research/, for tensors) imports from here.
"""

from __future__ import annotations

import os

# ggml's abort handler runs gdb on the process unless told not to before the library loads
# (ggml/src/ggml.c:213, ggml/src/ggml.cpp:16).
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

from pyllama._libllama import ffi, lib

__all__ = ["ffi", "lib"]
