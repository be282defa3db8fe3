"""The options of `LLM` and its calls, for type checkers and readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from pyllama.core.params import ContextOptions, ModelOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import ArrayLike

    from pyllama.choose import LogitsProcessor
    from pyllama.llm.loading import Adapters
    from pyllama.text.sampling import SamplingParams
    from pyllama.text.tools import Tool


class LoadOptions(ModelOptions, ContextOptions, total=False):
    """The options of `Model` and those of `Context`."""


class SamplingFields(TypedDict, total=False):
    """The fields of `SamplingParams`, which says what they mean."""

    seed: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    top_n_sigma: float | None
    xtc_probability: float
    xtc_threshold: float
    dynatemp_range: float
    dynatemp_exponent: float
    penalty_last_n: int
    penalty_repeat: float
    penalty_freq: float
    penalty_present: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Sequence[str]
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    adaptive_target: float | None
    adaptive_decay: float
    min_keep: int
    logit_bias: Mapping[int, float]
    samplers: Sequence[str]


class CompleteOptions(SamplingFields, total=False):
    """The options of `LLM.complete`, which says what they mean."""

    max_tokens: int | None
    stop: Sequence[str]
    schema: Any
    grammar: str | None
    guidance: bool
    sampling: SamplingParams | None
    logprobs: int | None
    logits_processor: Sequence[LogitsProcessor]
    callback: Callable[[Any], object] | None
    lora: Adapters | None
    control_vector: ArrayLike | None
    draft: bool
    n_keep: int | None
    ignore_eog: bool
    timeout: float | None


class ReplyOptions(CompleteOptions, total=False):
    """The options of `LLM.run`, which says what they mean."""

    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool | None
    reasoning_format: str
    enable_thinking: bool
    chat_template: str | None
    chat_template_kwargs: Mapping[str, Any] | None
    now: datetime | None


class ChatOptions(ReplyOptions, total=False):
    """The options of `LLM.chat`, which says what they mean."""

    tools: Sequence[Tool | Callable[..., Any] | Mapping[str, Any]] | None
    continue_final_message: bool | str
