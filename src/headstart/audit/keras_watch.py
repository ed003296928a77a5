"""What happens in Keras models: the modes that layers really run in, and what moves in ``fit``.

Keras passes the mode with every call (``training``), so that the modes of torch modules say nothing
about its layers; the observer leaves them to this file. Nothing here imports Keras.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules import module as hooks

from headstart.audit.patches import Patches
from headstart.audit.places import user_place
from headstart.audit.records import Place
from headstart.core.errors import HeadstartError
from headstart.data.corrections import Correction, corrections
from headstart.freezing.moments import Moments
from headstart.modules.forward import StopForward, hooked
from headstart.modules.keras_layers import is_keras

ROWS = 48
"""Images that are looked at, by model."""
Job = str
"""``fit``, ``predict`` or ``evaluate``."""


@dataclass(eq=False)
class KerasLayer:
    """A layer, as it was in one job.

    Attributes:
        path: its path in the model.
        trainable: its own flag.
        weights: how many weights it has, without moving statistics.
        statistics: its moving mean and variance before the job; None where it has none.
        moved: how far the job moved the mean, in units of the standard deviation.
        asked: the ``training`` that the model's graph calls it with, itself or something around
            it; None: none.
        modes: the values of ``training`` that it really ran with.
        random: whether it draws random numbers in training mode.
    """

    path: str
    trainable: bool
    weights: int
    statistics: tuple[NDArray[Any], NDArray[Any]] | None
    moved: float = 0.0
    asked: bool | None = None
    modes: set[bool] = field(default_factory=set)
    random: bool = False


@dataclass(eq=False)
class KerasInputs:
    """What the first batch norm of a model was given, as it came and after corrections."""

    layer: str
    mean: Tensor
    variance: Tensor
    eps: float
    tried: list[Correction]
    given: Moments | None = None
    changed: list[Moments | None] = field(default_factory=list)
    rows: int = 0


@dataclass(eq=False)
class KerasRun:
    """One ``fit``, ``predict`` or ``evaluate``.

    Attributes:
        job: which of them.
        kind: class of the model.
        place: the line that called it.
        layers: by identity, outer ones first.
        unknown: paths of layers that are trainable now, and were not when the model was compiled
            and its optimizer built.
        inputs: what its first batch norm was given.
    """

    job: Job
    kind: str
    place: Place
    layers: dict[int, KerasLayer]
    unknown: tuple[str, ...] = ()
    inputs: KerasInputs | None = None

    def norms(self) -> list[KerasLayer]:
        """Return its layers with moving statistics."""
        return [layer for layer in self.layers.values() if layer.statistics is not None]


class KerasWatch:
    """Observes Keras, from when it is imported.

    Attributes:
        runs: in order.
    """

    def __init__(self) -> None:
        self.runs: list[KerasRun] = []
        self._patches = Patches()
        self._handles: list[Any] = []
        self._compiled: dict[int, dict[int, bool]] = {}
        self._running: list[KerasRun] = []
        self._aside = False
        self._met: dict[int, Any] = {}
        """Batch norms, by identity; kept, so that no other gets the same one."""
        self._learnt: set[int] = set()
        """Those whose statistics were learnt before this script ran them."""

    def jobs(self, job: Job) -> Iterator[KerasRun]:
        """Yield the runs of one kind, in order."""
        return (run for run in self.runs if run.job == job)

    def install(self) -> None:
        """Begin to watch, once Keras has been imported as a whole."""
        keras = sys.modules["keras"]
        if self._handles or not hasattr(keras, "Model"):
            return
        for name, wrap in (
            ("compile", self._around_compile),
            ("fit", lambda f: self._around_job("fit", f)),
            ("predict", lambda f: self._around_job("predict", f)),
            ("evaluate", lambda f: self._around_job("evaluate", f)),
        ):
            owner = next((kind for kind in keras.Model.__mro__ if name in vars(kind)), None)
            if owner is not None:
                self._patches.around(owner, name, wrap)
        self._handles = [
            hooks.register_module_forward_hook(self._ran, with_kwargs=True),
            hooks.register_module_forward_pre_hook(self._runs),
        ]

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._patches.undo()

    def _around_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def compile(model: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(model, *args, **kwargs)
            self._compiled[id(model)] = {
                id(layer): bool(layer.trainable) for _, layer in _layers(model)
            }
            return result

        return compile

    def _around_job(self, job: Job, original: Callable[..., Any]) -> Callable[..., Any]:
        def run(model: Any, *args: Any, **kwargs: Any) -> Any:
            if self._running or self._aside:
                return original(model, *args, **kwargs)
            seen = self._begin(job, model)
            self._running.append(seen)
            try:
                return original(model, *args, **kwargs)
            finally:
                self._running.pop()
                self._end(seen, model)

        return run

    def _begin(self, job: Job, model: Any) -> KerasRun:
        layers = {id(layer): _described(path, layer) for path, layer in _layers(model)}
        for _, layer in _layers(model):
            if _statistics(layer) is not None and id(layer) not in self._met:
                self._met[id(layer)] = layer
                if _learnt(layer):
                    self._learnt.add(id(layer))
        for path, asked in _asked(model):
            for layer in layers.values():
                if layer.path == path or layer.path.startswith(f"{path}/"):
                    layer.asked = asked
        optimizer = getattr(model, "optimizer", None)
        before = self._compiled.get(id(model), {})
        unknown: tuple[str, ...] = ()
        if job == "fit" and before and getattr(optimizer, "built", False):
            known = {id(v) for v in getattr(optimizer, "_trainable_variables", ())}
            unknown = tuple(
                path
                for path, layer in _layers(model)
                if layer.trainable
                and not before.get(id(layer), True)
                and any(id(v) not in known for v in layer.trainable_variables)
            )
        seen = KerasRun(job, type(model).__name__, user_place(), layers, unknown)
        self.runs.append(seen)
        return seen

    def _end(self, seen: KerasRun, model: Any) -> None:
        for _, layer in _layers(model):
            known = seen.layers.get(id(layer))
            after = _statistics(layer)
            if known is not None and known.statistics is not None and after is not None:
                mean, variance = known.statistics
                shift = np.abs(after[0] - mean) / np.sqrt(variance + 1e-12)
                known.moved = float(shift.mean())

    def _ran(self, module: Any, _args: Any, kwargs: Any, _output: Any) -> None:
        if not self._running or self._aside or not is_keras(module):
            return
        seen = self._running[-1]
        known = seen.layers.get(id(module))
        if known is None:  # built inside of the job
            known = seen.layers[id(module)] = _described(module.name, module)
        training = (kwargs or {}).get("training")
        if isinstance(training, bool):
            known.modes.add(training)

    def _runs(self, module: Any, args: tuple[Any, ...]) -> None:
        """Try corrections in front of a model inside the model whose batch norm knows its input."""
        if not self._running or self._aside or not is_keras(module):
            return
        seen = self._running[-1]
        images = args[0] if args else None
        if images is None or not _is_images(images):
            return
        if seen.inputs is not None and seen.inputs.rows >= ROWS:
            return
        if not list(getattr(module, "layers", ())):
            return
        norm = next((each for _, each in _layers(module) if id(each) in self._learnt), None)
        known = None if norm is None else seen.layers.get(id(norm))
        whole = next((i for i, layer in seen.layers.items() if layer.path == ""), None)
        deeper = any(
            _is_model(each) and any(id(inside) in self._learnt for _, inside in _layers(each))
            for each in module.layers
        )
        if norm is None or known is None or id(module) == whole or deeper:
            return
        self._aside = True
        try:
            self._try(seen, module, norm, known.path, images.detach())
        finally:
            self._aside = False

    def _try(self, seen: KerasRun, module: Any, norm: Any, path: str, images: Tensor) -> None:
        images = images[: ROWS if seen.inputs is None else ROWS - seen.inputs.rows]
        first = images.permute(0, 3, 1, 2).float()
        if seen.inputs is None:
            found = _statistics(norm)
            assert found is not None
            mean, variance = (torch.tensor(each) for each in found)
            tried = list(corrections(first))
            eps = float(getattr(norm, "epsilon", 1e-3))
            none: list[Moments | None] = [None for _ in tried]
            seen.inputs = KerasInputs(path, mean, variance, eps, tried, changed=none)
        trials = seen.inputs
        trials.given = _merged(trials.given, _given(module, norm, images))
        for at, correction in enumerate(trials.tried):
            changed = correction.apply(first).permute(0, 2, 3, 1).to(images.dtype)
            trials.changed[at] = _merged(trials.changed[at], _given(module, norm, changed))
        trials.rows += len(images)


def _given(module: Any, norm: Any, images: Tensor) -> Moments:
    """Run a model in inference mode up to a batch norm, and measure what that is given."""
    stop = StopForward()
    found: list[Moments] = []

    def before(_name: str, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        axis = int(getattr(norm, "axis", -1))
        found.append(Moments.of(args[0].detach().movedim(axis, 1)))
        raise stop

    try:
        with hooked({"norm": norm}, before=before), torch.no_grad():
            module(images, training=False)
    except StopForward as end:
        if end is not stop:
            raise
    if not found:
        raise HeadstartError("the batch norm was not reached")
    return found[0]


def _merged(one: Moments | None, other: Moments) -> Moments:
    return other if one is None else one.merge(other)


def _is_images(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.device.type != "meta"
        and value.ndim == 4
        and value.is_floating_point()
        and value.shape[-1] in (1, 3)
        and min(value.shape[1:3]) >= 8
    )


def _is_model(layer: Any) -> bool:
    return bool(list(getattr(layer, "layers", ())))


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every layer with its path, outer ones first; the model itself has the path ''."""

    def walk(layer: Any, path: str, above: set[int]) -> Iterator[tuple[str, Any]]:
        if id(layer) in above:
            return
        yield path, layer
        for each in getattr(layer, "_layers", ()):
            yield from walk(each, f"{path}/{each.name}".lstrip("/"), above | {id(layer)})

    yield from walk(model, "", set())


