"""Training: the loss falls, the weights are the model's own, an epoch can be watched and ended."""

from __future__ import annotations

import math
import pickle
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
from learning import N_CTX, PHRASE, TEXT, logits, train

import pyllama
from pyllama import Batch, Dataset
from pyllama.errors import BusyError, ClosedError, StateError


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 0.001), ("sgd", 0.1)])
def test_the_loss_falls_clearly(own, text, optimizer, rate):
    """Four epochs over a repeating text: from worse than guessing to nearly by heart."""
    with train(own, optimizer=optimizer, learning_rate=rate) as training:
        results = [training.epoch(text)[0] for _ in range(4)]
        untrained, first, last = math.log(512), results[0].loss, results[-1].loss
    assert first > 3
    assert last < 0.6
    assert last < untrained / 8
    assert results[-1].accuracy > 0.85
    assert results[0].n_tokens == 4 * N_CTX


def test_a_new_context_computes_with_the_new_weights(own, text):
    """The most probable token after the phrase becomes the one that follows in the text."""
    before = logits(own)
    with train(own) as training:
        for _ in range(4):
            training.epoch(text)
        during = logits(own)
    after = logits(own)
    assert np.abs(after - before).max() > 1
    assert np.array_equal(during, after)
    assert (after[-1].argmax(), before[-1].argmax()) == (PHRASE[0], before[-1].argmax())
    assert before[-1].argmax() != PHRASE[0]


def test_an_older_context_computes_with_the_new_weights(own, text):
    """Contexts share the model's tensors; only what their memories hold is of the old weights."""
    with own.context(exact=True, n_ctx=256, n_threads=1, n_threads_batch=1) as context:
        context.decode(Batch(PHRASE))
        before = context.logits()
        with train(own) as training:
            training.epoch(text)
        context.memory.clear()
        context.decode(Batch(PHRASE))
        assert not np.array_equal(context.logits(), before)
        assert np.array_equal(context.logits(), logits(own))


def test_a_saved_model_gives_equal_logits(own, text, tmp_path):
    """What was learnt is in the file."""
    with train(own) as training:
        training.epoch(text)
    path = tmp_path / "trained.gguf"
    own.save(path)
    with pyllama.Model(path) as again:
        assert np.array_equal(logits(again), logits(own))


def test_evaluating_learns_nothing(own, text):
    """With split=0 the loss is that of the logits, and no weight changes."""
    before = logits(own)
    with train(own) as training:
        trained, evaluated = training.epoch(text, split=0)
        assert training.n_steps == 0
    assert np.array_equal(logits(own), before)
    assert (trained.n_tokens, evaluated.n_tokens) == (0, 4 * N_CTX)
    assert math.isnan(trained.loss)
    assert math.isnan(trained.accuracy)
    with own.context(exact=True, n_ctx=256, n_threads=1, n_threads_batch=1) as context:
        losses, right = [], []
        for tokens, labels in text:
            context.memory.clear()
            context.decode(Batch(tokens, output="all"))
            rows = context.logits().astype(np.float64)
            top = rows.max(1, keepdims=True)
            logprobs = rows - top - np.log(np.exp(rows - top).sum(1, keepdims=True))
            losses.append(-logprobs[np.arange(N_CTX), labels].mean())
            right.append(rows.argmax(1))
    assert evaluated.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert evaluated.loss_uncertainty == pytest.approx(np.std(losses) / math.sqrt(3), rel=1e-2)
    assert (evaluated.predictions == np.concatenate(right)).mean() > 0.99
    spread = evaluated.accuracy * (1 - evaluated.accuracy)
    error = math.sqrt(spread / (evaluated.n_tokens - 1))
    assert evaluated.accuracy_uncertainty == pytest.approx(error)


def test_split_parts_the_windows(own, text):
    """The first windows are learnt from, the others evaluated."""
    with train(own) as training:
        trained, evaluated = training.epoch(text, split=3)
        assert training.n_steps == 3
    assert (trained.n_tokens, evaluated.n_tokens) == (3 * N_CTX, N_CTX)
    assert math.isnan(evaluated.loss_uncertainty)  # of one window nothing can be told


