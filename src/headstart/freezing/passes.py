"""Running batches through a model to measure the inputs of its norm layers.

There are three ways, which differ in cost and in what the layers upstream normalise by:

``observe``
    One pass; every layer normalises by its current statistics.
``replay``
    One pass per layer, stopped at that layer: layer k is measured when the layers before it have
    their new statistics. Only moments are kept.
``lockstep``
    The same result in one pass: the forward of every batch is suspended at each layer until all
    batches have reached it. The activations of all batches are in memory at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.errors import FreezeError
from headstart.core.wording import quoted
from headstart.freezing.moments import Moments
from headstart.modules.forward import StopForward, hooked

Forward = Callable[[nn.Module, Any], object]
Settle = Callable[[str, Moments], None]


def default_forward(model: nn.Module, batch: Any) -> object:
    """Call the model on a batch: its arguments, a tensor or array, a dict of keyword arguments, or
    (inputs, labels).

    The inputs are moved to the device of the model's first parameter or buffer.
    """
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    device = first.device if first is not None else torch.device("cpu")
    if isinstance(batch, Arguments):
        return batch.to(device).call(model)
    if isinstance(batch, Mapping):
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return model(**moved)
    inputs = batch[0] if isinstance(batch, list | tuple) else batch
    inputs = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
    return model(inputs.to(device))


def observe(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Any],
    forward: Forward = default_forward,
) -> dict[str, Moments]:
    """Measure the input of every layer in one pass, with the current statistics.

    A layer that runs several times in a forward is measured over all its calls.

    Returns:
        Moments by layer name, in the order in which the forward reaches them.
    """
    found: dict[str, Moments] = {}

    def take(name: str, args: tuple[Any, ...], _kwargs: object) -> None:
        moments = Moments.of(_input(name, layers[name], args))
        found[name] = found[name].merge(moments) if name in found else moments

    with hooked(layers, before=take):
        for batch in batches:
            forward(model, batch)
    _check_reached(layers, found)
    return found


def trace(
    model: nn.Module, layers: Mapping[str, nn.Module], batch: Any, forward: Forward
) -> tuple[tuple[str, ...], int]:
    """Return the layers in the order in which one batch reaches them, and their largest input.

    Returns:
        The names, and the size of the largest input in bytes.

    Raises:
        FreezeError: a layer runs more than once in a forward, or never.
    """
    order: list[str] = []
    largest = 0

    def take(name: str, args: tuple[Any, ...], _kwargs: object) -> None:
        nonlocal largest
        x = _input(name, layers[name], args)
        order.append(name)
        largest = max(largest, x.numel() * x.element_size())

    with hooked(layers, before=take):
        forward(model, batch)
    twice = sorted({name for name in order if order.count(name) > 1})
    if twice:
        raise FreezeError(
            f"{quoted(twice)} run more than once in a forward, so no single set of statistics is"
            " exact for them layer by layer",
            hint="use method='one_pass', which measures over all their calls",
        )
    _check_reached(layers, order)
    return tuple(order), largest


def replay(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    order: Iterable[str],
    batches: Iterable[Any],
    forward: Forward,
    settle: Settle,
) -> None:
    """Measure layer after layer, one pass each; ``settle`` sets one before the next is measured.

    Raises:
        FreezeError: ``batches`` can be iterated over only once, or changes between passes.
    """
    expected: int | None = None
    for name in order:
        found: Moments | None = None

        def take(name: str, args: tuple[Any, ...], _kwargs: object) -> None:
            nonlocal found
            moments = Moments.of(_input(name, layers[name], args))
            found = moments if found is None else found.merge(moments)
            raise StopForward

        count = 0
        with hooked({name: layers[name]}, before=take):
            for batch in batches:
                count += 1
                with suppress(StopForward):
                    forward(model, batch)
        expected = count if expected is None else expected
        if found is None or count != expected:
            raise FreezeError(
                f"layer by layer needs the batches once per layer: the first pass had {expected}"
                f" batches, the pass for layer {name!r} {count}",
                hint="pass a list, a DataLoader or another collection that can be iterated over"
                " again and yields the same items each time (no random augmentation)",
            )
        settle(name, found)


def lockstep(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Any],
    forward: Forward,
    settle: Settle,
) -> None:
    """Measure layer by layer in one pass, with all batches in progress at the same time.

    Each batch's forward has its own thread, but only one runs at a time: each in turn proceeds to
    its next layer and waits there. When all have arrived, their moments are merged in the order of
    the batches and settled, and the next round begins.

    Raises:
        FreezeError: batches take different paths through the model.
    """
    runners = [_Runner(model, batch, forward) for batch in batches]
    current: _Runner | None = None

    def arrive(name: str, args: tuple[Any, ...], _kwargs: object) -> None:
        assert current is not None
        current.pause(name, Moments.of(_input(name, layers[name], args)))

    hooks = ExitStack()
    hooks.enter_context(hooked(layers, before=arrive))
    try:
        while runners:
            for runner in runners:
                current = runner
                runner.resume()
            stops = {runner.at for runner in runners}
            if stops == {None}:
                break
            if len(stops) > 1:
                raise FreezeError(
                    "the batches take different paths through the model and cannot be measured"
                    f" together: some are at {quoted(sorted(str(s) for s in stops))}",
                    hint="pass in_memory=False, which measures one layer after the other",
                )
            merged = runners[0].moments
            for runner in runners[1:]:
                assert merged is not None
                assert runner.moments is not None
                merged = merged.merge(runner.moments)
            assert merged is not None
            assert runners[0].at is not None
            settle(runners[0].at, merged)
    finally:
        for runner in runners:
            current = runner
            runner.stop()
        hooks.close()


class _Runner:
    """A forward that can be suspended: a thread that runs only while it is resumed."""

    def __init__(self, model: nn.Module, batch: Any, forward: Forward) -> None:
        self.at: str | None = None
        self.moments: Moments | None = None
        self._error: BaseException | None = None
        self._stopping = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(model, batch, forward), daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Run to the next layer or to the end, and re-raise any error from there."""
        self.at = self.moments = None
        self._go.release()
        self._stopped.acquire()
        if self._error is not None:
            raise self._error

    def pause(self, name: str, moments: Moments) -> None:
        """Wait at a layer; called in the runner's own thread."""
        self.at, self.moments = name, moments
        self._stopped.release()
        self._go.acquire()
        if self._stopping:
            raise StopForward

    def stop(self) -> None:
        """Unwind a forward that is still suspended, and end the thread."""
        if self._thread.is_alive():
            self._stopping = True
            self._go.release()
        self._thread.join()

    def _run(self, model: nn.Module, batch: Any, forward: Forward) -> None:
        self._go.acquire()
        try:
            if not self._stopping:
                # Grad mode is per thread, and new threads start with gradients on.
                with torch.no_grad():
                    forward(model, batch)
        except StopForward:
            pass
        except BaseException as error:  # handed to the caller by resume
            self._error = error
        self.at = self.moments = None
        self._stopped.release()


def _input(name: str, layer: nn.Module, args: tuple[Any, ...]) -> Tensor:
    """Return the input of a norm layer, ``(n, c, ...)``, checked against its channels."""
    x = args[0] if args else None
    buffer = layer._buffers.get("running_mean")
    assert buffer is not None
    channels = buffer.numel()
    axis = getattr(layer, "channel_axis", 1)  # Keras's norms have theirs last
    if isinstance(x, Tensor) and x.ndim >= 2:
        x = x.movedim(axis, 1)
    if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[1] != channels:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise FreezeError(
            f"the input of layer {name!r} is {found}, expected (n, {channels}, ...)",
            hint="exclude it with layers=...",
        )
    return x


def _check_reached(layers: Mapping[str, nn.Module], reached: Iterable[str]) -> None:
    unseen = sorted(layers.keys() - set(reached))
    if unseen:
        raise FreezeError(
            f"no batch reached the layers {quoted(unseen)}",
            hint="give at least one batch, and exclude layers that the forward does not use with"
            " layers=...",
        )


__all__ = ["Forward", "default_forward", "lockstep", "observe", "replay", "trace"]
