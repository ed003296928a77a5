"""Follows the axes of features through functions of torch: which of them are averaged away.

Convolutions put channels on axis 1, linear layers and layer norms on the last one. From there on
axes are followed through whatever moves, joins or reduces them, in the network and behind it. What
cannot be followed is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._dynamo.eval_frame import OptimizedModule
from torch.utils.weak import WeakIdKeyDictionary

from headstart.audit.beneath import Beneath
from headstart.audit.events import Pass
from headstart.audit.measuring import trial
from headstart.audit.places import user_place
from headstart.audit.records import Place
from headstart.modules.observing import tensors_in

Axes = tuple[str, ...]
"""``n``, ``c`` (channels, features), ``h``, ``w``, ``t`` (tokens), ``1``; ``h+w``: joined ones."""
MOST = 64
"""Reductions that are remembered."""
_REDUCE = {"mean", "sum", "amax", "max", "amin", "min", "nanmean", "nansum", "logsumexp", "median"}
_MOVE = {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "__get__"}
_RESHAPE = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "view_as", "reshape_as"}


@dataclass(frozen=True)
class Reduction:
    """Channels were averaged away while positions stayed.

    Attributes:
        place: the line that did it.
        before: shape of what was reduced.
        axes: its axes.
        width: what remains of a row.
        used: whether a trained linear layer was seen to take the result.
    """

    place: Place
    before: tuple[int, ...]
    axes: Axes
    width: int
    used: bool = False


class AxisTrace(Beneath):
    """Follows axes while it is on.

    Attributes:
        wrong: reductions over channels that left positions.
        widths: of rows that were pooled over positions, as they should be.
        output: axes of what the network put out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[Reduction] = []
        self.widths: set[int] = set()
        self.output: Axes | None = None
        self._axes: Any = WeakIdKeyDictionary()
        self._lost: Any = WeakIdKeyDictionary()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, and follow the axes of what it is given."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        first = next((a for a in args if isinstance(a, Tensor)), None)
        output = result if isinstance(result, Tensor) else next(tensors_in(result), None)
        if first is not None and output is not None and output.is_floating_point():
            try:
                self._follow(getattr(func, "__name__", ""), first, output, args, kwargs)
            except (IndexError, TypeError, ValueError, AttributeError):
                return result  # called in a way that is not known here: forgotten
        return result

    def _follow(
        self, name: str, first: Tensor, output: Tensor, args: tuple[Any, ...], kwargs: Any
    ) -> None:
        fresh = _fresh(name, output)
        if name == "linear":
            self._taken(first, args)
            before = self._axes.get(first)
            fresh = fresh if before is None else (*before[:-1], "c")
        if fresh is not None:
            self._axes[output] = fresh
            return
        known = self._axes.get(first)
        if known is None or len(known) != first.ndim:
            self._inherit(output, args)
            return
        if name in _REDUCE or name == "adaptive_avg_pool1d":
            after = self._reduced(name, first, known, output, args, kwargs)
        else:
            after = moved(name, first, known, output)
        if after is None or len(after) != output.ndim:
            self._inherit(output, args)
            return
        self._keep(output, after, self._lost.get(first))

    def on_output(self, output: Tensor | None) -> bool:
        """Give the output of a network the axes that it had when it was followed."""
        if output is None or self.output is None or len(self.output) != output.ndim:
            return False
        self._axes[output] = self.output
        return "c" in self.output and output.ndim > 2

    def end(self, output: Tensor | None) -> None:
        """Keep the axes of an output, and forget all others."""
        self.output = None if output is None else self._axes.get(output)
        self._axes.clear()
        self._lost.clear()

    def _inherit(self, output: Tensor, args: tuple[Any, ...]) -> None:
        """Functions of equal shapes keep axes: activations, sums, dropout, normalisation."""
        for each in tensors_in(args):
            axes = self._axes.get(each)
            if axes is not None and each.shape == output.shape:
                self._keep(output, axes, self._lost.get(each))
                return

    def _keep(self, tensor: Tensor, axes: Axes, lost: int | None) -> None:
        self._axes[tensor] = axes
        if lost is not None:
            self._lost[tensor] = lost

    def _reduced(
        self, name: str, first: Tensor, known: Axes, output: Tensor, args: Any, kwargs: Any
    ) -> Axes | None:
        given = kwargs.get("dim", args[1] if len(args) > 1 else None)
        keep = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
        if name == "adaptive_avg_pool1d":
            given, keep = -1, True
            if output.shape[-1] != 1:
                return None
        if given is None or isinstance(given, Tensor | float):
            return None
        dims = {d % first.ndim for d in (given if isinstance(given, tuple | list) else [given])}
        left = tuple(a for i, a in enumerate(known) if i not in dims)
        gone = {part for i in dims for part in known[i].split("+")}
        spatial = {part for a in left for part in a.split("+")} & {"h", "w", "t"}
        if "c" in gone and spatial and "c" not in left and left[0] == "n" and len(left) == 2:
            width = int(first.shape[known.index(left[1])])
            if width > 1 and len(self.wrong) < MOST:
                self.wrong.append(Reduction(user_place(), tuple(first.shape), known, width))
                self._lost[output] = len(self.wrong) - 1
        elif left[-1:] == ("c",) and len(left) == 2:
            self.widths.add(int(first.shape[known.index("c")]))
        return tuple("1" if i in dims else a for i, a in enumerate(known)) if keep else left

    def _taken(self, given: Tensor, args: tuple[Any, ...]) -> None:
        at = self._lost.get(given)
        weight = args[1] if len(args) > 1 else None
        if at is not None and isinstance(weight, Tensor) and weight.requires_grad:
            was = self.wrong[at]
            self.wrong[at] = Reduction(was.place, was.before, was.axes, was.width, True)


