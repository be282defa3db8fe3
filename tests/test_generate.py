"""The loop: tokens, text, prefix reuse, overflow, samplers of every kind."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import random_model

import pyllama
from pyllama import Batch, samplers
from pyllama.errors import (
    AbortedError,
    ContextLengthError,
    SamplingError,
    StateError,
    UnsupportedError,
)
from pyllama.generate import Report, generate, prompt_logits, stream, tokens

PROMPT = [5, 6, 7, 8]


def by_hand(context, prompt, n):
    """Generate greedily with nothing but decode and argmax."""
    context.memory.clear()
    ids = list(prompt)
    context.decode(Batch(ids))
    for _ in range(n):
        ids.append(int(context.logits()[-1].argmax()))
        context.decode(Batch(ids[-1:], pos=len(ids) - 1))
    return ids[len(prompt) :]


def test_tokens_are_those_of_the_loop_written_out(context):
    """Greedy decoding has one answer."""
    expected = by_hand(context, PROMPT, 20)
    context.memory.clear()
    assert list(tokens(context, PROMPT, max_tokens=20, ignore_eog=True)) == expected


def test_a_long_prompt_is_decoded_in_pieces(model):
    """Any n_batch gives the same tokens."""
    prompt = np.random.default_rng(0).integers(3, 500, 200)
    found = []
    for n_batch in (7, 64, 512):
        with model.context(n_ctx=512, n_batch=n_batch, n_ubatch=n_batch) as context:
            found.append(list(tokens(context, prompt, max_tokens=8, ignore_eog=True)))
    assert found[0] == found[1] == found[2]


def test_a_shared_prefix_is_not_decoded_again(context):
    """And the text is what a fresh context gives."""
    first, second = PROMPT * 10, [*PROMPT * 8, 9, 10]
    list(tokens(context, first, max_tokens=5, ignore_eog=True))
    report = Report()
    warm = list(tokens(context, second, max_tokens=5, ignore_eog=True, report=report))
    assert (report.n_prompt, report.n_reused) == (34, 32)
    context.memory.clear()
    report = Report()
    cold = list(tokens(context, second, max_tokens=5, ignore_eog=True, report=report))
    assert report.n_reused == 0
    assert warm == cold


def test_a_conversation_reuses_the_answer_too(context):
    """The generated tokens are in the memory as well, but for the last."""
    answer = list(tokens(context, PROMPT, max_tokens=5, ignore_eog=True))
    report = Report()
    list(tokens(context, [*PROMPT, *answer, 9], max_tokens=1, report=report))
    assert report.n_reused == len(PROMPT) + 4


def test_the_same_prompt_again_decodes_its_last_token(context):
    """Logits are needed, so one token at least."""
    one = list(tokens(context, PROMPT, max_tokens=3, ignore_eog=True))
    report = Report()
    two = list(tokens(context, PROMPT, max_tokens=3, ignore_eog=True, report=report))
    assert report.n_reused == len(PROMPT) - 1
    assert one == two


@pytest.mark.parametrize(
    "disturb",
    [
        lambda c: (c.memory.remove(0, 2), c.decode(Batch([99, 98], pos=2))),
        lambda c: c.memory.clear(),
        lambda c: c.memory.remove(0, 1),
        lambda c: (c.memory.clear(), c.decode(Batch([1] * 9))),
        lambda c: (c.decode(Batch([1], seq_id=1)), c.memory.copy(1, 0)),
        lambda c: c.memory.keep(1),
    ],
)
def test_a_memory_changed_by_hand_is_not_trusted(context, disturb):
    """Whatever was done to it, the text is the right one."""
    expected = list(tokens(context, PROMPT, max_tokens=6, ignore_eog=True))
    disturb(context)
    assert list(tokens(context, PROMPT, max_tokens=6, ignore_eog=True)) == expected


def test_two_sequences_of_one_context_do_not_disturb_each_other(context):
    """Runs may be interleaved."""
    alone = [list(tokens(context, [i, *PROMPT], max_tokens=6, ignore_eog=True)) for i in (3, 4)]
    context.memory.clear()
    runs = [tokens(context, [i, *PROMPT], max_tokens=6, ignore_eog=True, seq=i - 3) for i in (3, 4)]
    assert [list(pair) for pair in zip(*zip(*runs, strict=True), strict=True)] == alone
    report = Report()
    list(tokens(context, [3, *PROMPT], max_tokens=1, seq=0, report=report))
    assert report.n_reused == 4


def test_a_run_that_lost_its_sequence_to_another_says_so(context):
    """Going on would continue the other's text."""
    first = tokens(context, PROMPT, ignore_eog=True)
    next(first)
    next(tokens(context, [9, 9], ignore_eog=True))
    with pytest.raises(StateError, match="sequence 0"):
        next(first)


