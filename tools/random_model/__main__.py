"""Write the random model that the command line names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import random_model

MODELS: dict[str, Callable[..., Path]] = {
    "llama": random_model.write_llama,
    "bert": random_model.write_bert,
    "t5": random_model.write_t5,
    "mamba": random_model.write_mamba,
    "jamba": random_model.write_jamba,
    "overhead": random_model.write_overhead,
    "tinyllama": random_model.write_tinyllama,
    "big_vocab": random_model.write_big_vocab,
}


def main() -> None:
    """Parse the command line, write the file, and print its name."""
    parser = argparse.ArgumentParser(prog="random_model", description=random_model.__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(MODELS[options.model](options.path, seed=options.seed))


if __name__ == "__main__":
    main()
