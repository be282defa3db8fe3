"""Rows for training: documents as token ids, packed so that little of a row is empty."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .chat import Span
from .corpus import documents
from .tokenizer import begin_id

SHORT, LONG = 256, 512  # the two row lengths, tokens; a batch has TOKENS of them
TOKENS = 4096
POOL = 256  # documents to choose from when a row is filled
WITHOUT_BEGIN = 0.08  # share of documents that do not start with the begin token


@dataclass(frozen=True)
class Document:
    """One document: its ids, and how much the loss counts each of them as a target."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Rows:
    """A batch: inputs, targets, loss weights, each (rows, length), and what attention may see."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    mask: Tensor


def encode(tokenizer: Tokenizer, parts: list[Span], *, begin: bool = True) -> Document:
    """Turn a document's pieces into ids; pieces end where the tokenizer would cut anyway."""
    ids = [begin_id(tokenizer)] if begin else []
    weights = [0.0] * len(ids)
    for text, weight in parts:
        piece = tokenizer.encode(text).ids
        ids += piece
        weights += [weight] * len(piece)
    return Document(ids, weights)


def fill(pool: list[Document], length: int) -> list[Document]:
    """Take documents out of the pool for one row, each time the longest that still fits."""
    row: list[Document] = []
    room = length
    for document in sorted(pool, key=lambda d: len(d.ids), reverse=True):
        if len(document.ids) - 1 <= room:
            row.append(document)
            room -= len(document.ids) - 1
            pool.remove(document)
    return row


def rows_of(packed: list[list[Document]], length: int) -> Rows:
    """Lay packed documents out as tensors; a token sees earlier ones of its own document only."""
    inputs = torch.zeros(len(packed), length, dtype=torch.long)
    targets = torch.zeros_like(inputs)
    weights = torch.zeros(len(packed), length)
    owner = torch.full((len(packed), length), -1)
    for index, row in enumerate(packed):
        at = 0
        for number, document in enumerate(row):
            end = at + len(document.ids) - 1
            inputs[index, at:end] = torch.tensor(document.ids[:-1])
            targets[index, at:end] = torch.tensor(document.ids[1:])
            weights[index, at:end] = torch.tensor(document.weights[1:])
            owner[index, at:end] = number
            at = end
    seen = (owner[:, :, None] == owner[:, None, :]).tril()
    mask = torch.zeros(len(packed), 1, length, length).masked_fill(~seen[:, None], -1e9)
    return Rows(inputs, targets, weights, mask)


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[Rows]:
    """Give batches without end; documents too long for a short row wait for long ones."""
    rng = random.Random(seed)
    source = documents(seed)
    pool: list[Document] = []
    long: list[Document] = []
    while True:
        while len(pool) < POOL:
            document = encode(tokenizer, next(source), begin=rng.random() >= WITHOUT_BEGIN)
            if len(document.ids) <= SHORT:
                pool.append(document)
            elif len(document.ids) <= LONG:
                long.append(document)
        if len(long) >= TOKENS // LONG:
            chosen = [long.pop(0) for _ in range(TOKENS // LONG)]
            packed = [[document, *fill(pool, LONG - len(document.ids) + 1)] for document in chosen]
            yield rows_of(packed, LONG)
        else:
            # A random part of the pool, or short documents would pile up in it.
            rng.shuffle(pool)
            packed = [take(pool, SHORT) for _ in range(TOKENS // SHORT)]
            yield rows_of(packed, SHORT)


def take(pool: list[Document], length: int) -> list[Document]:
    """Fill one row, beginning with the document that waits at the front of the pool."""
    first = pool.pop(0)
    return [first, *fill(pool, length - len(first.ids) + 1)]
