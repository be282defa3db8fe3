"""Each file in examples/ runs, and prints what it promises."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyllama

DIRECTORY = Path(__file__).parents[1] / "examples"

# A pattern for each line that an example prints. What is sampled differs between processors.
PRINTED = {
    "activations": [
        *(rf"l_out-{layer}: shape \(6, 256\), norm \d+\.\d" for layer in range(4)),
        r"l_out-4: shape \(1, 256\), norm \d+\.\d",
        r"likeliest next: b' Paris'",
        r"likeliest without ffn_out-0: b'(?! Paris).*'",
        *(rf"likeliest without ffn_out-{layer}: b' Paris'" for layer in range(1, 5)),
    ],
    "call_tools": [
        r'the model calls get_weather\({"city": "Paris"}\)',
        r"user: What is the weather in Paris\?",
        r"assistant: {'name': 'get_weather', 'arguments': '{\"city\": \"Paris\"}'}",
        r'tool: {"weather": "sunny", "temperature": 21}',
        r"assistant: It is sunny and 21 degrees in Paris\.",
    ],
    "embeddings": [
        r"0\.[89]\d+ The capital of France is Paris\.",
        r"0\.[1-6]\d+ Seven plus five is twelve\.",
        r"0\.[1-6]\d+ Monday, .*",
        r"closest: The capital of France is Paris\.",
    ],
    "error_handling": [
        r"a missing file: FileNotFoundError: .*No such file.*missing\.gguf.*",
        r"another file format: LoadError: .* is not a GGUF file: .*",
        r"no model loaded: StateError: no model is loaded: call load\(\).*",
        r"a prompt too long: ContextLengthError: 302 prompt tokens .* 256 .*",
        r"no room for the answer: ContextLengthError: .*max_tokens=300 .*",
        r"text that is no Unicode: UnicodeEncodeError: .*surrogates not allowed.*",
        r"text that cannot be tokenized: TokenizeError: .*3000000 characters in a row.*",
        r"no token left to sample: SamplingError: .*all tokens are ruled out",
        r"a misspelt option: TypeError: unknown .*: temprature",
        r"a value out of range: ValueError: top_p=1\.5 is out of range.*",
        r"a grammar that does not parse: GrammarError: grammar, line 1, column 6: .*",
        r"and then:  Paris\.",
    ],
    "from_config": [r"loaded pyllama demo", r" Paris\."],
    "logprobs": [
        r"b' small': probability 0\.9\d+; likeliest: b' small' 0\.9\d+, b'.*' 0\.0\d+, b'.*",
        r"b'\.': probability 0\.9\d+; likeliest: b'\.' .*",
        r"the whole text: -0\.0\d+ nats",
    ],
    "lora": [
        r"scale 0: ' Paris\.'",
        r"scale 1\.0: '(?! Paris).*'",
        r"scale 0\.01: ' Paris\.'",
        r"scale 0: ' Paris\.'",
    ],
    "model_object": [
        r"is_loaded: False",
        r"is_loaded: True",
        r"name: pyllama demo",
        r"capabilities: chat, complete, embed",
        r"complete: ' cold\.'",
        r"chat: '2 \+ 2 = 4'",
        r"chat: 'The capital of Japan is Tokyo\.'",
        r"embed: a float32 array of shape \(256,\)",
        r"tokenize: \[\d+(, \d+){4}\] and back: 'The capital of France'",
        r"is_loaded: False",
    ],
    "numpy_sampler": [r"numpy: (?P<text> there was .{30,})", r"llama\.cpp: (?P=text)"],
    "seed": [
        r"seed (?P<seed>\d+): (?P<text>'.+')",
        r"seed (?P=seed): (?P=text)",
        r"seed 1: '.+'",
        r"the same seed gives the same text: True",
    ],
    "speculative_decoding": [
        r" there was .{60,}",
        r"the same text: True",
        r"[1-9]\d* of [1-9]\d+ guesses were right",
        r"alone: \d+ tokens per second",
        r"with the draft model: \d+ tokens per second",
    ],
    "stop_sequences": [
        r"stop=\[\]: '1, 2, 3, 4, 5, 6, 7, 8, 9, 10\.', stopped by None",
        r"stop=\[', 6'\]: '1, 2, 3, 4, 5', stopped by ', 6'",
        r"stop=\['9', '4, 5', '4, 5, 6'\]: '1, 2, 3, ', stopped by '4, 5'",
    ],
    "streaming": [
        r" there was .{30,}",
        r"finish reason: cancelled",
        r"tokens: 20",
        r"tokens per second: [1-9]\d*",
        r"1, 2, 3, 4, 5, 6, 7, 8, 9, 10\.",
        r"finish reason: stop",
    ],
    "structured_output": [
        r"Person\(name='\w+', age=\d+\)",
        r"\[-?\d+, -?\d+, -?\d+\]",
        r"[A-Z][a-z]{2,5}-[0-9]{3}",
        r"yes|no",
    ],
    "token_counts": [
        r"there was .{30,}",
        r"finish reason: (length|stop)",
        r"prompt tokens: 5",
        r"completion tokens: \d+",
        r"total tokens: \d+",
        r"cached tokens: 4",
    ],
}


@functools.cache
def run(name: str, *arguments: str) -> list[str]:
    """Run an example, and return the lines that it prints."""
    command = [sys.executable, "-W", "error", str(DIRECTORY / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run():
    """None is forgotten here."""
    assert {path.stem for path in DIRECTORY.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_promises(name):
    """Line by line; a group that was matched once comes again where it is named."""
    lines = run(name)
    assert len(lines) == len(PRINTED[name]), lines
    found = re.fullmatch("\n".join(f"(?:{each})" for each in PRINTED[name]), "\n".join(lines))
    assert found, lines


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    """It is read in a minute."""
    text = path.read_text()
    assert 10 <= len(text.splitlines()) <= 60
    assert ast.get_docstring(ast.parse(text))
    assert text.splitlines()[0].endswith((".", '"""'))


def test_a_configuration_of_ones_own(tmp_path):
    """The file named on the command line counts."""
    request = {"prompt": "The opposite of hot is", "max_tokens": 4, "temperature": 0}
    config = {"model": {"path": str(pyllama.demo_model()), "n_ctx": 128}, "request": request}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert run("from_config", str(path)) == ["loaded pyllama demo", " cold."]


def test_the_counts_add_up():
    """Prompt and completion make the total."""
    counts = dict(re.findall(r"(\w+) tokens: (\d+)", "\n".join(run("token_counts"))))
    assert int(counts["prompt"]) + int(counts["completion"]) == int(counts["total"])
