"""llguidance as a constraint: what it lets through, beside our own grammars."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import weakref
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from text.documents import write
from text.schemas import PERSON, SCHEMAS

import pyllama
from pyllama import Constrained, Guidance, samplers
from pyllama.errors import ClosedError, GrammarError

pytest.importorskip("llguidance", reason="needs llguidance: pip install 'pyllama-cffi[guidance]'")

LLAMA = Path(__file__).parents[2] / "vendor" / "llama.cpp"

# Their documents have no longest form here: random tokens do not come to an end.
ENDLESS = {"email", "nested"}


@dataclasses.dataclass
class Person:
    """Somebody."""

    name: str
    age: int


@pytest.fixture(scope="module")
def vocab() -> Iterator[pyllama.Vocab]:
    """Open the vocabulary of the demo model."""
    with pyllama.Model(pyllama.demo_model(), vocab_only=True) as model:
        yield model.vocab


def allows(constraint: pyllama.Sampler | Guidance, vocab: pyllama.Vocab, text: str) -> bool:
    """Return whether a text may be written, and may end there."""
    tokens = vocab.tokenize(text, add_special=False).tolist()
    try:
        for token in [*tokens, vocab.eos]:
            constraint.accept(token)
    except GrammarError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(SCHEMAS.keys() - ENDLESS))
def test_documents_follow_the_schema(vocab, name):
    """What it lets through validates, formats included."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    start = Guidance(vocab, SCHEMAS[name])
    for seed in range(3):
        document = json.loads(write(vocab, start.clone(), seed))
        jsonschema.validate(document, SCHEMAS[name], format_checker=checker)


