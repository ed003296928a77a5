"""The freeze contract: what is frozen does not move, whatever calls ``train()``.

Freezing is four things that are easily mixed up: parameters, the statistics that normalise,
chance, and autograd. :class:`FreezePolicy` names them, :func:`freeze` holds a model to them,
:func:`guard` and ``handle.verify()`` prove it, and :func:`reestimate`, :func:`blend` and
:func:`drift` make batch-norm statistics a choice.
"""

from headstart.freezing.contract import Verification
from headstart.freezing.drifts import LayerDrift, drift
from headstart.freezing.guards import GuardReport, guard
from headstart.freezing.handle import FreezeHandle, freeze, refreeze
from headstart.freezing.moments import Moments
from headstart.freezing.norm import Reestimation, blend, reestimate
from headstart.freezing.plan import FreezePlan, PlanRow, plan_freeze
from headstart.freezing.policy import PRESETS, FreezePolicy
from headstart.modules.digests import Change, compare_digests, digest, digests

__all__ = [
    "PRESETS",
    "Change",
    "FreezeHandle",
    "FreezePlan",
    "FreezePolicy",
    "GuardReport",
    "LayerDrift",
    "Moments",
    "PlanRow",
    "Reestimation",
    "Verification",
    "blend",
    "compare_digests",
    "digest",
    "digests",
    "drift",
    "freeze",
    "guard",
    "plan_freeze",
    "reestimate",
    "refreeze",
]
