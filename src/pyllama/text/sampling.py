"""How tokens are chosen: llama.cpp's sampling parameters, and the chain they stand for."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyllama.core import sampler as samplers
from pyllama.core.model import Model
from pyllama.core.params import real, strings, whole
from pyllama.core.sampler import Sampler, SamplerChain
from pyllama.core.sampler.checks import count, drawn, finite, from_zero, last_n, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger("pyllama")

# The order in which llama.cpp applies them (common/common.h, common_params_sampling).
ORDER = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
NAMES = frozenset((*ORDER, "infill", "adaptive_p"))
# What a model file may call them besides (common/sampling.cpp:833).
ALIASES = {"nucleus": "top_p", "temp": "temperature", "typ": "typical_p", "typ_p": "typical_p"}
ALIASES |= {name.replace("_", ""): name for name in NAMES} | {"typp": "typical_p"}

# Fields that a model file may set, as general.sampling.<key> (common/common.cpp:1155).
METADATA = {
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "temp": "temperature",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "penalty_repeat",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Say how the next token is chosen; the names, defaults and order are llama.cpp's.

    Attributes
    ----------
    seed : int or None
        0 to 2**32 - 2; None draws one. `seeded` tells which.
    temperature : float
        0 takes the likeliest token.
    top_k : int
        Keep the *k* likeliest; 0 keeps all.
    top_p, min_p, typical_p : float
        Keep the likeliest that add up to ``top_p``; those at least ``min_p`` times as probable as
        the likeliest; those about as surprising as is usual. 1, 0 and 1 keep all.
    top_n_sigma : float or None
        Keep logits within so many standard deviations of the largest; None keeps all.
    xtc_probability, xtc_threshold : float
        With this probability, drop all but the least probable of the tokens above the threshold.
    dynatemp_range, dynatemp_exponent : float
        Let the temperature move by up to this range with the entropy.
    penalty_last_n : int
        How many tokens back repetitions count; the prompt's are among them.
    penalty_repeat, penalty_freq, penalty_present : float
        Divisor of a repeated token's logit; subtracted for each, and for any occurrence.
    dry_multiplier, dry_base : float
        Penalty for going on with a repetition: multiplier * base ** (length - allowed).
    dry_allowed_length, dry_penalty_last_n : int
        Repetitions up to this length are free; how many tokens back they count.
    dry_sequence_breakers : tuple of str
        Strings that end a repetition.
    mirostat : int
        1 or 2 choose by Mirostat instead of the samplers above; 0 does not.
    mirostat_tau, mirostat_eta : float
        The entropy it aims at, in bits, and how fast it learns.
    adaptive_target : float or None
        Prefer tokens near this probability, where ``samplers`` names "adaptive_p".
    adaptive_decay : float
        How slowly its average forgets.
    min_keep : int
        The samplers that cut keep at least so many tokens.
    logit_bias : mapping of int to float
        Added to the logits of these tokens; -inf rules one out.
    samplers : tuple of str
        Which samplers run, in which order.

    Raises
    ------
    TypeError, ValueError
        If a value has the wrong type or is out of range.
    """

    seed: int | None = None
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float | None = None
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    penalty_last_n: int = 64
    penalty_repeat: float = 1.0
    penalty_freq: float = 0.0
    penalty_present: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float | None = None
    adaptive_decay: float = 0.9
    min_keep: int = 1
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    samplers: tuple[str, ...] = ORDER

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    @classmethod
    def of(cls, model: Model, **given: Any) -> SamplingParams:
        """Make parameters from what was *given* and, for the rest, what the model file recommends.

        Parameters
        ----------
        model
            Its metadata may hold ``general.sampling.*``.
        **given
            Fields.

        Returns
        -------
        SamplingParams

        Raises
        ------
        TypeError, ValueError
            If a name is unknown, or a value is wrong.

        Notes
        -----
        A recommendation that makes no sense is logged as a warning and left out.
        """
        unknown = sorted(given.keys() - {each.name for each in dataclasses.fields(cls)})
        if unknown:
            message = f"unknown sampling parameter(s): {', '.join(unknown)}"
            raise TypeError(message)
        return cls(**{**_recommended(_model(model)), **given})

    def seeded(self) -> SamplingParams:
        """Return the same with a seed drawn, if it has none.

        Returns
        -------
        SamplingParams
        """
        return self if self.seed is not None else dataclasses.replace(self, seed=drawn(None))

    def sampler(self, model: Model, prompt: Sequence[int] = ()) -> Sampler | None:
        """Make the chain of samplers.

        Parameters
        ----------
        model
            Whose tokens it chooses.
        prompt
            The tokens before those that it chooses. To repeat them costs what it costs to repeat
            one that was chosen.

        Returns
        -------
        Sampler or None
            None where all of it comes down to taking the likeliest token.

        Raises
        ------
        ValueError
            If the prompt holds what is no token.

        Notes
        -----
        Samplers that would do nothing are left out. The tokens that the model file suppresses are
        ruled out.
        """
        chain = self._chain(_model(model))
        if chain is not None and (self._penalizes or self._dries):
            for token in prompt[-max(self.penalty_last_n, self.dry_penalty_last_n) :]:
                chain.accept(token)
        return chain

    def _chain(self, model: Model) -> SamplerChain | None:
        vocab = model.vocab
        bias = {int(token): float("-inf") for token in vocab.suppress_tokens.tolist()}
        bias = {**self.logit_bias, **bias}
        parts = [samplers.logit_bias(model.n_vocab, bias)] if bias else []
        seed = drawn(self.seed)
        if self.mirostat:
            parts += [samplers.temp(self.temperature), self._mirostat(model, seed)]
            return SamplerChain(parts)
        makers = self._makers(model, seed)
        active = [name for name in self.samplers if name in makers]
        greedy = self.temperature == 0 and "temperature" in active
        if greedy and not {"typical_p", "xtc", "infill", "adaptive_p"} & {*active}:
            # Whatever else cuts keeps the likeliest token.
            active = [name for name in active if name in ("penalties", "dry")]
            if not parts and not active:
                return None
            return SamplerChain([*parts, *(makers[name]() for name in active), samplers.greedy()])
        parts += [makers[name]() for name in active if name != "adaptive_p"]
        if "adaptive_p" in active:
            parts.append(makers["adaptive_p"]())
        else:
            parts.append(samplers.dist(seed))
        return SamplerChain(parts)

    def _makers(self, model: Model, seed: int) -> dict[str, Callable[[], Sampler]]:
        """Return a function for each sampler that would do something."""
        keep = {"min_keep": self.min_keep}
        every: dict[str, tuple[bool, Callable[[], Sampler]]] = {
            "penalties": (self._penalizes, lambda: self._penalties(model)),
            "dry": (self._dries, lambda: self._dry(model)),
            "top_n_sigma": (
                self.top_n_sigma is not None,
                lambda: samplers.top_n_sigma(self.top_n_sigma or 0.0),
            ),
            "top_k": (self.top_k > 0, lambda: samplers.top_k(self.top_k)),
            "typical_p": (self.typical_p < 1, lambda: samplers.typical(self.typical_p, **keep)),
            "top_p": (self.top_p < 1, lambda: samplers.top_p(self.top_p, **keep)),
            "min_p": (self.min_p > 0, lambda: samplers.min_p(self.min_p, **keep)),
            "xtc": (
                self.xtc_probability > 0,
                lambda: samplers.xtc(self.xtc_probability, self.xtc_threshold, seed=seed, **keep),
            ),
            "temperature": (
                self.temperature != 1 or self.dynatemp_range > 0,
                lambda: samplers.temp_ext(
                    self.temperature, delta=self.dynatemp_range, exponent=self.dynatemp_exponent
                ),
            ),
            "infill": (True, lambda: samplers.infill(model.vocab)),
            "adaptive_p": (
                True,
                lambda: samplers.adaptive_p(
                    self.adaptive_target, decay=self.adaptive_decay, seed=seed
                ),
            ),
        }
        return {name: make for name, (does_something, make) in every.items() if does_something}

    @property
    def _penalizes(self) -> bool:
        """Whether repetitions cost anything."""
        changes = (self.penalty_repeat != 1, self.penalty_freq != 0, self.penalty_present != 0)
        return self.penalty_last_n > 0 and any(changes)

    @property
    def _dries(self) -> bool:
        """Whether going on with a repetition costs anything."""
        return self.dry_multiplier > 0 and self.dry_penalty_last_n > 0

    def _penalties(self, model: Model) -> Sampler:
        return samplers.penalties(
            model.n_vocab,
            penalty_last_n=self.penalty_last_n,
            penalty_repeat=self.penalty_repeat,
            penalty_freq=self.penalty_freq,
            penalty_present=self.penalty_present,
        )

    def _dry(self, model: Model) -> Sampler:
        return samplers.dry(
            model.vocab,
            dry_multiplier=self.dry_multiplier,
            dry_base=self.dry_base,
            dry_allowed_length=self.dry_allowed_length,
            dry_penalty_last_n=self.dry_penalty_last_n,
            seq_breakers=self.dry_sequence_breakers,
        )

    def _mirostat(self, model: Model, seed: int) -> Sampler:
        tau, eta = self.mirostat_tau, self.mirostat_eta
        if self.mirostat == 1:
            return samplers.mirostat(model.n_vocab, tau=tau, eta=eta, seed=seed)
        return samplers.mirostat_v2(tau=tau, eta=eta, seed=seed)


