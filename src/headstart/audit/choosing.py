"""What a loop chooses by the figures of an evaluation: read from the source, followed by data flow.

No name decides: what counts is which values come from the lines where a network was evaluated, and
whether they end the loop, or whether the best of them is kept.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

from headstart.audit.places import Trail

_BEST = {"max", "min", "argmax", "argmin", "nanmax", "nanmin", "nanargmax", "idxmax", "sorted"}
_ROUNDS = 6
_Loop = ast.For | ast.AsyncFor | ast.While


@dataclass(frozen=True)
class Choice:
    """A decision by the figures of an evaluation.

    Attributes:
        line: where it is made.
        how: ``stop``: the loop ends by it. ``best``: the best of several figures is kept.
        reported: whether the figure is used behind the loop.
    """

    line: int
    how: str
    reported: bool


def choices(evaluation: Trail, step: Trail) -> Iterator[tuple[str, Choice]]:
    """Yield the file and what is chosen in every loop that both evaluates and trains.

    Args:
        evaluation: where the user's code was while a network was evaluated.
        step: where it was while an optimizer stepped.
    """
    stepping = {code: line for code, _, line in step}
    for code, _, line in evaluation:
        if code in stepping:
            found = _in_code(code, line, stepping[code])
            if found is not None:
                yield code.co_filename, found


@functools.lru_cache(maxsize=256)
def _in_code(code: CodeType, evaluated: int, stepped: int) -> Choice | None:
    body = _body(code)
    if not body:
        return None
    loops = [
        node
        for top in body
        for node in _own(top)
        if isinstance(node, _Loop) and _has(node, evaluated) and _has(node, stepped)
    ]
    own = code.co_varnames[:1] if code.co_argcount else ()
    return None if not loops else _Flow(body, loops[0], evaluated, stepped, *own).choice()


def _body(code: CodeType) -> list[ast.stmt]:
    """Return the statements of a function, or of a module."""
    tree = _tree(code.co_filename)
    if tree is None:
        return []
    if code.co_name == "<module>":
        return tree.body
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return node.body
    return []


@functools.lru_cache(maxsize=16)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None


def _has(node: ast.AST, line: int) -> bool:
    last = getattr(node, "end_lineno", None)
    return last is not None and getattr(node, "lineno", line + 1) <= line <= last


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is inside of a node, without functions and classes, outer ones first."""
    yield node
    for each in ast.iter_child_nodes(node):
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own(each)


def _path(node: ast.AST) -> str:
    """Return a variable or an attribute as it is written; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _path(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _reads(node: ast.AST) -> set[str]:
    found = set()
    for each in _own(node):
        if isinstance(each, ast.Name | ast.Attribute) and not isinstance(each.ctx, ast.Store):
            path = _path(each)
            found |= {path, path.split(".")[0]} if path else set()
    return found


def _targets(node: ast.stmt) -> set[str]:
    """Return what a statement assigns, and lists and dicts that it puts something into."""
    found: set[str] = set()
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        for each in ast.walk(target):
            if isinstance(each, ast.Name | ast.Attribute) and isinstance(each.ctx, ast.Store):
                found.add(_path(each))
            elif isinstance(each, ast.Subscript):
                found.add(_path(each.value))
    return (found | _filled(node)) - {""}


def _filled(node: ast.stmt) -> set[str]:
    """Return what a statement gives something to, as ``history.append(score)`` does."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        if isinstance(function, ast.Attribute):
            given = node.value.args or node.value.keywords
            return {_path(function.value)} - {""} if given else set()
        return {_path(function)} - {"", "print"}
    return set()


