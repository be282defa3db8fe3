"""Check that llama.cpp sees what was trained: the same token ids, nearly the same logits.

``python -m tools.demo_model.agree`` needs torch, tokenizers and pyllama in one environment, and
the files that training left.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import pyllama

from . import export, packing, tokenizer
from .corpus import documents

SEED = 99
ODD = (
    "  two  spaces\n\n\ttab", "naïve café 東京 🙂👍🏽 Ω", "don't I'LL we've 'S", "\r\n\r\n a \r\n",
    "1234567890", '{"a": [1, 2], "b": {}}', "e\u0301 \u00a0\u2003x", "עברית हिन्दी", "\x01\x7f",
)  # fmt: skip


def texts(count: int) -> list[str]:
    """Give texts of the corpus and some that are unlike it."""
    parts = itertools.islice(documents(SEED), count)
    return [*("".join(text for text, _ in spans) for spans in parts), *ODD]


def differing(words: Tokenizer, model: pyllama.Model, chosen: list[str]) -> int:
    """Count the texts that the two tokenizers cut differently."""
    return sum(
        words.encode(text).ids
        != model.vocab.tokenize(text, add_special=False, parse_special=True).tolist()
        for text in chosen
    )


def distance(network: torch.nn.Module, model: pyllama.Model, tokens: list[int]) -> float:
    """Give the largest difference of a logit between torch and llama.cpp."""
    rows = packing.rows_of([[packing.Document([*tokens, 0], [1.0] * (len(tokens) + 1))]],
                           len(tokens))  # fmt: skip
    with torch.no_grad():
        ours = network.logits(network(rows.inputs, rows.mask))[0].numpy()
    with model.context(n_ctx=512) as context:
        parts = [rows.copy() for _, rows in pyllama.generate.prompt_logits(context, tokens)]
    return float(np.abs(np.concatenate(parts) - ours).max())


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=export.FILES)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"))
    parser.add_argument("--models", type=Path, default=export.MODELS)
    parser.add_argument("--count", type=int, default=1000)
    asked = parser.parse_args()
    words = tokenizer.load(asked.work / "tokenizer.json")
    network = export.network_of(asked.work / f"{asked.which}.pt")
    chosen = texts(asked.count)
    with pyllama.Model(str(asked.models / export.FILES[asked.which])) as model:
        print(f"{differing(words, model, chosen)} of {len(chosen)} texts are cut differently")
        longest = max(chosen[:50], key=len)
        ids = [tokenizer.begin_id(words), *words.encode(longest).ids]
        print(f"logits differ by at most {distance(network, model, ids):.3f} (Q8_0 against f32)")


if __name__ == "__main__":
    main()
