"""Run a network of the user's once more, for a measurement, and leave no trace."""

from __future__ import annotations

import copy
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from headstart.audit.places import is_library
from headstart.modules.modes import untouched
from headstart.modules.writers import held_states

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def saved_randomness() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch."""
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    state = None if numpy is None else numpy.random.get_state()
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if started else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(state)


@contextmanager
def trial(module: nn.Module) -> Iterator[nn.Module]:
    """Give a stand-in for a network, to run for a measurement.

    It has the modes and values of the network, shares its parameters and has buffers of its own.
    Autograd is off, hooks of the user's do not run, and random states return. A network that cannot
    be copied stands in for itself, with its buffers and attributes restored.
    """
    with saved_randomness(), torch.no_grad():
        try:
            shared = {id(tensor): tensor for tensor in module.parameters()}
            stand_in = copy.deepcopy(module, shared)
        except Exception:
            stand_in = module
        with untouched(stand_in), held_states(stand_in):
            for part in stand_in.modules():
                for name in _HOOKS:
                    own = part.__dict__.get(name)
                    if own:
                        kept = ((key, hook) for key, hook in own.items() if _is_librarys(hook))
                        part.__dict__[name] = OrderedDict(kept)
            yield stand_in


def _is_librarys(hook: Any) -> bool:
    function = getattr(hook, "__func__", hook)
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(type(hook), "__call__", None), "__code__", None)  # noqa: B004
    return code is not None and is_library(code.co_filename)


__all__ = ["saved_randomness", "trial"]
