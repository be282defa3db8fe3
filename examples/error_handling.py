"""What goes wrong has a class of its own, says what to do, and leaves the model usable."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pyllama


def nothing(_ids: NDArray[np.int32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rule out every token."""
    return np.full_like(scores, -np.inf)


def attempt(what: str, call: Callable[[], object]) -> None:
    """Run *call*, which fails, and print how."""
    try:
        call()
    except (pyllama.LlamaError, OSError, ValueError, TypeError) as error:
        print(f"{what}: {type(error).__name__}: {str(error).splitlines()[0]:.120}")
    else:
        print(f"{what}: no error")


directory = Path(tempfile.mkdtemp())
(directory / "text.gguf").write_text("this is no model")
attempt("a missing file", lambda: pyllama.LLM(directory / "missing.gguf"))
attempt("another file format", lambda: pyllama.LLM(directory / "text.gguf"))

llm = pyllama.LLM(pyllama.demo_model(), n_ctx=256, n_threads=1, load=False)
attempt("no model loaded", lambda: llm.complete("Hello"))
llm.load()
attempt("a prompt too long", lambda: llm.complete("one two three " * 100))
attempt("no room for the answer", lambda: llm.complete("Hello", max_tokens=300))
attempt("text that is no Unicode", lambda: llm.tokenize("\ud800"))
attempt("text that cannot be tokenized", lambda: llm.tokenize("b" * 3_000_000))
attempt("no token left to sample", lambda: llm.complete("a", logits_processor=[nothing]))
attempt("a misspelt option", lambda: llm.complete("Hello", temprature=0.5))
attempt("a value out of range", lambda: llm.complete("Hello", top_p=1.5))
attempt("a grammar that does not parse", lambda: llm.complete("Hello", grammar="root :: a"))
print(f"and then: {llm.complete('The capital of France is', max_tokens=4, temperature=0).text}")
llm.unload()
