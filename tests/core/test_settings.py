"""Switches of a context that lives: threads and their pools, the causal mask, measurements."""

from __future__ import annotations

import numpy as np
import pytest

import pyllama
from pyllama import Batch
from pyllama.errors import (
    BusyError,
    InvalidBatchError,
)


def test_threads_can_be_set_and_pools_shared(context):
    """A pool stays open while attached, and must be as large as the context wants."""
    pool = pyllama.ThreadPool(2)
    context.set_n_threads(2, 1)
    assert (context.n_threads, context.n_threads_batch) == (2, 1)
    context.attach_threadpool(pool)
    context.decode(Batch([1, 2, 3]))
    with pytest.raises(BusyError, match="detach"):
        pool.close()
    with pytest.raises(ValueError, match="3 threads"):
        context.set_n_threads(3)
    context.detach_threadpool()
    pool.close()
    context.decode(Batch([1], pos=3))
    assert context.memory.pos_max(0) == 3


def test_attaching_a_pool_that_is_too_small_is_refused(context):
    """With OpenMP ggml would read past the pool."""
    context.set_n_threads(2)
    with pyllama.ThreadPool(1) as pool, pytest.raises(ValueError, match="2 threads"):
        context.attach_threadpool(pool)


def test_threads_do_not_change_the_numbers(model):
    """One thread, two threads and a pool give the same bits."""
    rows = []
    with pyllama.ThreadPool(2, poll=0) as pool:
        for n_threads, use in ((1, None), (2, None), (2, pool)):
            with model.context(n_ctx=256, n_threads=n_threads, n_threads_batch=n_threads) as ctx:
                if use is not None:
                    ctx.attach_threadpool(use)
                ctx.decode(Batch([1, 2, 3, 4]))
                rows.append(ctx.logits())
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


def test_perf_counts_when_asked(model):
    """Counters are off by default in libllama."""
    with model.context(n_ctx=256, no_perf=False) as context:
        context.decode(Batch([1, 2, 3]))
        context.synchronize()
        context.decode(Batch([4], pos=3))
        context.synchronize()
        perf = context.perf
        assert (perf.n_p_eval, perf.n_eval) == (3, 1)
        assert perf.t_p_eval_ms > 0
        assert perf.t_eval_ms > 0
        context.perf_reset()
        assert context.perf.n_eval <= 1


def test_batches_use_as_many_threads_as_single_tokens(model):
    """Unless the caller says otherwise."""
    with model.context(n_ctx=256, n_threads=1) as context:
        assert (context.n_threads, context.n_threads_batch) == (1, 1)
    with model.context(n_ctx=256, n_threads=1, n_threads_batch=2) as context:
        assert (context.n_threads, context.n_threads_batch) == (1, 2)


def test_without_causal_attention_a_batch_is_a_micro_batch(model):
    """More would end the process; and later tokens change earlier rows."""
    with model.context(n_ctx=512, n_ubatch=64) as context:
        context.set_causal_attn(False)
        assert not context.causal_attn
        with pytest.raises(InvalidBatchError, match="at most 64"):
            context.decode(Batch([1] * 65))
        context.decode(Batch([1, 2, 3], output="all"))
        free = context.logits()[0]
        context.set_causal_attn(True)
        context.memory.clear()
        context.decode(Batch([1, 2, 3], output="all"))
        assert not np.allclose(free, context.logits()[0])


def test_a_pool_lives_until_the_context_has_let_it_go(model):
    """A closed pool is freed once the context computes without it, not before."""
    freed = []
    pool = pyllama.ThreadPool(2)
    [threads] = pool._threads
    free, threads._free = threads._free, lambda pointer: (freed.append(pointer), free(pointer))
    del threads
    with model.context(n_ctx=256, n_threads=2) as context:
        context.attach_threadpool(pool)
        context.decode(Batch([1]))
        context.detach_threadpool()
        pool.close()
        assert freed == []  # the next decode lets it pause
        context.decode(Batch([1], pos=1))
        assert len(freed) == 1
