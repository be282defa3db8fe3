"""The part of `LLM` that answers messages, and calls tools."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from pyllama.core.params import flag, function, whole
from pyllama.errors import StateError, TemplateError, UnsupportedError
from pyllama.llm.completing import Completing
from pyllama.llm.options import ReplyOptions
from pyllama.llm.results import ChatCompletion, ChatPart, Conversation
from pyllama.text.chat import ChatTemplate
from pyllama.text.messages import Message
from pyllama.text.prompt import special_tokens
from pyllama.text.reply import Delta
from pyllama.text.schema import grammar_of, json_schema
from pyllama.text.stream import stop_strings
from pyllama.text.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from typing_extensions import Unpack

    from pyllama.llm.options import ChatOptions
    from pyllama.llm.results import Completion, Part
    from pyllama.text.messages import ToolCall
    from pyllama.text.prompt import Prompt
    from pyllama.text.reply import ReplyStream

    Messages = Sequence[Mapping[str, Any] | Message]
    Tools = Sequence[Tool | Callable[..., Any] | Mapping[str, Any]]

logger = logging.getLogger("pyllama")

# What `ChatTemplate.render` takes, besides the messages and the tools.
RENDER = frozenset(
    {
        "tool_choice",
        "parallel_tool_calls",
        "reasoning_format",
        "enable_thinking",
        "continue_final_message",
        "chat_template_kwargs",
        "now",
    }
)


class Chatting(Completing):
    """Answer messages with the model's chat template."""

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> ChatCompletion: ...
    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Iterator[ChatPart]: ...
    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Iterator[ChatPart]:
        """Answer a conversation.

        Parameters
        ----------
        messages
            Dicts as in OpenAI's interface, or the `Message` of an earlier reply. Nothing in them
            is parsed for special tokens.
        stream
            Whether to return the parts as they come, instead of the whole at the end.
        tools : sequence
            What the model may call: Python functions, `Tool` objects, or OpenAI's dicts. Of the
            calls in the reply, those without a ``problem`` follow the schemas of their tools.
        tool_choice, parallel_tool_calls, reasoning_format, enable_thinking, \
continue_final_message, chat_template_kwargs, now
            As for `ChatTemplate.render`.
        chat_template : str
            A template to use instead of the model's own.
        schema
            What the answer must look like, as for `complete`; not together with tools.
        callback : function
            Called with each `ChatPart`; if it returns False the reply ends there.
        **options
            Further options of `complete`.

        Returns
        -------
        ChatCompletion, or iterator of ChatPart
            Closing the iterator stops the generation.

        Raises
        ------
        TemplateError
            What the template refuses, in its words.
        UnsupportedError
            If the model has no chat template.
        TypeError, ValueError
            If an option is unknown or wrong; nothing was computed.
        LlamaError
            As `complete`.
        """
        parts = self._chat_parts(messages, **options)
        if flag("stream", stream):
            return parts
        *_, last = parts
        return cast("ChatCompletion", last.completion)

    def run(
        self,
        messages: Messages,
        tools: Tools,
        *,
        max_steps: int = 8,
        **options: Unpack[ReplyOptions],
    ) -> Conversation:
        """Answer a conversation, calling the tools that the model asks for, until it asks no more.

        Parameters
        ----------
        messages
            As for `chat`.
        tools
            Python functions, or `Tool` objects with one. What a function raises is told to the
            model as the result of the call, and so is what is wrong with a call.
        max_steps
            Most replies of the model.
        **options
            Further options of `chat`. A ``tool_choice`` is for the first reply.

        Returns
        -------
        Conversation
            It ends with the first reply whose ``finish_reason`` is not "tool_calls"; what a reply
            calls that was cut off is not run.

        Raises
        ------
        StateError
            If the model still calls tools in its last reply.
        LlamaError, TypeError, ValueError
            As `chat`.
        """
        given = [Tool.of(tool) for tool in tools]
        for tool in given:
            if tool.function is None or iscoroutinefunction(tool.function):
                message = f"run() calls the tools itself, and {tool.name} has no function for that"
                raise TypeError(message)
        known = {tool.name: tool for tool in given}
        if wrong := sorted(options.keys() - ReplyOptions.__annotations__.keys()):
            message = f"run() takes no {wrong[0]}"
            raise TypeError(message)
        told: list[Any] = [
            each.as_dict() if isinstance(each, Message) else copy(each) for each in messages
        ]
        for _ in range(whole(1, 1 << 20)("max_steps", max_steps)):
            reply = self.chat(told, tools=given, **options)
            told.append(reply.message.as_dict())
            if reply.finish_reason != "tool_calls":
                return Conversation(reply, told)
            told += [_answer(known, call) for call in reply.tool_calls]
            options["tool_choice"] = "auto"  # what was required has been called
        message = f"the model still calls tools after {max_steps} replies: raise max_steps"
        raise StateError(message, expected="an answer", actual=f"{max_steps} replies")

    def _chat_parts(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        chat_template: str | None = None,
        schema: Any = None,
        grammar: str | None = None,
        guidance: bool = False,
        stop: Sequence[str] = (),
        callback: Callable[[ChatPart], object] | None = None,
        **options: Any,
    ) -> Iterator[ChatPart]:
        """Return the parts of a reply; what is wrong with the options shows at once."""
        self._require("complete", "it embeds texts, or needs another text for its encoder first")
        function("callback", callback)
        rendering = {name: options.pop(name) for name in RENDER & options.keys()}
        constraint = None
        if guidance or grammar is not None or isinstance(schema, (re.Pattern, list, tuple)):
            if tools:
                raise ValueError(
                    "a grammar cannot be used together with tools: they have their own"
                )
            constraint = self._constraint(grammar, schema, guidance=guidance)
            rendering.setdefault("enable_thinking", False)  # the grammar leaves no room for it
        elif schema is not None:
            grammar_of(schema)  # refuses what no grammar can follow, in words of its own
            rendering["json_schema"] = json_schema(schema)
        prompt = self._template(chat_template).render(messages, tools=tools, **rendering)
        if constraint is not None:  # what follows it is content, whatever the template makes of it
            prompt = replace(prompt, details={**prompt.details, "grammar_given": True})
        if prompt.media:
            message = f"{self.name} takes text only, and a message holds an image or a sound"
            raise UnsupportedError(message)
        vocab = self.model.vocab
        ids = special_tokens(vocab)
        parts = self._parts(
            prompt.tokens(vocab).tolist(),
            constraint=constraint or prompt.constraint(vocab),
            stop=[*stop_strings(stop), *prompt.stop],
            visible=[ids[text] for text in prompt.preserved_tokens if text in ids],
            **options,
        )
        return self._reply(parts, prompt, callback)

    def _reply(
        self,
        parts: Generator[Part, None, None],
        prompt: Prompt,
        callback: Callable[[ChatPart], object] | None,
    ) -> Iterator[ChatPart]:
        """Take the text apart while it is written."""
        reply = prompt.stream()
        with closing(parts):
            for part in parts:
                if part.completion is None:
                    made = _chat_part(reply.push(part.text), part)
                else:
                    made = _last_part(reply, part, part.completion)
                if callback is not None and callback(made) is False:
                    self._cancelled.set()
                yield made

    def _template(self, text: str | None) -> ChatTemplate:
        """Return a template; it is made once, since it learns what it can render."""
        if text not in self._templates:
            self._templates[text] = ChatTemplate.of(self.model, text=text)
        return self._templates[text]


