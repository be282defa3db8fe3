"""Saving and restoring: what comes back is what was saved, and nothing else is taken."""

from __future__ import annotations

import numpy as np
import pytest
import random_model
from decoding import PROMPT, SMALL, go_on, prefill

import pyllama
from pyllama.core.state import State
from pyllama.errors import LibraryError, StateError, UnsupportedError
from pyllama.generate import Report, tokens


@pytest.fixture(scope="module")
def mamba(tmp_path_factory):
    """Load a recurrent model."""
    path = random_model.write_mamba(tmp_path_factory.mktemp("state") / "mamba.gguf")
    with pyllama.Model(path) as model:
        yield model


@pytest.fixture(scope="module")
def jamba(tmp_path_factory):
    """Load a model of recurrent and attending layers."""
    path = random_model.write_jamba(tmp_path_factory.mktemp("state") / "jamba.gguf")
    with pyllama.Model(path) as model:
        yield model


@pytest.fixture(params=["tiny", "mamba", "jamba"])
def any_model(request, model, mamba, jamba):
    """Name each kind of memory in turn."""
    return {"tiny": model, "mamba": mamba, "jamba": jamba}[request.param]


@pytest.mark.parametrize("seq", [None, 0], ids=["context", "sequence"])
def test_a_restored_context_goes_on_with_the_same_bits(any_model, seq):
    """Whatever kind of memory it is."""
    with any_model.context(n_seq_max=2, **SMALL) as context:
        prefill(context)
        state = context.state(seq)
        expected = go_on(context)
        context.memory.clear()
        context.restore(state)
        assert context.memory.pos_max(0) == len(PROMPT) - 1
        assert np.array_equal(go_on(context), expected)


def test_a_state_takes_the_place_of_what_is_there(any_model):
    """Also in a context that holds other tokens, in other sequences."""
    with any_model.context(n_seq_max=2, **SMALL) as context:
        prefill(context)
        state = context.state()
        expected = go_on(context)
        context.memory.clear()
        prefill(context, [9, 8, 7, 6], seq=1)
        prefill(context, [5] * 20, seq=0)
        context.restore(state)
        assert context.memory.pos_max(1) is None
        assert np.array_equal(go_on(context), expected)


@pytest.mark.parametrize("unified", [False, True])
def test_a_sequence_can_be_restored_as_another(any_model, unified):
    """The one it came from stays as it is."""
    with any_model.context(n_seq_max=3, kv_unified=unified, **SMALL) as context:
        prefill(context)
        state = context.state(0)
        expected = go_on(context)
        prefill(context, [9, 8, 7, 6], seq=2)
        context.restore(state, seq=2)
        assert context.memory.pos_max(0) == len(PROMPT) + 5
        assert np.allclose(go_on(context, seq=2), expected, atol=1e-5)


def test_several_sequences_come_back_together(any_model):
    """Each as it was."""
    with any_model.context(n_seq_max=3, **SMALL) as context:
        prefill(context)
        prefill(context, [9, 8, 7], seq=2)
        state = context.state()
        assert dict(state.n_past) == {0: 6, 2: 3}
        expected = [go_on(context, 0), go_on(context, 2)]
        context.memory.clear()
        context.restore(state)
        assert np.array_equal([go_on(context, 0), go_on(context, 2)], expected)


def test_an_empty_sequence_is_restored_as_empty(any_model):
    """libllama alone would leave what is there."""
    with any_model.context(n_seq_max=2, **SMALL) as context:
        empty = context.state(0)
        prefill(context)
        context.restore(empty)
        assert context.memory.pos_max(0) is None
        prefill(context)
        context.restore(empty, seq=1)
        assert context.memory.pos_max(0) == len(PROMPT) - 1


def test_an_empty_context_is_restored_as_empty(any_model):
    """All of it."""
    with any_model.context(n_seq_max=2, **SMALL) as context:
        empty = context.state()
        expected = prefill(context)
        context.restore(empty)
        assert context.memory.pos_max(0) is None
        assert np.array_equal(prefill(context), expected)


def test_a_partial_state_goes_back_to_a_checkpoint(jamba):
    """The attending layers keep what they have, the recurrent ones get their state back."""
    with jamba.context(**SMALL) as context:
        prefill(context)
        whole, part = context.state(0), context.state(0, partial=True)
        expected = go_on(context)
        context.restore(part)
        assert context.memory.pos_max(0) == len(PROMPT) - 1
        assert np.allclose(go_on(context), expected, atol=1e-5)
        assert part.n_bytes < whole.n_bytes
        context.memory.remove(0)
        with pytest.raises(StateError, match="holds 0"):
            context.restore(part)


