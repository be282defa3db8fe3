"""The files of a model checked as a whole: the parts of a split one, and what they say."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pyllama.core.files.file_kind import FilePath
from pyllama.core.files.gguf import Header, read_header
from pyllama.core.files.model_rules import check_rules
from pyllama.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLIT_NAME = re.compile(r"(?s)(.+)-(\d{5})-of-(\d{5})\.gguf")  # src/llama.cpp:552


def check_model(path: FilePath) -> list[Header]:
    """Read and check all the files of a model: the one given and, if it was split, its siblings.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        The file, or the first part (``name-00001-of-00003.gguf``).

    Returns
    -------
    list of Header
        One for each file, in order.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the system names them, also for a missing part.
    LoadError
        If a file is broken, the parts do not belong together, or a rule of model_rules.py is not
        met.
    """
    headers = read_model(path)
    check_rules(headers)
    return headers


def read_model(path: FilePath) -> list[Header]:
    """Do the same without the rules of model_rules.py.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        As for `check_model`.

    Returns
    -------
    list of Header

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, LoadError
        As for `check_model`.
    """
    first = read_header(path)
    headers = [first]
    for index, sibling in enumerate(_siblings(first), start=2):
        if not Path(sibling).exists():
            what = f"part {index} of this split model is missing"
            raise FileNotFoundError(errno.ENOENT, what, sibling)
        headers.append(read_header(sibling))
    _check_parts(headers, "its name says")
    return headers


def read_parts(paths: Sequence[FilePath]) -> list[Header]:
    """Read and check files that are all the parts of one model, whatever their names are.

    Parameters
    ----------
    paths : sequence of str, bytes or os.PathLike
        In order.

    Returns
    -------
    list of Header

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, LoadError
        As for `check_model`.
    """
    headers = [read_header(path) for path in paths]
    _check_parts(headers, "it is given as")
    return headers


def _siblings(first: Header) -> list[str]:
    """Name the other files of the model that *first* begins; none if it is whole."""
    n_parts, index = first.count("split.count"), first.count("split.no")
    if n_parts <= 1:
        return []
    name = SPLIT_NAME.fullmatch(first.path)
    if name is None or (int(name[2]), int(name[3])) != (index + 1, n_parts):
        raise LoadError(
            f"{first.path} says it is part {index + 1} of {n_parts}; its name must then end in "
            f"-{index + 1:05}-of-{n_parts:05}.gguf, or its siblings cannot be found"
        )
    if index != 0:
        raise LoadError(
            f"{first.path} is part {index + 1} of {n_parts}; "
            f"load {part_name(name[1], 1, n_parts)}, and the others are found from it"
        )
    return [part_name(name[1], number, n_parts) for number in range(2, n_parts + 1)]


def part_name(prefix: str, number: int, n_parts: int) -> str:
    """Return how llama.cpp calls a part of a split model, counted from 1; see `SPLIT_NAME`."""
    return f"{prefix}-{number:05}-of-{n_parts:05}.gguf"


def _check_parts(headers: list[Header], source: str) -> None:
    """Refuse parts that say they are of another model, or that do not hold all its tensors.

    *source* is what else says which part a file is.
    """
    first = headers[0]
    n_parts = len(headers)
    if n_parts == 1 and first.count("split.count") <= 1:
        return
    for index, header in enumerate(headers):
        found = header.count("split.no", -1), header.count("split.count")
        if found != (index, n_parts):
            raise LoadError(
                f"{header.path} says it is part {found[0] + 1} of {found[1]}, but {source} "
                f"{index + 1} of {n_parts}"
            )
    n_tensors = sum(len(header.tensors) for header in headers)
    expected = first.count("split.tensors.count", n_tensors)
    if n_tensors != expected:
        raise LoadError(
            f"{first.path}: the {n_parts} parts hold {n_tensors} tensors, but the model has "
            f"{expected}; they are probably of different models"
        )
