"""The command ``pyllama demo``: what it shows, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import random_model

import pyllama
from pyllama.cli.__main__ import main


def run(capsys, *arguments: str) -> str:
    """Run the demo to its end and return what it printed."""
    assert main(["demo", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def test_demo_shows_the_likeliest_tokens(capsys, tiny_path):
    """The table holds the five tokens with the highest logits, and their probabilities."""
    text = run(capsys, "--model", str(tiny_path), "--prompt", "Hello", "--max-tokens", "4")
    rows = re.findall(r"^ +(\d+)  .+? +([\d.]+)%", text, re.MULTILINE)
    with pyllama.Model(tiny_path) as model, model.context(n_ctx=512) as context:
        context.decode(pyllama.Batch(model.vocab.tokenize("Hello")))
        logits = context.logits()[-1].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(logits)[::-1][:5]
    assert [int(token) for token, _ in rows] == best.tolist()
    shown = [float(share) / 100 for _, share in rows]
    assert shown == pytest.approx(shares[best], abs=1e-4)


def test_demo_shows_the_text_of_the_loop(capsys, tiny_path):
    """What it prints after the prompt is what ``generate`` gives, to the last token."""
    text = run(capsys, "--model", str(tiny_path), "--prompt", "Hello", "--max-tokens", "8")
    with pyllama.Model(tiny_path) as model, model.context(n_ctx=512) as context:
        wanted = pyllama.generate.generate(context, "Hello", max_tokens=8)
    assert f"> Hello\n{wanted.text}\n" in text


def test_demo_shows_how_fast_it_was(capsys, tiny_path):
    """Tokens and tokens per second stand there for the prompt and for the generation."""
    text = run(capsys, "--model", str(tiny_path), "--prompt", "Hello", "--max-tokens", "8")
    assert re.search(r"prompt \d+ tokens, [\d,]+/s; generated \d+, [\d,]+/s; ended by \w+", text)


def test_demo_runs_on_the_model_that_ships(capsys):
    """Without arguments it completes a text and answers questions."""
    text = run(capsys)
    assert "Paris" in text
    assert text.count("ended by") == 3


def test_demo_takes_a_prompt_longer_than_its_usual_context(capsys, tiny_path):
    """The context grows with what is asked for."""
    text = run(capsys, "--model", str(tiny_path), "--prompt", "Hello " * 300, "--max-tokens", "2")
    assert int(re.search(r"prompt (\d+) tokens", text)[1]) > 512


def test_demo_reads_a_prompt_in_a_locale_without_utf_8(tiny_path):
    """The bytes are taken as UTF-8; what the terminal cannot show is a question mark."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "pyllama", "demo", "--model", str(tiny_path)]
    command += ["--max-tokens", "1", "--prompt", "Zürich".encode()]
    done = subprocess.run(
        command, capture_output=True, check=True, env={**os.environ, **ascii_only}
    )
    assert b"> Z?rich\n" in done.stdout


def test_demo_refuses_a_prompt_that_is_no_text(capsys):
    """Bytes that are no UTF-8 are a wrong argument."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--prompt", "\udcff"])
    assert ended.value.code == 2
    assert "--prompt: it must be UTF-8" in capsys.readouterr().err


def test_demo_refuses_an_encoder_decoder(capsys, tmp_path):
    """It does not go on with a text."""
    path = random_model.write_t5(tmp_path / "t5.gguf")
    assert main(["demo", "--model", str(path)]) == 1
    assert "needs one for its encoder" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "shown"), [("absent.gguf", "absent.gguf"), ("", "''")])
def test_demo_names_a_missing_file(capsys, name, shown):
    """An error is one sentence on stderr, and the status is 1."""
    assert main(["demo", "--model", name]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"pyllama: {shown}: No such file or directory\n"
    assert printed.out == ""


@pytest.mark.parametrize("option", ["--threads", "--max-tokens"])
def test_demo_refuses_a_negative_number(capsys, tiny_path, option):
    """A wrong number is named, and nothing else happens."""
    assert main(["demo", "--model", str(tiny_path), option, "-1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pyllama: ")
    assert "-1" in error
    assert error.count("\n") == 1


def test_demo_ends_at_ctrl_c(capsys, monkeypatch, tiny_path):
    """Ctrl-C in the middle of a text ends it with a word, and without a traceback."""

    def interrupted(*arguments, **options):
        for piece in stream(*arguments, **options):
            yield piece
            signal.raise_signal(signal.SIGINT)

    stream = pyllama.generate.stream
    monkeypatch.setattr(pyllama.generate, "stream", interrupted)
    # A process that was started in the background has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["demo", "--model", str(tiny_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "\npyllama: interrupted\n"


def test_demo_can_be_run_as_a_module(tiny_path):
    """``python -m pyllama.cli.demo`` is the command as well."""
    command = [sys.executable, "-m", "pyllama.cli.demo", "--model", str(tiny_path)]
    done = subprocess.run([*command, "--max-tokens", "2"], capture_output=True, check=True)
    assert b"likeliest" in done.stdout
    assert done.stderr == b""
