"""The proof of a cut: the two parts compute what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from headstart.core.devices import doubled
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.call_form import CallForm
from headstart.prefix.comparing import tensors_in, version
from headstart.prefix.terms import Terms

TOLERANCE = 1e-5
"""The largest difference, relative to the largest value of the output, that is rounding."""
_SEED = 0
_ITEMS = 8


@dataclass(frozen=True)
class Check:
    """How far ``suffix(*prefix(x))`` was from ``model(x)``.

    Attributes:
        exact: whether all outputs were equal to the bit, in evaluation and in training mode.
        max_error: the largest difference, relative to the largest value of the output.
        items: how many items were compared in each mode.
        fault: what went wrong where the cut does not hold; None where it does.
    """

    exact: bool
    max_error: float
    items: int
    fault: str | None = None

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        closeness = "bit-identical" if self.exact else f"equal to {self.max_error:.1g}"
        return f"output {closeness} on {self.items} items"


def check(
    model: nn.Module,
    prefix: nn.Module,
    suffix: nn.Module,
    form: CallForm,
    batches: Sequence[Sequence[Tensor]],
    terms: Terms,
    evaluated: Sequence[Callable[[], Any]],
) -> Check:
    """Compare model and parts, on batches of different size, in evaluation and training mode.

    In training mode both sides draw the same random numbers: the frozen part draws none.

    Args:
        model, prefix, suffix: the whole and its parts.
        form: how the model is called.
        batches: of different size.
        terms: the modes of training.
        evaluated: for every batch, a function that returns what :func:`evaluate_model` does.
    """
    worst, exact, items = 0.0, True, 0
    for batch, evaluated_model in zip(batches, evaluated, strict=True):
        items += len(batch[0])
        rows: tuple[Tensor, ...] = ()
        for train in (False, True):
            mode = "training" if train else "evaluation"
            put: Callable[[], None] = (
                (lambda: terms.train(model)) if train else (lambda: evaluate(model))
            )
            try:
                expected = _run(model, model, form, batch, put) if train else evaluated_model()
                rows = rows or _rows(model, prefix, form, batch)
                versions = [version(row) for row in rows]
                with untouched(model):
                    put()
                    torch.manual_seed(_SEED)
                    output = suffix(*rows)
            except Exception as failure:  # the model is a user's own code: anything may be raised
                reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
                return Check(False, float("inf"), items, f"running the parts failed ({reason})")
            if versions != [version(row) for row in rows]:
                return Check(False, float("inf"), items, "the suffix changes its rows in place")
            whole, parts = tensors_in(expected), tensors_in(output)
            if pytree.tree_structure(output) != pytree.tree_structure(expected):
                return Check(False, float("inf"), items, "the output comes in another form")
            if not whole:
                return Check(False, float("inf"), items, "the model's output holds no tensor")
            error = _distance(whole, parts)
            exact = exact and error == 0.0 and all(map(_equal, whole, parts))
            worst = max(worst, error)
            if not worst <= TOLERANCE:
                reason = f"the parts differ from the model by {worst:.2g} in {mode} mode"
                return Check(False, worst, items, reason)
    return Check(exact, worst, items)


def evaluate_model(model: nn.Module, form: CallForm, batch: Sequence[Tensor]) -> Any:
    """Return the output of a model in evaluation mode, and leave the model unchanged."""
    return _run(model, model, form, batch, lambda: evaluate(model))


def _run(
    model: nn.Module,
    runs: Callable[..., Any],
    form: CallForm,
    batch: Sequence[Tensor],
    put: Callable[[], None],
) -> Any:
    args, kwargs = form.call([tensor.clone() for tensor in batch])
    with untouched(model):
        put()
        torch.manual_seed(_SEED)
        return runs(*args, **kwargs)


def _rows(
    model: nn.Module, prefix: nn.Module, form: CallForm, batch: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Compute boundary rows as a store returns them: separate and contiguous."""
    rows = _run(model, prefix, form, batch, lambda: evaluate(model))
    return tuple(row.clone(memory_format=torch.contiguous_format) for row in rows)


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left, right)


def _distance(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    if len(left) != len(right) or any(a.shape != b.shape for a, b in zip(left, right, strict=True)):
        return float("inf")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if torch.equal(a, b) or not a.numel():
            continue
        wide = doubled(a)
        difference = float((wide - doubled(b)).abs().max())
        scale = float(wide.abs().max()) or 1.0
        worst = max(worst, difference / scale)
        if difference != difference:  # one side is not a number where the other is one
            return float("inf")
    return worst


__all__ = ["TOLERANCE", "Check", "check", "evaluate_model"]
