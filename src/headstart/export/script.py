"""The stand-alone ``predict.py`` of an artefact, put together from the code that headstart runs.

It begins at a few files of ``export/scripts`` and takes along whatever of headstart they name,
function by function: an artefact decodes and resizes images with the very code that its run was
trained with, and imports none of it.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

_PACKAGE = "headstart"
_END = """

model = Model(Path(__file__).resolve().parent, read, Network)

if __name__ == "__main__":
    sys.exit(main(model))
"""


def standalone_script(modules: Sequence[str], about: str) -> str:
    """Return the text of a script that holds some modules of ``export/scripts`` and what they need.

    Args:
        modules: their names; all of them are taken whole.
        about: its docstring.
    """
    bundle = _Bundle()
    for name in modules:
        bundle.add_module(importlib.import_module(f"headstart.export.scripts.{name}"))
    text = ast.literal_eval(repr(about)).replace("\\", "\\\\").replace('"""', "'''")
    head = f'"""{text}\n"""\n\nfrom __future__ import annotations\n'
    return "\n".join([head, *sorted(bundle.imports), "", "", *bundle.parts]).rstrip() + "\n" + _END


class _Bundle:
    """Parts of modules in the order in which they can be run.

    Attributes:
        imports: lines that import what is not headstart's.
        parts: source of functions, classes and constants.
    """

    def __init__(self) -> None:
        self.imports: dict[str, None] = {}
        self.parts: list[str] = []
        self._taken: set[tuple[str, int]] = set()
        self._names: dict[str, str] = {}

    def add_module(self, module: ModuleType) -> None:
        """Take everything that a module defines."""
        for name in _definitions(module):
            if name != "__all__":
                self.add(module, name)

    def add(self, module: ModuleType, name: str) -> None:
        """Take what a module calls by a name, after whatever that needs itself."""
        node = _definitions(module).get(name)
        if node is None or (module.__name__, node.lineno) in self._taken:
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, name)
            return
        self._taken.add((module.__name__, node.lineno))
        if self._names.setdefault(name, module.__name__) != module.__name__:
            raise ValueError(f"{name} is in {module.__name__} and in {self._names[name]}")
        for needed in _names_in(node):
            self.add(module, needed)
        source = ast.get_source_segment(_text(module), node)
        assert source is not None
        marked = [f"@{ast.unparse(each)}" for each in getattr(node, "decorator_list", ())]
        self.parts.append("\n".join([*marked, source]) + "\n\n")

    def _import(self, node: ast.Import | ast.ImportFrom, name: str) -> None:
        alias = next(each for each in node.names if (each.asname or each.name) == name)
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            self.imports[f"import {alias.name}{renamed}"] = None
        elif str(node.module).partition(".")[0] == _PACKAGE:
            self.add(importlib.import_module(str(node.module)), alias.name)
        elif node.module != "__future__":
            self.imports[f"from {node.module} import {alias.name}{renamed}"] = None


def _text(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def _definitions(module: ModuleType) -> dict[str, ast.stmt]:
    """Return what a module defines and imports, by name; imports for types alone, too."""
    found: dict[str, ast.stmt] = {}
    for node in _statements(ast.parse(_text(module)).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {each.asname or each.name: node for each in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            names = [each for target in node.targets for each in ast.walk(target)]
            found |= {each.id: node for each in names if isinstance(each, ast.Name)}
    return found


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If):  # of TYPE_CHECKING
            yield from node.body


def _names_in(node: ast.stmt) -> list[str]:
    """Return the names that a definition uses, its annotations included."""
    return list(dict.fromkeys(n.id for n in ast.walk(node) if isinstance(n, ast.Name)))


__all__ = ["standalone_script"]
