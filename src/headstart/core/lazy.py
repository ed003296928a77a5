"""Packages whose ``__init__`` is a table of contents: a name loads its module on first use."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def contents(
    package: str, modules: Mapping[str, Sequence[str]], packages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Light modules of the package, such as its settings, can then be imported without its heavy
    ones. For type checkers the package also imports the names under ``TYPE_CHECKING``. A package
    inside this one that is called as a name of the table, such as ``headstart.export``, never takes
    its place, whoever imports it and when.

    Args:
        package: ``__name__`` of the package.
        modules: the names that each module offers; a module by its name inside the package, or by
            its full name.
        packages: packages inside this one that are loaded when they are named.
    """
    homes = {
        name: module if module.startswith("headstart.") else f"{package}.{module}"
        for module, names in modules.items()
        for name in names
    }

    _keep(sys.modules[package], frozenset(homes))

    def load(name: str) -> Any:
        if name in packages:
            with drawing_nothing():
                return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with drawing_nothing():
            value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *packages})

    return load, names, list(homes)


def _keep(package: ModuleType, names: frozenset[str]) -> None:
    """Have a package keep its names; importing a package inside it sets an attribute."""

    class Contents(ModuleType):
        """A package that is a table of contents."""

        def __setattr__(self, name: str, value: object) -> None:
            if name not in names or not isinstance(value, ModuleType):
                super().__setattr__(name, value)

    package.__class__ = Contents


@contextmanager
def drawing_nothing() -> Iterator[None]:
    """Import something, and leave Python's own generator as it was: rich draws from it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


__all__ = ["contents", "drawing_nothing"]
