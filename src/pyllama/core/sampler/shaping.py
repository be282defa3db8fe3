"""Samplers that cut away unlikely tokens, or change how uneven the probabilities are.

Probabilities are always those among the candidates that are left.
"""

from __future__ import annotations

from typing import Any

from pyllama.core.library import lib
from pyllama.core.sampler.base import Sampler
from pyllama.core.sampler.checks import count, drawn, from_zero, share


def top_k(k: int) -> Sampler:
    """Keep the *k* likeliest tokens.

    Parameters
    ----------
    k
        0 keeps all.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_top_k
    """
    k = count("k", k)
    return Sampler(lib.llama_sampler_init_top_k(k), "top_k", {"k": k})


def top_p(p: float, *, min_keep: int = 1) -> Sampler:
    """Keep the fewest likeliest tokens whose probabilities add up to *p*.

    Parameters
    ----------
    p
        0 to 1; 1 keeps all.
    min_keep
        Keep at least so many tokens.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_top_p
    """
    return _cut("top_p", lib.llama_sampler_init_top_p, p, min_keep)


def min_p(p: float, *, min_keep: int = 1) -> Sampler:
    """Keep tokens that are at least *p* times as probable as the likeliest.

    Parameters
    ----------
    p
        0 to 1; 0 keeps all.
    min_keep
        Keep at least so many tokens.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_min_p
    """
    return _cut("min_p", lib.llama_sampler_init_min_p, p, min_keep)


def typical(p: float, *, min_keep: int = 1) -> Sampler:
    """Keep tokens about as surprising as is usual here, until their probabilities pass *p*.

    Parameters
    ----------
    p
        0 to 1; 1 keeps all.
    min_keep
        Keep at least so many tokens.

    Returns
    -------
    Sampler

    Notes
    -----
    Candidates that are ruled out (logit -inf) make the entropy NaN; the likeliest tokens are
    kept then, as `top_p` does. Put it before grammars and biases.

    Calls: llama_sampler_init_typical
    """
    return _cut("typical", lib.llama_sampler_init_typical, p, min_keep)


def top_n_sigma(n: float) -> Sampler:
    """Keep tokens whose logit is within *n* standard deviations of the largest.

    Parameters
    ----------
    n
        0 keeps all.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_top_n_sigma
    """
    n = from_zero("n", n)
    return Sampler(lib.llama_sampler_init_top_n_sigma(n), "top_n_sigma", {"n": n})


def xtc(p: float, t: float, *, min_keep: int = 1, seed: int | None = None) -> Sampler:
    """At random, take away all tokens above a threshold but the least likely of them.

    Parameters
    ----------
    p
        How often to do so, 0 to 1.
    t
        The threshold of probability, 0 to 1; above 0.5 nothing is ever taken away.
    min_keep
        Leave at least so many tokens.
    seed
        As for `dist`.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_xtc
    """
    options = {
        "p": share("p", p),
        "t": share("t", t),
        "min_keep": count("min_keep", min_keep),
        "seed": drawn(seed),
    }
    return Sampler(lib.llama_sampler_init_xtc(*options.values()), "xtc", options)


def temp(t: float) -> Sampler:
    """Divide the logits by *t*.

    Parameters
    ----------
    t
        0 rules out all but the likeliest token; above 1 evens out.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_temp
    """
    t = from_zero("t", t)
    return Sampler(lib.llama_sampler_init_temp(t), "temp", {"t": t})


def temp_ext(t: float, *, delta: float, exponent: float) -> Sampler:
    """Divide the logits by a temperature that follows their entropy.

    Parameters
    ----------
    t
        The middle of the range.
    delta
        The temperature goes from ``t - delta`` (but not below 0) to ``t + delta``; 0 fixes it.
    exponent
        How the entropy, 0 to 1, is mapped on that range.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_temp_ext
    """
    options = {
        "t": from_zero("t", t),
        "delta": from_zero("delta", delta),
        "exponent": from_zero("exponent", exponent),
    }
    return Sampler(lib.llama_sampler_init_temp_ext(*options.values()), "temp_ext", options)


def _cut(kind: str, init: Any, p: float, min_keep: int) -> Sampler:
    options = {"p": share("p", p), "min_keep": count("min_keep", min_keep)}
    return Sampler(init(*options.values()), kind, options)
