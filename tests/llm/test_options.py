"""The options that type checkers see are those that the calls take."""

from __future__ import annotations

import dataclasses
import inspect

from pyllama.llm import LLM
from pyllama.llm.chatting import RENDER
from pyllama.llm.options import ChatOptions, CompleteOptions, ReplyOptions
from pyllama.text.sampling import SamplingParams

FIELDS = {field.name for field in dataclasses.fields(SamplingParams)}
INTERNAL = {"self", "ids", "messages", "constraint", "visible", "fields", "options"}


def named(function):
    """Return the arguments of a function that a caller gives by name."""
    return set(inspect.signature(function).parameters) - INTERNAL


def test_complete_takes_what_its_options_say():
    """No more and no less."""
    assert set(CompleteOptions.__annotations__) == named(LLM._parts) | FIELDS


def test_chat_takes_what_its_options_say():
    """What it renders with, what it completes with, and its own."""
    own = named(LLM._chat_parts) | RENDER
    assert set(ChatOptions.__annotations__) == own | set(CompleteOptions.__annotations__)


def test_run_takes_what_chat_takes_but_for_tools():
    """Those are an argument, and there is no message to continue."""
    extra = set(ChatOptions.__annotations__) - set(ReplyOptions.__annotations__)
    assert extra == {"tools", "continue_final_message"}
