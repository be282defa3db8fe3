"""Hooks that raise, stop, give nonsense or call back: what becomes of the call and the context."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import random_model
from decoding import PROMPT, SMALL, go_on, prefill

import pyllama
from pyllama.errors import BusyError, ClosedError, StateError, UnsupportedError

LONG = tuple(range(1, 62))


def nothing(array, node) -> None:
    """Look at a tensor, and leave it."""


def fail(array, node) -> None:
    """Raise from inside the call."""
    raise KeyError(node.name)


def test_what_a_function_raises_comes_out_of_decode(context):
    """It is the exception itself, with nothing around it."""
    with context.hooks({"l_out-0": fail}), pytest.raises(KeyError, match="l_out-0"):
        prefill(context)


def test_after_an_exception_there_are_no_outputs_and_the_memory_is_as_before(context):
    """libllama returned 0, with garbage in the logits and in the memory."""
    prefill(context)
    with context.hooks({"l_out-0": fail}), pytest.raises(KeyError):
        prefill(context, [50, 51], pos=len(PROMPT))
    assert context.memory.pos_max(0) == len(PROMPT) - 1
    with pytest.raises(StateError, match="no logits"):
        context.logits()


def test_after_an_exception_a_context_computes_as_a_new_one(model):
    """Nothing of the call is left."""
    with model.context(**SMALL) as context, model.context(**SMALL) as fresh:
        prefill(context)
        with context.hooks({"ffn_out-1": fail}), pytest.raises(KeyError):
            prefill(context, [50, 51], pos=len(PROMPT))
        prefill(fresh)
        assert np.array_equal(go_on(context), go_on(fresh))


def test_an_exception_ends_the_micro_batches_that_would_follow(model):
    """False alone would leave only one part of one graph."""
    n_calls = 0

    def count(array, node):
        nonlocal n_calls
        n_calls += 1
        raise ZeroDivisionError

    with model.context(n_ubatch=16, **SMALL) as context:
        with context.hooks({"l_out-0": count}), pytest.raises(ZeroDivisionError):
            context.decode(pyllama.Batch(LONG))
        assert n_calls == 1
        prefill(context)  # the flag that ended it is lowered again


def test_a_keyboard_interrupt_in_a_function_comes_out(context):
    """Also what is no Exception."""

    def interrupt(array, node):
        raise KeyboardInterrupt

    with context.hooks({"l_out-0": interrupt}), pytest.raises(KeyboardInterrupt):
        prefill(context)


def test_an_exception_empties_a_recurrent_sequence(tmp_path):
    """Its state cannot be taken back part of the way."""
    path = random_model.write_mamba(tmp_path / "mamba.gguf")
    with pyllama.Model(path) as model, model.context(**SMALL) as context:
        prefill(context)
        with context.hooks({"*": fail}), pytest.raises(KeyError):
            prefill(context, [50], pos=len(PROMPT))
        assert context.memory.pos_max(0) is None
        assert np.isfinite(prefill(context)).all()


def test_an_exception_in_the_encoder_leaves_nothing_to_decode_from(tmp_path):
    """What the decoder would attend to is not there."""
    path = random_model.write_t5(tmp_path / "t5.gguf")
    with pyllama.Model(path) as model, model.context(**SMALL) as context:
        context.encode(pyllama.Batch([1, 2, 3]))
        with context.hooks({"*": fail}), pytest.raises(KeyError):
            context.encode(pyllama.Batch([1, 2, 3]))
        with pytest.raises(StateError, match="nothing"):
            context.decode(pyllama.Batch([1]))


def test_stopping_computes_no_further_and_makes_no_output(model):
    """In each micro-batch; and the memory is taken back, for later layers stored nothing."""
    with model.context(n_ubatch=16, **SMALL) as context, model.context(**SMALL) as fresh:
        with context.observe("l_out-*", stop_after="l_out-0") as seen:
            context.decode(pyllama.Batch(LONG, output="all"))
        assert [(node.name, len(array)) for node, array in seen] == [
            ("l_out-0", n) for n in (16, 16, 16, 13)
        ]
        assert (context.n_outputs, context.memory.pos_max(0)) == (0, None)
        with pytest.raises(StateError, match="no logits"):
            context.logits()
        assert np.array_equal(prefill(context), prefill(fresh))


def test_stopping_the_encoder_leaves_nothing_to_decode_from(tmp_path):
    """An early stop is as good as no call."""
    path = random_model.write_t5(tmp_path / "t5.gguf")
    with pyllama.Model(path) as model, model.context(**SMALL) as context:
        with context.observe(stop_after="*"):
            context.encode(pyllama.Batch([1, 2, 3]))
        with pytest.raises(StateError, match="nothing"):
            context.decode(pyllama.Batch([1]))


def test_an_embedding_model_is_observed_too(tmp_path):
    """It has no memory to take back."""
    path = random_model.write_bert(tmp_path / "bert.gguf")
    options = {"embeddings": True, "pooling_type": "mean", **SMALL}
    with pyllama.Model(path) as model, model.context(**options) as context:
        with context.hooks({"*": fail}), pytest.raises(KeyError):
            context.encode(pyllama.Batch([1, 2, 3]))
        with pytest.raises(StateError):
            context.embedding()
        context.encode(pyllama.Batch([1, 2, 3]))
        assert np.isfinite(context.embedding()).all()


@pytest.mark.parametrize(
    "use",
    [
        lambda context: prefill(context),
        lambda context: context.logits(),
        lambda context: context.memory.clear(),
        lambda context: context.close(),
        lambda context: context.observe("embd").__enter__(),
    ],
    ids=["decode", "logits", "memory", "close", "observe"],
)
def test_a_function_cannot_use_the_context(context, use):
    """It is in the middle of a call."""
    with context.hooks({"l_out-0": lambda array, node: use(context)}), pytest.raises(BusyError):
        prefill(context)
    assert np.isfinite(prefill(context)).all()


def test_a_function_may_use_another_context_of_the_model(model, context):
    """Each has a trampoline of its own."""
    with model.context(**SMALL) as other:
        rows = []
        with context.hooks({"l_out-0": lambda array, node: rows.append(prefill(other))}):
            expected = prefill(context)
    assert np.array_equal(rows[0], expected)


def test_a_block_may_end_while_another_thread_computes(model):
    """The call goes on with the functions that it began with."""
    begun, ended = threading.Event(), threading.Event()

    def wait(array, node) -> None:
        begun.set()
        ended.wait(10)

    with model.context(**SMALL) as context:
        with context.hooks({"l_out-*": wait}):
            thread = threading.Thread(target=prefill, args=(context,))
            thread.start()
            begun.wait(10)
        ended.set()
        thread.join(10)
        assert context.n_outputs == 1


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.zeros((1, 3)), ValueError),
        (np.zeros(len(PROMPT) * 64), ValueError),
        (np.zeros((len(PROMPT), 64), complex), TypeError),
        (np.full((len(PROMPT), 64), "a"), TypeError),
        (np.full((len(PROMPT), 64), 1e300), ValueError),
        ("a", ValueError),
    ],
)
def test_a_replacement_that_does_not_fit_is_refused(context, values, error):
    """Before libllama sees it; the context goes on."""
    with context.hooks({"l_out-0": lambda array, node: values}), pytest.raises(error):
        prefill(context)
    assert np.isfinite(prefill(context)).all()


@pytest.mark.parametrize(("change", "error"), [(9, ValueError), (-9, ValueError), (0.5, TypeError)])
def test_experts_that_do_not_exist_are_refused(tmp_path, change, error):
    """An index beyond the experts ends the process in a thread of libllama's."""
    path = random_model.write_llama(tmp_path / "experts.gguf", n_expert=4, n_expert_used=2)
    wrong = {"ffn_moe_topk-0": lambda array, node: array + change}
    right = {"ffn_moe_topk-0": lambda array, node: (array + 1) % 4}
    with pyllama.Model(path) as model, model.context(**SMALL) as context:
        with context.hooks(wrong), pytest.raises(error):
            prefill(context)
        with context.hooks(right):
            assert np.isfinite(prefill(context)).all()