def test_a_recurrent_memory_begins_again(tmp_path):
    """It cannot be cut, so a prompt that differs is decoded whole."""
    path = random_model.write_mamba(tmp_path / "mamba.gguf")
    with pyllama.Model(path) as model, model.context(n_ctx=256) as context:
        first = list(tokens(context, PROMPT, max_tokens=5, ignore_eog=True))
        report = Report()
        again = list(tokens(context, PROMPT, max_tokens=5, ignore_eog=True, report=report))
        assert again == first
        assert report.n_reused == 0
        report = Report()
        list(tokens(context, [*PROMPT, *first, 9], max_tokens=1, report=report))
        assert report.n_reused == len(PROMPT) + 4


def test_what_does_not_fit_is_refused_before_anything_is_decoded(context):
    """The message says what to do."""
    with pytest.raises(ContextLengthError, match="n_ctx"):
        list(tokens(context, [5] * 300))
    with pytest.raises(ContextLengthError, match="max_tokens=254"):
        list(tokens(context, PROMPT, max_tokens=254))
    assert context.memory.pos_max(0) is None
    assert len(list(tokens(context, PROMPT, max_tokens=253, ignore_eog=True))) == 253


def test_without_max_tokens_the_context_is_filled(context):
    """The end of the context is the reason it gives."""
    report = Report()
    made = list(tokens(context, PROMPT, ignore_eog=True, report=report))
    assert len(made) == 256 - 4 + 1
    assert report.finish_reason == "length"


def test_shifting_goes_on_beyond_the_context(context):
    """The first tokens stay, half of the others go."""
    made = list(tokens(context, PROMPT, max_tokens=600, n_keep=4, ignore_eog=True))
    assert len(made) == 600
    report = Report()
    list(tokens(context, PROMPT, max_tokens=1, report=report))
    assert report.n_reused == 0


def test_shifting_is_refused_where_the_memory_cannot(tmp_path):
    """Instead of ending the process at the next decode."""
    path = random_model.write_mamba(tmp_path / "mamba.gguf")
    with (
        pyllama.Model(path) as model,
        model.context(n_ctx=256) as context,
        pytest.raises(UnsupportedError, match="shift"),
    ):
        list(tokens(context, PROMPT, n_keep=2))


def test_the_end_token_stops_and_is_not_yielded(context):
    """A sampler that answers with the end token ends the text."""
    eos = context.model.vocab.eos
    answers = iter([7, 8, eos])
    report = Report()
    made = list(tokens(context, PROMPT, sampler=lambda _: next(answers), report=report))
    assert made == [7, 8]
    assert report.finish_reason == "stop"
    assert report.n_generated == 2


