"""The models that ship with pyllama: small, made by this project (tools/demo_model)."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def demo_model() -> str:
    """Return the path of the demo model.

    Returns
    -------
    str
        A GGUF file of a few MB; its card lies beside it as README.md.
    """
    return str(_HERE / "demo.gguf")


def demo_draft_model() -> str:
    """Return the path of the demo model's draft model, for speculative decoding.

    Returns
    -------
    str
        A GGUF file with the same vocabulary, at most a tenth of the size.
    """
    return str(_HERE / "demo-draft.gguf")