def test_partial_needs_a_memory_with_such_a_part(context, jamba):
    """And a sequence."""
    with pytest.raises(UnsupportedError, match="has neither"):
        context.state(0, partial=True)
    with jamba.context(**SMALL) as hybrid, pytest.raises(ValueError, match="one sequence"):
        hybrid.state(partial=True)


def test_a_state_moves_to_a_larger_context(model):
    """Of the same kind of memory; the number of tokens it has room for may differ."""
    with model.context(**SMALL) as small, model.context(**{**SMALL, "n_ctx": 512}) as large:
        prefill(small)
        state, one = small.state(), small.state(0)
        expected = go_on(small)
        large.restore(state)
        assert np.allclose(go_on(large), expected, atol=1e-5)
        large.restore(one)
        assert np.allclose(go_on(large), expected, atol=1e-5)


def test_a_state_without_room_leaves_the_sequence_empty(model):
    """And says so; the context goes on."""
    with model.context(**{**SMALL, "n_ctx": 512}) as large, model.context(**SMALL) as small:
        prefill(large, [5] * 300)
        expected = prefill(small)
        for state in (large.state(), large.state(0)):
            with pytest.raises(StateError, match=r"is empty now.*not enough cells"):
                small.restore(state)
            assert small.memory.pos_max(0) is None
            assert np.array_equal(prefill(small), expected)


def test_restoring_withdraws_logits_and_trust(context):
    """The logits belong to other tokens, and generate decodes the prompt again."""
    prompt, report = [5, 6, 7, 8], Report()
    list(tokens(context, prompt, max_tokens=4, ignore_eog=True))
    state = context.state(0)
    context.restore(state)
    with pytest.raises(StateError, match="no logits"):
        context.logits()
    list(tokens(context, prompt, max_tokens=4, ignore_eog=True, report=report))
    assert report.n_reused == 0


def test_an_encoder_alone_has_no_state(tmp_path):
    """It has no memory."""
    path = random_model.write_bert(tmp_path / "bert.gguf")
    with pyllama.Model(path) as model, model.context(n_ctx=256, n_threads=1) as context:
        with pytest.raises(UnsupportedError, match="no memory"):
            context.state()
        with pytest.raises(UnsupportedError, match="no memory"):
            context.state(0)


def test_states_of_other_models_are_refused(context, tmp_path):
    """Also of one of the same shape with other weights; nothing happens to the context."""
    prefill(context)
    expected = go_on(context)
    context.memory.remove(0, len(PROMPT))
    others = {
        "twin": {"seed": 1},
        "wide": {"n_ff": 256},
        "other base": {"metadata": {"llama.rope.freq_base": 20000.0}},
    }
    for name, options in others.items():
        path = random_model.write_llama(tmp_path / f"{name}.gguf", **options)
        with pyllama.Model(path) as model, model.context(n_seq_max=4, **SMALL) as other:
            prefill(other)
            for state in (other.state(), other.state(0)):
                with pytest.raises(StateError, match="another model"):
                    context.restore(state)
    assert np.allclose(go_on(context), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"type_k": "f32"}, "type_k"),
        ({"type_v": "f32"}, "type_v"),
        ({"rope_freq_base": 500.0}, "rope_freq_base"),
        ({"rope_freq_scale": 0.5}, "rope_freq_scale"),
        ({"n_seq_max": 2}, "buffers"),
        ({"exact": True}, "type_k"),
    ],
)
def test_states_of_other_memories_are_refused(model, options, name):
    """Keys of another type, or turned otherwise."""
    with model.context(**SMALL) as context, model.context(**SMALL, **options) as other:
        prefill(other)
        expected = prefill(context)
        for state in (other.state(), other.state(0)):
            with pytest.raises(StateError, match=name) as caught:
                context.restore(state)
            assert name in caught.value.expected
        context.memory.remove(0, len(PROMPT) - 1)
        assert np.allclose(prefill(context, PROMPT[-1:], pos=len(PROMPT) - 1), expected, atol=1e-5)


def test_a_context_with_fewer_sequences_is_refused(model):
    """Before anything is lost."""
    options = {**SMALL, "kv_unified": True}
    with (
        model.context(n_seq_max=3, **options) as many,
        model.context(n_seq_max=2, **options) as few,
    ):
        prefill(many, seq=2)
        prefill(few)
        with pytest.raises(StateError, match="sequence 2"):
            few.restore(many.state())
        assert few.memory.pos_max(0) == len(PROMPT) - 1
        few.restore(many.state(2), seq=1)
        assert few.memory.pos_max(1) == len(PROMPT) - 1


