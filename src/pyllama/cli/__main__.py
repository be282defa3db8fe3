"""The command ``pyllama``: which subcommand is meant, and how an error ends it."""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING

import pyllama
from pyllama.cli import demo, info

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        What follows the command's name; None takes it from ``sys.argv``.

    Returns
    -------
    int
        The exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a character
        sys.stdout.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        if sys.stdout is not None:  # it may have been closed
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\npyllama: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader had enough: `pyllama info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename or repr('')}: "
        print(f"pyllama: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except (pyllama.LlamaError, ValueError, MemoryError) as error:
        print(f"pyllama: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyllama", description="Large language models by libllama (llama.cpp)."
    )
    parser.add_argument("--version", action="version", version=f"pyllama {pyllama.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (info, demo):
        module.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
