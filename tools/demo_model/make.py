"""The one command: train the tokenizer and both networks, and write their GGUF files.

``python -m tools.demo_model.make`` from the repository's root, in an environment with torch and
tokenizers. About 95 minutes on 2 cores; interrupted, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import export, tokenizer, train
from .network import MAIN

MINUTES = {"main": 87.0, "draft": 8.0}


def main() -> None:
    """Read the command line and make both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"))
    parser.add_argument("--models", type=Path, default=export.MODELS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the usual training time, for a trial"
    )
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.work.mkdir(parents=True, exist_ok=True)
    words = tokenizer.made(asked.work / "tokenizer.json", MAIN.n_vocab)
    for which, minutes in MINUTES.items():
        train.run(train.SHAPES[which], words, asked.work / f"{which}.pt", minutes * asked.share)
        path = export.from_checkpoint(which, asked.work, asked.models)
        print(f"{path}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
