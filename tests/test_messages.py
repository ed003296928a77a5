"""Messages below the command line name parameters, never flags, and only parameters that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import headstart
from headstart.commands.advise.options import ADVISE
from headstart.commands.compare.options import COMPARE
from headstart.commands.examine.options import EXAMINE
from headstart.commands.finetune.options import FINETUNE
from headstart.commands.fit.options import FIT
from headstart.commands.predict.options import EVALUATE, PREDICT
from headstart.commands.settings import BackboneSpec, ReadOptions
from headstart.commands.suggest.options import SUGGEST
from headstart.commands.sweep.options import SWEEP
from headstart.core.settings import options_of

PACKAGE = Path(headstart.__file__).parent
SIGNATURES = (FIT, PREDICT, EVALUATE, SUGGEST, SWEEP, EXAMINE, FINETUNE, ADVISE, COMPARE)

OTHERS = {"track_running_stats", "weights_only", "max_norm", "streaming"}
"""Parameters of other libraries that messages name."""

FLAG = re.compile(r"(?<![\w-])--[a-z{]")
ASSIGNED = re.compile(r"(?<![\w.+'\"/?&-])([a-z][a-z0-9_]*)=(?=[\w'\"({…])")
# A whole command is the same for whoever reads it; other programs and CSS have names of their own.
COMMANDS = re.compile(r"'headstart [^']*'|pip install [^;,]*|torchrun [^;,']*|var\([^)]*\)")


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


def text_of(node: ast.AST) -> str | None:
    """Return a literal as text, ``{}`` in the place of what is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    return None


def literals(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every literal that is not a docstring, f-strings as a whole."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(p) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for p in n.values}
    for node in ast.walk(tree):
        if id(node) not in docstrings and id(node) not in inside and text_of(node) is not None:
            yield node


def messages(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the literals that a user reads: in errors, hints, notes and faults."""
    told = {"note", "say", "Fault", "append"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from literals(node.exc)
        elif isinstance(node, ast.keyword) and node.arg == "hint":
            yield from literals(node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in told:
                for argument in node.args:
                    yield from literals(argument)


def parameters() -> set[str]:
    """Return every parameter and every field of the package."""
    found: set[str] = set()
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def options() -> set[str]:
    """Return every option of a command."""
    groups = [group for each in SIGNATURES for group in (each.config, each.run)]
    return {o.name for group in (*groups, ReadOptions(), BackboneSpec()) for o in options_of(group)}


def test_no_room_below_the_command_line_names_a_flag() -> None:
    found = []
    for name, tree in sources():
        if name.startswith("commands/") or name == "core/options.py":
            continue  # where flags are made
        for node in literals(tree):
            text = text_of(node) or ""
            if FLAG.search(COMMANDS.sub("", text)):
                found.append(f"{name}:{node.lineno} {text}")  # type: ignore[attr-defined]
    assert found == []


def test_every_parameter_that_a_message_names_exists() -> None:
    known = options() | parameters() | OTHERS
    wrong = [
        f"{name}:{node.lineno} {parameter}="  # type: ignore[attr-defined]
        for name, tree in sources()
        for node in messages(tree)
        for parameter in ASSIGNED.findall(text_of(node) or "")
        if parameter not in known
    ]
    assert wrong == []


def test_the_walk_sees_what_it_has_to_see() -> None:
    tree = ast.parse(
        'def f(x):\n    """Take --layer."""\n'
        "    raise E(f\"no '{x}'\", hint=f'use --{x} or pooling={x!r}, layr=NAME')\n"
    )
    texts = [text_of(node) or "" for node in messages(tree)]
    assert any(FLAG.search(text) for text in texts)
    named = {parameter for text in texts for parameter in ASSIGNED.findall(text)}
    assert named == {"pooling", "layr"}
    assert len(list(literals(tree))) == 2
    assert not FLAG.search(COMMANDS.sub("", "run 'headstart cache verify --repair'; then go on"))


def test_no_command_takes_an_option_twice() -> None:
    for each in SIGNATURES:
        groups = [each.config, each.run, ReadOptions()]
        groups += [BackboneSpec()] if each.builds else []
        names = [option.name for group in groups for option in options_of(group)]
        assert len(names) == len(set(names)), each.name
        flags = [
            flag
            for group in groups
            for option in options_of(group)
            if option.option.cli and option.name not in (*each.without, *each.hidden)
            for flag in option.flags
        ]
        assert len(flags) == len(set(flags)), each.name
        assert set(each.without) | set(each.hidden) <= set(names), each.name
