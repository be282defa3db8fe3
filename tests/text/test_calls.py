"""When the grammar of a call begins: at a call, and not at words about one; and what it misses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from text.chat_facts import TOOLS, USER, lines, template_text

import pyllama
from pyllama import ChatTemplate
from pyllama.errors import GrammarError, TemplateError
from pyllama.text.constrained import Constraint
from pyllama.text.messages import ToolCall


@pytest.fixture(scope="module")
def vocab() -> Iterator[pyllama.Vocab]:
    """Open a vocabulary that can spell every reply."""
    with pyllama.Model(pyllama.demo_model(), vocab_only=True) as model:
        yield model.vocab


def constraint_of(name: str, vocab: pyllama.Vocab) -> Constraint:
    """Return what holds a reply with a tool to the grammar."""
    prompt = ChatTemplate(template_text(name)).render(USER, tools=[TOOLS["count"]])
    made = prompt.constraint(vocab)
    assert made is not None
    return made


def write(constraint: Constraint, vocab: pyllama.Vocab, text: str) -> str:
    """Write a text and return it, or raise GrammarError."""
    ids = vocab.tokenize(text, add_special=False).tolist()
    for token in ids:
        constraint.accept(token)
    return vocab.detokenize(ids)


CALL = '<tool_call>\n{"name": "count", "arguments": {"to": 7}}</tool_call>'


def test_thoughts_about_a_call_are_free(vocab):
    """What they write of it, and what comes behind."""
    constraint = constraint_of("Reka-Edge", vocab)
    text = f"I could write {CALL} or <tool_call> or nothing.\n</think>\n\nNo."
    assert write(constraint, vocab, text).strip() == text


def test_the_call_behind_them_follows_the_schema(vocab):
    """As if nothing had been thought."""
    constraint = constraint_of("Reka-Edge", vocab)
    write(constraint, vocab, f"Perhaps {CALL}, yes.\n</think>\n\n")
    with pytest.raises(GrammarError):
        write(constraint, vocab, CALL.replace("7", '"7"'))


def test_a_call_without_an_end_of_the_thoughts_follows_the_schema(vocab):
    """The model may go from them straight to the call, and the parser takes it for one."""
    constraint = constraint_of("Kimi-K2-Thinking", vocab)
    call = "<|tool_call_begin|>functions.count:0<|tool_call_argument_begin|>"
    write(constraint, vocab, f"<think>Let me count<|tool_calls_section_begin|>{call}")
    with pytest.raises(GrammarError):
        write(constraint, vocab, "seven")


def test_candidates_are_ruled_out_only_in_a_call(vocab):
    """Before it the whole vocabulary is there."""
    constraint = constraint_of("Reka-Edge", vocab)
    candidates = pyllama.Candidates(np.zeros(vocab.n_tokens, np.float32))
    constraint.apply(candidates)
    assert np.isfinite(candidates.data["logit"]).all()
    write(constraint, vocab, "\n</think>\n\n<tool_call>\n")
    constraint.apply(candidates)
    assert not np.isfinite(candidates.data["logit"]).all()


CALLS = {  # one of each template
    fact["template"]: fact
    for fact in lines("chat_replies.jsonl")
    if fact.get("calls")
    and not fact.get("partial")
    and not {"continued", "schema", "tool_choice"} & fact.keys()
}


@pytest.mark.parametrize("fact", CALLS.values(), ids=CALLS.keys())
def test_a_call_that_does_not_follow_its_schema_never_passes_for_one(vocab, fact):
    """The grammar refuses it, or the call says what is wrong: a word is put for each number."""
    prompt = ChatTemplate(template_text(fact["template"])).render(
        USER,
        tools=[TOOLS[name] for name in fact["tools"]],
        parallel_tool_calls=fact.get("parallel_tool_calls", False),
        reasoning_format=fact.get("reasoning_format", "none"),
        enable_thinking=fact.get("enable_thinking", True),
    )
    asked = [(name, arguments) for name, arguments, *_ in fact["calls"]]
    assert [shape(call) for call in prompt.parse(fact["reply"]).tool_calls] == asked
    for number in re.finditer("[0-9]+", fact["reply"]):
        reply = fact["reply"][: number.start()] + "seven" + fact["reply"][number.end() :]
        constraint = prompt.constraint(vocab)
        try:
            if constraint is not None:
                write(constraint, vocab, reply)
            calls = prompt.parse(reply).tool_calls
        except (GrammarError, TemplateError):
            continue
        assert all(call.problem or shape(call) in asked for call in calls)


def shape(call: ToolCall) -> tuple[str, object]:
    """Return what a call asks for, if nothing is wrong with it."""
    assert call.problem == ""
    return call.name, json.loads(call.arguments)
