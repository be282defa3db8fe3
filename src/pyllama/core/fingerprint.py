"""What must be the same where a saved state is put back: the model, and the shape of the memory.

libllama itself compares the architecture and the sizes only: the keys and values of other weights,
or of another RoPE, would be accepted, and decoding would go on with nonsense.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pyllama.core.enums import GGMLType
from pyllama.core.library import lib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyllama.core.model import Model

# Keys are stored as these turned them.
_ROPE = (
    "rope_scaling_type rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor "
    "yarn_beta_fast yarn_beta_slow yarn_orig_ctx"
).split()


def sample_weights(samples: Iterable[bytes]) -> str:
    """Return a hash of a few bytes from the middle of each tensor.

    Parameters
    ----------
    samples
        The bytes, in the order of the tensors.

    Returns
    -------
    str
        Hexadecimal; tells a fine-tuned model from its base, in about 3 microseconds a tensor.
    """
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample)
    return digest.hexdigest()


def fingerprint(model: Model, params: Any) -> dict[str, str]:
    """Return what a state of a context depends on.

    Parameters
    ----------
    model
        Of the context.
    params
        The ``llama_context_params`` that the context was made with.

    Returns
    -------
    dict of str to str
        Not in it: ``n_ctx``, the batch sizes and ``n_seq_max`` where sequences share a buffer,
        because a state may move to a larger context; and names or templates of the model, because
        they compute nothing.
    """
    prefix = f"{model.architecture}."
    pairs = sorted(pair for pair in model.metadata.items() if pair[0].startswith(prefix))
    # A recurrent memory has one state per sequence; else each sequence may have its own buffer.
    shared = params.kv_unified or model.is_recurrent
    return {
        "architecture": model.architecture,
        "ftype": str(model._ask(lib.llama_model_ftype)),
        "n_params": str(model.n_params),
        "n_bytes": str(model.n_bytes),
        "hyperparameters": hashlib.sha256(repr(pairs).encode("utf-8", "replace")).hexdigest(),
        "weights": model._weights_sample,
        "type_k": GGMLType(params.type_k).name.lower(),
        "type_v": GGMLType(params.type_v).name.lower(),
        "buffers": "1" if shared else str(params.n_seq_max),
        "swa_full": str(bool(params.swa_full)),
        "n_rs_seq": str(params.n_rs_seq),
        "ctx_type": str(params.ctx_type),
        **{name: str(getattr(params, name)) for name in _ROPE},
    }


def difference(saved: Mapping[str, str], own: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return the first thing that differs: its name, and its value in either.

    Parameters
    ----------
    saved, own
        Two fingerprints.

    Returns
    -------
    tuple of str or None
        None if they are the same.
    """
    for name in dict.fromkeys((*own, *saved)):
        if saved.get(name) != own.get(name):
            return name, saved.get(name, "unknown"), own.get(name, "unknown")
    return None
