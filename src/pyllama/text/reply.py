"""A reply taken apart while it is written: reasoning, content, and calls of tools."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pyllama.core.chat_template import ReplyParser
from pyllama.errors import TemplateError
from pyllama.text.messages import Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyllama.text.tools import Tool

TOO_MANY = "only one tool was to be called: parallel_tool_calls is False"


@dataclass(frozen=True)
class ToolCallDelta:
    """What was added to a call of a tool.

    Attributes
    ----------
    index : int
        Which call of the reply.
    id, name : str
        Whole, in the first delta of a call; empty in the others.
    arguments : str
        To be added to those before.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Delta:
    """What was added to a reply.

    Attributes
    ----------
    content, reasoning_content : str
        To be added to those before.
    tool_calls : tuple of ToolCallDelta
        In order.
    """

    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning_content or self.tool_calls)


class ReplyStream:
    """Take a reply apart piece by piece; `Prompt.stream` makes one.

    Parameters
    ----------
    details
        `Prompt.details`.

    Raises
    ------
    TemplateError
        If the parser cannot be read.

    Notes
    -----
    The deltas, put together, are `message`. All of the reply is parsed at each piece, at some
    nanoseconds a byte.

    Calls: pyllama_chat_parser_new, pyllama_chat_parse
    """

    def __init__(self, details: dict[str, Any]) -> None:
        self._tools: dict[str, Tool] = details["tools"]
        self._calls_one: bool = details["calls_one"]
        is_content = details["grammar_given"]
        self._parser = ReplyParser(
            format=details["format"],
            generation_prompt="" if is_content else details["generation_prompt"],
            parser="" if is_content else details["parser"],
        )
        self.text = ""
        self._calls: list[_Call] = []
        self._base = Message()
        if details["is_continuation"]:  # what the prompt holds of the reply is not given out
            self._base = self._parsed(partial=True)
        self._content = self._base.content
        self._reasoning = self._base.reasoning_content

    def push(self, text: str, *, parse: bool = True) -> Delta:
        """Add text that the model wrote.

        Parameters
        ----------
        text
            Whole characters.
        parse
            Whether to look what it is; otherwise that waits for the next call.

        Returns
        -------
        Delta
            What is certain now; often empty.
        """
        self.text += text
        if not parse or not text:
            return Delta()
        try:
            return self._added(self._parsed(partial=True), final=False)
        except TemplateError:  # not yet, perhaps; finish() says
            return Delta()

    def finish(self) -> Delta:
        """Say that the reply has ended.

        Returns
        -------
        Delta
            What was held back.

        Raises
        ------
        TemplateError
            If the text has not the form of the template's replies; `text` has it.
        """
        return self._added(self._parsed(partial=False), final=True)

    def message(self, *, partial: bool = False) -> Message:
        """Return the whole reply.

        Parameters
        ----------
        partial
            Whether more may come.

        Returns
        -------
        Message
            Without what the prompt held of it already, if the prompt continued a message. Its
            calls are compared with the schemas of their tools: see `ToolCall.problem`.

        Raises
        ------
        TemplateError
            If the text has not the form of the template's replies; `text` has it.
        """
        whole = self._parsed(partial=partial)
        calls = whole.tool_calls[len(self._base.tool_calls) :]
        return Message(
            whole.content.removeprefix(self._base.content),
            whole.reasoning_content.removeprefix(self._base.reasoning_content),
            self._marked(calls),
        )

    def give_up(self) -> tuple[Delta, Message]:
        """End a reply that `finish` refuses: what was given out of it stands.

        Returns
        -------
        Delta
            The rest of the text, if all of it was content so far.
        Message
            The whole.
        """
        content = self._content.removeprefix(self._base.content)
        reasoning = self._reasoning.removeprefix(self._base.reasoning_content)
        calls = [ToolCall(each.id, each.name, each.arguments) for each in self._calls if each.id]
        rest = ""
        if not reasoning and not calls and self.text.startswith(content):
            rest = self.text[len(content) :]
        return Delta(rest), Message(content + rest, reasoning, self._marked(calls))

    def _marked(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Return calls, each with what is wrong with it."""
        marked = [replace(call, problem=self._problem(call)) for call in calls]
        if self._calls_one:
            marked[1:] = [replace(call, problem=TOO_MANY) for call in marked[1:]]
        return tuple(marked)

    def _problem(self, call: ToolCall) -> str:
        """Return why nobody should act on a call; empty if all is well."""
        if call.name not in self._tools:
            return f"there is no tool {call.name!r}; there are {sorted(self._tools)}"
        try:
            self._tools[call.name].check(call.arguments)
        except Exception as error:  # noqa: BLE001 - nor does a schema nobody can check lose a reply
            return str(error) or repr(error)
        return ""

    def _parsed(self, *, partial: bool) -> Message:
        found = self._parser.parse(self.text, is_partial=partial)
        calls = []
        for index, call in enumerate(found["tool_calls"]):
            if index == len(self._calls):
                self._calls.append(_Call())
            calls.append(
                ToolCall(self._calls[index].named(call["id"]), call["name"], call["arguments"])
            )
        return Message(found["content"], found["reasoning_content"], tuple(calls))

    def _added(self, now: Message, *, final: bool) -> Delta:
        """Return what *now* has more than was given out, and take it as given."""
        content = _more(self._content, now.content)
        reasoning = _more(self._reasoning, now.reasoning_content)
        self._content += content
        self._reasoning += reasoning
        calls = []
        for index, call in enumerate(now.tool_calls):
            given = self._calls[index]
            # A name is whole when something follows it.
            if given.id or call.arguments or final or index + 1 < len(now.tool_calls):
                calls.append(given.added(index, call))
        return Delta(content, reasoning, tuple(filter(None, calls)))


@dataclass
class _Call:
    """What was given out of one call."""

    id: str = ""  # empty until the call was given out
    name: str = ""
    arguments: str = ""
    made_up: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")

    def named(self, written: str) -> str:
        """Return the id of the call: the one given out, or that the model wrote, or one made up."""
        return self.id or written or self.made_up

    def added(self, index: int, call: ToolCall) -> ToolCallDelta | None:
        """Return what *call* has more than was given out."""
        arguments = _more(self.arguments, call.arguments)
        self.arguments += arguments
        if not self.id:
            self.id, self.name = call.id, call.name
            return ToolCallDelta(index, call.id, call.name, arguments)
        return ToolCallDelta(index, arguments=arguments) if arguments else None


def _more(given: str, now: str) -> str:
    """Return what *now* adds to *given*; nothing while it takes something back."""
    return now[len(given) :] if now.startswith(given) else ""