def _described(path: str, layer: Any) -> KerasLayer:
    statistics = _statistics(layer)
    own = list(getattr(layer, "_trainable_variables", ()))
    drawn = getattr(layer, "seed_generator", None) is not None
    return KerasLayer(path, bool(layer.trainable), len(own), statistics, random=drawn)


def _statistics(layer: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return moving mean and variance of a layer, copied."""
    mean, variance = getattr(layer, "moving_mean", None), getattr(layer, "moving_variance", None)
    if mean is None or variance is None:
        return None
    return _copied(mean), _copied(variance)


def _copied(variable: Any) -> NDArray[Any]:
    copied: NDArray[Any] = variable.value.detach().cpu().numpy().copy()
    return copied


def _learnt(layer: Any) -> bool:
    found = _statistics(layer)
    if found is None:
        return False
    mean, variance = found
    return bool((np.abs(mean) > 1e-6).any() or (np.abs(variance - 1) > 1e-6).any())


def _asked(model: Any) -> Iterator[tuple[str, bool]]:
    """Yield the layers of a graph that are called with ``training`` True or False, and that."""
    for path, layer in _layers(model):
        for operation in getattr(layer, "operations", ()):
            for node in getattr(operation, "_inbound_nodes", ()):
                asked = getattr(node.arguments, "kwargs", {}).get("training")
                if isinstance(asked, bool):
                    yield f"{path}/{operation.name}".lstrip("/"), asked


__all__ = ["KerasInputs", "KerasLayer", "KerasRun", "KerasWatch"]