class _Flow:
    """Which variables of a function hold figures of an evaluation.

    Args:
        body: of the function.
        loop: that evaluates and trains.
        evaluated, stepped: lines in it.
        first: its first parameter: the object itself, whose attributes are looked at one by one.
    """

    def __init__(
        self, body: list[ast.stmt], loop: _Loop, evaluated: int, stepped: int, first: str = ""
    ) -> None:
        self.first = first
        self.body, self.loop, self.evaluated = body, loop, evaluated
        statements = [n for top in body for n in _own(top) if isinstance(n, ast.stmt)]
        self.inside = [n for n in statements if _has(loop, n.lineno) and n is not loop]
        self.after = [n for n in statements if n.lineno > (loop.end_lineno or 0)]
        before = [n for n in statements if n.lineno < loop.lineno]
        self.kept = {name for n in before for name in _targets(n)}
        """Variables that are there before the loop begins."""
        self.seeds = self._seeds(stepped)
        self.tainted = self._spread()

    def _seeds(self, stepped: int) -> set[str]:
        """Return what the evaluation assigns: in its statement, or its own loop over batches."""
        holding = [n for n in self.inside if _has(n, self.evaluated)]
        own = [n for n in holding if isinstance(n, _Loop) and not _has(n, stepped)]
        if own:
            parts = [n for n in _own(own[0]) if isinstance(n, ast.stmt)]
        else:
            parts = holding[-1:]
            if parts and hasattr(parts[0], "body"):  # the head of an if, a with or a loop
                parts = []
        return {name for n in parts for name in _targets(n)} - {self.first}

    def _is_kept(self, name: str) -> bool:
        """Whether something is there before the loop begins."""
        return name in self.kept or "." in name

    def _spread(self) -> set[str]:
        found = set(self.seeds)
        for _ in range(_ROUNDS):
            before = len(found)
            for node in [*self.inside, *self.after]:
                if isinstance(node, ast.If | ast.While) and _reads(node.test) & found:
                    inner = [n for n in _own(node) if isinstance(n, ast.stmt) and n is not node]
                    if not any(isinstance(n, _Loop) for n in inner):
                        found |= {name for n in inner for name in _targets(n)}
                elif not hasattr(node, "body") and _reads(node) & found:
                    found |= _targets(node)
            found.discard(self.first)
            if len(found) == before:
                break
        return found

    def choice(self) -> Choice | None:
        """Return the first decision by these figures; before others one that is reported."""
        found = [*self._best(), *self._stops()]
        return min(found, key=lambda choice: not choice.reported) if found else None

    def _best(self) -> Iterator[Choice]:
        for node in self.inside:
            if isinstance(node, ast.If) and _reads(node.test) & self.tainted:
                held = {name for n in node.body for name in _targets(n)} & _reads(node.test)
                held = {name for name in held if self._is_kept(name)}
                if held:
                    yield Choice(node.lineno, "best", self._used(held))
            targets = _targets(node) if isinstance(node, ast.Assign) else set()
            for call in _own(node) if targets else ():
                best = isinstance(call, ast.Call) and _path(call.func).split(".")[-1] in _BEST
                reads = _reads(call) if best else set()
                kept = {name for name in reads & targets if self._is_kept(name)}
                if kept and reads & self.tainted:
                    yield Choice(node.lineno, "best", self._used(kept))
        histories = self._histories()
        for node in [*self.inside, *self.after]:
            if hasattr(node, "body"):
                continue
            for call in _own(node):
                if isinstance(call, ast.Call) and _path(call.func).split(".")[-1] in _BEST:
                    function = call.func
                    given = {name for each in call.args for name in _reads(each)}
                    if isinstance(function, ast.Attribute):
                        given |= _reads(function.value)
                    if given & histories:
                        yield Choice(call.lineno, "best", True)

    def _histories(self) -> set[str]:
        """Return what gathers a figure in every turn of the loop, and began before it."""
        filled = {
            name
            for n in self.inside
            if not isinstance(n, ast.AugAssign)
            for name in (_filled(n) | _subscripted(n))
        }
        return {name for name in filled & self.tainted if self._is_kept(name)}

    def _stops(self) -> Iterator[Choice]:
        if isinstance(self.loop, ast.While) and _reads(self.loop.test) & self.tainted:
            yield Choice(self.loop.lineno, "stop", self._used(self.tainted))
        for node in self.inside:
            if isinstance(node, ast.If) and _reads(node.test) & self.tainted:
                inner = [n for part in node.body for n in _own(part)]
                if any(isinstance(n, ast.Break | ast.Return) for n in inner):
                    yield Choice(node.lineno, "stop", self._used(self.tainted))

    def _used(self, names: set[str]) -> bool:
        """Whether the script uses what was chosen behind the loop."""
        return any(_reads(node) & names for node in self.after)


def _subscripted(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {_path(t.value) for t in targets if isinstance(t, ast.Subscript)} - {""}


__all__ = ["Choice", "choices"]