def damaged(state, data):
    """Return *state* with other data in it."""
    return State(data, fingerprint=state.fingerprint, n_past=state.n_past, seq=state.seq, tokens=())


@pytest.mark.parametrize("seq", [None, 0], ids=["context", "sequence"])
def test_data_that_libllama_refuses_leave_an_empty_memory(any_model, seq):
    """Cells marked as full without data would be worse."""
    with any_model.context(n_seq_max=2, **SMALL) as context:
        prefill(context, [1, 2, 3])
        expected = go_on(context)
        context.memory.remove(0)
        prefill(context, [1, 2, 3])
        state = context.state(seq)
        for length in range(1, state.n_bytes, max(1, state.n_bytes // 200)):
            with pytest.raises(StateError):
                context.restore(damaged(state, state.data[:length]))
            assert context.memory.pos_max(0) is None
        context.restore(state)
        assert np.allclose(go_on(context), expected, atol=1e-5)


@pytest.mark.parametrize("seq", [None, 0], ids=["context", "sequence"])
def test_damaged_data_do_not_end_the_process(any_model, seq):
    """A State made by hand carries no checksum: it restores or raises, and decoding goes on."""
    with any_model.context(n_seq_max=2, **SMALL) as context:
        prefill(context, [1, 2, 3])
        state = context.state(seq)
        rng = np.random.default_rng(0)
        for at in [*range(40), *rng.integers(0, state.n_bytes, 40).tolist()]:
            data = bytearray(state.data)
            data[at] ^= 0xFF
            try:
                context.restore(damaged(state, data))
            except StateError:
                assert context.memory.pos_max(0) is None or seq is None
            context.memory.clear()
            prefill(context, [4, 5])


def test_a_giant_length_is_refused(context):
    """libllama would take 4 GB for it first."""
    prefill(context)
    state = context.state()
    with pytest.raises(StateError, match="not what libllama wrote"):
        context.restore(damaged(state, b"\xff\xff\xff\xff" + bytes(state.data[4:])))
    assert context.memory.pos_max(0) == len(PROMPT) - 1


def test_an_exception_of_libllama_leaves_an_empty_memory(context, monkeypatch):
    """It is told as a StateError."""
    prefill(context)
    state = context.state(0)

    def fail(*arguments):
        raise LibraryError("out of memory")

    monkeypatch.setattr("pyllama.core.saved.Saved._set", fail)
    with pytest.raises(StateError, match="sequence 0 is empty now"):
        context.restore(state)
    assert context.memory.pos_max(0) is None


@pytest.mark.parametrize("seq", [-1, 4, 256, 2**31, 2**63])
def test_sequences_are_in_range(context, seq):
    """-1 would restore the whole context, 256 end the process."""
    state = context.state(0)
    with pytest.raises(ValueError, match="seq"):
        context.state(seq)
    with pytest.raises(ValueError, match="seq"):
        context.restore(state, seq)


@pytest.mark.parametrize("seq", ["0", 0.0, True, []])
def test_sequences_are_integers(context, seq):
    """Nothing else."""
    state = context.state(0)
    with pytest.raises(TypeError, match="seq"):
        context.state(seq)
    with pytest.raises(TypeError, match="seq"):
        context.restore(state, seq)


def test_a_whole_state_goes_into_no_sequence(context):
    """It has several."""
    with pytest.raises(ValueError, match="leave seq out"):
        context.restore(context.state(), 0)


@pytest.mark.parametrize("state", [None, b"", "state", 3])
def test_only_a_state_is_restored(context, state):
    """Not bytes, whose checksum nobody looked at."""
    with pytest.raises(TypeError, match="State is needed"):
        context.restore(state)


@pytest.mark.parametrize(
    ("tokens", "error"),
    [([512], ValueError), ([-1], ValueError), ([2**31], ValueError), ("abc", TypeError),
     ([0.5], TypeError), ([[1]], ValueError), (None, TypeError)],
)  # fmt: skip
def test_tokens_are_of_the_vocabulary(context, tokens, error):
    """They are kept for the caller, and checked all the same."""
    with pytest.raises(error):
        context.state(tokens=tokens)
    with pytest.raises(TypeError, match="partial"):
        context.state(0, partial=1)


def test_states_survive_their_context(tiny_path):
    """They depend on nothing."""
    with pyllama.Model(tiny_path) as model:
        with model.context(**SMALL) as context:
            prefill(context)
            state = context.state()
            expected = go_on(context)
        with model.context(**SMALL) as context:
            context.restore(state)
            assert np.array_equal(go_on(context), expected)
    assert dict(state.n_past) == {0: 6}
