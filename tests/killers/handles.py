"""H: closed objects, double frees, objects that outlive what they need, views, copies."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
from random_model import write_lora

import pyllama
from killers.table import Table
from killers.world import World, at_once, raised_by
from pyllama import Adapter, Batch, Context, Model, SamplerChain, ThreadPool, generate, samplers
from pyllama.errors import BusyError, ClosedError, StateError

TABLE = Table()
row, case = TABLE.row, TABLE.case


@case("H1", "a closed context", ClosedError)
def _(w: World) -> None:
    context = w.held(n_seq_max=2)
    memory = context.memory
    context.close()
    raised_by(
        lambda: context.decode(Batch([1], pos=3)),
        context.logits,
        context.logits_view,
        context.embeddings,
        context.embedding,
        context.warmup,
        context.synchronize,
        context.perf_reset,
        context.detach_threadpool,
        memory.clear,
        lambda: memory.remove(0),
        lambda: memory.copy(0, 1),
        lambda: memory.keep(0),
        lambda: memory.shift(0, delta=1),
        lambda: memory.pos_max(0),
        lambda: memory.pos_min(0),
        lambda: context.set_n_threads(1),
        lambda: context.set_causal_attn(True),
        lambda: context.set_embeddings(True),
        lambda: context.n_ctx,
        lambda: context.n_threads,
        lambda: context.pooling_type,
        lambda: context.causal_attn,
        lambda: context.perf,
        lambda: list(generate.tokens(context, [1, 2])),
        context.__enter__().logits,
    )


@case("H1", "a closed model", ClosedError)
def _(w: World) -> None:
    model = w.open()
    vocab = model.vocab
    model.close()
    raised_by(
        lambda: model.metadata,
        lambda: model.n_embd,
        lambda: model.description,
        lambda: model.cls_labels,
        lambda: model.rope_type,
        lambda: model.is_recurrent,
        model.chat_template,
        model.context,
        lambda: Context(model),
        lambda: vocab.tokenize("a"),
        lambda: vocab.tokenize_batch(["a", "b"]),
        lambda: vocab.offsets("a"),
        lambda: vocab.detokenize([5]),
        lambda: vocab.piece(5),
        lambda: vocab.piece_table(),
        lambda: vocab.text(5),
        lambda: vocab.score(5),
        lambda: vocab.attr(5),
        lambda: vocab.is_eog(5),
        lambda: vocab.is_control(5),
        lambda: vocab.eog_tokens,
        lambda: vocab.suppress_tokens,
        lambda: samplers.grammar(vocab, 'root ::= "a"'),
        lambda: samplers.infill(vocab),
    )


@case("H1", "a closed sampler, chain or pool", ClosedError)
def _(w: World) -> None:
    sampler, chain, pool = samplers.dist(1), SamplerChain([samplers.dist(1)]), ThreadPool(1)
    inside = chain[0]
    for each in (sampler, chain, pool):
        each.close()
    context = w.context()
    raised_by(
        lambda: sampler.sample(w.row()),
        lambda: sampler.accept(1),
        sampler.reset,
        sampler.clone,
        lambda: sampler.name,
        lambda: chain.sample(w.row()),
        lambda: chain.add(samplers.greedy()),
        lambda: SamplerChain([sampler]),
        lambda: chain.pop(),
        lambda: chain.perf,
        inside.clone,
        pool.pause,
        pool.resume,
        lambda: context.attach_threadpool(pool),
    )


@case("H2", "None where an object is needed", TypeError)
def _(w: World) -> None:
    context = w.context()
    raised_by(
        lambda: Context(None),
        lambda: Model(None),
        lambda: context.decode(None),
        lambda: context.attach_threadpool(None),
        lambda: SamplerChain([None]),
        lambda: samplers.grammar(None, 'root ::= "a"'),
        lambda: w.vocab().tokenize(None),
        lambda: list(generate.tokens(context, None)),
    )


@case("H3", "closing everything twice", None)
def _(w: World) -> None:
    model = w.open()
    context, chain, pool = w.held(kind=model), SamplerChain([samplers.greedy()]), ThreadPool(1)
    for each in (context, chain, pool, model) * 2:
        each.close()


@case("H3", "closing a sampler that a chain owns", StateError)
def _(w: World) -> None:
    chain = SamplerChain([samplers.greedy()])
    chain[0].close()


@case("H3", "adding a sampler to two chains", StateError)
def _(w: World) -> None:
    sampler = samplers.greedy()
    SamplerChain([sampler])
    chain = SamplerChain([sampler])
    SamplerChain([chain[0]])


@case("H3", "a second handle on one object: copy, deepcopy, pickle", TypeError)
def _(w: World) -> None:
    context = w.held()
    chain = SamplerChain([samplers.greedy()])
    for each in (context.model, context, chain, chain[0], ThreadPool(1)):
        for way in (copy.copy, copy.deepcopy, pickle.dumps):
            try:
                way(each)
            except TypeError as error:
                if "cannot be copied or pickled" not in str(error):
                    raise ValueError(str(error)) from error
            else:
                raise AssertionError(way)
    raise_for_these = (context.memory, context.model.vocab)
    raised_by(*(lambda each=each: copy.deepcopy(each) for each in raise_for_these))


@case("H3", "a copy of the memory, a vocabulary or a batch, which own nothing", None)
def _(w: World) -> None:
    context = w.held()
    for each in (context.memory, context.model.vocab, Batch([1])):
        copy.copy(each)
    gc.collect()
    context.decode(copy.copy(Batch([4], pos=3)))


@case("H3", "__init__ a second time", StateError)
def _(w: World) -> None:
    context, pool = w.held(), ThreadPool(1)
    raised_by(
        lambda: context.__init__(w.model("head_64")),
        lambda: context.model.__init__(w.path("slow")),
        lambda: pool.__init__(2),
        lambda: SamplerChain.__init__(SamplerChain(), [samplers.greedy()]),
    )


@case("H4", "decoding after the model was closed", ClosedError)
def _(w: World) -> None:
    model = w.open()
    context = w.held(kind=model)
    model.close()
    context.decode(Batch([1], pos=3))


@case("H4", "decoding after the last name of the model is gone", None)
def _(w: World) -> None:
    context = Model(w.path()).context(n_ctx=256, n_threads=1, n_threads_batch=1)
    gc.collect()
    context.decode(Batch([1, 2, 3]))
    np.testing.assert_equal(np.isfinite(context.logits()), True)


@case("H5", "samplers of a model that is closed", ClosedError)
def _(w: World) -> None:
    model = w.open()
    vocab = model.vocab
    grammar = samplers.grammar(vocab, 'root ::= "a"')
    options = {"dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 2, "dry_penalty_last_n": 9}
    dry, infill = samplers.dry(vocab, **options), samplers.infill(vocab)
    chain = SamplerChain([samplers.grammar(vocab, 'root ::= "a"'), samplers.dist(1)])
    model.close()
    candidates = pyllama.Candidates(w.row())
    raised_by(
        lambda: grammar.accept(5),
        lambda: grammar.apply(candidates),
        grammar.reset,
        grammar.clone,
        lambda: dry.apply(candidates),
        lambda: infill.apply(candidates),
        lambda: chain.sample(w.row()),
        lambda: chain[0].name,
        lambda: SamplerChain([grammar]),
    )


@case("H7", "the memory of a context that is closed", ClosedError)
def _(w: World) -> None:
    context = w.held()
    memory = context.memory
    context.close()
    memory.remove(0)


@case("H7", "a batch that served another context", None)
def _(w: World) -> None:
    batch = Batch([1, 2, 3])
    for kind in ("tiny", "head_64", "mamba"):
        w.context(kind).decode(batch)


@case("H8", "decoding, closing and encoding while a view lives", BufferError)
def _(w: World) -> None:
    context = w.held()
    part = context.logits_view()[0][3:5]
    raised_by(
        lambda: context.decode(Batch([1], pos=3)),
        context.close,
        lambda: list(generate.tokens(context, [1, 2])),
    )
    assert part.size == 2


@case("H8", "a copy after a decode with more outputs, and after close", None)
def _(w: World) -> None:
    context = w.held()
    first = context.logits()
    before = first.copy()
    context.decode(Batch([1] * 100, pos=3, output="all"))
    context.close()
    np.testing.assert_array_equal(first, before)


@case("H8", "a view whose context has no other name", None)
def _(w: World) -> None:
    context = w.held()
    expected, view, alive = context.logits(), context.logits_view(), weakref.ref(context)
    w._made.remove(context)
    del context
    gc.collect()
    np.testing.assert_array_equal(view, expected)
    del view
    gc.collect()
    assert alive() is None


@case("H8", "a sampler written in Python that keeps the row", None)
def _(w: World) -> None:
    kept = []

    class Keeper(SamplerChain):
        def sample(self, logits, *, accept=True):
            kept.append((logits, logits.copy()))
            return super().sample(logits, accept=accept)

    context = w.context()
    keeper = Keeper([samplers.dist(1)])
    list(generate.tokens(context, [1, 2], sampler=keeper, max_tokens=3, ignore_eog=True))
    context.close()
    gc.collect()
    for array, values in kept:
        np.testing.assert_array_equal(array, values)


@case("H10", "closing a pool that is attached", BusyError)
def _(w: World) -> None:
    context, pool = w.context(), ThreadPool(1)
    context.attach_threadpool(pool)
    try:
        pool.close()
    finally:
        context.detach_threadpool()
        pool.close()


@case("H10", "closing a pool when the context or its model is closed", None)
def _(w: World) -> None:
    model, pool = w.open(), ThreadPool(1)
    context = w.context(model)
    context.attach_threadpool(pool)
    context.decode(Batch([1]))
    model.close()
    pool.close()
    context.close()


@case("H10", "more threads than the pool has", ValueError)
def _(w: World) -> None:
    context, pool = w.context(), ThreadPool(1)
    raised_by(
        lambda: context.attach_threadpool(pool) or context.set_n_threads(2),
        lambda: context.set_n_threads(1, 2),
        lambda: w.context(n_threads=2).attach_threadpool(pool),
        lambda: w.context(n_threads_batch=2).attach_threadpool(pool),
    )


def adapter(w: World, model: Model) -> Adapter:
    """Load an adapter for a tiny model."""
    path = w.directory / "lora.gguf"
    if not path.exists():
        write_lora(path, {"blk.0.attn_q.weight": (64, 64)})
    return Adapter(model, path)


@case("H6", "an adapter closed while it is set on a context", None)
def _(w: World) -> None:
    context, lora = w.context(), adapter(w, w.model())
    context.set_adapters({lora: 1.0})
    context.decode(Batch([1]))
    lora.close()
    context.decode(Batch([2], pos=1))


@case("H6", "an adapter after its model", ClosedError)
def _(w: World) -> None:
    model = w.open()
    lora = adapter(w, model)
    model.close()
    lora.close()
    raised_by(lambda: lora.alora_invocation_tokens, lambda: adapter(w, model))


@case("H6", "a model closed while its adapter is set, and all of it as garbage", None)
def _(w: World) -> None:
    for closes in (True, False):
        model = Model(w.path())
        context, lora = model.context(n_ctx=256, n_threads=1, n_threads_batch=1), adapter(w, model)
        context.set_adapters({lora: 0.5})
        context.decode(Batch([1]))
        if closes:
            model.close()
        context.other = lora
        del model, context, lora
        gc.collect()


@case("H10", "a pool and its context in one cycle of garbage", None)
def _(w: World) -> None:
    for _ in range(5):
        context, pool = w.model().context(n_ctx=256, n_threads=1, n_threads_batch=1), ThreadPool(1)
        context.attach_threadpool(pool)
        context.decode(Batch([1]))
        context.other, pool.other = pool, context
    del context, pool
    gc.collect()


@case("H10", "threads and CPUs out of range", ValueError)
def _(w: World) -> None:
    raised_by(
        *(lambda n=n: ThreadPool(n) for n in (0, -1, 513, 2**31, 2**64)),
        lambda: ThreadPool(1, poll=101),
        lambda: ThreadPool(1, cpus=[512]),
        lambda: ThreadPool(1, cpus=[-1]),
    )


@case("H14", "a progress callback that nothing else refers to", None)
def _(w: World) -> None:
    def progress(fraction: float) -> None:
        gc.collect()
        assert 0 <= fraction <= 1

    models = [Model(w.path(), progress=lambda f: progress(f)) for _ in range(3)]
    at_once(*(model.close for model in models))
