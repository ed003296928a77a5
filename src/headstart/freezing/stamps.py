"""The mark that a layer's running statistics were re-estimated, and have not moved since."""

from __future__ import annotations

from torch import nn

from headstart.core.errors import FreezeError
from headstart.core.wording import quoted
from headstart.freezing.plan import FreezePlan
from headstart.modules import kinds
from headstart.modules.digests import digest

_STAMP = "_headstart_reestimated"


def stamp(module: nn.Module) -> None:
    """Mark the running statistics that a layer has now as re-estimated."""
    module.__dict__[_STAMP] = _content(module)


def unstamp(module: nn.Module) -> None:
    """Remove the mark."""
    module.__dict__.pop(_STAMP, None)


def is_stamped(module: nn.Module) -> bool:
    """Whether the layer's statistics are those that were re-estimated."""
    return module.__dict__.get(_STAMP) == _content(module)


def check(model: nn.Module, plan: FreezePlan) -> None:
    """Refuse a plan with ``norm='reestimated'`` for layers that were not.

    Raises:
        FreezeError: layers are named whose statistics were never re-estimated, or moved since.
    """
    modules = dict(model.named_modules())
    wrong = [
        intent.name
        for intent in plan.intents
        if intent.policy.norm == "reestimated"
        and kinds.is_reestimable(modules[intent.name])
        and not is_stamped(modules[intent.name])
    ]
    if wrong:
        raise FreezeError(
            f"the policy says norm='reestimated', and the statistics of {quoted(wrong, 6)} were"
            " not re-estimated",
            hint="call headstart.reestimate(model, batches) before freezing",
        )


def _content(module: nn.Module) -> str:
    names = [name for name in kinds.running_buffers(module) if name.startswith("running_")]
    return "".join(digest(module.get_buffer(name)) for name in names)


__all__ = ["check", "is_stamped", "stamp", "unstamp"]
