"""How the rules of a grammar begin: what libllama follows without consuming any text.

It keeps every way in which the text may go on as a stack of its own. Left recursion lets one
stack grow for ever, and alternatives that begin with the same rule multiply their number.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyllama.errors import GrammarError

if TYPE_CHECKING:
    from collections.abc import Iterator

TERMINAL = -1
MAX_WAYS = 20_000  # ways a rule may begin; libllama compares each with each: some seconds
MAX_CHAIN = 10_000  # rules that begin with each other; libllama recurses, 100 bytes for each


@dataclass
class Rule:
    """Alternatives, each a list of rule numbers and TERMINAL; made *times* times by {n,m}."""

    alternatives: list[list[int]] = field(default_factory=list)
    times: int = 1


def check(rules: list[Rule], names: dict[int, str]) -> None:
    """Raise if libllama would follow *rules* for ever, or in too many ways.

    Parameters
    ----------
    rules
        By number.
    names
        Those of the rules that were written by name.

    Raises
    ------
    GrammarError
        Naming a rule concerned.
    """
    empty = _may_be_empty(rules)
    begins = [list(_begins(rule, empty)) for rule in rules]
    component, order = _components([[to for to, _ in edges] for edges in begins])
    ways, chain = [0] * len(rules), [0] * len(rules)
    for rule in order:  # those that others begin with come first
        ways[rule] = sum(1 for alternative in rules[rule].alternatives)
        chain[rule] = 1
        for to, is_last in begins[rule]:
            if component[to] == component[rule]:
                if not is_last:
                    message = f"left recursion in rule {_name(rule, component, names)!r}"
                    raise GrammarError(message)
                continue  # libllama recognises what it has seen
            times = rules[rule].times if empty[to] else 1
            ways[rule] += ways[to] * times
            chain[rule] = max(chain[rule], chain[to] + times)
        if ways[rule] > MAX_WAYS or chain[rule] > MAX_CHAIN:
            message = (
                f"rule {_name(rule, component, names)!r} can begin in too many ways: let fewer "
                "alternatives begin with the same rule"
            )
            raise GrammarError(message)


def _name(rule: int, component: list[int], names: dict[int, str]) -> str:
    """Return the name of *rule*, or of one that it is tangled with or part of."""
    if rule in names:
        return names[rule]
    tangled = (names[other] for other in names if component[other] == component[rule])
    return next(tangled, "(brackets or a repetition)")


def _may_be_empty(rules: list[Rule]) -> list[bool]:
    empty = [False] * len(rules)
    waiting: defaultdict[int, list[tuple[int, list[int], int]]] = defaultdict(list)
    todo = deque((rule, each, 0) for rule, it in enumerate(rules) for each in it.alternatives)
    while todo:
        rule, alternative, index = todo.popleft()
        while index < len(alternative) and alternative[index] >= 0 and empty[alternative[index]]:
            index += 1
        if index < len(alternative):
            waiting[alternative[index]].append((rule, alternative, index))
        elif not empty[rule]:
            empty[rule] = True
            todo.extend(waiting.pop(rule, ()))
    return empty


def _begins(rule: Rule, empty: list[bool]) -> Iterator[tuple[int, bool]]:
    """Yield the rules that *rule* may begin with, and whether nothing follows them there."""
    for alternative in rule.alternatives:
        for index, item in enumerate(alternative):
            if item == TERMINAL:
                break
            yield item, index == len(alternative) - 1
            if not empty[item]:
                break


def _components(graph: list[list[int]]) -> tuple[list[int], list[int]]:
    """Return each node's strongly connected component, and an order with successors first.

    Tarjan's algorithm, without recursion.
    """
    n = len(graph)
    number, low, component = [0] * n, [0] * n, [-1] * n
    order: list[int] = []
    path: list[int] = []
    count = 0
    for start in range(n):
        if number[start]:
            continue
        work = [(start, 0)]
        while work:
            node, at = work.pop()
            if at == 0:
                count += 1
                number[node] = low[node] = count
                path.append(node)
            else:
                low[node] = min(low[node], low[graph[node][at - 1]])
            while at < len(graph[node]):
                to = graph[node][at]
                at += 1
                if not number[to]:
                    work += [(node, at), (to, 0)]
                    break
                if component[to] < 0:
                    low[node] = min(low[node], number[to])
            else:
                if low[node] == number[node]:
                    while component[node] < 0:
                        member = path.pop()
                        component[member] = node
                        order.append(member)
    return component, order
