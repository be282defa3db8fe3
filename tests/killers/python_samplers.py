"""Samplers that are written in Python, and samplers that run inside the graph of a context."""

from __future__ import annotations

import math
import threading

import numpy as np

import pyllama
from killers.table import Table
from killers.world import World, at_once, raised_by
from pyllama import Batch, LiveCandidates, SamplerChain
from pyllama import samplers as s
from pyllama.errors import (
    BusyError,
    ClosedError,
    InvalidBatchError,
    SamplingError,
    StateError,
    UnsupportedError,
)

TABLE = Table()
row, case = TABLE.row, TABLE.case


def greedy() -> SamplerChain:
    """Return a chain that libllama can run."""
    return SamplerChain([s.greedy()])


@case("S13", "a Python sampler raises, before each kind of sampler", KeyError)
def _(w: World) -> None:
    def fail(candidates: LiveCandidates) -> None:
        candidates["logit"] = math.nan
        candidates["id"] = -7
        raise KeyError

    vocab = w.vocab()
    after = (
        s.greedy(), s.dist(1), s.infill(vocab), s.grammar(vocab, 'root ::= "a"'),
        s.mirostat(512, tau=5, eta=0.1), s.mirostat_v2(tau=5, eta=0.1), s.typical(0.5),
        s.adaptive_p(0.5, decay=0.9), s.penalties(512, penalty_last_n=4, penalty_repeat=2),
        s.xtc(1, 0.01), s.top_p(0.5), s.top_n_sigma(1), s.temp_ext(1, delta=0.5, exponent=1),
    )  # fmt: skip
    raised_by(*(
        lambda each=each: SamplerChain([s.python(fail), each, s.dist(1)]).sample(w.row())
        for each in after
    ))  # fmt: skip


@case("S13", "a Python sampler that leaves what C cannot take", SamplingError)
def _(w: World) -> None:
    def put(field: str, value: float) -> object:
        return lambda c: c[field].__setitem__(slice(None), value)

    harms = (
        put("logit", math.nan), put("logit", math.inf), put("logit", -math.inf),
        put("id", -1), put("id", 512), put("id", 2**31 - 1), put("p", math.nan),
        lambda c: setattr(c, "size", 0), lambda c: setattr(c, "selected", 512),
        lambda c: setattr(c, "selected", -1), lambda c: setattr(c, "sorted", True),
    )  # fmt: skip
    select = s.python(lambda c: setattr(c, "selected", 0))
    raised_by(*(
        lambda harm=harm: SamplerChain(
            [s.python(harm), s.infill(w.vocab()), s.top_p(0.9), s.dist(1)]
            if harm is not harms[6] else [s.python(harm), select]
        ).sample(w.row())
        for harm in harms
    ))  # fmt: skip


@case("S13", "a Python sampler that uses its own chain, and closes it", BusyError)
def _(w: World) -> None:
    def nested(use: object) -> None:
        chain = SamplerChain([s.python(lambda c: use(chain)), s.dist(1)])
        chain.sample(w.row())

    raised_by(
        lambda: nested(lambda chain: chain.sample(w.row())),
        lambda: nested(SamplerChain.close),
        lambda: nested(SamplerChain.pop),
        lambda: nested(SamplerChain.clone),
        lambda: nested(lambda chain: chain[0].apply(pyllama.Candidates(w.row()))),
    )


@case("S13", "candidates kept after the call, also after the chain is gone", StateError)
def _(w: World) -> None:
    kept: list[LiveCandidates] = []
    arrays = []
    chain = SamplerChain([s.python(lambda c: kept.append(c) or arrays.append(c.data)), s.dist(1)])
    chain.sample(w.row())
    chain.close()
    del chain
    arrays[0]["logit"][:] = 1.0
    raised_by(lambda: kept[0].data, lambda: kept[0].size, lambda: kept[0]["p"])


