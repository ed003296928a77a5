"""Doing something as soon as a package has been imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import types
from collections.abc import Callable
from typing import Any


class After(importlib.abc.MetaPathFinder):
    """Calls a function when a package has been imported."""

    def __init__(self, package: str, then: Callable[[], None]) -> None:
        self.package, self.then, self.busy = package, then, False

    def find_spec(
        self, fullname: str, _path: Any = None, _target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a package as Python would, and run the function after it."""
        if fullname != self.package or self.busy:
            return None
        self.busy = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.busy = False
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            self.then()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


__all__ = ["After"]
