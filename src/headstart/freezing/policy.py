"""What frozen means for a part of a model: four axes, named presets, no contradictions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from headstart.core.errors import FreezeError
from headstart.core.wording import nearest, quoted

Parameters = Literal["frozen", "trainable"]
Norm = Literal["running", "batch", "reestimated"]
Stochastic = Literal["off", "on"]
Autograd = Literal["grad", "no_grad", "inference"]
Affine = Literal["follow", "frozen", "trainable"]

_CHOICES: dict[str, tuple[object, ...]] = {
    "parameters": ("frozen", "trainable"),
    "norm": ("running", "batch", "reestimated"),
    "norm_updates": (False, True),
    "stochastic": ("off", "on"),
    "autograd": ("grad", "no_grad", "inference"),
    "affine": ("follow", "frozen", "trainable"),
}


@dataclass(frozen=True)
class FreezePolicy:
    """What a part of a model does while the model is in training mode.

    In evaluation mode (``model.eval()``) every part behaves as evaluation mode prescribes: running
    statistics, no randomness. A policy says what ``model.train()`` may switch on. The defaults
    describe a part that is frozen completely.

    Attributes:
        parameters: ``frozen`` (``requires_grad`` off) or ``trainable``.
        norm: which statistics normalise in layers that keep running ones. ``running``: those
            saved in the checkpoint. ``batch``: those of the mini-batch. ``reestimated``: the
            population statistics with which :func:`headstart.reestimate` replaced them.
        norm_updates: whether the running statistics keep moving. Only a layer that normalises by
            the batch updates them.
        stochastic: dropout, drop-path, stochastic depth, RReLU and anything else that reads
            ``self.training``: ``off``, or ``on`` in training mode.
        autograd: ``grad`` (gradients may flow through to earlier parts), ``no_grad``, or
            ``inference`` (``torch.inference_mode``, whose outputs cannot be used in training).
            Frozen parameters whose inputs need no gradient build no graph anyway, so ``grad``
            costs nothing there.
        affine: scales and shifts of norm layers (batch, layer, group, instance and RMS norms):
            ``follow`` the parameters, or ``frozen`` or ``trainable`` on their own.

    Raises:
        FreezeError: a value is not one of the choices, or the combination contradicts itself.
    """

    parameters: Parameters = "frozen"
    norm: Norm = "running"
    norm_updates: bool = False
    stochastic: Stochastic = "off"
    autograd: Autograd = "grad"
    affine: Affine = "follow"

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)!r}, expected one of {', '.join(map(repr, choices))}"
            for name, choices in _CHOICES.items()
            if getattr(self, name) not in choices
        ] or self._contradictions()
        if faults:
            raise FreezeError(f"the policy contradicts itself: {'; '.join(faults)}")

    def _contradictions(self) -> list[str]:
        faults = []
        if self.norm_updates and self.norm == "running":
            faults.append(
                "norm='running' with norm_updates=True: running statistics are updated only by"
                " layers that normalise by the batch (norm='batch')"
            )
        if self.norm_updates and self.norm == "reestimated":
            faults.append(
                "norm='reestimated' with norm_updates=True: updates would replace the exact"
                " population statistics by a moving average of batches"
            )
        if self.autograd != "grad" and self.trains:
            faults.append(
                f"autograd={self.autograd!r} with trainable parameters: they would never receive"
                " a gradient"
            )
        return faults

    @property
    def affine_trainable(self) -> bool:
        """Whether scales and shifts of norm layers train."""
        return self.affine == "trainable" or (
            self.affine == "follow" and self.parameters == "trainable"
        )

    @property
    def trains(self) -> bool:
        """Whether any parameter under this policy may train."""
        return self.parameters == "trainable" or self.affine_trainable

    @property
    def batch_independent(self) -> bool:
        """Whether the output for an item does not depend on the other items of its batch."""
        return self.norm != "batch"

    @property
    def deterministic(self) -> bool:
        """Whether the output for an item does not depend on random numbers."""
        return self.stochastic == "off"

    @property
    def cacheable(self) -> bool:
        """Whether a row computed in training mode under this policy may be kept and reused.

        True if it depends on neither the batch nor random numbers, and nothing moves.
        """
        return self.batch_independent and self.deterministic and not self.trains

    def describe(self) -> dict[str, str | bool]:
        """Return the axes as a plain dict, for cache keys and reports."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        parts = [
            f"parameters {self.parameters}",
            f"norm {self.norm} {'moving' if self.norm_updates else 'fixed'}",
            f"stochastic {self.stochastic}",
            f"autograd {self.autograd}",
        ]
        if self.affine != "follow":
            parts.append(f"affine {self.affine}")
        name = preset_name(self)
        return f"{name or 'policy'}: {', '.join(parts)}"


PRESETS: dict[str, FreezePolicy] = {
    # Nothing moves, nothing varies. Gradients may still flow through to earlier parts.
    "frozen": FreezePolicy(),
    # The same, in inference mode: for extraction, where nothing downstream trains.
    "features": FreezePolicy(autograd="inference"),
    # Like frozen, with the statistics that reestimate() measured on the target's training split.
    "frozen-reestimated": FreezePolicy(norm="reestimated"),
    # What torch does without a contract.
    "trainable": FreezePolicy("trainable", "batch", True, "on"),
    # Fine-tuning with batch norms still in inference mode, as the Keras guide recommends.
    "trainable-fixed-norm": FreezePolicy("trainable", "running", False, "on"),
    # Only the scales and shifts of norm layers train, under moving batch statistics.
    "norm-only": FreezePolicy("frozen", "batch", True, "off", affine="trainable"),
    # What `requires_grad_(False)` alone amounts to: to measure a common mistake, not to make it.
    "requires-grad-only": FreezePolicy("frozen", "batch", True, "on"),
}


def as_policy(value: FreezePolicy | str) -> FreezePolicy:
    """Return a policy from itself or from the name of a preset.

    Raises:
        FreezeError: there is no such preset; the message offers the nearest names.
    """
    if isinstance(value, FreezePolicy):
        return value
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]
    close = nearest(str(value), PRESETS) or tuple(PRESETS)
    raise FreezeError(
        f"{value!r} is neither a FreezePolicy nor the name of a preset",
        hint=f"presets are {quoted(close)}",
    )


def preset_name(policy: FreezePolicy) -> str | None:
    """Return the name of the preset that equals this policy, if there is one."""
    return next((name for name, preset in PRESETS.items() if preset == policy), None)


__all__ = ["PRESETS", "FreezePolicy", "as_policy", "preset_name"]