def _model(model: object) -> Model:
    """Return *model* if it is one."""
    if not isinstance(model, Model):
        message = f"a Model is needed, not {model!r:.60}"
        raise TypeError(message)
    return model


def _or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _order(name: str, value: Any) -> tuple[str, ...]:
    names = tuple(strings(name, value))
    unknown = [each for each in names if each not in NAMES]
    if unknown:
        message = f"{name} holds {unknown[0]!r}, which is none of: {', '.join(sorted(NAMES))}"
        raise ValueError(message)
    return names


def _bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        message = f"{name} must be a mapping of token ids to numbers, not {value!r:.60}"
        raise TypeError(message)
    checked = {}
    for token, amount in value.items():
        ruled_out = isinstance(amount, float) and amount == float("-inf")
        checked[whole(0, 2**31 - 2)(f"a token of {name}", token)] = (
            amount if ruled_out else finite(f"{name}[{token}]", amount)
        )
    return checked


# min_p and the rest as their samplers take them; xtc above 0.5 never finds two such tokens.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "seed": _or_none(lambda _name, value: drawn(value)),
    "temperature": from_zero,
    "top_k": count,
    "top_p": share,
    "min_p": share,
    "typical_p": share,
    "top_n_sigma": _or_none(from_zero),
    "xtc_probability": share,
    "xtc_threshold": share,
    "dynatemp_range": from_zero,
    "dynatemp_exponent": from_zero,
    "penalty_last_n": last_n,
    "penalty_repeat": real(1e-6),
    "penalty_freq": finite,
    "penalty_present": finite,
    "dry_multiplier": from_zero,
    "dry_base": real(1),
    "dry_allowed_length": count,
    "dry_penalty_last_n": last_n,
    "dry_sequence_breakers": lambda name, value: tuple(strings(name, value)),
    "mirostat": whole(0, 2),
    "mirostat_tau": from_zero,
    "mirostat_eta": from_zero,
    "adaptive_target": _or_none(share),
    "adaptive_decay": real(0, 0.99),
    "min_keep": whole(1, 2**31 - 1),
    "logit_bias": _bias,
    "samplers": _order,
}


def _recommended(model: Model) -> dict[str, Any]:
    """Return what the model file recommends."""
    found: dict[str, Any] = {}
    for key, name in METADATA.items():
        text = model.metadata.get(f"general.sampling.{key}")
        if text is None:
            continue
        try:
            number = float(text)
            found[name] = _CHECKS[name](name, int(number) if number.is_integer() else number)
        except (TypeError, ValueError) as error:
            logger.warning("general.sampling.%s=%.40r is left out: %s", key, text, error)
    sequence = model.metadata.get("general.sampling.sequence")
    if sequence:
        names = [each.strip().replace("-", "_") for each in sequence.split(";")]
        try:
            found["samplers"] = _order("sequence", [ALIASES.get(each, each) for each in names])
        except ValueError as error:
            logger.warning("general.sampling.sequence=%.80r is left out: %s", sequence, error)
    return found