def _chat_part(delta: Delta, part: Part) -> ChatPart:
    return ChatPart(
        delta.content, delta.reasoning_content, delta.tool_calls, part.token, part.logprob
    )


def _last_part(reply: ReplyStream, part: Part, completion: Completion) -> ChatPart:
    """Return the end of a reply, with the whole of it, also if it was cut."""
    delta = reply.push(part.text)
    reason = completion.finish_reason
    try:
        rest, message = reply.finish(), reply.message()
    except TemplateError as error:  # what there is of it is worth more than nothing
        logger.warning("the reply has not the form of the template: %s", error)
        rest, message = reply.give_up()
    delta = _joined(delta, rest)
    if reason == "stop" and message.tool_calls:
        reason = "tool_calls"
    whole = ChatCompletion(message, reason, completion)
    return _chat_part(delta, part)._replace(finish_reason=reason, completion=whole)


def _joined(one: Delta, other: Delta) -> Delta:
    return Delta(
        one.content + other.content,
        one.reasoning_content + other.reasoning_content,
        one.tool_calls + other.tool_calls,
    )


def _answer(tools: Mapping[str, Tool], call: ToolCall) -> dict[str, Any]:
    """Run what a call asks for, and return the message that tells the result."""
    try:
        if call.problem:
            raise ValueError(call.problem)
        result = tools[call.name].call(call.arguments)
        content = result if isinstance(result, str) else json.dumps(result, default=str)
    except Exception as error:  # noqa: BLE001 - the model reads what went wrong, and may do better
        content = f"error: {type(error).__name__}: {error}"
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}