def test_a_quantised_tensor_is_not_replaced(tmp_path):
    """It can be read."""
    path = random_model.write_llama(tmp_path / "wide.gguf", n_embd=128)
    with pyllama.Model(path) as model, model.context(type_k="q8_0", **SMALL) as context:
        functions = {"cache_k_l0 (view)": lambda array, node: array}
        with context.hooks(functions), pytest.raises(UnsupportedError, match="q8_0"):
            prefill(context)


def test_a_context_without_hooks_says_so(model):
    """It was made without the trampoline, which cannot be put in later."""
    with model.context(hooks=False, **SMALL) as context:
        with pytest.raises(UnsupportedError, match="hooks=False"):
            context.hooks({})
        with pytest.raises(UnsupportedError, match="hooks=False"):
            context.observe("l_out-0")


@pytest.mark.parametrize(
    ("functions", "error"),
    [
        (None, TypeError),
        ([("l_out-0", nothing)], TypeError),
        ({1: nothing}, TypeError),
        ({"l_out-0": 1}, TypeError),
        ({"": nothing}, ValueError),
        ({"a\0b": nothing}, ValueError),
        ({"*-0": nothing}, ValueError),
        ({"a" * 64: nothing}, ValueError),
        ({"\udc80": nothing}, ValueError),
    ],
)
def test_names_and_functions_are_checked_at_once(context, functions, error):
    """Before the block is entered."""
    with pytest.raises(error):
        context.hooks(functions)


def test_a_closed_context_takes_no_hooks(model):
    """As everything else of it."""
    context = model.context(**SMALL)
    context.close()
    with pytest.raises(ClosedError), context.observe("embd"):
        pass
