"""Watches a script through torch's global hooks, and tells checks what happens.

Nothing that the script computes changes: no random number is drawn, no tensor written, no hook
returns anything. ``passes``, ``steps``, ``calls``, ``batches`` and ``estimators`` each watch one
thing; what they share is in ``hub``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from headstart.audit.batches import BatchWatcher
from headstart.audit.calls import LOSSES, CallWatcher
from headstart.audit.check import Check
from headstart.audit.estimators import EstimatorWatcher
from headstart.audit.hub import Hub
from headstart.audit.imports import After
from headstart.audit.passes import PassWatcher
from headstart.audit.patches import Patches
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.audit.steps import StepWatcher
from headstart.core.wording import count


class Observer:
    """One audit: install it, run the script, remove it, and ask for the findings.

    Args:
        checks: one instance of each.
        steps: raise :class:`headstart.audit.hub.StopAudit` after so many steps of optimizers; None:
            never.

    Attributes:
        hub: what the watchers share.
    """

    def __init__(self, checks: Iterable[Check], steps: int | None = None) -> None:
        self.hub = Hub(checks, steps)
        self._passes = PassWatcher(self.hub)
        self._steps = StepWatcher(self.hub, self._passes)
        self._calls = CallWatcher(self.hub, self._passes)
        self._batches = BatchWatcher(self.hub, self._passes)
        self._estimators = EstimatorWatcher(self.hub)
        self._handles: list[Any] = []
        self._patches = Patches()
        self._finder: Any = None

    @property
    def scene(self) -> Scene:
        """What has been seen."""
        return self.hub.scene

    def install(self) -> None:
        """Begin to watch."""
        passes, steps, calls, batches = self._passes, self._steps, self._calls, self._batches
        self._handles = [
            hooks.register_module_forward_pre_hook(passes.enter),
            hooks.register_module_forward_hook(passes.leave, with_kwargs=True, always_call=True),
            register_optimizer_step_pre_hook(steps.before_step),
            register_optimizer_step_post_hook(steps.after_step),
        ]
        around = self._patches.around
        around(nn.Module, "train", calls.around_train)
        around(nn.Module, "load_state_dict", calls.around_load)
        around(torch.autograd, "backward", calls.around_backward)
        around(torch.autograd, "grad", calls.around_grad)
        around(Optimizer, "__init__", steps.around_optimizer)
        for name in LOSSES:
            around(nn.functional, name, lambda f, name=name: calls.around_loss(name, f))  # type: ignore[misc]
        from torch.optim import lr_scheduler
        from torch.utils.data import dataloader

        around(dataloader._BaseDataLoaderIter, "__next__", batches.around_next)
        around(dataloader.DataLoader, "__iter__", batches.around_iter)
        kinds = [k for k in vars(lr_scheduler).values() if isinstance(k, type)]
        base = lr_scheduler.LRScheduler
        for kind in dict.fromkeys(kinds):
            if issubclass(kind, base):
                around(kind, "step", steps.around_schedule)
        around(base, "__init__", steps.around_scheduler)
        around(lr_scheduler.ReduceLROnPlateau, "__init__", steps.around_scheduler)
        self._estimators.install()
        if "keras" in sys.modules:
            self.scene.keras.install()
        else:
            self._finder = After("keras", self.scene.keras.install)
            sys.meta_path.insert(0, self._finder)

    def remove(self) -> None:
        """Stop watching, and leave torch as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._patches.undo()
        self.scene.end_between()
        self._estimators.remove()
        self.scene.keras.remove()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def introduce(self, module: nn.Module) -> None:
        """Look at a network before it runs."""
        self._passes.introduce(module)

    def findings(self) -> tuple[Finding, ...]:
        """Ask every check what it found; the worst come first, then the order of the table.

        The same of several networks at one line is one finding.
        """
        found: list[Finding] = []
        with self.hub.aside():
            for check in self.hub.checks:
                found += self.hub.guarded(check, self._asked, check) or ()
        ranks = {"error": 0, "warning": 1, "info": 2}
        return tuple(sorted(_together(found), key=lambda finding: ranks[finding.severity]))

    def _asked(self, check: Check) -> list[Finding]:
        return list(check.finish(self.scene))

    def crashed(self, error: BaseException) -> None:
        """Tell every check of an exception that ended the script."""
        for check in self.hub.checks:
            self.hub.guarded(check, check.on_crash, error, self.scene)


def _together(findings: list[Finding]) -> list[Finding]:
    """Tell once what is the same mistake: the same code, module, severity and line."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for each in findings:
        key = (each.code, each.severity, each.module, each.file, each.line)
        groups.setdefault(key if each.line else (id(each),), []).append(each)
    return [_as_one(group) if len(group) > 1 else group[0] for group in groups.values()]


def _as_one(group: list[Finding]) -> Finding:
    first, others = group[0], len(group) - 1
    more = f" The same {count(others, 'more time')} at this line, of other networks."
    return replace(
        first,
        message=first.message.rstrip(".") + "." + more,
        evidence={**first.evidence, "times at this line": len(group)},
    )


__all__ = ["Observer"]