@case("S13", "one Python sampler in two chains", StateError)
def _(w: World) -> None:
    sampler = s.python(lambda c: None)
    chain = SamplerChain([sampler, s.greedy()])
    raised_by(lambda: SamplerChain([sampler]), sampler.close, lambda: sampler.accept(1))
    chain.sample(w.row())


@case("S12", "copies of Python samplers, again and again", None)
def _(w: World) -> None:
    class Counter:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def accept(self, token: int) -> None:
            self.tokens.append(token)

    chain = SamplerChain([s.python(Counter()), s.top_k(5), s.dist(1)])
    twin = chain.clone()
    for _ in range(50):
        twin.sample(w.row())
        chain.copy_from(twin)
        twin = chain.clone()
    assert chain.clone().sample(w.row()) == twin.sample(w.row())


@case("S12", "a Python sampler that cannot be copied", UnsupportedError)
def _(w: World) -> None:
    class Locked:
        lock = None

        def accept(self, token: int) -> None:
            self.lock = self.lock or threading.Lock()

    chain = SamplerChain([s.python(Locked()), s.dist(1)])
    chain.sample(w.row())
    raised_by(
        chain.clone,
        lambda: SamplerChain([s.python(Locked()), s.dist(1)]).copy_from(chain),
        lambda: w.context().attach_sampler(chain),
    )


row(
    "C9",
    "attaching what is no chain",
    TypeError,
    lambda w: raised_by(
        lambda: w.context().attach_sampler(s.greedy()),
        lambda: w.context().attach_sampler(None),
        lambda: w.context().attach_sampler(len),
    ),
)


@case("C9", "more outputs than the context has room for in the graph", InvalidBatchError)
def _(w: World) -> None:
    context = w.context(n_outputs_max_per_seq=2)
    context.attach_sampler(greedy())
    context.decode(Batch([1, 2], output="all"))
    context.decode(Batch([1, 2, 3], pos=2, output="all"))


@case("C14", "a sequence out of range", ValueError)
def _(w: World) -> None:
    context = w.context(n_seq_max=2)
    raised_by(
        *(
            lambda seq=seq: context.attach_sampler(greedy(), seq=seq)
            for seq in (-7, -1, 2, 2**31 - 1, 2**31, 2**63)
        ),
        lambda: context.detach_sampler(-1),
        lambda: context.accept(1, seq=2),
    )


@case("C14", "a sequence that has a chain", StateError)
def _(w: World) -> None:
    context = w.context()
    chain = greedy()
    context.attach_sampler(chain)
    raised_by(lambda: context.attach_sampler(chain), lambda: context.attach_sampler(greedy()))


@case("C14", "samplers that die inside the graph, or choose other tokens", UnsupportedError)
def _(w: World) -> None:
    context = w.context()
    chains = (
        [s.top_k(513)], [s.top_k(5), s.top_k(6)], [s.temp(0), s.top_k(2)],
        [s.top_k(5), s.logit_bias(512, {511: 1.0})], [s.top_k(5), s.greedy()],
        [SamplerChain([s.top_k(5), s.typical(0.5)]), s.dist(1)], [s.min_p(1)],
        [s.top_k(1), s.temp_ext(1, delta=0.5, exponent=1)],
    )  # fmt: skip
    raised_by(*(lambda each=each: context.attach_sampler(SamplerChain(each)) for each in chains))


@case("C14", "chains that come and go between decode and reading", None)
def _(w: World) -> None:
    context = w.context(n_seq_max=4, n_ctx=1024)
    batch = Batch(range(1, 9), seq_id=[3, 0, 2, 1, 0, 3, 1, 2], pos=[0] * 4 + [1] * 4, output="all")
    with_room = w.context(n_seq_max=4, n_ctx=1024, n_outputs_max_per_seq=2)
    for each in (context, with_room):
        each.decode(batch)
        for seq in range(4):
            each.attach_sampler(greedy(), seq=seq)
        assert np.isfinite(each.logits()).all()
        each.memory.clear()
    with_room.decode(batch)
    for seq in range(4):
        with_room.detach_sampler(seq)
    with_room.memory.clear()
    with_room.decode(batch)
    assert np.isfinite(with_room.logits()).all()


