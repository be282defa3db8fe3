"""What a call to `LLM` gives back, whole or in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from pyllama.generate import Report
    from pyllama.text.logprobs import TokenLogprob
    from pyllama.text.messages import Message, ToolCall
    from pyllama.text.reply import ToolCallDelta

# Why a text ended: the model or a stop string ended it, there was no more room, the model calls
# tools, or the caller wanted no more.
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """How many tokens a call took.

    Attributes
    ----------
    prompt_tokens, completion_tokens : int
        Of the prompt and of what was generated.
    cached_tokens : int
        Tokens of the prompt that did not have to be computed again.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Completion:
    """A generated text.

    Attributes
    ----------
    text : str
    tokens : tuple of int
        The ids generated; those of a stop string are among them.
    finish_reason : str
        "stop", "length" or "cancelled".
    stopped_by : str or None
        The stop string that ended it.
    usage : Usage
    timings : Report
        Seconds and tokens per second of prompt and generation.
    seed : int
        With it, the same call chooses the same tokens.
    logprobs : tuple of TokenLogprob or None
        One for each token, if asked for.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stopped_by: str | None
    usage: Usage
    timings: Report
    seed: int
    logprobs: tuple[TokenLogprob, ...] | None


class Part(NamedTuple):
    """A part of a streamed text.

    Attributes
    ----------
    text : str
        Whole characters; often empty. The parts concatenate to the whole text.
    token : int or None
        The token that was generated; None in the last part.
    logprob : TokenLogprob or None
        Its log-probability, if asked for.
    finish_reason : str or None
        Set in the last part.
    completion : Completion or None
        The whole, in the last part.
    """

    text: str
    token: int | None = None
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    completion: Completion | None = None


@dataclass(frozen=True)
class ChatCompletion:
    """A reply of the model.

    Attributes
    ----------
    message : Message
        Content, reasoning and calls of tools; it can stand among the next messages.
    finish_reason : str
        "stop", "length", "tool_calls" or "cancelled".
    completion : Completion
        The text as the model wrote it, with tokens, usage, timings, seed and log-probabilities.
    """

    message: Message
    finish_reason: FinishReason
    completion: Completion

    @property
    def text(self) -> str:
        """The answer itself, without reasoning and calls."""
        return self.message.content

    @property
    def reasoning_content(self) -> str:
        """What the model thought before it answered."""
        return self.message.reasoning_content

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model wants to be called."""
        return self.message.tool_calls

    @property
    def usage(self) -> Usage:
        """How many tokens it took."""
        return self.completion.usage

    @property
    def timings(self) -> Report:
        """Seconds and tokens per second."""
        return self.completion.timings

    @property
    def seed(self) -> int:
        """With it, the same call chooses the same tokens."""
        return self.completion.seed

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """One for each token, if asked for."""
        return self.completion.logprobs


class ChatPart(NamedTuple):
    """A part of a streamed reply; the parts, put together, are the whole message.

    Attributes
    ----------
    text : str
        To be added to the answer.
    reasoning_content : str
        To be added to the reasoning.
    tool_calls : tuple of ToolCallDelta
        To be added to the calls.
    token : int or None
        The token that was generated; None in the last part.
    logprob : TokenLogprob or None
        Its log-probability, if asked for.
    finish_reason : str or None
        Set in the last part.
    completion : ChatCompletion or None
        The whole, in the last part.
    """

    text: str
    reasoning_content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token: int | None = None
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    completion: ChatCompletion | None = None


@dataclass(frozen=True)
class Conversation:
    """What `LLM.run` gives: the last reply, and all that led to it.

    Attributes
    ----------
    reply : ChatCompletion
        The reply that calls no tools.
    messages : list of dict
        All messages, those of the tools and the last reply included.
    """

    reply: ChatCompletion
    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The last answer."""
        return self.reply.text
