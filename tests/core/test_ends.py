"""The interpreter ends while a daemon thread is inside libllama."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

WORK = {
    "decodes on two threads": """
        context = model.context(n_ctx=256, n_threads=2, n_threads_batch=2)
        while True:
            context.memory.clear()
            context.decode(Batch([1] * 200))
        """,
    "loads, with a callback": """
        while True:
            Model(sys.argv[1], progress=lambda share: None).close()
        """,
    "samples in Python": """
        chain = SamplerChain([samplers.python(lambda rows: setattr(rows, "selected", 0))])
        while True:
            chain.sample(np.zeros(512, np.float32))
        """,
}


@pytest.mark.parametrize("work", list(WORK))
def test_the_process_ends_well(tiny_path, work):
    """The end waits until C reads nothing any more that exit() destroys; twice in three it died."""
    code = textwrap.dedent(
        """
        import sys, threading, time
        import numpy as np
        from pyllama import Batch, Model, SamplerChain, samplers
        model = Model(sys.argv[1])
        def work():
        {}
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
        """
    ).format(textwrap.indent(textwrap.dedent(WORK[work]), "    "))
    for _ in range(4):
        command = [sys.executable, "-c", code, tiny_path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert (done.returncode, done.stderr) == (0, "")