def test_only_the_chosen_tensors_learn(own, text, tmp_path):
    """The filter sees names; a later training is not bound by an earlier one."""
    with train(own) as training:
        assert "token_embd.weight" not in training.names
        assert "output.weight" in training.names
    with train(own, param_filter=lambda name: "ffn_up" in name) as training:
        assert training.names == ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
        training.epoch(text)
    path = tmp_path / "trained.gguf"
    own.save(path)
    assert changed(own.path, path) == set(training.names)


def changed(*paths: Path | str) -> set[str]:
    """Return the names of the tensors that differ between two files."""
    before, after = ({t.name: t.data for t in gguf.GGUFReader(path).tensors} for path in paths)
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_keys_and_values_learn_nothing_in_smaller_batches(own, tmp_path):
    """Gradients do not pass through the memory; the rest learns."""
    text = Dataset(TEXT, 512)
    with train(own, n_ctx=512, n_ubatch=256) as training:
        first = training.epoch(text)[0].loss
        assert training.epoch(text)[0].loss < first - 1
    path = tmp_path / "trained.gguf"
    own.save(path)
    still = set(training.names) - changed(own.path, path)
    assert {name.split(".")[2] for name in still} == {"attn_k", "attn_v"}


def test_the_learning_rate_may_be_a_function_of_the_step(own, text):
    """It is asked once before each step, and a tiny rate changes next to nothing."""
    before = logits(own)
    asked = []
    with train(own, learning_rate=lambda step: asked.append(step) or 1e-12) as training:
        training.epoch(text, split=3)
    assert asked == [0, 0, 1, 2]  # once to see that it answers, then for each step
    assert np.allclose(logits(own), before, atol=1e-4)


def test_weight_decay_pulls_weights_to_zero(tiny_path, text):
    """The same steps with decay give other weights."""
    outcomes = []
    for options in ({}, {"weight_decay": 0.5}, {"beta1": 0.5}, {"eps": 1e-2}):
        with pyllama.Model(tiny_path, load_mode="none") as model:
            with train(model, **options) as training:
                training.epoch(text)
            outcomes.append(logits(model).tobytes())
    assert len(set(outcomes)) == 4


def test_the_callback_sees_each_window(own, text):
    """Where the epoch stands, and the loss so far."""
    steps = []
    with train(own) as training:
        trained, _ = training.epoch(text, split=3, on_step=steps.append)
    assert [(step.trained, step.n_done, step.n_windows) for step in steps] == [
        (True, 1, 4),
        (True, 2, 4),
        (True, 3, 4),
        (False, 4, 4),
    ]
    assert steps[2].loss == trained.loss


def test_the_callback_may_use_the_model(own, text):
    """Between two windows other contexts compute, with what was learnt so far."""
    rows = []
    with train(own) as training:
        training.epoch(text, on_step=lambda _: rows.append(logits(own).tobytes()))
    assert len(set(rows)) == 4


def test_the_callback_may_end_the_epoch(own, text):
    """False stops after the window; the result is of what was done."""
    with train(own) as training:
        trained, _ = training.epoch(text, on_step=lambda step: step.n_done < 2)
        assert training.n_steps == 2
        assert trained.n_tokens == 2 * N_CTX
        assert training.epoch(text)[0].n_tokens == 4 * N_CTX


