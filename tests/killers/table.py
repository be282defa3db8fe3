"""The rows of the table, and how a module adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killers.world import World

    Action = Callable[[World], object]

SECTIONS = (
    "handles",
    "threads",
    "loading",
    "overrides",
    "contexts",
    "batches",
    "memory",
    "adapters",
    "states",
    "samplers",
    "grammars",
    "python_samplers",
    "text",
    "chat",
    "multimodal",
    "training",
    "looking",
    "quantizing",
    "combinations",
)


@dataclass(frozen=True)
class Case:
    """One thing that is done, and what has to come of it.

    Attributes
    ----------
    row : str
        The row of the list of process killers.
    what : str
        What is done.
    error : type or None
        The exception that must come; None if it must simply work.
    action : callable
        Does it in a `World`.
    """

    row: str
    what: str
    error: type[BaseException] | None
    action: Action

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.row} {self.what}"


class Table(list[Case]):
    """The cases of one section."""

    def row(self, row: str, what: str, error: type[BaseException] | None, action: Action) -> None:
        """Add a case that is one expression."""
        self.append(Case(row, what, error, action))

    def case(
        self, row: str, what: str, error: type[BaseException] | None
    ) -> Callable[[Action], Action]:
        """Add the function below as a case."""

        def add(action: Action) -> Action:
            self.row(row, what, error, action)
            return action

        return add


def section(name: str) -> Table:
    """Return the cases of a section; the module of that name holds them."""
    table: Table = import_module(f"killers.{name}").TABLE
    return table
