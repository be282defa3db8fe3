"""``pyllama demo``: real inference on the model that ships, step by step and as it happens."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import pyllama

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_CTX = 512
N_TOP = 5
COMPLETION = "The capital of France is"
QUESTIONS = ("What is 2+2?", "Tell me a story about Lena.")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the commands.

    Parameters
    ----------
    commands
        Those of the command line.
    """
    text = "Show inference on the model that ships with pyllama."
    parser = commands.add_parser("demo", help=text, description=text)
    parser.add_argument("--model", metavar="FILE", help="another GGUF file")
    parser.add_argument(
        "--prompt", metavar="TEXT", type=_text, help="continue this text, and no other"
    )
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=int,
        default=160,
        help="most tokens of a text (default %(default)s)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        help="threads to compute with (1 for the model that ships, else one for each core)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Load the model, show the likeliest next tokens of a prompt, and let it write.

    Parameters
    ----------
    options
        What the command line says.
    """
    path = options.model
    if path is None:
        path = pyllama.demo_model()
        # So small a model gains nothing from a second thread, and two that wait for each other
        # lose much where anything else runs.
        if options.threads is None:
            options.threads = 1
    begin = time.perf_counter()
    with pyllama.Model(path) as model:
        seconds = time.perf_counter() - begin
        print(f"{Path(path).name} loaded in {seconds:.2f} s: {_size(model)}")
        if model.has_encoder:
            message = "the demo continues texts, and this model needs one for its encoder first"
            raise pyllama.errors.UnsupportedError(message)
        prompt = COMPLETION if options.prompt is None else options.prompt
        tokens = model.vocab.tokenize(prompt)
        _show_likeliest(model, prompt, tokens, options)
        _show_text(model, prompt, tokens, options)
        if options.prompt is None and model.chat_template() is not None:
            template = pyllama.ChatTemplate.of(model)
            for question in QUESTIONS:
                asked = template.render([{"role": "user", "content": question}])
                _show_text(model, question, asked.tokens(model.vocab), options)


def _text(argument: str) -> str:
    """Return an argument as text, also where the locale does not know UTF-8."""
    try:
        return argument.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        message = "it must be UTF-8"
        raise argparse.ArgumentTypeError(message) from None


def _size(model: pyllama.Model) -> str:
    return (
        f"{model.architecture}, {model.n_layer} layers, {model.n_params / 1e6:,.1f} million "
        f"weights, {model.n_bytes / 2**20:,.1f} MiB"
    )


def _context(model: pyllama.Model, n_ctx: int, options: argparse.Namespace) -> pyllama.Context:
    """Make a context of so many tokens, which it also takes at once."""
    n_ctx, n_threads = max(n_ctx, N_CTX), options.threads
    return model.context(n_ctx=n_ctx, n_batch=n_ctx, n_threads=n_threads, n_threads_batch=n_threads)


def _show_likeliest(
    model: pyllama.Model, prompt: str, tokens: NDArray[np.int32], options: argparse.Namespace
) -> None:
    """Decode the prompt and print a table of the tokens that may come next."""
    with _context(model, len(tokens), options) as context:
        n_threads = context.n_threads
        print(f"decoding the {len(tokens)} tokens of {prompt!r:.60} on {n_threads} thread(s)")
        context.decode(pyllama.Batch(tokens))
        row = context.logits()[-1].astype(np.float64)
    probabilities = np.exp(row - row.max())
    probabilities /= probabilities.sum()
    print(f"\nthe {N_TOP} likeliest tokens to come next\n    token  text             probability")
    for token in np.argsort(row)[::-1][:N_TOP]:
        text = model.vocab.piece(int(token), special=True).decode("utf-8", "replace")
        share = probabilities[token]
        print(f"  {token:>7}  {text!r:<16} {share:11.3%}  {'#' * round(share * 30)}".rstrip())


def _show_text(
    model: pyllama.Model,
    title: str,
    tokens: NDArray[np.int32],
    options: argparse.Namespace,
) -> None:
    """Print a text while it is decoded, and how fast that went."""
    print(f"\n> {title}")
    with _context(model, len(tokens) + options.max_tokens, options) as context:
        for piece in pyllama.generate.stream(context, tokens, max_tokens=options.max_tokens):
            print(piece.text, end="", flush=True)
            if piece.timings is not None:
                print(f"\n  [{_speed(piece.timings)}]")


def _speed(report: pyllama.generate.Report) -> str:
    return (
        f"prompt {report.n_prompt} tokens, {report.prompt_per_second:,.0f}/s; "
        f"generated {report.n_generated}, {report.generation_per_second:,.0f}/s; "
        f"ended by {report.finish_reason}"
    )


if __name__ == "__main__":
    from pyllama.cli.__main__ import main

    sys.exit(main(["demo", *sys.argv[1:]]))
