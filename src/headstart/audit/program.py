"""What is to be run: a Python file, or a module as ``python -m`` finds it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """A script.

    Attributes:
        file: its source.
        folder: what Python puts first in ``sys.path``.
        spec: of a module that is run by its name; None for a file.
    """

    file: Path
    folder: str
    spec: importlib.machinery.ModuleSpec | None = None


def find_program(script: str | Path) -> Program:
    """Return a file, or the module of that name where there is no such file."""
    path, name = Path(script), str(script)
    if not path.exists() and all(part.isidentifier() for part in name.split(".")):
        spec = _find_module(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            return Program(Path(spec.origin), str(Path.cwd()), spec)
    return Program(path, str(path.resolve().parent))


def _find_module(name: str) -> importlib.machinery.ModuleSpec | None:
    kept = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        return spec
    except (ImportError, ValueError, AttributeError):
        return None
    finally:
        sys.path[:] = kept


__all__ = ["Program", "find_program"]
