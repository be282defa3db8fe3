"""Samplers that choose a token; one of them stands at the end of a chain."""

from __future__ import annotations

from pyllama.core.library import lib
from pyllama.core.params import real, whole
from pyllama.core.sampler.base import INT32_MAX, Sampler
from pyllama.core.sampler.checks import drawn, from_zero, share, vocab_size


def greedy() -> Sampler:
    """Choose the likeliest token; of equals the first.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_greedy
    """
    return Sampler(lib.llama_sampler_init_greedy(), "greedy", {})


def dist(seed: int | None = None) -> Sampler:
    """Choose a token at random, each with its probability.

    Parameters
    ----------
    seed
        0 to 2**32 - 2; None draws one. `Sampler.seed` tells it.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_dist
    """
    seed = drawn(seed)
    return Sampler(lib.llama_sampler_init_dist(seed), "dist", {"seed": seed})


def mirostat(
    n_vocab: int, *, tau: float, eta: float, m: int = 100, seed: int | None = None
) -> Sampler:
    """Choose at random so that the text is as surprising as asked for (Mirostat 1).

    Parameters
    ----------
    n_vocab
        Number of tokens in the vocabulary.
    tau
        The surprise to hold, in bits a token.
    eta
        How fast to correct it, 0 to 1.
    m
        How many of the likeliest tokens to estimate from, at least 2; the paper uses 100.
    seed
        As for `dist`.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_mirostat
    """
    options = {
        "n_vocab": vocab_size("n_vocab", n_vocab),
        "seed": drawn(seed),
        "tau": from_zero("tau", tau),
        "eta": share("eta", eta),
        "m": whole(2, INT32_MAX)("m", m),
    }
    pointer = lib.llama_sampler_init_mirostat(*options.values())
    return Sampler(pointer, "mirostat", options, n_vocab=int(options["n_vocab"]))


def mirostat_v2(*, tau: float, eta: float, seed: int | None = None) -> Sampler:
    """Choose at random so that the text is as surprising as asked for (Mirostat 2).

    Parameters
    ----------
    tau, eta, seed
        As for `mirostat`.

    Returns
    -------
    Sampler

    Calls: llama_sampler_init_mirostat_v2
    """
    options = {
        "seed": drawn(seed),
        "tau": from_zero("tau", tau),
        "eta": share("eta", eta),
    }
    return Sampler(lib.llama_sampler_init_mirostat_v2(*options.values()), "mirostat_v2", options)


def adaptive_p(target: float | None, *, decay: float, seed: int | None = None) -> Sampler:
    """Choose at random, preferring tokens near a probability that is held over time.

    Parameters
    ----------
    target
        The probability that chosen tokens shall have on average, 0 to 1; None chooses as `dist`.
    decay
        How slowly the average forgets, 0 to 0.99: it goes over about ``1 / (1 - decay)`` tokens.
    seed
        As for `dist`.

    Returns
    -------
    Sampler

    Notes
    -----
    Put only a mild `min_p` before it. It learns from tokens that it chose and that are then
    accepted.

    Calls: llama_sampler_init_adaptive_p
    """
    options = {
        "target": -1.0 if target is None else share("target", target),
        "decay": real(0, 0.99)("decay", decay),
        "seed": drawn(seed),
    }
    return Sampler(lib.llama_sampler_init_adaptive_p(*options.values()), "adaptive_p", options)