def traced(seen: Pass, trace: AxisTrace) -> AxisTrace:
    """Follow axes through a network, on a stand-in that runs once more."""
    module = seen.network.module
    if module is None or seen.args is None or isinstance(module, OptimizedModule):
        return trace
    try:
        with trial(module) as stand_in:
            trace.start()
            try:
                output = stand_in(*seen.args, **(seen.kwargs or {}))
            finally:
                trace.stop()
        trace.end(next(tensors_in(output), None))
    except Exception:
        trace.end(None)
    return trace


def _fresh(name: str, output: Tensor) -> Axes | None:
    """Return the axes of what a layer puts out, where the kind of layer tells them."""
    if output.ndim == 4 and name in ("conv2d", "conv_transpose2d"):
        return ("n", "c", "h", "w")
    if output.ndim == 3 and name in ("linear", "layer_norm"):
        return ("n", "t", "c")
    return None


def moved(name: str, first: Tensor, known: Axes, output: Tensor) -> Axes | None:
    """Return the axes after a function that moves, joins, takes or pools them; None: not known."""
    if name in _MOVE:
        # Which one it is follows from where shapes and strides have gone.
        return _permuted(first, known, output)
    if name in _RESHAPE:
        return joined(tuple(first.shape), known, tuple(output.shape))
    if name in ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "interpolate", "pad"):
        return known if known == ("n", "c", "h", "w") else None
    if name == "cat" and output.ndim == len(known):
        return known
    return None


def _permuted(first: Tensor, known: Axes, output: Tensor) -> Axes | None:
    before = list(zip(first.shape, first.stride(), known, strict=True))
    if output.ndim != first.ndim or len({(s, t) for s, t, _ in before}) != first.ndim:
        return None
    found = {(s, t): label for s, t, label in before}
    after = [found.get(pair) for pair in zip(output.shape, output.stride(), strict=True)]
    return None if None in after else tuple(str(label) for label in after)


def joined(before: tuple[int, ...], known: Axes, after: tuple[int, ...]) -> Axes | None:
    """Return the axes after a reshape that only joins neighbours, or adds or drops axes of 1."""
    found: list[str] = []
    pairs = [(size, label) for size, label in zip(before, known, strict=True) if size != 1]
    at = 0
    for size in after:
        if size == 1:
            found.append("1")
            continue
        product, labels = 1, []
        while product < size and at < len(pairs):
            product *= pairs[at][0]
            labels.append(pairs[at][1])
            at += 1
        if product != size:
            return None
        found.append("+".join(labels))
    return tuple(found) if at == len(pairs) else None


__all__ = ["Axes", "AxisTrace", "Reduction", "joined", "traced"]