TEXTS = {
    '{"name": "Ada", "age": 36}': True,
    '{"name":"Ada","age":36}': True,
    '{"name": "A\\nd\\"", "age": 0}': True,
    '{"name": "Ada", "age": -1}': False,
    '{"name": "Ada", "age": 3.5}': False,
    '{"name": "Ada"}': False,
    '{"age": 36, "name": "Ada"}': False,
    '{"name": "Ada", "age": 36, "x": 1}': False,
    '{"name": "Ada", "age": 036}': False,
    '{"name": "A\nda", "age": 36}': False,
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_language_is_that_of_our_grammar(vocab, text):
    """The same documents, and the same no documents."""
    assert allows(Guidance(vocab, PERSON), vocab, text) is TEXTS[text]
    assert allows(samplers.grammar(vocab, pyllama.grammar_of(PERSON)), vocab, text) is TEXTS[text]


def test_what_it_writes_our_grammar_allows(vocab):
    """White space is bounded, so a model comes out of it."""
    grammar = samplers.grammar(vocab, pyllama.grammar_of(PERSON))
    for seed in range(5):
        assert allows(grammar.clone(), vocab, write(vocab, Guidance(vocab, PERSON), seed))


def test_types_patterns_choices_and_lark_are_followed(vocab):
    """Everything that grammar_of takes, and llguidance's own language."""
    assert set(json.loads(write(vocab, Guidance(vocab, Person), 1))) == {"name", "age"}
    assert re.fullmatch(
        "[a-c]{3}-[0-9]+", write(vocab, Guidance(vocab, re.compile(r"[a-c]{3}-\d+")), 1)
    )
    choices = ['a "b"', "c\nd"]
    assert write(vocab, Guidance(vocab, choices), 1) in choices
    assert write(vocab, Guidance(vocab, lark='start: "x" INT\nINT: /[0-9]{2}/'), 1)[0] == "x"


@pytest.fixture(scope="module")
def other_vocab() -> Iterator[pyllama.Vocab]:
    """Open a vocabulary that libllama cuts into words with a regular expression that recurses."""
    path = LLAMA / "models" / "ggml-vocab-deepseek-llm.gguf"
    with pyllama.Model(path, vocab_only=True) as model:
        yield model.vocab


def only_way(vocab: pyllama.Vocab, text: str) -> list[bytes]:
    """Return the pieces of a text that is the only one allowed."""
    guidance = Guidance(vocab, [text])
    pieces = []
    while (token := int(guidance.mask().argmax())) not in vocab.eog_tokens:
        guidance.accept(token)
        pieces.append(vocab.piece(token))
    return pieces


def test_what_may_only_go_one_way_is_written_as_the_model_knows_it(vocab, model, other_vocab):
    """In few tokens, and SentencePiece puts no space in front."""
    text = "hello world and good day"
    assert b"".join(only_way(vocab, text)) == text.encode()
    assert b"".join(only_way(model.vocab, text)) == text.encode()
    assert only_way(other_vocab, text) == [b"hello", b" world", b" and", b" good", b" day"]


def test_a_long_word_in_a_grammar_does_not_end_the_process(other_vocab):
    """Cutting it into tokens takes a stack as deep as it is long."""
    assert Guidance(other_vocab, {"const": "a" * 100_000}).mask().any()


def test_a_grammar_of_many_rules_does_not_end_the_process(vocab):
    """Llguidance recurses from rule to rule."""
    rules = "".join(f"a{i}: a{i + 1}\n" for i in range(15_000))
    guidance = Guidance(vocab, lark=f'start: a0\n{rules}a15000: "x"\n')
    assert write(vocab, guidance, 1) == "x"


def test_a_token_that_is_refused_changes_nothing(vocab):
    """The right one goes on as if the other had not been tried."""
    guidance = Guidance(vocab, re.compile("ab"))
    a, b = (int(vocab.tokenize(letter, add_special=False)[0]) for letter in "ab")
    guidance.accept(a)
    for wrong in (a, vocab.eos):
        with pytest.raises(GrammarError, match="does not allow"):
            guidance.accept(wrong)
    guidance.accept(b)
    assert guidance.is_complete


def test_tokens_are_taken_back(vocab):
    """The end, which llguidance does not count, and what came before."""
    guidance = Guidance(vocab, re.compile("ab"))
    before = guidance.mask().tolist()
    tokens = [*vocab.tokenize("ab", add_special=False).tolist(), vocab.eos, vocab.eos]
    for token in tokens:
        guidance.accept(token)
    with pytest.raises(ValueError, match="fewer"):
        guidance.rollback(len(tokens) + 1)
    guidance.rollback(len(tokens))
    assert guidance.mask().tolist() == before


def test_a_clone_goes_its_own_way(vocab):
    """The first one stays."""
    guidance = Guidance(vocab, ["ab", "cd"])
    other = guidance.clone()
    other.accept(int(vocab.tokenize("c", add_special=False)[0]))
    assert guidance.mask()[int(vocab.tokenize("a", add_special=False)[0])]
    assert not other.mask()[int(vocab.tokenize("a", add_special=False)[0])]


def test_a_chain_chooses_among_what_is_allowed(vocab):
    """As under a grammar of our own."""
    rng = np.random.default_rng(1)
    choose = Constrained(Guidance(vocab, ["yes", "no"]), samplers.dist(seed=1))
    tokens = []
    while not tokens or tokens[-1] not in vocab.eog_tokens:
        tokens.append(choose(rng.normal(0, 1, vocab.n_tokens).astype(np.float32)))
    assert vocab.detokenize(tokens) in ("yes", "no")


def test_a_model_follows_it():
    """Greedily, in a completion and in a reply, as under our own grammar."""
    with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
        greedy = {"temperature": 0.0, "max_tokens": 60}
        made = llm.complete("Ada is 36 years old.", schema=Person, guidance=True, **greedy)
        assert set(json.loads(made.text)) == {"name", "age"}
        reply = llm.chat(
            [{"role": "user", "content": "Who?"}], schema=Person, guidance=True, **greedy
        )
        assert set(json.loads(reply.message.content)) == {"name", "age"}
        with pytest.raises(ValueError, match="guidance=True follows a schema"):
            llm.complete("x", guidance=True)


BAD = {
    "unique": (GrammarError, {"type": "array", "uniqueItems": True}, "uniqueItems"),
    "endless": (GrammarError, {"$ref": "#"}, "NoExtension"),
    "look-around": (GrammarError, re.compile("(?<=a)b"), "look-around"),
    "flags": (GrammarError, re.compile("a", re.IGNORECASE), "without flags"),
    "bytes": (GrammarError, re.compile(b"a"), "patterns of text"),
    "large": (GrammarError, {"const": "a" * 300_000}, "at most"),
    "NaN": (GrammarError, {"const": float("nan")}, "JSON"),
    "a string": (TypeError, "abc", "not a constraint"),
    "no choices": (TypeError, [], "to choose from"),
    "a number": (TypeError, 3, "no JSON schema"),
    "nothing": (TypeError, None, "follows a schema"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_followed_is_refused(vocab, name):
    """Before any token is made, in words that say why."""
    kind, what, words = BAD[name]
    with pytest.raises(kind, match=words):
        Guidance(vocab, what)


def test_a_lark_grammar_that_does_not_parse_is_refused(vocab):
    """With the place."""
    with pytest.raises(GrammarError, match="start: "):
        Guidance(vocab, lark="start: (")


def test_a_model_that_was_closed_says_so():
    """When llguidance asks how a text is cut into tokens."""
    model = pyllama.Model(pyllama.demo_model(), vocab_only=True)
    guidance = Guidance(model.vocab, re.compile("x(hello world)?"))
    x = int(model.vocab.tokenize("x", add_special=False)[0])
    model.close()
    guidance.accept(x)
    h = next(i for i in np.flatnonzero(guidance.mask()) if guidance._words.tokens[i][:1] == b"h")
    guidance.accept(int(h))
    with pytest.raises(ClosedError):
        guidance.mask()


def test_it_does_not_keep_the_model():
    """What is learnt of a vocabulary goes with it."""
    model = pyllama.Model(pyllama.demo_model(), vocab_only=True)
    Guidance(model.vocab, ["a"])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_extra_is_named_where_it_lacks(vocab, monkeypatch):
    """Nothing else is imported in its place."""
    monkeypatch.setitem(import_module("sys").modules, "llguidance", None)
    with pytest.raises(ImportError, match="pip install llguidance"):
        Guidance(vocab, ["a"])