def test_a_native_chain_samples(context):
    """The same seed gives the same tokens; another gives others."""
    runs = []
    for seed in (1, 1, 2):
        chain = pyllama.SamplerChain(
            [samplers.top_k(40), samplers.temp(1.5), samplers.dist(seed=seed)]
        )
        runs.append(list(tokens(context, PROMPT, sampler=chain, max_tokens=30, ignore_eog=True)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_python_sampler_gets_a_row_it_may_keep_and_change(context):
    """The row is a copy."""
    kept = []

    def sampler(row):
        kept.append(row)
        row[10] = np.inf
        return int(row.argmax())

    assert list(tokens(context, PROMPT, sampler=sampler, max_tokens=3)) == [10, 10, 10]
    assert kept[0].shape == (512,)
    assert kept[0].dtype == np.float32


@pytest.mark.parametrize(
    ("answer", "error"), [(512, ValueError), (-1, ValueError), (1.0, TypeError), (None, TypeError)]
)
def test_a_python_sampler_must_answer_with_a_token(context, answer, error):
    """What it returned is named."""
    with pytest.raises(error, match="sampler's token"):
        list(tokens(context, PROMPT, sampler=lambda _: answer))


def test_an_error_in_a_python_sampler_arrives_as_it_was(context):
    """And the context works on."""
    with pytest.raises(ZeroDivisionError):
        list(tokens(context, PROMPT, sampler=lambda _: 1 // 0))
    assert list(tokens(context, PROMPT, max_tokens=1, ignore_eog=True))


def test_logits_processors_see_the_tokens_and_change_the_scores(context):
    """Applied in turn, before the sampler."""
    seen = []

    def force(token):
        def processor(input_ids, scores):
            seen.append(input_ids.tolist())
            scores[:] = -np.inf
            scores[token] = 0
            return scores

        return processor

    made = list(tokens(context, PROMPT, logits_processor=[force(3), force(9)], max_tokens=2))
    assert made == [9, 9]
    assert seen == [PROMPT, PROMPT, [*PROMPT, 9], [*PROMPT, 9]]


def test_scores_of_the_wrong_shape_are_refused(context):
    """A processor must give back a row."""
    with pytest.raises(ValueError, match="logits processor"):
        list(tokens(context, PROMPT, logits_processor=[lambda _, s: s[:3]]))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_rows_without_a_choice_are_an_error(context, value):
    """libllama would answer token 0."""

    def spoil(_, scores):
        scores[:] = value
        return scores

    with pytest.raises(SamplingError):
        list(tokens(context, PROMPT, logits_processor=[spoil]))


def test_an_empty_prompt_is_refused(context):
    """There is nothing to predict from."""
    with pytest.raises(ValueError, match="no tokens"):
        list(tokens(context, []))


def test_pieces_concatenate_to_the_text(context):
    """stream and generate say the same, and agree with the tokens."""
    pieces = list(stream(context, "hello", max_tokens=20, ignore_eog=True))
    whole = generate(context, "hello", max_tokens=20, ignore_eog=True)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.token for piece in pieces[:-1]] == list(whole.tokens)
    assert pieces[-1].finish_reason == whole.finish_reason == "length"
    assert whole.timings.n_generated == 20
    assert whole.timings.generation_per_second > 0


def test_a_stop_string_ends_the_text_and_is_not_in_it(context):
    """Wherever in the tokens it lies."""
    whole = generate(context, "hello", max_tokens=20, ignore_eog=True).text
    stop = whole[5:8]
    first = whole.index(stop)
    cut = generate(context, "hello", max_tokens=20, ignore_eog=True, stop=[stop])
    assert cut.text == whole[:first]
    assert cut.finish_reason == "stop"


def test_leaving_a_stream_leaves_the_context_usable(context):
    """Closing the generator is enough."""
    running = stream(context, "hello", max_tokens=50, ignore_eog=True)
    next(running)
    running.close()
    assert generate(context, "hello", max_tokens=3, ignore_eog=True).tokens


def test_an_aborted_prompt_is_taken_back_and_can_be_run_again(tmp_path):
    """Another thread ends the prompt, and the report says so; the next run is right."""
    path = random_model.write_llama(tmp_path / "slow.gguf", n_embd=256, n_layer=8, n_ff=1024)
    prompt = np.random.default_rng(0).integers(3, 500, 3000)
    with pyllama.Model(path) as model, model.context(n_ctx=4096) as context:
        report, begun = pyllama.generate.Report(), threading.Event()

        def abort() -> None:
            begun.wait()
            context.abort()

        aborting = threading.Thread(target=abort)
        aborting.start()
        with (
            context.hooks({"l_out-0": lambda _array, _node: begun.set()}),
            pytest.raises(AbortedError),
        ):
            list(tokens(context, prompt, max_tokens=3, report=report))
        aborting.join()
        assert (report.finish_reason, report.n_generated) == ("cancelled", 0)
        context.memory.clear()
        short = list(tokens(context, PROMPT, max_tokens=3, ignore_eog=True))
        assert short == by_hand(context, PROMPT, 3)


def test_prompt_logits_come_a_batch_at_a_time(model):
    """Every position has a row, and no more than a batch of rows is ever there."""
    prompt = np.random.default_rng(0).integers(3, 500, 200)
    with model.context(n_ctx=256, n_batch=64, exact=True) as context:
        starts, rows = [], []
        for start, part in prompt_logits(context, prompt):
            assert len(part) <= 64
            starts.append(start)
            rows.append(part.copy())
            del part
        context.memory.clear()
    with model.context(n_ctx=256, exact=True) as context:
        context.decode(Batch(prompt, output="all"))
        assert starts == [0, 64, 128, 192]
        assert np.abs(np.concatenate(rows) - context.logits()).max() < 1e-4


def test_the_report_says_how_a_run_ended(context):
    """When the caller left, and when something failed."""
    left, failed = Report(), Report()
    running = tokens(context, [1, 2], ignore_eog=True, report=left)
    next(running)
    running.close()
    answers = iter([5])
    with pytest.raises(RuntimeError):  # what Python makes of a StopIteration in a generator
        list(tokens(context, [1, 2], sampler=lambda row: next(answers), report=failed))
    assert (left.finish_reason, failed.finish_reason) == ("cancelled", "error")
