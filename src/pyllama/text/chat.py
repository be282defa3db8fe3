"""Chat templates: messages in, a prompt out, rendered by llama.cpp's own engine.

A template is a program that came with a model file. It is run in a worker process with bounds on
time and memory (core/sandbox.py), in an engine that has no way to Python or to files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyllama.core import chat_template
from pyllama.core.handle import Handle
from pyllama.core.params import pairs
from pyllama.errors import TemplateError, UnsupportedError
from pyllama.text import chat_options
from pyllama.text import messages as message_rules
from pyllama.text.prompt import Prompt, Trigger, special_tokens
from pyllama.text.schema import finished, grammar_of, prepared
from pyllama.text.specials import Breaker

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pyllama.core.model import Model
    from pyllama.text.messages import Message
    from pyllama.text.tools import Tool

TIMEOUT = 5.0
MAX_TEMPLATE = 1 << 20  # characters
ANYTHING = {"type": ["object", "array", "string", "number", "boolean", "null"]}


class ChatTemplate:
    """A chat template of a model, or one given as text.

    Parameters
    ----------
    text
        Jinja, as model files have it; or "chatml" for the one of that name. At most 1 Mi
        characters.
    bos_token, eos_token
        What the template gets under these names.
    special_tokens
        The texts that become control tokens; left out, they are unknown, and `Prompt.tokens`
        refuses. With `of` they are the model's.
    tool_use
        Another template, used instead when there are tools.
    timeout
        Seconds that rendering may take.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be.

    Notes
    -----
    Rendering takes 5 to 50 ms: llama.cpp finds out by trial how the template writes calls and
    reasoning, to make the parser of the reply. The process that renders is started at the first
    use (0.1 s), serves all templates one after the other, and keeps about 30 MB. A template that
    takes more than 1 GiB or makes more than 64 MiB is an error; where the system cannot bound the
    memory of a process (macOS), the time alone is bounded.
    """

    def __init__(
        self,
        text: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        special_tokens: Sequence[str] | None = None,
        tool_use: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        for name, value in (("text", text), ("tool_use", tool_use)):
            if value is None and name == "tool_use":
                continue
            if not isinstance(value, str):
                message = f"{name} must be a string, not {value!r:.60}"
                raise TypeError(message)
            if not 1 <= len(value) <= MAX_TEMPLATE:
                message = f"a template has 1 to {MAX_TEMPLATE} characters, not {len(value)}"
                raise ValueError(message)
        self.text = text
        self.tool_use = tool_use
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.special_tokens = None if special_tokens is None else tuple(special_tokens)
        self.timeout = timeout
        self._caps: dict[str, dict[str, bool]] = {}

    @classmethod
    def of(
        cls,
        model: Model,
        name: str | None = None,
        *,
        text: str | None = None,
        timeout: float = TIMEOUT,
    ) -> ChatTemplate:
        """Take a model's own template, or another one with the model's special tokens.

        Parameters
        ----------
        model
            The model.
        name
            Which of its templates; left out, the default one, and "tool_use" when there are tools.
        text
            A template to use instead of the model's.
        timeout
            Seconds that rendering may take.

        Returns
        -------
        ChatTemplate

        Raises
        ------
        UnsupportedError
            If the model has no such template.

        Calls: llama_model_chat_template
        """
        if not isinstance(model, Handle) or not hasattr(model, "chat_template"):
            message = f"a ChatTemplate is of a Model, not of {model!r:.80}"
            raise TypeError(message)
        found = model.chat_template(name) if text is None else text
        if found is None:
            which = "chat template" if name is None else f"chat template {name!r}"
            message = f"the model has no {which}: give one as text"
            raise UnsupportedError(message)
        vocab = model.vocab

        def piece(token: int | None) -> str:
            return (
                "" if token is None else vocab.piece(token, special=True).decode("utf-8", "replace")
            )

        return cls(
            found,
            bos_token=piece(vocab.bos),
            eos_token=piece(vocab.eos),
            special_tokens=tuple(special_tokens(vocab)),
            tool_use=model.chat_template("tool_use") if name is None and text is None else None,
            timeout=timeout,
        )

    @property
    def supports(self) -> dict[str, bool]:
        """What the template can render: tools, tool_calls, system_role, parallel_tool_calls, ..."""
        return {name.removeprefix("supports_"): yes for name, yes in self._capabilities(self.text)}

    def _capabilities(self, text: str) -> list[tuple[str, bool]]:
        if text not in self._caps:
            request = {"template": text, "bos_token": self.bos_token, "eos_token": self.eos_token}
            self._caps[text] = chat_template.caps(request, self.timeout)
        return sorted(self._caps[text].items())

    def render(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        tools: Sequence[Tool | Callable[..., Any] | Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool | None = None,
        reasoning_format: str = "auto",
        enable_thinking: bool = True,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        json_schema: Any = None,
        grammar: str | None = None,
        now: datetime | None = None,
    ) -> Prompt:
        """Render messages to a prompt.

        Parameters
        ----------
        messages
            Dicts as in OpenAI's interface, or `Message` objects.
        tools
            What the model may call: Python functions, `Tool` objects, or OpenAI's dicts.
        tool_choice
            "auto", "required", "none", or the name of the tool to call (also as OpenAI's dict).
            A tool that is named is the only one that the model sees. Text may come before a call
            that is required.
        parallel_tool_calls
            Whether one reply may call several tools; left out, if the template supports it. Not
            every format's grammar can forbid it: a call too many has a ``problem``.
        reasoning_format
            "auto" and "deepseek" take reasoning out of the content, "none" leaves it there.
        enable_thinking
            Whether the model may reason first, where the template has a switch for it.
        add_generation_prompt
            Whether the prompt ends with the beginning of a reply; left out, yes, unless a message
            is continued.
        continue_final_message
            Whether the last message, of the assistant, is the beginning of the reply; "content"
            or "reasoning_content" says which part of it goes on.
        chat_template_kwargs
            Further variables for the template.
        json_schema
            What the content of the reply must follow: a JSON schema, or a type with one, as for
            `pyllama.grammar_of`; not together with tools.
        grammar
            GBNF that the reply must follow, which is content then, all of it; not together with
            tools.
        now
            The date that the template sees; left out, today's.

        Returns
        -------
        Prompt

        Raises
        ------
        TemplateError
            What the template refuses, in its words, or what the engine cannot follow in it.
        TimeoutError
            If it took longer than the template's ``timeout``.
        GrammarError
            If no grammar can follow the schema.
        TypeError, ValueError
            If an argument is not what it must be.
        UnsupportedError
            If no worker process can be started.

        Calls: pyllama_chat_render
        """
        checked = message_rules.check(messages)
        chosen, choice = chat_options.choose(tools, tool_choice)
        text = self.tool_use if chosen and self.tool_use is not None else self.text
        kwargs = dict(pairs("chat_template_kwargs", chat_template_kwargs or {}))
        chat_options.check(
            checked.messages,
            uses_tools=bool(chosen) and choice != "none",
            reasoning_format=reasoning_format,
            enable_thinking=enable_thinking,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            chat_template_kwargs=kwargs,
            json_schema=json_schema,
            grammar=grammar,
        )
        calls_one = parallel_tool_calls is False
        if parallel_tool_calls is None:
            parallel_tool_calls = bool(chosen) and dict(self._capabilities(text)).get(
                "supports_parallel_tool_calls", False
            )
        schema, spliced = (None, {}) if json_schema is None else prepared(json_schema)
        given = {
            "messages": checked.messages,
            "tools": [tool.as_dict() for tool in chosen] or None,
            "json_schema": ANYTHING if schema == {} else schema,  # {} would be no schema
            "chat_template_kwargs": kwargs,
        }
        try:
            breaker = Breaker(self.special_tokens or (), text, given)
            broken = breaker.break_up(given)
        except RecursionError:
            raise ValueError("the tools or the variables are nested too deeply") from None
        request = {
            **broken,
            "template": text,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "tool_choice": choice,
            "parallel_tool_calls": parallel_tool_calls,
            "reasoning_format": reasoning_format,
            "enable_thinking": enable_thinking,
            "add_generation_prompt": add_generation_prompt is not False
            and not continue_final_message,
            "continue_final_message": continue_final_message,
            "grammar": grammar or "",
            "now": None,
        }
        if now is not None:
            chat_options.set_date(request, now)
        try:
            found = chat_template.render(request, self.timeout)
        except TemplateError as error:
            raise TemplateError(breaker.mend(str(error))) from None
        if choice == "required" and not found["grammar"].strip():
            message = "no form of tool calls is known for this template: none can be required"
            raise TemplateError(message)
        if json_schema is not None and not found["grammar"].strip():
            # The format has no place for a schema, so it is followed as a caller's grammar is.
            found["grammar"] = request["grammar"] = grammar_of(json_schema)
        elif found["grammar"] and not grammar:
            found["grammar"] = finished(found["grammar"], spliced)
        can_call = {tool.name: tool for tool in chosen if choice != "none"}
        calls = {"tools": can_call, "calls_one": calls_one}
        return self._prompt(found, request, breaker, checked, calls)

    def _prompt(
        self,
        found: Mapping[str, Any],
        request: Mapping[str, Any],
        breaker: Breaker,
        checked: message_rules.Checked,
        calls: Mapping[str, Any],
    ) -> Prompt:
        mended = {
            name: breaker.mend(found[name])
            for name in ("text", "generation_prompt", "parser", "grammar", "thinking_start_tag")
        }
        # A grammar that holds from the start knows the end itself, and none before a required call.
        is_held = bool(found["grammar"].strip()) and not found["grammar_lazy"]
        return Prompt(
            text=mended["text"],
            pieces=breaker.pieces(found["text"]),
            generation_prompt=mended["generation_prompt"],
            grammar=mended["grammar"],
            grammar_lazy=found["grammar_lazy"],
            triggers=tuple(
                Trigger(each["type"], breaker.mend(each["value"]))
                for each in found["grammar_triggers"]
            ),
            preserved_tokens=tuple(found["preserved_tokens"]),
            stop=() if is_held else tuple(found["stop"]),
            format=found["format_name"],
            supports_thinking=found["supports_thinking"],
            thinking_start_tag=mended["thinking_start_tag"],
            thinking_end_tags=tuple(found["thinking_end_tags"]),
            media_marker=checked.media_marker if checked.media else "",
            media=tuple(checked.media),
            has_specials=self.special_tokens is not None,
            details={
                "format": found["format"],
                "generation_prompt": mended["generation_prompt"],
                "parser": mended["parser"],
                "is_continuation": bool(request["continue_final_message"]),
                "grammar_given": bool(request["grammar"]),
                **calls,
            },
        )