row(
    "C14",
    "attaching where no text is made",
    UnsupportedError,
    lambda w: raised_by(
        lambda: w.context("bert").attach_sampler(greedy()),
        lambda: w.context("diffusion").attach_sampler(greedy()),
    ),
)


@case("C14", "every kind of model that generates", None)
def _(w: World) -> None:
    for kind in ("tiny", "no_vocab", "mamba", "jamba", "m_rope", "t5"):
        context = w.context(kind)
        context.attach_sampler(SamplerChain([s.top_k(5), s.dist(1)]))
        if context.model.has_encoder:
            context.encode(Batch([1, 2]))
        context.decode(Batch([1, 2]))
        assert 0 <= context.sample() < context.n_vocab
        context.detach_sampler()


@case("H9", "a chain is closed while it is attached, twice, and in two contexts", None)
def _(w: World) -> None:
    chain = SamplerChain([s.top_k(5), s.python(lambda c: None), s.dist(1)])
    contexts = [w.context(n_seq_max=2), w.context()]
    contexts[0].attach_sampler(chain, seq=0)
    contexts[0].attach_sampler(chain, seq=1)
    contexts[1].attach_sampler(chain)
    chain.close()
    del chain
    for context in contexts:
        context.decode(Batch([1, 2]))
        assert context.sample() >= 0
    contexts[0].detach_sampler(0)
    contexts[0].detach_sampler(1)
    contexts[1].detach_sampler(0)


@case("H9", "an attached chain whose model or context is closed", ClosedError)
def _(w: World) -> None:
    models = [w.open(), w.open()]
    contexts = [w.context(model) for model in models]
    for context in contexts:
        context.attach_sampler(
            SamplerChain([s.grammar(context.model.vocab, 'root ::= "a"*'), s.greedy()])
        )
        context.decode(Batch([1, 2]))
    models[0].close()
    contexts[1].close()
    raised_by(
        *(each.sample for each in contexts),
        *(each.detach_sampler for each in contexts),
        lambda: contexts[0].attach_sampler(greedy()),
        lambda: w.context().attach_sampler(closed()),
    )


def closed() -> SamplerChain:
    """Return a chain that is closed."""
    chain = greedy()
    chain.close()
    return chain


@case("H9", "one context sampled from two threads", None)
def _(w: World) -> None:
    context = w.context("slow")
    context.attach_sampler(greedy())

    def work() -> None:
        for _ in range(200):
            context.decode(Batch([1]))
            context.sample()
            context.memory.clear()

    at_once(work, work, expected=(BusyError, StateError, IndexError, InvalidBatchError))


@case("O3", "logits of rows that were sampled in the graph", StateError)
def _(w: World) -> None:
    context = w.context()
    context.attach_sampler(greedy())
    context.decode(Batch([1, 2]))
    raised_by(
        context.logits,
        context.logits_view,
        lambda: context.logits_view(0),
        lambda: next(pyllama.generate.tokens(context, [1, 2])),
    )


@case("O3", "sampled rows that are not there", IndexError)
def _(w: World) -> None:
    context = w.context()
    context.attach_sampler(greedy())
    context.decode(Batch([1, 2]))
    raised_by(*(
        lambda read=read, at=at: read(at)
        for read in (context.sample, context.sampled_token, context.sampled_candidates)
        for at in (1, -2, 2**31, -(2**63))
    ))  # fmt: skip


@case("O3", "sampled rows where nothing was sampled", StateError)
def _(w: World) -> None:
    context, other = w.context(), w.held()
    context.attach_sampler(greedy())
    other.attach_sampler(greedy())
    raised_by(
        context.sample,
        context.sampled_token,
        context.sampled_candidates,
        other.sample,
        other.sampled_token,
        lambda: w.held().sampled_candidates(),
    )
