"""Watches scikit-learn: what estimators are fitted to, and how splitters divide data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.audit import events
from headstart.audit.hub import Hub
from headstart.audit.imports import After
from headstart.audit.patches import Patches
from headstart.audit.places import is_library, user_place

_BASE, _SPLITTERS = "sklearn.base", "sklearn.model_selection._split"


class EstimatorWatcher:
    """Wraps what every ``fit`` and every ``split`` of scikit-learn calls, once it is imported."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._patches = Patches()
        self._finders: list[After] = []

    def install(self) -> None:
        """Wrap them now, or as soon as they have been imported."""
        for package, wrap in ((_BASE, self._wrap_fits), (_SPLITTERS, self._wrap_splits)):
            if package in sys.modules:
                wrap()
            else:
                self._finders.append(After(package, wrap))
                sys.meta_path.insert(0, self._finders[-1])

    def remove(self) -> None:
        """Leave scikit-learn as it was."""
        self._patches.undo()
        for finder in self._finders:
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
        self._finders = []

    def _wrap_fits(self) -> None:
        estimator = getattr(sys.modules[_BASE], "BaseEstimator", None)
        if estimator is not None:
            self._patches.around(estimator, "_validate_params", self._around_fit)

    def _wrap_splits(self) -> None:
        for name in ("BaseCrossValidator", "BaseShuffleSplit"):
            splitter = getattr(sys.modules[_SPLITTERS], name, None)
            if splitter is not None:
                self._patches.around(splitter, "split", self._around_split)

    def _around_fit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Every ``fit`` checks its parameters first; the frame that asks for it has the data."""

        def validate(estimator: Any) -> Any:
            if self.hub.listens("on_fit") and not self.hub.elsewhere():
                found = sys._getframe(1).f_locals
                args, kwargs = found.get("args") or (), found.get("kwargs") or {}
                x = args[0] if args else kwargs.get("X")
                if x is not None and found.get("estimator") is estimator:
                    seen = events.Fit(type(estimator).__name__, user_place(), x)
                    self.hub.tell("on_fit", seen)
                    seen.x = None
            return original(estimator)

        return validate

    def _around_split(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def split(splitter: Any, X: Any, y: Any = None, groups: Any = None) -> Any:
            told = False
            for train, test in original(splitter, X, y, groups):
                if not told and self._is_asked_for():
                    told = True
                    grouped = groups is not None
                    kind = type(splitter).__name__
                    seen = events.Split(kind, user_place(), X, train, test, grouped)
                    self.hub.tell("on_split", seen)
                    seen.x = seen.train = seen.test = None
                yield train, test

        return split

    def _is_asked_for(self) -> bool:
        """Whether the user's code divides data, and not a ``fit`` that chooses its parameters."""
        if self.hub.elsewhere() or not self.hub.listens("on_split"):
            return False
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and is_library(frame.f_code.co_filename):
            if frame.f_code.co_name == "fit":
                return False
            frame = frame.f_back
        return True


def as_rows(x: Any) -> Tensor | None:
    """Return numbers ``(n, d)`` as a tensor; None for anything else, such as texts or tables."""
    if isinstance(x, Tensor):
        rows = x.detach()
    else:
        try:
            rows = torch.as_tensor(np.asarray(x))
        except (TypeError, ValueError):
            return None
    return rows if rows.ndim == 2 and rows.is_floating_point() and rows.shape[1] > 1 else None


__all__ = ["EstimatorWatcher", "as_rows"]