def test_what_the_callback_raises_is_raised(own, text):
    """The steps before it stay, and the training goes on if one likes."""
    with train(own) as training:
        with pytest.raises(KeyboardInterrupt):
            training.epoch(text, on_step=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert training.n_steps == 1
        assert training.epoch(text)[0].loss < 9


def test_closing_in_the_callback_ends_the_epoch(own, text):
    """The next window finds the training closed."""
    training = train(own)
    with pytest.raises(ClosedError, match="this Training is closed"):
        training.epoch(text, on_step=lambda _: training.close())
    assert training.closed
    training.close()


def test_a_closed_model_has_closed_its_training(tiny_path, text):
    """The model closes first, and says so."""
    model = pyllama.Model(tiny_path, load_mode="none")
    training = train(model)
    model.close()
    with pytest.raises(ClosedError):
        training.epoch(text)
    assert training.closed
    assert "closed" in repr(training)


def test_a_loss_that_is_no_number_is_an_error(own, text):
    """An absurd rate spoils the weights, and that is said at once."""
    training = train(own, optimizer="sgd", learning_rate=1e30)
    with training, pytest.raises(FloatingPointError, match="lower learning_rate"):
        training.epoch(text)


def test_another_context_may_not_compute_meanwhile(own, text):
    """A context in a call makes the epoch raise BusyError; nothing is learnt."""
    with own.context(n_ctx=256, n_threads=1) as context, train(own) as training:
        with context._call, pytest.raises(BusyError, match="this Context is in use"):
            training.epoch(text)
        assert training.n_steps == 0
        training.epoch(text)


def test_a_window_keeps_the_other_contexts_out(own, text):
    """While a window is computed, decoding in another thread raises BusyError or waits its turn."""
    seen: set[str] = set()
    done = threading.Event()
    with own.context(n_ctx=256, n_threads=1) as context, train(own) as training:

        def decode() -> None:
            while not done.is_set():
                try:
                    context.memory.clear()
                    context.decode(Batch([1, 2]))
                except BusyError as error:
                    seen.add(str(error))

        thread = threading.Thread(target=decode)
        thread.start()
        try:
            for _ in range(50):
                try:
                    training.epoch(text)
                except BusyError as error:
                    seen.add(str(error))
                if seen:
                    break
        finally:
            done.set()
            thread.join()
    assert seen == {"this Context is in use by another thread or by an outer call"}


def test_one_training_at_a_time(own, text):
    """Both would mark the same tensors; after close another may begin."""
    with train(own) as training:
        with pytest.raises(StateError, match="in training already"):
            train(own)
        training.epoch(text)
    with train(own) as training:
        training.epoch(text)


def test_a_context_with_yarn_ends_the_training(own, text):
    """It writes another window into the model, which libllama would read past ours."""
    with train(own) as training:
        options = {"n_ctx": 1024, "rope_scaling_type": "yarn", "yarn_orig_ctx": 512}
        with own.context(**options, rope_freq_scale=0.5), pytest.raises(StateError, match="YaRN"):
            training.epoch(text)
    with train(own) as training:
        training.epoch(text)


def test_a_state_saved_before_does_not_fit_after(own, text):
    """Keys and values of other weights would be taken for those of these."""
    options = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}
    with own.context(**options) as context:
        context.decode(Batch([1, 2, 3]))
        state = context.state()
    with train(own) as training:
        training.epoch(text)
    with own.context(**options) as context, pytest.raises(StateError, match="weights"):
        context.restore(state)


@pytest.mark.parametrize(
    ("error", "match", "dataset", "options"),
    [
        (TypeError, "a Dataset is needed", TEXT, {}),
        (TypeError, "a Dataset is needed", None, {}),
        (ValueError, "n_ctx=128, but", Dataset(TEXT, 128), {}),
        (ValueError, "from 512 to 512", Dataset(np.full(300, 512), N_CTX), {}),
        (ValueError, "from -1 to -1", Dataset(np.full(300, -1), N_CTX), {}),
        (ValueError, "split=-1", Dataset(TEXT, N_CTX), {"split": -1}),
        (ValueError, "split=6", Dataset(TEXT, N_CTX), {"split": 6}),
        (TypeError, "split", Dataset(TEXT, N_CTX), {"split": 0.5}),
        (TypeError, "not callable", Dataset(TEXT, N_CTX), {"on_step": 1}),
    ],
)
def test_an_epoch_that_cannot_be_is_refused(own, error, match, dataset, options):
    """And the training is as good as before."""
    with train(own) as training:
        with pytest.raises(error, match=match):
            training.epoch(dataset, **options)
        assert training.epoch(Dataset(TEXT, N_CTX))[0].n_tokens == 5 * N_CTX


def test_a_training_cannot_be_pickled(own):
    """It has a context."""
    with train(own) as training, pytest.raises(TypeError):
        pickle.dumps(training)
